"""What is said of an image: the fields of the service's answers (docs/openapi.json), as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

Verdict = Literal["real", "fake", "uncertain"]
Box = tuple[int, int, int, int]


class ScoreError(Exception):
    """Why an image was not judged.

    `code` is the service's (docs/errors.md), for programs; `detail` is for people.

    >>> ScoreError("undecodable_image", "cannot decode the jpeg image: it ends early")
    ScoreError('undecodable_image', 'cannot decode the jpeg image: it ends early')
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class _Part:
    """A part of an answer."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """As the service's JSON has it: dicts, lists, str, int, float, bool and None."""
        if not is_dataclass(self):
            raise TypeError("a part of an answer is a dataclass")
        return {_WORDS.get(f.name, f.name): _plain(getattr(self, f.name)) for f in fields(self)}


# Fields whose name in JSON is a word of Python.
_WORDS = {"class_": "class"}


def _plain(value: Any) -> Any:
    if isinstance(value, _Part):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Region(_Part):
    """A region that was judged."""

    #: `(x0, y0, x1, y1)` in pixels of the stored picture, the ends outside. EXIF orientation is not applied.
    box: Box
    #: The same in the picture as it is shown, EXIF orientation applied.
    shown: Box
    #: Its logit, calibrated as the picture's. None where there is nothing to judge.
    logit: float | None
    #: The sigmoid of it, from 0 to 1.
    score: float | None


@dataclass(frozen=True, slots=True)
class Judged(_Part):
    """The parts of the picture that were judged."""

    #: `crop`: regions of 256 x 256 pixels; `resize`: the whole picture, brought to that size.
    method: str
    #: The share of the picture's pixels that the regions cover, from 0 to 1.
    share: float
    #: The regions, the centre first. The logit is the calibrated mean of theirs.
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class OperatingPoint(_Part):
    """Shares of wrong verdicts that are accepted, from 0 to 1."""

    false_alarms: float
    misses: float


@dataclass(frozen=True, slots=True)
class Evidence(_Part):
    """What the verdict rests on: how validation pictures of the same class of file score."""

    #: The class of file: `lossless`, `jpeg_95`, `jpeg_90_95`, .., `webp_lossy`, `small`. `class` in JSON.
    class_: str
    #: The share of real pictures that score at least so high, from 0 to 1. None under a warning that voids the verdict.
    real_at_or_above: float | None
    #: The share of generated pictures that score at most so high. None under a warning that voids the verdict.
    fake_at_or_below: float | None
    #: Real pictures that this rests on.
    n_real: int
    #: Generated pictures that this rests on.
    n_fake: int
    #: What decided.
    operating_point: OperatingPoint | None


@dataclass(frozen=True, slots=True)
class Claim(_Part):
    """One thing that a file says of itself (docs/declared.md)."""

    #: Where it stands: `c2pa`, `iptc`, `xmp`, `exif`, `png_text`.
    source: str
    #: `generated`, `composite`, `edited`, `captured` or `other`.
    kind: str
    #: The program or camera that it names.
    tool: str | None
    #: Whose certificate signed it.
    signer: str | None
    #: `valid`, `untrusted`, `expired`, `invalid`, or `none`: anyone can write that.
    validation: str
    #: In words: the field, or C2PA's status codes.
    detail: str | None


@dataclass(frozen=True, slots=True)
class Declared(_Part):
    """What a file says of itself. It can be stripped and forged, and never moves the score."""

    #: True: a claim says that it was generated. False: a trusted signer says that it was captured. None: neither.
    generated: bool | None
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo(_Part):
    """The model that answered."""

    name: str
    version: str
    #: Digest of the weights, `sha256:..`.
    digest: str
    #: Digest of all else that can change an answer: the manifest's rules and evidence, and the scorer's settings.
    rules: str


@dataclass(frozen=True, slots=True)
class ImageInfo(_Part):
    """What the image is. What only a file has is None where pixels were given."""

    #: `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`: from the content.
    format: str | None
    #: Width in pixels, as stored.
    width: int
    #: Height in pixels, as stored.
    height: int
    #: Size of the file, in bytes.
    bytes: int | None
    #: Hash of the file, hexadecimal.
    sha256: str | None
    #: Pictures in the file: frames of an animation, pages, views. The first is judged.
    frames: int
    #: EXIF orientation, 1 to 8; the network judges the stored pixels as they are.
    exif_orientation: int


@dataclass(frozen=True, slots=True)
class Result(_Part):
    """The judgement of one image."""

    #: `real`, `fake` or `uncertain`.
    verdict: Verdict
    #: Probability that the image is generated, from 0 to 1: the sigmoid of the logit. None under a warning that voids
    #: the verdict.
    score: float | None
    #: Log-odds of fake, calibrated for the class of file. None under a warning that voids the verdict.
    logit: float | None
    #: The network's own output, the mean over the regions.
    logit_raw: float
    #: The score above which an image counts as fake. None where the evidence decides.
    threshold: float | None
    #: What weakens the score: `no_signal`, `lossy_source`, `small_source`, `regions_disagree`, `first_frame_only`.
    warnings: tuple[str, ...]
    judged: Judged
    #: None for a model without evidence.
    evidence: Evidence | None
    #: None where pixels were given.
    declared: Declared | None
    model: ModelInfo
    image: ImageInfo

    def __str__(self) -> str:
        score = "no score" if self.score is None else f"score {self.score:.4f}"
        return ", ".join([self.verdict, score, *self.warnings])


@dataclass(frozen=True, slots=True)
class RegionMap(_Part):
    """One region's part of the logit."""

    #: As in `Region`.
    box: Box
    shown: Box
    #: Contribution of each place, 30 rows of 30 columns, in logit units; above 0 speaks for fake.
    map: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Cell(_Part):
    """A place that contributes."""

    #: Number of the region, from 0.
    region: int
    #: Row of its map, 0 to 29.
    row: int
    #: Column of its map, 0 to 29.
    col: int
    #: The place's part of the logit.
    contribution: float
    #: All that the place sees: `(x0, y0, x1, y1)` in pixels of the stored picture, the ends outside.
    box: Box
    #: The same in the picture as it is shown, EXIF orientation applied.
    shown: Box


@dataclass(frozen=True, slots=True)
class Attribution(_Part):
    """The logit as a sum: the bias and the contribution of every place of the network's 30 x 30 maps.

    Under a warning that voids the verdict it is the sum of the logit that is not given.
    """

    #: What the logit starts from, whatever the image.
    bias: float
    #: The first region's map, 30 x 30.
    map: tuple[tuple[float, ...], ...]
    #: The first region's box.
    judged: Box
    #: All regions. The sum of their maps and the bias give the logit.
    regions: tuple[RegionMap, ...]
    #: The places that contribute, the greatest contribution first, whatever its sign.
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Explanation(_Part):
    """The judgement of one image, and why."""

    result: Result
    attribution: Attribution
    #: The attribution drawn on the picture, upright, at most some 1,600 x 1,300 pixels: a PNG. None where it was not
    #: asked for.
    overlay: bytes | None

    def to_dict(self) -> dict[str, Any]:
        """As the JSON of `POST /v1/explain`, which has no overlay."""
        return self.result.to_dict() | {"attribution": self.attribution.to_dict()}


def read_result(told: dict[str, Any], model: ModelInfo) -> Result:
    """The result in the JSON of the library."""
    judged, evidence, declared = told["judged"], told["evidence"], told["declared"]
    return Result(
        verdict=told["verdict"],
        score=told["score"],
        logit=told["logit"],
        logit_raw=told["logit_raw"],
        threshold=told["threshold"],
        warnings=tuple(told["warnings"]),
        judged=Judged(
            judged["method"], judged["share"], tuple(_boxed(Region, it) for it in judged["regions"])
        ),
        evidence=None if evidence is None else _evidence(evidence),
        declared=None if declared is None else _declared(declared),
        model=model,
        image=ImageInfo(**told["image"]),
    )


def read_attribution(told: dict[str, Any]) -> Attribution:
    """The attribution in the JSON of the library."""
    return Attribution(
        bias=told["bias"],
        map=_rows(told["map"]),
        judged=tuple(told["judged"]),
        regions=tuple(_boxed(RegionMap, it | {"map": _rows(it["map"])}) for it in told["regions"]),
        cells=tuple(_boxed(Cell, it) for it in told["cells"]),
    )


def _boxed(kind: Any, told: dict[str, Any]) -> Any:
    return kind(**told | {"box": tuple(told["box"]), "shown": tuple(told["shown"])})


def _rows(told: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in told)


def _evidence(told: dict[str, Any]) -> Evidence:
    point = told["operating_point"]
    told = told | {"operating_point": None if point is None else OperatingPoint(**point)}
    return Evidence(class_=told.pop("class"), **told)


def _declared(told: dict[str, Any]) -> Declared:
    return Declared(told["generated"], tuple(Claim(**claim) for claim in told["claims"]))
