"""FastGAN: gated doublings with skip-layer excitation, and a discriminator that must keep what it sees.

Written from Liu et al. 2021, "Towards faster and stabilized GAN training for high-fidelity few-shot image synthesis",
arXiv:2101.04775, sections 3.1 and 3.2, figures 3 and 4.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Verdict
from ganlib.networks.equalised import widths_up_to
from ganlib.networks.parts import SLOPE, Projection, WithClass, crop, pad, pyramid
from ganlib.networks.spectral import spectral_normalise

LEAP = 4
"""An excitation reaches so many doublings further: from 8 x 8 to 128 x 128."""


def gated(inputs: int, outputs: int, *, double: bool) -> nn.Sequential:
    """A 3x3 convolution to twice the channels, batch normalisation, and a gate of one half by the other."""
    layers: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")] if double else []
    return nn.Sequential(
        *layers, nn.Conv2d(inputs, 2 * outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * outputs), nn.GLU(1)
    )


class Excitation(nn.Module):
    """y = F(coarse) · fine, channel by channel: F pools to 4 x 4 and ends in a sigmoid. The paper's equation 1."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(coarse, fine, 4),
            nn.LeakyReLU(0.1),
            nn.Conv2d(fine, fine, 1),
            nn.Sigmoid(),
        )

    def forward(
        self, coarse: Float[Tensor, "batch coarse h w"], fine: Float[Tensor, "batch fine h2 w2"]
    ) -> Float[Tensor, "batch fine h2 w2"]:
        return self.layers(coarse) * fine


class FastGANGenerator(nn.Module):
    """One gated convolution a doubling, excitations from coarse stages to fine ones, tanh.

    `width` channels in the finest stage, twice as many in each coarser one, up to `widest`. Excitations skip four
    doublings as in the paper, or all there are where there are fewer. Other sizes begin at their own base grid.
    """

    def __init__(
        self, shape: Sequence[int], *, latent: int, width: int, widest: int = 1024, num_classes: int = 0
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, base_height, base_width = pyramid(self.height, self.width)
        widths = widths_up_to(doublings, width, widest)
        self.leap = min(LEAP, doublings)
        self.condition = WithClass(num_classes, latent)
        self.base = nn.Sequential(
            nn.ConvTranspose2d(latent + self.condition.width, 2 * widths[0], (base_height, base_width), bias=False),
            nn.BatchNorm2d(2 * widths[0]),
            nn.GLU(1),
        )
        self.stages = nn.ModuleList(gated(a, b, double=True) for a, b in itertools.pairwise(widths))
        self.excitations = nn.ModuleList(
            Excitation(a, b) for a, b in zip(widths, widths[self.leap :], strict=False) if self.leap
        )
        self.to_item = nn.Conv2d(widths[-1], channels, 3, 1, 1)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        grids = [self.base(self.condition(latent, labels)[:, :, None, None])]
        for number, stage in enumerate(self.stages, 1):
            x = stage(grids[-1])
            if number >= self.leap:
                x = self.excitations[number - self.leap](grids[number - self.leap], x)
            grids.append(x)
        return crop(torch.tanh(self.to_item(grids[-1])), self.height, self.width)


class Halving(nn.Module):
    """The mean of two ways down: a strided 4x4 and a 3x3 convolution, and a mean over blocks with a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)
        )

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        return (self.main(x) + self.direct(x)) / 2


MOST_REBUILT = 5
"""Pictures are rebuilt by at most so many doublings: to 128 x 128 from 4 x 4."""


class Rebuilder(nn.Module):
    """Doublings, each with half the channels, from a grid of features to a small picture; tanh."""

    def __init__(self, inputs: int, channels: int, doublings: int) -> None:
        super().__init__()
        widths = [inputs, *(max(8, inputs // 2**stage) for stage in range(1, doublings + 1))]
        self.layers = nn.Sequential(
            *(gated(a, b, double=True) for a, b in itertools.pairwise(widths)),
            nn.Conv2d(widths[-1], channels, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, grid: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch channels h2 w2"]:
        return self.layers(grid)


class FastGANDiscriminator(nn.Module):
    """Halvings down to the base grid, logits from there, and two decoders that rebuild the picture from features.

    ``features`` of a verdict are what was rebuilt beside what it should be: the whole picture from the base grid, then
    a quarter of it from a quarter of the grid before, where there is one. Which quarter is drawn for each item while
    training, and is the first in evaluation. :class:`ganlib.tasks.rebuild.GenerateRebuilding` compares them.
    """

    def __init__(self, shape: Sequence[int], *, width: int, widest: int = 512, num_classes: int = 0) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, *base = pyramid(height, breadth)
        self.size = (base[0] * 2**doublings, base[1] * 2**doublings)
        widths = widths_up_to(doublings, width, widest)[::-1]
        self.from_item = nn.Sequential(nn.Conv2d(channels, widths[0], 3, 1, 1), nn.LeakyReLU(SLOPE))
        self.halvings = nn.ModuleList(Halving(a, b) for a, b in itertools.pairwise(widths))
        self.head = Projection(widths[-1] * base[0] * base[1], num_classes)
        spectral_normalise(self)
        self.of_whole = Rebuilder(widths[-1], channels, min(doublings, MOST_REBUILT))
        self.of_part = Rebuilder(widths[-2], channels, min(doublings - 1, MOST_REBUILT)) if doublings else None

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        items = pad(items, *self.size)
        grids = [self.from_item(items)]
        for halving in self.halvings:
            grids.append(halving(grids[-1]))
        logits = self.head(grids[-1].flatten(1), labels)
        whole = self.of_whole(grids[-1])
        features = [whole, F.adaptive_avg_pool2d(items, whole.shape[2:])]
        if self.of_part is not None:
            which = torch.randint(2, (2, len(items)), device=items.device)
            which = which if self.training else torch.zeros_like(which)
            part = self.of_part(quarter(grids[-2], which))
            features += [part, F.adaptive_avg_pool2d(quarter(items, which), part.shape[2:])]
        return Verdict((logits,), tuple(features))


def quarter(
    x: Float[Tensor, "batch channels h w"], which: Int[Tensor, "2 batch"]
) -> Float[Tensor, "batch channels h2 w2"]:
    """The quarter in that row and column, 0 or 1, of each item."""
    quarters = x.unflatten(2, (2, -1)).unflatten(4, (2, -1))
    return quarters[torch.arange(len(x), device=x.device), :, which[0], :, which[1]]
