"""LFM in PyTorch, with the official names in its state dict.

"LFM: local focusing mechanism" (BMVC 2025); official code: github.com/lmlpy/LFM, networks/LFMSN.py.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lfm.graph import STD
from lfm.pooling import AveragePooling, TopKPooling, random_k
from lfm.weights import CHANNELS, MAPS, npr_kernel

MEAN = (0.485, 0.456, 0.406)  # ImageNet


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (n, H, W, 3) RGB -> float32 (n, 3, H, W), ImageNet mean 0 and deviation 1."""
    x = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (MEAN, tuple(STD)))
    return (x - mean[:, None, None]) / std[:, None, None]


class SNet(nn.Module):
    """Four 2x2 convolutions; the result has a receptive field of 23x23 pixels and stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.maxpool = nn.MaxPool2d(2)
        for i, (inputs, outputs) in enumerate(pairwise(CHANNELS), start=1):
            layer = nn.Sequential(nn.Conv2d(inputs, outputs, 2), nn.BatchNorm2d(outputs), nn.ReLU())
            self.add_module(f"layer{i}", layer)

    def forward(self, x: Tensor) -> Tensor:  # (n, 3, 256, 256)
        x = self.maxpool(self.layer1(x))  # (n, 64, 127, 127)
        x = self.maxpool(self.layer2(x))  # (n, 128, 63, 63)
        x = self.maxpool(self.layer3(x))  # (n, 256, 31, 31)
        return self.layer4(x)  # (n, 512, 30, 30)


class LFM(nn.Module):
    """NPR residue -> SNet -> 64 maps -> top K of each -> one logit, the log-odds of "fake"."""

    def __init__(self, k: int = 16, drop_most: str = "strongest", pooling: str = "topk") -> None:
        super().__init__()
        self.downsample_conv = nn.Conv2d(3, 3, 2, stride=2, bias=False)
        self.upsample_conv = nn.ConvTranspose2d(3, 3, 2, stride=2, bias=False)
        for name in ("downsample_conv", "upsample_conv"):  # NPR: fixed, not learned
            weight = getattr(self, name).weight.requires_grad_(False)
            weight.copy_(torch.from_numpy(npr_kernel(name)))
        self.cnn = SNet()
        self.covn1_1 = nn.Conv2d(CHANNELS[-1], MAPS, 1, bias=False)
        pools = {"topk": lambda: TopKPooling(k, drop_most), "average": AveragePooling}
        self.pool_adapter = pools[pooling]()
        self.fc1 = nn.Linear(MAPS * self.pool_adapter.k, 1)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pixels (n, 3, H, W), H and W even -> the maps that are pooled."""
        # up2(down2(x)) by indexing: the two convolutions would round x in bfloat16 or TF32, and one
        # grey level is less than that.
        x = (x - interpolate(x[..., ::2, ::2], scale_factor=2)).abs()  # (n, 3, H, W)
        return self.covn1_1(self.cnn(x))  # (n, 64, 30, 30) at 256x256

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n,), and in training those of the RKS branch (n,), otherwise the same."""
        maps = self.maps(x)
        logit = self.head(self.pool_adapter(maps)[0])
        return logit, self.head(random_k(maps, self.pool_adapter.k)) if self.training else logit

    def head(self, values: Tensor) -> Tensor:  # (n, 64, K), flattened as c * K + rank
        return self.fc1(values.flatten(1)).squeeze(1)  # (n,)
