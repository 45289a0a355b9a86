"""The scorer."""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

from lfm_serve import _native
from lfm_serve._answer import (
    Explanation,
    ModelInfo,
    Result,
    ScoreError,
    read_attribution,
    read_result,
)
from lfm_serve._program import FILES, PROGRAM

if TYPE_CHECKING:
    import numpy
    import PIL.Image

#: What can be scored: a file's bytes, its path, or pixels.
Image: TypeAlias = Union[
    bytes,
    bytearray,
    memoryview,
    str,
    "os.PathLike[str]",
    "PIL.Image.Image",
    "numpy.ndarray[Any, numpy.dtype[numpy.uint8]]",
]
Regions: TypeAlias = Literal["auto", 1, 5, 9, 16]


class Scorer:
    """Scores images with a model.

    >>> scorer = Scorer()
    >>> scorer.model.name, scorer.model.version
    ('lfm', '3')

    The service's defaults hold, and its answers are the service's to the last bit. Any number of threads may call one
    scorer; it scores without the GIL, on at most `threads` threads of its own, which start when there is work for one
    more. A scorer can be pickled and forked: each process opens the model again at its first image.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        regions: Regions = "auto",
        *,
        max_file_bytes: int = 32 << 20,
        max_pixels: int = 64_000_000,
        heif: bool = False,
    ) -> None:
        """Opens a model.

        `model` is a model folder; the bundled one by default. `threads` is how many images are scored at a time: as
        many as the process may use CPUs by default; each has a session of ONNX Runtime with some 50 MiB. `regions` is
        how many regions of 256 x 256 pixels of a picture are judged: 1, 5, 9, 16, or "auto", the model's own rule.
        Files of more than `max_file_bytes` bytes, where they are given by path, and images of more than `max_pixels`
        pixels (width x height) are errors. With `heif` HEIC is read, by libde265 of this machine.

        Raises OSError for a folder that is no model, RuntimeError for `heif` without libde265, ValueError for other settings
        that do not fit.
        """
        # What a copy in another process is made of.
        self._settings = (model, threads, regions, max_file_bytes, max_pixels, heif)
        folder = FILES / "share" / "lfm-serve" / "model" if model is None else model
        library = FILES / "lib" / "libonnxruntime.so"
        limits = (max_file_bytes, max_pixels, heif)
        engine = _native.Engine(folder, library, PROGRAM, threads, str(regions), limits)
        self._engine = engine
        self._model = ModelInfo(*engine.model)
        self._close = weakref.finalize(self, engine.close)

    def score(self, image: Image) -> Result:
        """Judges one image.

        `image` is a file's bytes or its path, a `PIL.Image.Image`, or a NumPy array of shape (height, width, 3), uint8,
        RGB. Pixels are judged as a lossless file that stores them: how the picture was stored before is not known.

        >>> scorer = Scorer()
        >>> with open("photo.jpg", "rb") as file:
        ...     result = scorer.score(file.read())
        >>> print(result)
        real, score 0.0601
        >>> result.evidence.class_, result.image.width, result.image.height
        ('jpeg_90_95', 640, 427)

        Raises ScoreError if the image cannot be judged, RuntimeError if the model cannot be run.
        """
        return self._result(*self._submit(image))

    def score_many(
        self, images: Iterable[Image], progress: bool = True
    ) -> Iterator[Result | ScoreError]:
        """Judges images, several at a time, and gives their results in their order.

        An image that cannot be judged gives a ScoreError in its place. `images` may be without end: it is read as
        results are taken, at most twice `threads` images ahead. An exception of `images` itself is raised after the
        results of the images before it. `progress` shows a bar on standard error, if that is a terminal.

        >>> scorer = Scorer()
        >>> for result in scorer.score_many(["photo.jpg", b"no picture"]):
        ...     if isinstance(result, ScoreError):
        ...         print("error", result.code)
        ...     else:
        ...         print(result.verdict)
        real
        error unsupported_format
        """
        bar = _native.Progress(length_hint(images, 0) or None) if progress else None
        waiting: deque[tuple[_native.Pending, bool] | ScoreError] = deque()
        source = iter(images)
        ended: BaseException | None = None
        try:
            while True:
                while ended is None and len(waiting) < 2 * self._engine.threads:
                    # What is done is not kept back by a slow source.
                    if waiting and _is_done(waiting[0]):
                        break
                    try:
                        waiting.append(self._submit(next(source)))
                    except ScoreError as error:
                        waiting.append(error)
                    except Exception as error:  # noqa: BLE001 (raised below)
                        ended = error
                if not waiting:
                    break
                first = waiting.popleft()
                if isinstance(first, ScoreError):
                    result: Result | ScoreError = first
                else:
                    try:
                        result = self._result(*first)
                    except ScoreError as error:
                        result = error
                if bar:
                    bar.advance()
                yield result
            if ended is not None and not isinstance(ended, StopIteration):
                raise ended
        finally:
            for left in waiting:
                if not isinstance(left, ScoreError):
                    left[0].cancel()
            if bar:
                bar.finish()

    def explain(self, image: Image, overlay: bool = False) -> Explanation:
        """Judges one image and says where the evidence lies.

        The logit is a sum over the places of the regions' maps of 30 x 30. `overlay` also draws it on the picture.

        >>> scorer = Scorer()
        >>> why = scorer.explain("photo.jpg")
        >>> maps = sum(sum(sum(row) for row in region.map) for region in why.attribution.regions)
        >>> abs(why.attribution.bias + maps - why.result.logit) < 1e-3
        True
        >>> scorer.explain("photo.jpg", overlay=True).overlay[:4]
        b'\\x89PNG'

        Raises as `score`.
        """
        pending, is_file = self._submit(image, explain=True, overlay=overlay)
        told, picture = self._told(pending)
        attribution = read_attribution(told.pop("attribution"))
        return Explanation(self._read(told, is_file), attribution, picture)

    @property
    def model(self) -> ModelInfo:
        """The model that answers."""
        return self._model

    @property
    def threads(self) -> int:
        """How many images are scored at a time."""
        return self._engine.threads

    def close(self) -> None:
        """Ends the threads, each after its image, and frees the model. Images that wait are errors then."""
        self._close()

    def __enter__(self) -> Scorer:  # noqa: PYI034 (Python 3.10 has no Self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, self._settings

    def _submit(
        self, image: Image, explain: bool = False, overlay: bool = False
    ) -> tuple[_native.Pending, bool]:
        given = _given(image)
        return self._engine.submit(given, explain, overlay), not isinstance(given, tuple)

    def _told(self, pending: _native.Pending) -> tuple[dict[str, Any], bytes | None]:
        code, text, picture = pending.result()
        if code is not None:
            raise ScoreError(code, text)
        return json.loads(text), picture

    def _result(self, pending: _native.Pending, is_file: bool) -> Result:
        told, _ = self._told(pending)
        return self._read(told, is_file)

    def _read(self, told: dict[str, Any], is_file: bool) -> Result:
        if not is_file:
            told["declared"] = None
            told["image"] |= {"format": None, "bytes": None, "sha256": None}
        return read_result(told, self._model)


def _open(
    model: str | os.PathLike[str] | None,
    threads: int | None,
    regions: Regions,
    max_file_bytes: int,
    max_pixels: int,
    heif: bool,
) -> Scorer:
    return Scorer(
        model,
        threads,
        regions,
        max_file_bytes=max_file_bytes,
        max_pixels=max_pixels,
        heif=heif,
    )


def _is_done(waiting: tuple[_native.Pending, bool] | ScoreError) -> bool:
    return isinstance(waiting, ScoreError) or waiting[0].done()


def _given(image: Image) -> bytes | tuple[bytes, int, int] | str | os.PathLike[str]:
    if isinstance(image, (bytes, str)):
        return image
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    # Only who has imported them can have made such a thing.
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        return _of_pillow(image)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(image, numpy.ndarray):
        return _of_numpy(image)
    if isinstance(image, os.PathLike):
        return os.fspath(image)
    raise TypeError(
        "an image is bytes, a path, a PIL.Image.Image or a numpy.ndarray of shape (height, width, 3), uint8; this is a "
        + type(image).__qualname__
    )


def _of_pillow(image: PIL.Image.Image) -> tuple[bytes, int, int]:
    try:
        # Reads the file, if it was not read yet.
        rgb = image.convert("RGB")
        return rgb.tobytes(), rgb.width, rgb.height
    except MemoryError:
        raise
    except Exception as error:
        raise ScoreError("undecodable_image", f"Pillow cannot decode the image: {error}") from error


def _of_numpy(image: numpy.ndarray[Any, Any]) -> tuple[bytes, int, int]:
    if image.dtype.name != "uint8" or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype.name}, shape {image.shape}"
        raise ScoreError(
            "bad_request", f"an array of pixels is uint8 of shape (height, width, 3), not {found}"
        )
    height, width, _ = image.shape
    return image.tobytes(), width, height
