"""The reference's logits of images, as JSON: Pillow and the standard graph, one image at a time.

    PYTHONPATH=models:loadtest/compare/peers reference.py IMAGE...

`make test-model` verifies the standard graph against PyTorch, and the golden tests verify Pillow's pixels.
"""

import json
import sys
from pathlib import Path

from detector import Detector

if __name__ == "__main__":
    detector = Detector()
    print(json.dumps({path: detector.score([Path(path).read_bytes()])[0]["logit"] for path in sys.argv[1:]}))
