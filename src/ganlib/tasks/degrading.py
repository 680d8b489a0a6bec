"""What makes a given picture of a good one: restoration is learning the way back."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.core import Draws, Spec
from ganlib.errors import UsageError
from ganlib.networks.superres import bicubic, reduced

Pictures = Float[Tensor, "batch channels height width"]
Spoiled = Float[Tensor, "batch fewer_channels rows columns"]
Kind = Literal["none", "grey", "noise", "mask", "down4"]
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in what is seen as brightness, ITU-R BT.601."""


class Degradation(ABC):
    """A way to spoil pictures, in the numbers of the networks."""

    @abstractmethod
    def given(self, spec: Spec) -> Spec:
        """What the spoiled pictures of items of `spec` are."""

    @abstractmethod
    def __call__(self, items: Pictures, draws: Draws) -> Spoiled:
        """Spoiled pictures."""

    def to_size(self, given: Spoiled) -> Pictures:
        """A spoiled picture in the size of the good one."""
        return given


@final
@dataclass(frozen=True)
class Grey(Degradation):
    """Without colour: 0.299 R + 0.587 G + 0.114 B."""

    def given(self, spec: Spec) -> Spec:
        if spec.shape[0] != 3:
            raise UsageError(f"degrade=grey takes the colour out of pictures, and these have {spec.shape[0]} channels")
        return replace(spec, shape=(1, *spec.shape[1:]), layout="HW" if spec.layout == "HWC" else spec.layout)

    def __call__(self, items: Pictures, draws: Draws) -> Spoiled:
        return (items * items.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


@final
@dataclass(frozen=True)
class Noise(Degradation):
    """Normal noise, of a deviation of its own for each picture: from 0 to `most`, where the whole range is 2.

    55 of 255 levels as in the blind denoiser of Zhang et al. 2017, arXiv:1608.03981.
    """

    most: float = 2 * 55 / 255

    def given(self, spec: Spec) -> Spec:
        return spec

    def __call__(self, items: Pictures, draws: Draws) -> Spoiled:
        deviation = self.most * draws.uniform(len(items))[:, None, None, None]
        return items + deviation * draws.normal(*items.shape)


@final
@dataclass(frozen=True)
class Mask(Degradation):
    """A box somewhere in the picture, half as high and wide, filled with mid-grey."""

    def given(self, spec: Spec) -> Spec:
        return spec

    def __call__(self, items: Pictures, draws: Draws) -> Spoiled:
        def inside(side: int) -> Tensor:
            length = max(side // 2, 1)
            first = (draws.uniform(len(items)) * (side - length + 1)).floor()[:, None]
            places = torch.arange(side, device=items.device)
            return (places >= first) & (places < first + length)

        hole = inside(items.shape[2])[:, None, :, None] & inside(items.shape[3])[:, None, None, :]
        return items.masked_fill(hole, 0.0)


@final
@dataclass(frozen=True)
class Down(Degradation):
    """`scale` times smaller (bicubic, antialiased); enlarged by bicubic interpolation before the network sees it."""

    scale: int = 4

    def given(self, spec: Spec) -> Spec:
        if any(side % self.scale for side in spec.shape[1:]):
            height, width = (max(side // self.scale, 1) * self.scale for side in spec.shape[1:])
            raise UsageError(
                f"degrade=down{self.scale} makes pictures {self.scale} times smaller, and {spec.shape[1]} x "
                f"{spec.shape[2]} is no multiple of it; the nearest is --size {height}x{width}"
            )
        return replace(spec, shape=(spec.shape[0], *(side // self.scale for side in spec.shape[1:])))

    def __call__(self, items: Pictures, draws: Draws) -> Spoiled:
        return reduced(items, self.scale)

    def to_size(self, given: Spoiled) -> Pictures:
        return bicubic(given, self.scale)


KINDS: dict[str, Callable[[], Degradation]] = {"grey": Grey, "noise": Noise, "mask": Mask, "down4": Down}


def degradation(kind: Kind, spec: Spec) -> Degradation | None:
    """The one of that name, None for ``none``; raises :class:`UsageError` for items that cannot be spoiled so."""
    if kind == "none":
        return None
    if kind not in KINDS:
        raise UsageError(f"degrade={kind!r}; accepted are none, {', '.join(KINDS)}")
    found = KINDS[kind]()
    found.given(spec)
    return found
