"""Multilayer perceptrons: networks of the first article, and of vectors. Goodfellow et al. 2014, arXiv:1406.2661."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, Projection, WithClass


class MLPGenerator(nn.Module):
    """Linear layers with leaky rectifiers from a latent to an item of any shape.

    `batch_norm` normalises each hidden layer; `bounded` ends in tanh, for items in [-1, 1]. Of the first `binary`
    columns of the latent only the sign is used: a generator that is continuous in the rest can still jump between
    clusters (Gurumurthy et al. 2017, arXiv:1706.02071, make the latent a mixture to the same end).
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent: int,
        widths: Sequence[int],
        num_classes: int = 0,
        batch_norm: bool = False,
        bounded: bool = True,
        binary: int = 0,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.binary = binary
        self.condition = WithClass(num_classes, latent)
        layers: list[nn.Module] = []
        width = latent + self.condition.width
        for hidden in widths:
            layers += [nn.Linear(width, hidden), *([nn.BatchNorm1d(hidden)] if batch_norm else []), nn.LeakyReLU(SLOPE)]
            width = hidden
        layers.append(nn.Linear(width, math.prod(self.shape)))
        self.layers = nn.Sequential(*layers, *([nn.Tanh()] if bounded else []))

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *item"]:
        if self.binary:
            latent = torch.cat([latent[:, : self.binary].sign(), latent[:, self.binary :]], 1)
        return self.layers(self.condition(latent, labels)).unflatten(1, self.shape)


class MLPDiscriminator(nn.Module):
    """Linear layers with leaky rectifiers from an item of any shape to one logit; the class by projection."""

    def __init__(
        self, shape: Sequence[int], *, widths: Sequence[int], num_classes: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = math.prod(shape)
        for hidden in widths:
            layers += [nn.Linear(width, hidden), nn.LeakyReLU(SLOPE), *([nn.Dropout(dropout)] if dropout else [])]
            width = hidden
        self.layers = nn.Sequential(*layers)
        self.head = Projection(width, num_classes)

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        features = self.layers(items.flatten(1))
        return Verdict((self.head(features, labels),), (features,))


class NoisyDiscriminator(nn.Module):
    """Judges vectors under noise of a known level: items divided by the level, its logarithm as a last column.

    Plain vectors, without that column, are taken to be noise-free: at level `least`. See :mod:`ganlib.tasks.noisy`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        widths: Sequence[int],
        num_classes: int = 0,
        least: float = 0.02,
        most: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_columns, self.lowest, self.highest = math.prod(shape), math.log(least), math.log(most)
        self.layers = MLPDiscriminator((self.num_columns + 1,), widths=widths, num_classes=num_classes)

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        items = items.flatten(1)
        if items.shape[1] == self.num_columns:
            log_level = torch.full_like(items[:, :1], self.lowest)
            values = items
        else:
            log_level = items[:, -1:].detach()  # no penalty on how the verdict depends on the level
            values = items[:, :-1] * log_level.exp()
        level = (2 * log_level - self.lowest - self.highest) / (self.highest - self.lowest)
        return self.layers(torch.cat([2 * values, level], 1), labels)
