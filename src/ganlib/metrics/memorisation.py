"""Did the generator copy? Distances from its samples to the training items, beside those of items it never saw.

Every function takes distances to the nearest training item (:func:`ganlib.metrics.neighbours.nearest`), so that the
search is made once. A number alone says nothing: what held-out real items score is the measure of it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.intervals import Interval, clopper_pearson

CLOSE_SHARE = 0.001
"""The share of held-out items that lie as close to a training item as a copy does."""

MIN_CELL_ITEMS = 20
"""With fewer items of a kind in a cell its rank statistic is not near normal."""


@dataclass(frozen=True)
class CopyRate:
    """The share of samples that are copies, an interval of 95 % or more, and which samples lie within the threshold."""

    value: float
    interval: Interval
    threshold: float
    close: Bool[Tensor, " n"]


@dataclass(frozen=True)
class DataCopying:
    """C_T: far below 0 is copying, far above 0 is underfitting; `cells` is how many had items enough."""

    value: float
    interval: Interval
    cells: int


def copy_rate(
    fake: Float[Tensor, " n"], held_out: Float[Tensor, " m"], *, close_share: float = CLOSE_SHARE
) -> CopyRate:
    """The share of samples closer to a training item than all but one in a thousand held-out items are.

    ``π = (F_s(τ) − F_h(τ)) / (1 − F_h(τ))``: the samples within τ that are more than chance puts there, τ the quantile
    `close_share` of the held-out distances, at least the smallest one. Held-out items that are themselves in the
    training data raise F_h and are taken off. The interval joins the Clopper-Pearson bounds of both shares and so holds
    more often than 95 % of the time. DataError for no distances, or for one that is not finite.
    """
    if not 0 < close_share < 1:
        raise UsageError(f"close_share={close_share}: accepted is a number between 0 and 1")
    fake, held_out = _distances(fake, "sample", 1), _distances(held_out, "held-out", 1)
    rank = max(1, math.floor(close_share * len(held_out) + 1e-9))
    threshold = held_out.sort().values[rank - 1]
    close = fake <= threshold
    found, chance = int(close.sum()), int((held_out <= threshold).sum())
    of_fake, by_chance = clopper_pearson(found, len(fake)), clopper_pearson(chance, len(held_out))
    interval = Interval(_excess(of_fake.low, by_chance.high), _excess(of_fake.high, by_chance.low))
    value = _excess(found / len(fake), chance / len(held_out))
    return CopyRate(value, interval, threshold.item(), close)


def authenticity(fake: Float[Tensor, " n"], neighbour_spacing: Float[Tensor, " n"]) -> float:
    """The share of samples farther from their nearest training item than that item is from its own nearest one.

    `neighbour_spacing` is, for each sample, the distance from its nearest training item to the rest of the training
    data. Alaa et al. 2022, arXiv:2102.08921. Fresh real data does not score 1.
    """
    fake, spacing = _distances(fake, "sample", 1), _distances(neighbour_spacing, "spacing", 1)
    if len(fake) != len(spacing):
        raise DataError(f"{len(fake)} samples but {len(spacing)} spacings; give one for each")
    return (fake > spacing).double().mean().item()


def data_copying(
    fake: Float[Tensor, " n"],
    held_out: Float[Tensor, " m"],
    fake_cells: Int64[Tensor, " n"],
    held_out_cells: Int64[Tensor, " m"],
) -> DataCopying | None:
    """C_T: the Mann-Whitney z of the samples' distances against the held-out ones, averaged over cells of the space.

    Cells weigh as many held-out items as they have; those with fewer than 20 of either do not count. Its variance under
    no copying is ``Σ w²``. Local copying may escape it: it never clears a model alone. None where no cell has enough.
    Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675; they search the training items of the same cell alone and do
    not narrow the deviation for ties. DataError for distances that are unusable or not as many as the cells.
    """
    fake, held_out = _distances(fake, "sample", 1), _distances(held_out, "held-out", 1)
    for distances, cells in ((fake, fake_cells), (held_out, held_out_cells)):
        if cells.shape != distances.shape:
            raise DataError(f"{len(distances)} distances but cells of shape {tuple(cells.shape)}; give one for each")
    scores, weights = [], []
    for cell in held_out_cells.unique().tolist():
        ours, theirs = fake[fake_cells == cell], held_out[held_out_cells == cell]
        if min(len(ours), len(theirs)) >= MIN_CELL_ITEMS:
            scores.append(_mann_whitney_z(ours, theirs))
            weights.append(len(theirs))
    if not scores:
        return None
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    value = (shares * torch.tensor(scores, dtype=torch.float64)).sum().item()
    half = 1.96 * shares.square().sum().sqrt().item()
    return DataCopying(value, Interval(value - half, value + half), len(scores))


def _mann_whitney_z(ours: Float[Tensor, " n"], theirs: Float[Tensor, " m"]) -> float:
    """How much larger ours are, in standard deviations of the statistic; ties count half, and narrow the deviation."""
    n, m = len(ours), len(theirs)
    ordered = theirs.sort().values
    below, up_to = (torch.searchsorted(ordered, ours, right=right).double() for right in (False, True))
    wins = ((below + up_to) / 2).sum().item()
    ties = torch.cat([ours, theirs]).unique(return_counts=True)[1].double()
    total = n + m
    variance = n * m / 12 * (total + 1 - ((ties**3 - ties).sum() / (total * (total - 1))).item())
    return (wins - n * m / 2) / math.sqrt(variance) if variance > 0 else 0.0


def _excess(share: float, by_chance: float) -> float:
    return max(0.0, (share - by_chance) / (1 - by_chance)) if by_chance < 1 else 0.0


def _distances(given: Tensor, name: str, min_items: int) -> Float[Tensor, " n"]:
    if given.ndim != 1 or len(given) < min_items or not given.isfinite().all():
        raise DataError(
            f"{name} distances of shape {tuple(given.shape)}; accepted is one row of {min_items} or more finite numbers"
        )
    return given.detach().double()
