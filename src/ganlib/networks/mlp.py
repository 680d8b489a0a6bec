"""Multilayer perceptrons: the networks of the first article. Goodfellow et al. 2014, arXiv:1406.2661."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, Projection, WithClass


class MLPGenerator(nn.Module):
    """Linear layers with leaky rectifiers from a latent to an item of any shape.

    `batch_norm` normalises each hidden layer; `bounded` ends in tanh, for items in [-1, 1].
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
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
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
