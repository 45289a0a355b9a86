"""The programs here are scripts in one folder, not a package."""

import sys
from pathlib import Path

LOADTEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(LOADTEST), str(LOADTEST / "compare"), str(LOADTEST / "capacity")]
