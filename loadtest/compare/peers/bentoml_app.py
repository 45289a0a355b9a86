"""BentoML: one worker per core, 429 beyond `max_concurrency` (docs.bentoml.com, "Concurrency", "Workers")."""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from detector import CORES, DEADLINE_SECONDS, MOST_IN_FLIGHT, Detector


@bentoml.service(
    workers=CORES,
    threads=1,
    traffic={"timeout": DEADLINE_SECONDS, "max_concurrency": MOST_IN_FLIGHT},
    logging={"access": {"enabled": False}},
)
class Score:
    def __init__(self):
        self.detector = Detector()

    @bentoml.api
    def score(self, image: Annotated[Path, ContentType("image/*")], /) -> dict:
        return self.detector.score([image.read_bytes()])[0]
