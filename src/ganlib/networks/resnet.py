"""The residual networks of SNGAN, which SAGAN and BigGAN grew from.

Miyato et al. 2018, arXiv:1802.05957, appendix B.4. A doubling before a 3x3 convolution and a mean over 2x2 after one
are each computed as one 4x4 convolution of stride two: the same numbers for four ninths of the work.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Verdict
from ganlib.networks.attention import SelfAttention
from ganlib.networks.parts import ClassNorm, Projection, crop, pad, pyramid
from ganlib.networks.spectral import spectral_normalise

Grid = Float[Tensor, "batch channels h w"]
Made = Float[Tensor, "batch out h2 w2"]


def spread(kernel: Float[Tensor, "a b 3 3"]) -> Float[Tensor, "a b 4 4"]:
    """The kernel convolved with 2x2 ones: the sum of its four places in a 4x4 one."""
    wide = F.pad(kernel, (1, 1, 1, 1))
    return wide[..., 1:, 1:] + wide[..., 1:, :-1] + wide[..., :-1, 1:] + wide[..., :-1, :-1]


def double_then_convolve(x: Grid, layer: nn.Conv2d) -> Made:
    """``layer`` on the picture with each pixel repeated in a square of four."""
    kernel = spread(layer.weight.flip(2, 3)).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, layer.bias, stride=2, padding=1)


def convolve_then_halve(x: Grid, layer: nn.Conv2d) -> Made:
    """The mean over squares of four pixels of what ``layer`` makes; the sides must be even."""
    return F.conv2d(x, spread(layer.weight) / 4, layer.bias, stride=2, padding=1)


def double(x: Grid) -> Made:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class UpBlock(nn.Module):
    """Norm, rectifier, doubling, 3x3, norm, rectifier, 3x3, beside a doubled 1x1. The norms take a condition too."""

    def __init__(self, width_in: int, width_out: int, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)
        self.first = nn.Conv2d(width_in, width_out, 3, 1, 1)
        self.second = nn.Conv2d(width_out, width_out, 3, 1, 1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Grid, condition: Tensor | None) -> Made:
        y = double_then_convolve(F.relu(self.norms[0](x, condition)), self.first)
        y = self.second(F.relu(self.norms[1](y, condition)))
        return y + double(self.shortcut(x))  # a 1x1 convolution and a doubling may change places


class DownBlock(nn.Module):
    """Rectifier, 3x3, rectifier, 3x3, mean over 2x2, beside a 1x1 (or nothing where it fits) of the halved input."""

    def __init__(self, width_in: int, width_out: int, *, hidden: int, halves: bool, first: bool = False) -> None:
        super().__init__()
        self.halves, self.is_first = halves, first  # the first block sees the picture itself, unrectified
        self.first = nn.Conv2d(width_in, hidden, 3, 1, 1)
        self.second = nn.Conv2d(hidden, width_out, 3, 1, 1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if halves or width_in != width_out else nn.Identity()

    def forward(self, x: Grid) -> Made:
        y = F.relu(self.first(x if self.is_first else F.relu(x)))
        if not self.halves:
            return self.second(y) + self.shortcut(x)
        return convolve_then_halve(y, self.second) + self.shortcut(F.avg_pool2d(x, 2))


def generator_widths(doublings: int, width: int, flat: bool) -> list[int]:
    """From the base grid up: all `width` where `flat`, else doubled towards the base, to 16 times at most."""
    return [width if flat else width * min(2 ** (doublings - stage), 16) for stage in range(doublings + 1)]


def initialise(network: nn.Module) -> None:
    """Glorot's uniform weights, those of 3x3 convolutions √2 times as large, biases zero; as in the authors' code."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, math.sqrt(2) if module.weight.shape[2:] == (3, 3) else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ResNetGenerator(nn.Module):
    """A linear layer to the base grid, a block per doubling, class-conditional batch norm, 3x3, tanh. Cropped to size.

    `flat` is the paper's table for 32 x 32 (one width), else that for 128 x 128 (halved at each doubling; `width` is
    the finest). `attention` follows the block after which so many doublings are left.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent: int,
        width: int,
        flat: bool = False,
        attention: int | None = None,
        spectral: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, *base = pyramid(self.height, self.width)
        widths = generator_widths(doublings, width, flat)
        self.base = (*base, widths[0])
        self.linear = nn.Linear(latent, math.prod(self.base))
        self.blocks = nn.ModuleList(
            UpBlock(a, b, (ClassNorm(a, num_classes), ClassNorm(b, num_classes))) for a, b in itertools.pairwise(widths)
        )
        self.attend_after = -1 if attention is None else max(doublings - attention, 1) - 1
        self.attention = SelfAttention(widths[self.attend_after + 1]) if doublings and attention is not None else None
        # Without doublings this is the only place where the class can enter.
        self.norm = ClassNorm(widths[-1], 0 if doublings else num_classes)
        self.to_item = nn.Conv2d(widths[-1], channels, 3, 1, 1)
        initialise(self)
        if spectral:
            spectral_normalise(self, embeddings=False)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        # The grid comes out channels-last, as the convolutions want it.
        x = self.linear(latent).unflatten(1, self.base).permute(0, 3, 1, 2)
        for number, block in enumerate(self.blocks):
            x = block(x, labels)
            if self.attention is not None and number == self.attend_after:
                x = self.attention(x)
        return crop(torch.tanh(self.to_item(F.relu(self.norm(x, labels)))), self.height, self.width)


class ResNetDiscriminator(nn.Module):
    """Blocks that halve the grid, blocks that do not, the sum over the grid, a projection; spectrally normalised.

    `flat` is the paper's table for 32 x 32 (one width, down to 8 x 8, two more blocks), else that for 128 x 128
    (doubled at each halving, down to the base grid, one more block). `attention` follows so many halvings. The hidden
    width of a block is that of its input, as in SNGAN, or of its output where `wide`, as in SAGAN and BigGAN.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int,
        flat: bool = False,
        attention: int | None = None,
        wide: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, base_height, base_width = pyramid(height, breadth)
        self.size = (base_height * 2**doublings, base_width * 2**doublings)
        halvings = max(doublings - 1, min(doublings, 1)) if flat else doublings
        widths = [width if flat else width * min(2**stage, 16) for stage in range(max(halvings, 1))]
        first = DownBlock(channels, width, hidden=width, halves=halvings > 0, first=True)
        down = (DownBlock(a, b, hidden=b if wide else a, halves=True) for a, b in itertools.pairwise(widths))
        last = (DownBlock(widths[-1], widths[-1], hidden=widths[-1], halves=False) for _ in range(2 if flat else 1))
        self.blocks = nn.ModuleList([first, *down, *last])
        self.attend_after = -1 if attention is None else min(attention, max(len(widths) - 1, 1)) - 1
        self.attention = SelfAttention(widths[self.attend_after]) if attention is not None else None
        self.head = Projection(widths[-1], num_classes)
        initialise(self)
        spectral_normalise(self)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        x = pad(items, *self.size)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if self.attention is not None and number == self.attend_after:
                x = self.attention(x)
        features = F.relu(x).sum((2, 3))
        return Verdict((self.head(features, labels),), (features,))
