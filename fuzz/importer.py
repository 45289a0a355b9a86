"""Any checkpoint, or any pickle in one: tensors or an error of one line, never another exception.

Run by `make fuzz TARGET=importer`; the arguments are libFuzzer's.
"""

import pathlib
import sys
import tempfile
import zipfile

import atheris

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "models"))

with atheris.instrument_imports(include=["lfm", "pickletools", "zipfile"]):
    from lfm.checkpoint import CheckpointError, read_checkpoint
    from lfm.weights import WeightsError, canonical

MEMORY = pathlib.Path("/dev/shm")
FOLDER = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
FILE = pathlib.Path(FOLDER.name) / "fuzz.pth"


def one(data: bytes) -> None:
    # The first byte: `0` a whole file, anything else the pickle of a file that is right.
    if data[:1] == b"0":
        FILE.write_bytes(data[1:])
    else:
        with zipfile.ZipFile(FILE, "w") as archive:
            archive.writestr("fuzz/data.pkl", data[1:])
            archive.writestr("fuzz/data/0", bytes(64))
    try:
        canonical(read_checkpoint(FILE)[0])
    except (CheckpointError, WeightsError) as error:
        assert "\n" not in str(error), error


atheris.Setup(sys.argv, one)
atheris.Fuzz()
