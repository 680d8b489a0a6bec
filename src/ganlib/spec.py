"""What the items of a data set are."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Attribute:
    """A number that each item has besides: 0 for the networks is `low` for its owner, and 1 is `high`."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Spec:
    """What one item is, and how the networks' numbers relate to those of its owner: ``x = offset + scale * y``."""

    kind: Literal["image", "vector"]
    shape: tuple[int, ...]  # as the networks see it: (channels, height, width), or (columns,)
    classes: tuple[str, ...] = ()
    dtype: str = "uint8"  # of the owner's data
    layout: str = "HWC"  # order of the owner's axes: HWC, CHW, HW, or C for vectors
    offset: tuple[float, ...] = (127.5,)  # one number, or one per column
    scale: tuple[float, ...] = (127.5,)
    condition: "Spec | None" = None  # of the picture that comes with each item, where the data are pairs
    attributes: tuple[Attribute, ...] = ()
