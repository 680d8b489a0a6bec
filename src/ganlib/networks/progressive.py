"""Networks that grow: trained on small pictures first, then on larger ones, each new stage faded in.

Written from Karras et al. 2018, "Progressive growing of GANs", arXiv:1710.10196, sections 2 to 4, table 2 and figure 2.
All else sees pictures of the full size: the generator repeats the pixels of its present size, and the discriminator
takes means over blocks.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Grows, Verdict
from ganlib.networks.equalised import (
    GAIN,
    ClassLatent,
    ClassLogit,
    EqualConv,
    EqualLinear,
    pixel_norm,
    widths_up_to,
)
from ganlib.networks.minibatch import MinibatchDeviation
from ganlib.networks.parts import SLOPE, crop, pad, pyramid

UNITS = 1 << 20
"""Growth is counted in so many parts of a stage, as an integer."""


def growth_at(items_seen: int, total_items: int, doublings: int, share: float) -> int:
    """How far the networks have grown, in :data:`UNITS` of a stage: 2.25 stages is a quarter faded into the third.

    `share` of the run is cut into two parts a doubling, equally long: the size so far is trained, then the next one is
    faded in linearly. The paper trains 800,000 items in each part.
    """
    part = 2 * doublings * items_seen / max(share * total_items, 1.0)
    whole, within = divmod(min(part, 2.0 * doublings), 2.0)
    return int(UNITS * (whole + max(within - 1.0, 0.0)))


class Growing(nn.Module):
    """How far a network has grown: wholly, until it is told. It never shrinks, whatever becomes of the run's length."""

    growth: Tensor

    def __init__(self, doublings: int, share: float) -> None:
        super().__init__()
        self.doublings, self.share = doublings, share
        self.register_buffer("growth", torch.tensor(-1))

    def tell(self, items_seen: int, total_items: int) -> None:
        """Grow to where a run of that length should be."""
        self.growth.clamp_(min=growth_at(items_seen, total_items, self.doublings, self.share))

    def forward(self) -> tuple[int, Float[Tensor, ""] | None]:
        """The newest stage in use, and the share of it that is faded in; None where that is all of it."""
        growth = int(self.growth)
        if growth < 0:
            return self.doublings, None
        if growth % UNITS == 0:
            return growth // UNITS, None
        # The share stays a tensor: compiled code would be made anew for each new number.
        return growth // UNITS + 1, self.growth % UNITS / UNITS


class ProgressiveGenerator(nn.Module, Grows):
    """Two convolutions a stage with pixel norm, nearest doubling between, a 1x1 convolution to pictures of each size.

    `width` channels in the finest stage, twice as many in each coarser one, up to `widest`; the paper has 16 and 512 at
    1024 x 1024. While a stage fades in, the picture is a line between it and the doubled one of the stage before.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent: int,
        width: int,
        widest: int = 512,
        growing_share: float = 0.5,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, *base = pyramid(self.height, self.width)
        widths = widths_up_to(doublings, width, widest)
        self.base = (widths[0], *base)
        self.growing = Growing(doublings, growing_share)
        self.given = ClassLatent(num_classes, latent)
        # The gain is that of a 4 x 4 convolution over the latent, which has one number in each window.
        inputs = latent + self.given.width
        self.linear = EqualLinear(inputs, widths[0] * base[0] * base[1], gain=GAIN / 4, bias=None)
        self.bias = nn.Parameter(torch.zeros(widths[0]))
        self.firsts = nn.ModuleList(EqualConv(a, b, 3) for a, b in itertools.pairwise(widths))
        self.seconds = nn.ModuleList(EqualConv(w, w, 3) for w in widths)
        self.to_items = nn.ModuleList(EqualConv(w, channels, 1, gain=1.0) for w in widths)

    def grow(self, items_seen: int, total_items: int) -> None:
        self.growing.tell(items_seen, total_items)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        newest, share = self.growing()
        x = self.linear(self.given(latent, labels)).unflatten(1, self.base) + self.bias[:, None, None]
        x = pixel_norm(F.leaky_relu(x.contiguous(memory_format=torch.channels_last), SLOPE))
        x = pixel_norm(F.leaky_relu(self.seconds[0](x), SLOPE))
        before = x
        for stage in range(1, newest + 1):
            before = x
            x = pixel_norm(F.leaky_relu(self.firsts[stage - 1](_enlarged(x, 2)), SLOPE))
            x = pixel_norm(F.leaky_relu(self.seconds[stage](x), SLOPE))
        items = self.to_items[newest](x)
        if share is not None:
            items = _between(_enlarged(self.to_items[newest - 1](before), 2), items, share)
        return crop(_enlarged(items, 2 ** (self.growing.doublings - newest)), self.height, self.width)


class ProgressiveDiscriminator(nn.Module, Grows):
    """The mirror image, without norm: means over blocks between stages, minibatch deviation before the last one.

    While a stage fades in, what enters the stage after it is a line between its output and the 1x1 convolution of the
    picture of half the size; the picture itself too is a line, between that of half the size and the sharper one.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int,
        widest: int = 512,
        growing_share: float = 0.5,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, *base = pyramid(height, breadth)
        self.size = (base[0] * 2**doublings, base[1] * 2**doublings)
        widths = widths_up_to(doublings, width, widest)
        self.growing = Growing(doublings, growing_share)
        self.from_items = nn.ModuleList(EqualConv(channels, w, 1) for w in widths)
        self.firsts = nn.ModuleList(EqualConv(w, w, 3) for w in widths[1:])
        self.seconds = nn.ModuleList(EqualConv(b, a, 3) for a, b in itertools.pairwise(widths))
        self.deviation = MinibatchDeviation()
        self.over_grid = EqualConv(widths[0] + 1, widths[0], 3)
        self.linear = EqualLinear(widths[0] * base[0] * base[1], widths[0], gain=GAIN)
        self.head = ClassLogit(widths[0], num_classes)

    def grow(self, items_seen: int, total_items: int) -> None:
        self.growing.tell(items_seen, total_items)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        newest, share = self.growing()
        items = _reduced(pad(items, *self.size), 2 ** (self.growing.doublings - newest))
        smaller = items
        if share is not None:
            smaller = _reduced(items, 2)
            items = _between(_enlarged(smaller, 2), items, share)
        x = F.leaky_relu(self.from_items[newest](items), SLOPE)
        for stage in range(newest, 0, -1):
            x = F.leaky_relu(self.firsts[stage - 1](x), SLOPE)
            x = _reduced(F.leaky_relu(self.seconds[stage - 1](x), SLOPE), 2)
            if stage == newest and share is not None:
                x = _between(F.leaky_relu(self.from_items[newest - 1](smaller), SLOPE), x, share)
        x = F.leaky_relu(self.over_grid(self.deviation.as_map(x)), SLOPE)
        features = F.leaky_relu(self.linear(x.flatten(1)), SLOPE)
        return Verdict((self.head(features, labels),), (features,))


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="nearest") if factor > 1 else x


def _reduced(x: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(x, factor) if factor > 1 else x


def _between(old: Tensor, new: Tensor, share: Float[Tensor, ""]) -> Tensor:
    return old + (new - old) * share.to(new.dtype)
