"""The paper's poolings: the values kept of each of the 64 maps of 900 positions."""

import torch
from torch import Tensor, nn


class TopKPooling(nn.Module):
    """TKP: the K largest values of every map, descending; RBLD on them while training.

    RBLD, rank-based linear dropout: the value of rank r is dropped with a probability linear in r
    between `pmin` and `pmax`, else scaled by 1 / (1 - p_r) to keep its expectation. The paper's
    abstract does not say which end is dropped most; `drop_most` sets it: "strongest" (apparently
    the official code's intention), "weakest", or "none" for no dropout.
    """

    def __init__(self, k: int = 16, drop_most: str = "strongest", pmin=0.1, pmax=0.3) -> None:
        super().__init__()
        self.k = k
        ends = {"strongest": (pmax, pmin), "weakest": (pmin, pmax), "none": (0.0, 0.0)}[drop_most]
        self.register_buffer("keep", 1 - torch.linspace(*ends, k), persistent=False)  # (K,)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(n, C, H, W) -> values and indices (n, C, K)."""
        values, indices = maps.flatten(2).topk(self.k, dim=-1)
        if self.training:
            kept = torch.rand_like(values) < self.keep  # (n, C, K)
            values = values * kept / self.keep
        return values, indices


class AveragePooling(nn.Module):
    """Global average pooling: the baseline in the manner of NPR, which the Top-K replaces."""

    k = 1

    def forward(self, maps: Tensor) -> tuple[Tensor, None]:
        """(n, C, H, W) -> values (n, C, 1)."""
        return maps.flatten(2).mean(-1, keepdim=True), None


def random_k(maps: Tensor, k: int) -> Tensor:
    """RKS: K random values of every map without replacement, descending like TKP's, for the second
    branch of training: (n, C, H, W) -> (n, C, K)."""
    flat = maps.flatten(2)  # (n, C, H*W)
    places = torch.rand_like(flat).topk(k, dim=-1).indices  # (n, C, K)
    return flat.gather(-1, places).sort(dim=-1, descending=True).values
