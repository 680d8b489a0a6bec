"""Whether edited pictures show the numbers that were asked of them, by a reader that learned from real ones."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError
from ganlib.metrics.intervals import Interval

Features = Float[Tensor, "items features"]
Values = Float[Tensor, "items attributes"]

LEAST = 20
"""Items to learn from, or to tell a correlation of; a fifth of the former choose how stiff the reader is."""


@dataclass(frozen=True)
class LinearReader:
    """Numbers as a linear function of standardised features."""

    mean: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    weights: Values
    offset: Float[Tensor, " attributes"]

    def __call__(self, features: Features) -> Values:
        return (features.double() - self.mean) / self.scale @ self.weights + self.offset


def linear_reader(features: Features, values: Values) -> LinearReader:
    """Ridge regression: min ‖X w − y‖² + n λ ‖w‖², λ from 1e-4 to 10 by the error on every fifth item.

    Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634. Raises :class:`DataError` for too few items.
    """
    if len(features) < LEAST:
        raise DataError(f"{len(features)} items to learn attributes from; at least {LEAST} are needed")
    held_out = torch.arange(len(features)) % 5 == 0
    stiffness = min(
        (10.0**power for power in range(-4, 2)),
        key=lambda each: float(
            (_ridge(features[~held_out], values[~held_out], each)(features[held_out]) - values[held_out]).square().sum()
        ),
    )
    return _ridge(features, values, stiffness)


def _ridge(features: Features, values: Values, stiffness: float) -> LinearReader:
    x, y = features.double(), values.double()
    mean, scale, offset = x.mean(0), x.std(0).clamp(min=1e-9), y.mean(0)
    x = (x - mean) / scale
    normal = x.T @ x + len(x) * stiffness * torch.eye(x.shape[1], dtype=x.dtype)
    return LinearReader(mean, scale, torch.linalg.solve(normal, x.T @ (y - offset)), offset)


def correlation(some: Float[Tensor, " items"], others: Float[Tensor, " items"]) -> tuple[float, Interval]:
    """Pearson's, with the 95 % interval of Fisher's transform: tanh(artanh r ± 1.96/√(n − 3)).

    Raises :class:`DataError` for too few items, or where one of the two never changes.
    """
    if len(some) < LEAST:
        raise DataError(f"a correlation of {len(some)} items; at least {LEAST} are needed")
    a, b = (part.double() - part.double().mean() for part in (some, others))
    size = float(a.norm() * b.norm())
    if size == 0:
        raise DataError("a correlation with numbers that are all the same")
    found = max(-1.0, min(1.0, float(a @ b) / size))
    middle, half = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, found))), 1.96 / math.sqrt(len(some) - 3)
    return found, Interval(math.tanh(middle - half), math.tanh(middle + half))
