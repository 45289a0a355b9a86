"""The network's minimum time on a GPU, from its data sheet: python3 gpu/roofline.py prints docs/gpu.md's tables.

An operator takes at least the time of its arithmetic at the peak rate, and at least the time of its inputs and outputs
at the peak bandwidth; the network takes the sum. Operators run one after another, each reading and writing main memory
once. Relu counts as part of its convolution, and the NPR residue, whose seven nodes a compiler fuses, as one operator.
"""

from dataclasses import dataclass
from itertools import pairwise

SIDE, MAPS, PLACES, K = 256, 64, 900, 16
CHANNELS = [3, 64, 128, 256, 512]


@dataclass(frozen=True)
class Gpu:
    """Dense rates in TFLOP/s, bandwidth in GB/s; 16-bit products are summed in 32 bits."""

    name: str
    fp32: float
    tf32: float
    fp16: float
    bandwidth: float


# NVIDIA's data sheets; the A100 is the 80 GB SXM4, the H100 the SXM5.
GPUS = [
    Gpu("RTX A6000", 38.7, 77.4, 154.8, 768),
    Gpu("A10", 31.2, 62.5, 125, 600),
    Gpu("L4", 30.3, 60, 121, 300),
    Gpu("A100", 19.5, 156, 312, 2039),
    Gpu("H100", 67, 495, 989, 3350),
]
PRECISIONS = ["fp32", "tf32", "fp16"]


@dataclass(frozen=True)
class Operator:
    """An operator on one image: floating-point operations, values read and written, values of its weights."""

    name: str
    flop: int
    values: int
    weights: int = 0
    fixed_bytes: int = 0  # whatever the precision

    def seconds(self, gpu: Gpu, precision: str, batch: int) -> float:
        """For one image of a batch: the weights are read once per batch."""
        width = 2 if precision == "fp16" else 4
        arithmetic = self.flop / (getattr(gpu, precision) * 1e12)
        moved = width * (self.values + self.weights / batch) + self.fixed_bytes
        return max(arithmetic, moved / (gpu.bandwidth * 1e9))


def operators() -> list[Operator]:
    side, found = SIDE, []
    pixels = 3 * SIDE * SIDE
    found.append(Operator("NPR residue", 2 * pixels, pixels, fixed_bytes=pixels))
    read = pixels
    for layer, (inputs, outputs) in enumerate(pairwise(CHANNELS), start=1):
        side -= 1
        weights = outputs * inputs * 4
        written = outputs * side * side
        found.append(Operator(f"conv{layer} + Relu", 2 * weights * side * side, read + written, weights))
        read = written
        if layer < 4:
            side //= 2
            pooled = outputs * side * side
            found.append(Operator(f"pool{layer}", 3 * pooled, read + pooled))
            read = pooled
    weights = MAPS * CHANNELS[-1]
    found.append(Operator("conv1x1", 2 * weights * PLACES, read + MAPS * PLACES, weights))
    found.append(Operator("Top-K", MAPS * PLACES, MAPS * PLACES, fixed_bytes=MAPS * K * 12))
    found.append(Operator("linear", 2 * MAPS * K, 3 * MAPS * K, MAPS * K))
    return found


def images_per_second(gpu: Gpu, precision: str, batch: int = 32) -> float:
    return 1 / sum(operator.seconds(gpu, precision, batch) for operator in operators())


def table(header: list[str], rows: list[list[str]]) -> None:
    for row in [header, ["---"] + ["---:"] * (len(header) - 1), *rows]:
        print("| " + " | ".join(row) + " |")
    print()


def main() -> None:
    found = operators()
    rows = []
    for one in found + [Operator("all", sum(o.flop for o in found), sum(o.values for o in found),
                                 sum(o.weights for o in found), sum(o.fixed_bytes for o in found))]:  # fmt: skip
        moved = 4 * one.values + one.fixed_bytes
        rows.append([one.name, f"{one.flop / 1e9:.3f}", f"{moved / 1e6:.2f}", f"{one.flop / moved:.1f}"])
    table(["operator, one image, FP32", "GFLOP", "MB moved", "FLOP a byte"], rows)
    rows = []
    for gpu in GPUS:
        limits = [f"{images_per_second(gpu, precision):,.0f}" for precision in PRECISIONS]
        balance = " / ".join(f"{getattr(gpu, p) * 1e3 / gpu.bandwidth:.0f}" for p in PRECISIONS)
        rows.append([gpu.name, f"{gpu.fp32} / {gpu.tf32} / {gpu.fp16}", f"{gpu.bandwidth}", balance, *limits])
    table(["GPU", "TFLOP/s FP32 / TF32 / FP16", "GB/s", "FLOP a byte", "FP32", "TF32", "FP16"], rows)


if __name__ == "__main__":
    main()
