"""Pieces that several families of networks share."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""The slope of the leaky rectifier below zero, as in DCGAN and all that follow it."""


def pyramid(height: int, width: int, largest_base: int = 8) -> tuple[int, int, int]:
    """How many doublings of which base grid cover `height` x `width` with the fewest pixels to spare.

    No side of the base grid is over `largest_base`; of equal choices the one with the smaller base wins. A side that is
    no multiple is covered by a larger grid, and the result is cropped.
    """
    least = max(0, math.ceil(math.log2(max(height, width) / largest_base)))
    most = max(least, math.floor(math.log2(max(min(height, width) / 4, 1))))

    def spare(doublings: int) -> int:
        return math.ceil(height / 2**doublings) * math.ceil(width / 2**doublings) * 4**doublings

    doublings = min(range(most, least - 1, -1), key=spare)
    return doublings, math.ceil(height / 2**doublings), math.ceil(width / 2**doublings)


def crop(items: Float[Tensor, "batch channels h w"], height: int, width: int) -> Float[Tensor, "batch channels h2 w2"]:
    """The centre of a picture."""
    top, left = (items.shape[2] - height) // 2, (items.shape[3] - width) // 2
    return items[:, :, top : top + height, left : left + width]


def pad(items: Float[Tensor, "batch channels h w"], height: int, width: int) -> Float[Tensor, "batch channels h2 w2"]:
    """The picture in the centre of a larger one, its edge repeated: an empty border would be a sign of its own."""
    rows, columns = height - items.shape[2], width - items.shape[3]
    if rows == 0 and columns == 0:
        return items
    return F.pad(items, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), mode="replicate")


class ClassNorm(nn.Module):
    """Batch normalisation with a gain and bias per class; plain without classes. Dumoulin 2017, arXiv:1610.07629."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=num_classes == 0)
        self.embedding = nn.Embedding(num_classes, 2 * num_features) if num_classes else None
        if self.embedding is not None:
            nn.init.zeros_(self.embedding.weight)

    def forward(
        self, x: Float[Tensor, "batch channels h w"], labels: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels h w"]:
        x = self.norm(x)
        if self.embedding is None:
            return x
        if labels is None:
            raise ValueError("this network was built with classes: pass labels, integers [batch]")
        # In the number format of x: a float32 gain would make float32 of all that follows under autocast.
        gain, bias = self.embedding(labels).to(x.dtype)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(bias, x, 1 + gain)


class WithClass(nn.Module):
    """The latent with an embedding of its class beside it; the latent alone where there are no classes."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.width = width if num_classes else 0
        self.embedding = nn.Embedding(num_classes, width) if num_classes else None

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch width"]:
        if self.embedding is None:
            return latent
        if labels is None:
            raise ValueError("this network was built with classes: pass labels, integers [batch]")
        return torch.cat([latent, self.embedding(labels)], 1)


class Projection(nn.Module):
    """Logit = w·h + e(class)·h: the projection discriminator. Miyato & Koyama 2018, arXiv:1802.05637."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.embedding = nn.Embedding(num_classes, num_features) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=num_features**-0.5)

    def forward(
        self, features: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        logits = self.linear(features).squeeze(1)
        if self.embedding is None:
            return logits
        if labels is None:
            raise ValueError("this network was built with classes: pass labels, integers [batch]")
        return logits + (self.embedding(labels) * features).sum(1)
