"""The command `lfm-serve`: the program of the wheel, in place of this process."""

import os
import sys
from pathlib import Path
from typing import NoReturn

# Laid out as in the archive of `make dist`: the program finds its library and its model itself.
FILES = Path(__file__).parent / "_program_files"

# It also decodes AVIF and HEIC, in a process of its own.
PROGRAM = FILES / "bin" / "lfm-serve"


def main() -> NoReturn:
    os.execv(PROGRAM, ["lfm-serve", *sys.argv[1:]])
