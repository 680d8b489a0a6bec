"""How many different things there are: what is missed, what is drawn too often, what comes twice."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.checks import checked, checked_pair
from ganlib.metrics.neighbours import blocks, nearest, squared_distances

ITEMS_PER_CELL = 5
"""On each side at least, on average: below that the normal approximation of the test is poor."""

LLOYD_STEPS = 30
"""At most; the centres need not be settled, only the same for both sides."""


@dataclass(frozen=True, eq=False)
class DifferentCells:
    """The share of cells that hold another share of the fakes than of the reals, and what each cell holds.

    `differs` is the test of each cell. Where `z` is negative fakes are missing, where it is positive they are too many.
    """

    share: float
    real_shares: Float[Tensor, " cells"]
    fake_shares: Float[Tensor, " cells"]
    z: Float[Tensor, " cells"]
    differs: Bool[Tensor, " cells"]
    real_cells: Int64[Tensor, " n"]
    fake_cells: Int64[Tensor, " m"]
    centres: Float[Tensor, "cells d"]

    def cells_of(self, items: Float[Tensor, "k d"]) -> Int64[Tensor, " k"]:
        """The cell that each item lies in."""
        return nearest(items, self.centres)[1][:, 0]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The share of samples that come twice, and how far and which the nearest other sample of each is."""

    share: float
    threshold: float
    distances: Float[Tensor, " n"]
    indices: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Support:
    """How many different items a generator seems to draw from; without a collision only that it is at least `low`."""

    estimate: float | None
    low: float
    high: float | None

    def __str__(self) -> str:
        if self.estimate is None or self.high is None:
            return f"at least {self.low:.3g}"
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def vendi_score(features: Float[Tensor, "n d"]) -> float:
    """The number of equally frequent, wholly different items that would be as diverse: from 1 to n, at most d.

    ``exp(−Σ λ log λ)``, λ the eigenvalues of ``K/n`` with the cosine kernel. Friedman & Dieng 2022, arXiv:2210.02410.
    Features that share a large mean point one way and score near 1: compare with the same number of real items.
    DataError for a row of zeros, which has no direction.
    """
    features = checked(features, "item")
    norms = features.norm(dim=1, keepdim=True)
    if not norms.all():
        raise DataError(f"item features: row {int((norms[:, 0] == 0).nonzero()[0])} is all zeros; leave it out")
    features = features / norms
    # The Gram matrix of the rows and that of the columns have the same eigenvalues but zeros.
    gram = features.T @ features if len(features) > features.shape[1] else features @ features.T
    eigenvalues = torch.linalg.eigvalsh(gram / len(features)).clamp(min=0)
    return math.exp(-torch.xlogy(eigenvalues, eigenvalues).sum().item())


def different_cells(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    *,
    rng: torch.Generator,
    num_cells: int = 100,
    significance: float = 0.05,
) -> DifferentCells:
    """NDB/K: the share of k-means cells of the reals whose shares of reals and fakes differ; fresh reals: about 0.05.

    ``z = (p_fake − p_real) / √(p(1 − p)(1/n + 1/m))`` with the pooled share p, two-sided. Richardson & Weiss 2018,
    arXiv:1805.12462. There all reals make the cells and are then counted in them, though items fill the cells that they
    made unlike fresh ones do: of 2048 features, 3 in 4 cells then differ for reals too. Here one half of the reals,
    drawn at random, makes the cells, and the other is counted. `real_cells` are those of all reals, for pictures.
    DataError for too few items for so many cells, or fewer different reals than cells.
    """
    if num_cells < 2 or not 0 < significance < 1:
        raise UsageError(f"num_cells={num_cells}, significance={significance}: at least 2 cells, and between 0 and 1")
    real, fake = checked_pair(real, fake, min_items=ITEMS_PER_CELL * num_cells)
    checked(real, "real", min_items=2 * ITEMS_PER_CELL * num_cells)
    origin = real.mean(0)
    real, fake = real - origin, fake - origin
    making, counted = torch.randperm(len(real), generator=rng, device=rng.device).to(real.device).tensor_split(2)
    centres = _settled(real[making], _spread_out(real[making], num_cells, rng))
    real_cells, fake_cells = _cells(real, centres)[0], _cells(fake, centres)[0]
    real_counts, fake_counts = (
        torch.bincount(cells, minlength=num_cells).double() for cells in (real_cells[counted], fake_cells)
    )
    real_shares, fake_shares = real_counts / len(counted), fake_counts / len(fake)
    pooled = (real_counts + fake_counts) / (len(counted) + len(fake))
    error = (pooled * (1 - pooled) * (1 / len(counted) + 1 / len(fake))).sqrt()
    z = torch.where(error > 0, (fake_shares - real_shares) / error, 0.0)
    differs = z.abs() > NormalDist().inv_cdf(1 - significance / 2)
    share = differs.double().mean().item()
    return DifferentCells(share, real_shares, fake_shares, z, differs, real_cells, fake_cells, centres + origin)


def duplicates(
    samples: Float[Tensor, "n d"], training: Float[Tensor, "t d"], *, share_of_median: float = 0.1
) -> Duplicates:
    """Samples that have another sample nearer than a tenth of the median distance between neighbours in training data.

    ``mean_s 1[NN₁(s; S∖s) < 0.1 median_t NN₁(t; T∖t)]``, as good as 0 for real data. DataError where most training
    items are copies of each other, so that the threshold would be 0.
    """
    samples, training = checked(samples, "sample", min_items=2), checked(training, "training", min_items=2)
    threshold = share_of_median * nearest(training, training, exclude_self=True)[0].median().item()
    if not threshold > 0:
        raise DataError(
            f"training features: half of the rows have a copy, so the threshold for duplicates is {threshold}; "
            "give each training item once and a share_of_median above 0"
        )
    distances, indices = (found[:, 0] for found in nearest(samples, samples, exclude_self=True))
    return Duplicates((distances < threshold).double().mean().item(), threshold, distances, indices)


def colliding_pairs(samples: Float[Tensor, "n d"], threshold: float, *, block_items: int = 2048) -> int:
    """How many pairs of samples are nearer than a threshold, such as that of :func:`duplicates`.

    In the product form: a threshold below a millionth of the spread of the samples is lost in rounding.
    """
    samples = checked(samples, "sample", min_items=2)
    samples = samples - samples.mean(0)
    pairs = 0
    for rows in blocks(len(samples), block_items):
        for columns in blocks(len(samples), block_items):
            if columns.start >= rows.start:
                near = squared_distances(samples[rows], samples[columns]) < threshold**2
                pairs += int((near.triu(1) if rows == columns else near).sum())
    return pairs


def support_size(colliding_pairs: int, num_samples: int, *, confidence: float = 0.95) -> Support:
    """How many equally likely items would give so many colliding pairs among so many samples; fewer if not equally.

    Of N items ``m(m − 1)/2N`` pairs collide on average, so ``N = m(m − 1)/2c``: the birthday paradox of Arora & Zhang
    2017, arXiv:1706.08224, by the number of collisions rather than their mere presence. Bounds from the Poisson
    distribution of c (Garwood 1936, doi:10.1093/biomet/28.3-4.437). Frequent items collide more: the estimate is
    1/Σp², so that of an uneven generator is a lower bound of its support.
    """
    from scipy.special import gammaincinv

    pairs = num_samples * (num_samples - 1) // 2
    if num_samples < 2 or not 0 <= colliding_pairs <= pairs or not 0 < confidence < 1:
        raise UsageError(
            f"colliding_pairs={colliding_pairs}, num_samples={num_samples}, confidence={confidence}: accepted are from "
            "0 to all pairs, at least 2 samples, a confidence between 0 and 1"
        )
    tail = (1 - confidence) / 2 if colliding_pairs else 1 - confidence
    low = pairs / float(gammaincinv(colliding_pairs + 1, 1 - tail))
    if not colliding_pairs:
        return Support(None, low, None)
    return Support(pairs / colliding_pairs, max(1.0, low), pairs / float(gammaincinv(colliding_pairs, tail)))


def _spread_out(items: Float[Tensor, "n d"], num_cells: int, rng: torch.Generator) -> Float[Tensor, "cells d"]:
    """Items as first centres, each drawn with the squared distance to those before: Arthur & Vassilvitskii 2007."""
    draws = torch.rand(num_cells, generator=rng, device=rng.device, dtype=torch.float64).to(items.device)
    chosen = [int(draws[0] * len(items))]
    distance = (items - items[chosen[0]]).square().sum(1)
    for draw in draws[1:]:
        total = distance.cumsum(0)
        if not total[-1] > 0:
            raise DataError(f"{len(chosen)} different real items for {num_cells} cells; give more or ask for fewer")
        # The last item that adds to the sum is the bound, should rounding reach beyond it.
        drawn = int(torch.searchsorted(total, draw * total[-1], right=True))
        chosen.append(min(drawn, int((distance > 0).nonzero()[-1])))
        distance = torch.minimum(distance, (items - items[chosen[-1]]).square().sum(1))
    return items[chosen]


def _settled(items: Float[Tensor, "n d"], centres: Float[Tensor, "cells d"]) -> Float[Tensor, "cells d"]:
    """The centres moved to the means of their cells, by turns (Lloyd 1982, doi:10.1109/TIT.1982.1056489)."""
    before = None
    for _ in range(LLOYD_STEPS):
        cells, distance = _cells(items, centres)
        if before is not None and torch.equal(cells, before):
            break
        before = cells
        counts = torch.bincount(cells, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, cells, items)
        moved = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        moved[empty] = items[distance.topk(len(empty)).indices]
        centres = moved
    return centres


def _cells(items: Float[Tensor, "n d"], centres: Float[Tensor, "cells d"]) -> tuple[Tensor, Tensor]:
    """The nearest centre of each item, and how far it is, squared."""
    found = [squared_distances(items[rows], centres).min(1) for rows in blocks(len(items), 8192)]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])
