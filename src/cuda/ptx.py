"""Compiles topk.cu with NVRTC: `make ptx` writes topk.ptx, `make check-ptx` compares it with the source.

    python src/cuda/ptx.py [--check]     # with nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12, see deploy/cuda.lock

Both also compile for every architecture from compute_75 to compute_120, down to machine code, and fail on a spill.
"""

import ctypes
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SOURCE, PTX = HERE / "topk.cu", HERE / "topk.ptx"
FLAGS = ["--std=c++17", "--restrict"]  # the outputs and the input of a run never overlap
BASE = 75  # committed: the driver compiles it for any newer GPU
NVIDIA = Path(next(iter(find_spec("nvidia").submodule_search_locations)))
NVRTC = ctypes.CDLL(str(NVIDIA / "cuda_nvrtc/lib/libnvrtc.so.12"))
PTXAS = NVIDIA / "cuda_nvcc/bin/ptxas"


def call(name: str, *arguments) -> None:
    if status := getattr(NVRTC, name)(*arguments):
        sys.exit(f"{name}: error {status}")


def text(program: ctypes.c_void_p, what: str) -> str:
    """The result of nvrtcGet<what>, with its size from nvrtcGet<what>Size."""
    size = ctypes.c_size_t()
    call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    call(f"nvrtcGet{what}", program, buffer)
    return buffer.value.decode()


def architectures() -> list[int]:
    count = ctypes.c_int()
    call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    call("nvrtcGetSupportedArchs", found)
    return [arch for arch in found if 75 <= arch <= 120]


def compile_ptx(arch: int) -> str:
    program = ctypes.c_void_p()
    call("nvrtcCreateProgram", ctypes.byref(program), SOURCE.read_bytes(), SOURCE.name.encode(), 0, None, None)
    flags = [f"--gpu-architecture=compute_{arch}", *FLAGS]
    options = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    failed = NVRTC.nvrtcCompileProgram(program, len(flags), options)
    if log := text(program, "ProgramLog"):
        print(log, file=sys.stderr)
    if failed:
        sys.exit(f"{SOURCE.name} does not compile for compute_{arch}")
    return text(program, "PTX")


def assemble(arch: int, ptx: str) -> tuple[int, int]:
    """Registers of the kernel and bytes that it spills."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "topk.ptx")
        file.write_text(ptx)
        command = [PTXAS, "-v", f"-arch=sm_{arch}", "-o", file.with_suffix(".cubin"), file]
        ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stderr)
    registers = int(re.search(r"Used (\d+) registers", ended.stderr).group(1))
    spilt = sum(int(count) for count in re.findall(r"(\d+) bytes (?:stack frame|spill)", ended.stderr))
    return registers, spilt


def main() -> None:
    spills = False
    for arch in architectures():
        registers, spilt = assemble(arch, compile_ptx(arch))
        spills |= spilt > 0
        print(f"sm_{arch}: {registers} registers, {spilt} bytes of stack and spills")
    assemble(120, compile_ptx(BASE))  # the driver does as much
    if spills:
        sys.exit("the kernel spills")
    version = (ctypes.c_int(), ctypes.c_int())
    call("nvrtcVersion", *(ctypes.byref(part) for part in version))
    head = f"// {SOURCE.name} by NVRTC {version[0].value}.{version[1].value}, --gpu-architecture=compute_{BASE} "
    ptx = head + " ".join(FLAGS) + ": `make ptx`\n" + compile_ptx(BASE)
    if "--check" not in sys.argv:
        PTX.write_text(ptx)
    elif PTX.read_text() != ptx:
        sys.exit(f"{PTX.name} is not what {SOURCE.name} compiles to: run `make ptx`")


if __name__ == "__main__":
    main()
