"""Networks for vectors: a generator that jumps between clusters, a discriminator that knows the noise of its items."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator

LEAST_NOISE, MOST_NOISE = 0.02, 1.0
"""The range of noise under which vectors are judged, in standard deviations of a column."""

POINT_WIDTH = 32
"""How many numbers a learned point of the mixture has."""


class MixtureGenerator(nn.Module):
    """A multilayer perceptron of one of 2^`bits` learned points and a Gaussian.

    The signs of the first `bits` columns of the latent choose the point, the other columns are the Gaussian. A network
    that is continuous in all of its latent has to draw lines between clusters; one that jumps does not. After the
    mixtures of Gurumurthy et al. 2017, arXiv:1706.02071.

    Four neighbouring points are one coarse point, which learns from the items of all four, and small differences from
    it: where the share of a cluster is no whole number of coarse points, the four can part.
    """

    def __init__(
        self, shape: Sequence[int], *, latent: int, widths: Sequence[int], num_classes: int = 0, bits: int = 12
    ) -> None:
        super().__init__()
        self.bits = min(bits, latent // 2)
        self.coarse_points = nn.Embedding(2 ** max(self.bits - 2, 0), POINT_WIDTH)
        self.differences = nn.Embedding(2**self.bits, POINT_WIDTH)
        nn.init.normal_(self.differences.weight, std=0.1)
        self.layers = MLPGenerator(
            shape, latent=POINT_WIDTH + latent - self.bits, widths=widths, num_classes=num_classes, bounded=False
        )

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *item"]:
        powers = 2 ** torch.arange(self.bits, device=latent.device)
        number = ((latent[:, : self.bits] > 0) * powers).sum(1)
        point = self.coarse_points(number % self.coarse_points.num_embeddings) + self.differences(number)
        return self.layers(torch.cat([point, latent[:, self.bits :]], 1), labels)


class NoisyDiscriminator(nn.Module):
    """Judges vectors under noise of a known level: items divided by the level, its logarithm as a last column.

    Plain vectors, without that column, count as noise-free: level `LEAST_NOISE`. See :mod:`ganlib.tasks.noisy`.
    """

    def __init__(self, shape: Sequence[int], *, widths: Sequence[int], num_classes: int = 0) -> None:
        super().__init__()
        self.num_columns = math.prod(shape)
        self.layers = MLPDiscriminator((self.num_columns + 1,), widths=widths, num_classes=num_classes)

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        items = items.flatten(1)
        lowest, highest = math.log(LEAST_NOISE), math.log(MOST_NOISE)
        if items.shape[1] == self.num_columns:
            log_level = torch.full_like(items[:, :1], lowest)
            values = items
        else:
            log_level = items[:, -1:].detach()  # no penalty on how the verdict depends on the level
            values = items[:, :-1] * log_level.exp()
        level = (2 * log_level - lowest - highest) / (highest - lowest)
        return self.layers(torch.cat([2 * values, level], 1), labels)
