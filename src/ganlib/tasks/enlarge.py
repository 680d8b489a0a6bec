"""Enlarging pictures. Ledig et al. 2017 (SRGAN), arXiv:1609.04802; Wang et al. 2018 (ESRGAN), arXiv:1809.00219."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Batch, Condition, Draws, Pair, Task, Terms, Verdict
from ganlib.errors import UsageError
from ganlib.metrics.features import quantise
from ganlib.networks.superres import bicubic, reduced

Maps = Callable[[Tensor], Sequence[Tensor]]
"""Feature maps of pictures at several depths, differentiable."""


@dataclass(frozen=True)
class Enlarge(Task):
    """Real: the picture. Fake: the generator's enlargement of the same picture, reduced `scale` times.

    ``content`` is the mean absolute difference of pixels; ``perceptual`` that of the feature maps, each divided by the
    mean magnitude of the real one's, so that all depths count alike.
    """

    draws: ClassVar[bool] = False
    transforms: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module]
    scale: int
    maps: Maps | None = None

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.make_generator(), self.make_discriminator()

    def latent(self, num_items: int, draws: Draws) -> Tensor:
        raise UsageError(
            "this model enlarges pictures and draws none of its own: give it some (predict, ganlib predict)"
        )

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return {**batch, "low": quantise(reduced(batch["real"], self.scale))}

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        return Pair(batch["real"], generator(batch["low"]), None, {"low": batch["low"]})

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        return self.latent(len(latent), Draws(torch.Generator()))

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        return generator(items)

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        low = pair.extra["low"]
        coarse = F.interpolate(low, scale_factor=float(self.scale), mode="nearest")
        return coarse, bicubic(low, self.scale), pair.fake, pair.real

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        terms = {"content": (pair.fake - pair.real).abs().mean()}
        return terms if self.maps is None else terms | {"perceptual": perceptual(self.maps, pair)}


def perceptual(maps: Maps, pair: Pair) -> Tensor:
    """The mean absolute difference of feature maps, each over the mean magnitude of the real picture's.

    So that all depths count alike, and no picture depends on the others of its batch. Johnson et al. 2016,
    arXiv:1603.08155, with squares there.
    """
    with torch.no_grad():
        wanted = maps(pair.real)
    given = maps(pair.fake)
    return torch.stack([_size(f - r) / _size(r).clamp(min=1e-6) for r, f in zip(wanted, given, strict=True)]).mean()


def _size(maps: Tensor) -> Tensor:
    """The mean magnitude of each item's map, [batch]."""
    return maps.abs().flatten(1).mean(1)
