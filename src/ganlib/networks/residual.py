"""The residual networks of R3GAN: no normalisation, inverted bottlenecks with grouped convolutions, Fixup-like start.

Written from Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv:2501.05441, section 3 and appendix.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, Projection, WithClass, crop, pad, pyramid

CHANNELS_PER_GROUP = 16


def _scaled(layer: nn.Conv2d | nn.Linear, gain: float) -> nn.Conv2d | nn.Linear:
    """Normal weights with standard deviation gain / √fan-in; biases zero."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + W₃ a(W₂ a(W₁ x)): 1x1 to twice the width, grouped 3x3, 1x1 back; W₃ begins at zero.

    The first two begin at gain √(2/(1+slope²)) L^(-1/4), L the number of blocks (Zhang et al. 2019, arXiv:1901.09321).
    """

    def __init__(self, width: int, num_blocks: int) -> None:
        super().__init__()
        gain = math.sqrt(2 / (1 + SLOPE**2)) * num_blocks**-0.25
        groups = max(1, 2 * width // CHANNELS_PER_GROUP)
        self.expand = _scaled(nn.Conv2d(width, 2 * width, 1), gain)
        self.mix = _scaled(nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=groups), gain)
        self.contract = _scaled(nn.Conv2d(2 * width, width, 1, bias=False), 0.0)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        y = F.leaky_relu(self.expand(x), SLOPE)
        return x + self.contract(F.leaky_relu(self.mix(y), SLOPE))


def widths_of(doublings: int, width: int, smallest: int = CHANNELS_PER_GROUP) -> list[int]:
    """The width of each stage from the base grid up: the three coarsest are full, each finer one half of that."""
    widths = [width if stage < 3 else width // 2 ** (stage - 2) for stage in range(doublings + 1)]
    return [max(smallest, w // CHANNELS_PER_GROUP * CHANNELS_PER_GROUP) for w in widths]


class ResidualGenerator(nn.Module):
    """A learned base grid scaled by the latent, stages of blocks, doubled between them. No tanh: decoding clamps."""

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, blocks: int = 2, num_classes: int = 0) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, base_height, base_width = pyramid(self.height, self.width)
        widths = widths_of(doublings, width)
        self.condition = WithClass(num_classes, latent)
        self.basis = nn.Parameter(torch.randn(widths[0], base_height, base_width))
        self.linear = _scaled(nn.Linear(latent + self.condition.width, widths[0], bias=False), 1.0)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(w, blocks * len(widths)) for _ in range(blocks))) for w in widths
        )
        self.between = nn.ModuleList(
            _scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) if a != b else nn.Identity()
            for a, b in itertools.pairwise(widths)
        )
        self.to_item = _scaled(nn.Conv2d(widths[-1], channels, 1), 1.0)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        x = self.basis * self.linear(self.condition(latent, labels))[:, :, None, None]
        x = self.stages[0](x.contiguous(memory_format=torch.channels_last))
        for between, stage in zip(self.between, list(self.stages)[1:], strict=True):
            x = stage(F.interpolate(between(x), scale_factor=2, mode="bilinear", align_corners=False))
        return crop(self.to_item(x), self.height, self.width)


class ResidualDiscriminator(nn.Module):
    """The generator's mirror image: stages of blocks, halved between them, a depthwise layer over the base grid."""

    def __init__(self, shape: Sequence[int], *, width: int, blocks: int = 2, num_classes: int = 0) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, base_height, base_width = pyramid(height, breadth)
        self.size = (base_height * 2**doublings, base_width * 2**doublings)
        widths = widths_of(doublings, width)[::-1]
        self.from_item = _scaled(nn.Conv2d(channels, widths[0], 1), 1.0)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(w, blocks * len(widths)) for _ in range(blocks))) for w in widths
        )
        self.between = nn.ModuleList(
            _scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) if a != b else nn.Identity()
            for a, b in itertools.pairwise(widths)
        )
        self.over_grid = _scaled(
            nn.Conv2d(widths[-1], widths[-1], (base_height, base_width), groups=widths[-1], bias=False), 1.0
        )
        self.head = Projection(widths[-1], num_classes)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        x = self.stages[0](self.from_item(pad(items, *self.size)))
        for between, stage in zip(self.between, list(self.stages)[1:], strict=True):
            x = stage(between(F.avg_pool2d(x, 2)))
        features = self.over_grid(x).flatten(1)
        return Verdict((self.head(features, labels),), (features,))
