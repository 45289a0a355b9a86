from os import PathLike
from typing import final

from typing_extensions import Self

__all__ = [
    "REVISION",
    "VERSION",
    "Engine",
    "Pending",
    "Progress",
    "after_fork_in_child",
    "after_fork_in_parent",
    "at_exit",
    "before_fork",
]

VERSION: str
REVISION: str

@final
class Engine:
    @property
    def model(self) -> tuple[str, str, str, str]: ...
    @property
    def threads(self) -> int: ...
    def __new__(
        cls,
        model: str | PathLike[str],
        ort_library: str | PathLike[str],
        program: str | PathLike[str],
        threads: int | None,
        regions: str,
        limits: tuple[int, int, bool],
    ) -> Self: ...
    def submit(
        self,
        image: bytes | tuple[bytes, int, int] | str | PathLike[str],
        explain: bool,
        overlay: bool,
    ) -> Pending: ...
    def close(self) -> None: ...

@final
class Pending:
    def done(self) -> bool: ...
    def result(self) -> tuple[str | None, str, bytes | None]: ...
    def cancel(self) -> None: ...

@final
class Progress:
    def __new__(cls, total: int | None) -> Self: ...
    def advance(self) -> None: ...
    def finish(self) -> None: ...

def at_exit() -> None: ...
def before_fork() -> None: ...
def after_fork_in_parent() -> None: ...
def after_fork_in_child() -> None: ...
