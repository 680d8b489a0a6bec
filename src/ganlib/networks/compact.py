"""Small convolutional networks for minutes on a processor: the generator normalised, the discriminator not.

The base grid and the doublings are those of :func:`ganlib.networks.parts.pyramid`: 7 x 7 twice doubled for 28 x 28.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, ClassNorm, Projection, WithClass, crop, pad, pyramid


class CompactGenerator(nn.Module):
    """A linear layer to the base grid, transposed 4x4 convolutions with batch normalisation, one 3x3, tanh."""

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, *base = pyramid(self.height, self.width)
        widths = [width * 2 ** min(doublings - stage, 3) for stage in range(doublings + 1)]
        self.base = (*base, widths[0])
        self.condition = WithClass(num_classes, 32)
        self.linear = nn.Linear(latent + self.condition.width, widths[0] * base[0] * base[1], bias=False)
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ClassNorm(w, num_classes) for w in widths)
        self.to_item = nn.Conv2d(widths[-1], channels, 3, 1, 1)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        rows, columns, channels = self.base
        # The grid comes out channels-last, as the convolutions want it.
        x = self.linear(self.condition(latent, labels)).view(-1, rows, columns, channels).permute(0, 3, 1, 2)
        x = F.leaky_relu_(self.norms[0](x, labels), SLOPE)
        for doubling, norm in zip(self.doublings, list(self.norms)[1:], strict=True):
            x = F.leaky_relu_(norm(doubling(x), labels), SLOPE)
        return crop(torch.tanh(self.to_item(x)), self.height, self.width)


class CompactDiscriminator(nn.Module):
    """Strided 4x4 convolutions with leaky rectifiers down to sides of about 4, no normalisation, a linear head."""

    def __init__(self, shape: Sequence[int], *, width: int, num_classes: int = 0) -> None:
        super().__init__()
        channels, height, breadth = shape
        num_halvings = max(1, round(math.log2(max(height, breadth) / 4)))
        self.size = (max(height, 2**num_halvings), max(breadth, 2**num_halvings))
        widths = [channels, *(width * 2 ** min(stage, 3) for stage in range(num_halvings))]
        self.halvings = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))
        rows, columns = (side // 2**num_halvings for side in self.size)
        self.head = Projection(widths[-1] * rows * columns, num_classes)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        x = pad(items, *self.size)
        for halving in self.halvings:
            x = F.leaky_relu_(halving(x), SLOPE)
        return Verdict((self.head(x.flatten(1), labels),), (x,))
