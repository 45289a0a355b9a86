"""Super-resolution networks of UpscalerJS as generators: ESRGANs in packages of npm (MIT).

    python -m lfm.upscaler --out runs/zoo

fetches the networks, as files of TensorFlow.js, by npm. Those that are there are not fetched again.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from lfm.generators import Generator, shrunk
from lfm.registry import Archive, RegistryError, fetch, read


@dataclass(frozen=True)
class Upscaler:
    """A Keras network in a package: model.json and its weights, `shards` files."""

    package: Archive
    folder: str  # in the package
    block: int  # factor by which it enlarges
    shards: int = 1
    white: float = 255  # the value of a white pixel

    @property
    def files(self) -> list[str]:
        shards = range(1, self.shards + 1)
        return ["model.json"] + [f"group1-shard{i}of{self.shards}.bin" for i in shards]


SLIM, MEDIUM, THICK, LEGACY = (
    Archive("npm", f"@upscalerjs/esrgan-{name}@1.0.0", sha256)
    for name, sha256 in (
        ("slim", "b53070ff01363e74d33138106dcc72b58d341c9fb7e8fd648554a4e7744142b5"),
        ("medium", "367471ded0629387b9aabc75183be0b80d39d46c3f509945ebde4f5bf7a49627"),
        ("thick", "3d38971084d8281bf68da443085c7eb65355fb28aa81b33b54f950cca6328a15"),
        ("legacy", "fcf8aea836069facd61b43caf6c212da67465eefe010d5e5db2d644aefa4f206"),
    )
)
UPSCALERS = {
    "esrgan_slim_x2": Upscaler(SLIM, "x2", 2),
    "esrgan_slim_x3": Upscaler(SLIM, "x3", 3),
    "esrgan_slim_x4": Upscaler(SLIM, "x4", 4),
    "esrgan_slim_x8": Upscaler(SLIM, "x8", 8),
    "esrgan_medium_x2": Upscaler(MEDIUM, "x2", 2),
    "esrgan_medium_x3": Upscaler(MEDIUM, "x3", 3),
    "esrgan_medium_x4": Upscaler(MEDIUM, "x4", 4),
    "esrgan_medium_x8": Upscaler(MEDIUM, "x8", 8),
    "esrgan_thick_x8": Upscaler(THICK, "x8", 8, 8, 1),
    "esrgan_legacy_gan_x4": Upscaler(LEGACY, "gans", 4, white=1),
}
# Left out: those that need more than 0.3 s for 160x160 pixels on one thread (thick x2 to x4, legacy psnr)
# and those that shift the colours (legacy div2k).

# Excluded from training, for validation: a factor, and the only one of its size.
HELD_OUT = ("esrgan_slim_x3", "esrgan_medium_x3", "esrgan_thick_x8")


def weights(folder: Path, manifest: list[dict]) -> dict[str, Tensor]:
    """The weights of a `weightsManifest`, by name; those of one byte are scaled to float32."""
    found = {}
    for group in manifest:
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        at = 0
        for weight in group["weights"]:
            scale = weight.get("quantization", {"dtype": "float32", "scale": 1, "min": 0})
            count = int(np.prod(weight["shape"]))
            stored = np.frombuffer(data, np.dtype(scale["dtype"]).newbyteorder("<"), count, at)
            at += stored.nbytes
            values = (stored * scale["scale"] + scale["min"]).astype(np.float32)
            found[weight["name"]] = torch.from_numpy(values.reshape(weight["shape"]))
    return found


class Network(torch.nn.Module):
    """A Keras network of the layers that occur, each a step from its inputs to its output."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        model = json.loads((folder / "model.json").read_text())
        config = model["modelTopology"]["model_config"]["config"]
        self.layers, self.output = config["layers"], config["output_layers"][0][0]
        for name, values in weights(folder, model["weightsManifest"]).items():
            if name.endswith("/kernel"):
                values = values.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            self.register_buffer(name.replace("/", " "), values)

    def forward(self, x: Tensor) -> Tensor:  # (n, 3, h, w)
        made = {}
        for layer in self.layers:
            inputs = [made[node[0]] for node in (layer["inbound_nodes"] or [[]])[0]] or [x]
            made[layer["name"]] = self.step(layer["class_name"], layer["config"], inputs)
        return made[self.output]

    def step(self, kind: str, config: dict, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        match kind:
            case "InputLayer":
                return x
            case "Conv2D":
                kernel, bias = (
                    self.get_buffer(f"{config['name']} {part}") for part in ("kernel", "bias")
                )
                return activated(conv2d(x, kernel, bias, padding="same"), config["activation"])
            case "Activation":
                return activated(x, config["activation"])
            case "Concatenate":
                return torch.cat(inputs, 1)
            case "Add":
                return sum(inputs)
            case "MultiplyBeta":
                return x * config["beta"]
            case "UpSampling2D":
                return interpolate(x, scale_factor=config["size"], mode=config["interpolation"])
            case _ if kind.startswith("PixelShuffle"):
                return depth_to_space(x, config["scale"])
        raise ValueError(f"a layer of the kind {kind}")


def activated(x: Tensor, name: str) -> Tensor:
    return {"linear": lambda: x, "relu": x.relu}[name]()


def depth_to_space(x: Tensor, scale: int) -> Tensor:
    """TensorFlow's pixel shuffle: the channels are the last of a pixel's parts, not the first."""
    n, _, h, w = x.shape
    x = x.reshape(n, scale, scale, -1, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, -1, h * scale, w * scale)


def upscaler(u: Upscaler, folder: Path, device: str = "cpu") -> Generator:
    network = Network(folder).to(device).eval()

    def generate(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(shrunk(pixels, u.block)).to(device).permute(2, 0, 1)[None] * (
            u.white / 255
        )
        with torch.inference_mode():
            made = network(x)[0].permute(1, 2, 0) / u.white * 255
        return made.round().clamp(0, 255).byte().cpu().numpy()

    return generate


def unpack(name: str, u: Upscaler, archive: Path, out: Path) -> None:
    """Writes the files of a network, all or none."""
    found = read(archive, [f"package/models/{u.folder}/{file}" for file in u.files])
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        new = Path(scratch) / name
        new.mkdir()
        for file, data in zip(u.files, found, strict=True):
            (new / file).write_bytes(data)
        new.rename(out / name)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.upscaler", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    missing = {name: u for name, u in UPSCALERS.items() if not (out / name).exists()}
    try:
        for package in dict.fromkeys(u.package for u in missing.values()):
            with tempfile.TemporaryDirectory(dir=out) as scratch:
                archive = fetch(package, Path(scratch))
                for name, u in missing.items():
                    if u.package == package:
                        unpack(name, u, archive, out)
    except (RegistryError, OSError, KeyError) as e:
        print(e, file=sys.stderr)
        return 1
    print(f"{out}: {len(UPSCALERS)} networks of UpscalerJS, {len(missing)} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
