"""A cascade: several generators, each making the picture of the one before it twice as large, and a judge of each size.

After LAPGAN (Denton et al. 2015, arXiv:1506.05751), whose stages add what the enlarged coarser picture lacks, and
StackGAN (Zhang et al. 2017, arXiv:1612.03242), whose later stages learn from what the earlier ones make.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Grows, Verdict
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.networks.parts import SLOPE, ClassNorm, WithClass, crop, pad

LEAST_SIDE = 12
"""The coarsest stage is the smallest whose longer side is over this, but one of two at least."""


def num_stages(height: int, width: int) -> int:
    """How many stages pictures of this size take."""
    return max(2, 1 + math.floor(math.log2(max(height, width) / LEAST_SIDE)))


def padded_size(height: int, width: int, stages: int) -> tuple[int, int]:
    """The least multiples of the finest stage's factor that hold a picture."""
    factor = 2 ** (stages - 1)
    return math.ceil(height / factor) * factor, math.ceil(width / factor) * factor


def coarser(items: Float[Tensor, "batch channels h w"], stages: int) -> list[Tensor]:
    """The pictures of all stages, the coarsest first: means over squares of pixels."""
    return [F.avg_pool2d(items, 2**stage) if stage else items for stage in reversed(range(stages))]


def stacked(pictures: Sequence[Tensor]) -> Float[Tensor, "batch stacked height width"]:
    """Pictures of all stages as one item: enlarged to the finest by repetition, channels after channels.

    A coarse pixel counts as often as it covers fine ones, so that gradients of all stages have the scale of their size.
    """
    height, width = pictures[-1].shape[2:]
    return torch.cat([F.interpolate(each, (height, width), mode="nearest") for each in pictures], 1)


def unstacked(items: Float[Tensor, "batch stacked height width"], stages: int) -> list[Tensor]:
    """The pictures of all stages of a stacked item, the coarsest first."""
    parts = items.chunk(stages, 1)
    return [F.avg_pool2d(part, 2 ** (stages - 1 - stage)) for stage, part in enumerate(parts)]


class Refiner(nn.Module):
    """One stage: a picture twice as large, the coarser one enlarged and what convolutions add to it."""

    def __init__(self, channels: int, *, latent: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        self.condition = WithClass(num_classes, 32)
        self.linear = nn.Linear(latent + self.condition.width, width)
        self.first = nn.Conv2d(channels, width, 3, 1, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.doubling = nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False)
        self.norms = nn.ModuleList(ClassNorm(count, num_classes) for count in (width, width, width // 2))
        self.to_item = nn.Conv2d(width // 2, channels, 3, 1, 1)

    def forward(
        self,
        coarse: Float[Tensor, "batch channels h w"],
        latent: Float[Tensor, "batch latent"],
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels h2 w2"]:
        known = self.linear(self.condition(latent, labels))[:, :, None, None]
        x = F.leaky_relu(self.norms[0](self.first(coarse) + known, labels), SLOPE)
        x = F.leaky_relu(self.norms[1](self.second(x), labels), SLOPE)
        x = F.leaky_relu(self.norms[2](self.doubling(x), labels), SLOPE)
        return enlarged(coarse) + self.to_item(x)


def enlarged(coarse: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h2 w2"]:
    """A picture twice as large, between the pixels by lines."""
    return F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)


class Staged(Grows):
    """What both networks of a cascade know: how many stages have begun. Stage k begins at k · `begin` of the run."""

    num_begun: Tensor
    stages: int
    begin: float

    def grow(self, items_seen: int, total_items: int) -> None:
        """Begin the stages that are due."""
        share = items_seen / max(total_items, 1)
        begun = sum(share >= stage * self.begin for stage in range(self.stages))
        self.num_begun.fill_(begun)


class CascadeGenerator(nn.Module, Staged):
    """All stages in a row, each with its own part of the latent; a stage that has not begun enlarges without adding.

    No stage changes the one before it: gradients stop at the coarser picture, which a stage is given as its condition.
    """

    def __init__(
        self, shape: Sequence[int], *, latent: int, width: int, stages: int, begin: float, num_classes: int = 0
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.stages, self.begin, self.latent = stages, begin, latent
        rows, columns = padded_size(self.height, self.width, stages)
        base = (channels, rows // 2 ** (stages - 1), columns // 2 ** (stages - 1))
        self.first = CompactGenerator(base, latent=latent, width=width, num_classes=num_classes)
        self.refiners = nn.ModuleList(
            Refiner(channels, latent=latent, width=width, num_classes=num_classes) for _ in range(stages - 1)
        )
        self.register_buffer("num_begun", torch.tensor(stages))

    def all_stages(
        self, latent: Float[Tensor, "batch latents"], labels: Int[Tensor, " batch"] | None = None
    ) -> list[Tensor]:
        """The picture of each stage, the coarsest first, at the padded size."""
        parts, begun = latent.split(self.latent, 1), int(self.num_begun)
        made = [self.first(parts[0], labels)]
        for stage, refiner in enumerate(self.refiners, start=1):
            coarse = made[-1].detach()
            made.append(refiner(coarse, parts[stage], labels) if stage < begun else enlarged(coarse))
        return made

    def forward(
        self, latent: Float[Tensor, "batch latents"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch stacked height width"]:
        """The stacked pictures of all stages; :meth:`finest` has what people want."""
        return stacked(self.all_stages(latent, labels))

    def finest(self, items: Float[Tensor, "batch stacked height width"]) -> Float[Tensor, "batch channels h w"]:
        """The picture of the last stage, in its own size."""
        return crop(items.chunk(self.stages, 1)[-1], self.height, self.width)


class CascadeDiscriminator(nn.Module, Staged):
    """A judge of each stage: as many logits as stages have begun. A plain picture is reduced for the coarser ones."""

    def __init__(self, shape: Sequence[int], *, width: int, stages: int, begin: float, num_classes: int = 0) -> None:
        super().__init__()
        self.channels = shape[0]
        self.stages, self.begin = stages, begin
        self.size = padded_size(shape[1], shape[2], stages)
        factors = [2**stage for stage in reversed(range(stages))]
        self.judges = nn.ModuleList(
            CompactDiscriminator(
                (shape[0], self.size[0] // factor, self.size[1] // factor), width=width, num_classes=num_classes
            )
            for factor in factors
        )
        self.register_buffer("num_begun", torch.tensor(stages))

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        plain = items.shape[1] == self.channels
        pictures = coarser(pad(items, *self.size), self.stages) if plain else unstacked(items, self.stages)
        begun = int(self.num_begun)
        verdicts = [judge(each, labels) for judge, each in zip(list(self.judges)[:begun], pictures, strict=False)]
        return Verdict(
            tuple(verdict.logits[0] for verdict in verdicts), tuple(verdict.features[0] for verdict in verdicts)
        )
