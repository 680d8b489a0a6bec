"""Distances between two sets of features: pure functions, computed in float64 whatever the features are.

Every number here depends on how many items went in and on what the features are; give both with it.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ganlib.errors import UsageError
from ganlib.metrics.checks import checked_pair
from ganlib.metrics.neighbours import blocks, squared_distances, squared_radii

SVD_LIMIT = 512
"""Up to this width the singular values are computed directly; above, ten times faster, from the Gram matrix."""

ROUNDING = 1e-12
"""Squared distances that differ by less than this share of the squared norms count as equal."""


@dataclass(frozen=True)
class KernelDistance:
    """The mean over the subsets, their standard deviation, and the standard error of the mean.

    `spread` is what other programs print after ±. It does not shrink with the number of items, so it is not the error
    of `mean`; that is `standard_error`, None where the subsets are more than half of the items.
    """

    mean: float
    spread: float
    standard_error: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean, by the normal approximation."""
        if self.standard_error is None:
            return None
        return self.mean - 1.96 * self.standard_error, self.mean + 1.96 * self.standard_error


@dataclass(frozen=True)
class Neighbourhood:
    """How far the balls around the items of each set hold the items of the other. Real data does not score 1.

    `balls` is in how many balls of reals each fake lies; `covered` and `recalled` say which reals count for the two.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    balls: Int64[Tensor, " fakes"] = field(default_factory=lambda: torch.zeros(0), repr=False, compare=False)
    covered: Bool[Tensor, " reals"] = field(default_factory=lambda: torch.zeros(0), repr=False, compare=False)
    recalled: Bool[Tensor, " reals"] = field(default_factory=lambda: torch.zeros(0), repr=False, compare=False)


def frechet_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """The squared distance between the normal distributions with the moments of the two sets; biased up for few items.

    ``‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½)``; with ``Σ = LLᵀ`` the last trace is the nuclear norm of ``L₁ᵀL₂``.
    Heusel et al. 2017, arXiv:1706.08500. DataError for fewer than 2 items, other widths, non-finite features.
    """
    real, fake = checked_pair(real, fake, min_items=2)
    shift = real.mean(0) - fake.mean(0)
    return frechet_of_factors(shift, covariance_factor(real), covariance_factor(fake))


def frechet_of_factors(
    shift: Float[Tensor, " d"], real_factor: Float[Tensor, "d r"], fake_factor: Float[Tensor, "d s"]
) -> float:
    """The same from the difference of the means and a factor L of each covariance ``LLᵀ``."""
    traces = real_factor.square().sum() + fake_factor.square().sum()
    # The distance of equal sets is zero only up to rounding, which may fall below it.
    distance = shift.square().sum() + traces - 2 * _nuclear_norm(real_factor.T @ fake_factor)
    return max(0.0, distance.item())


def factor_of(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A matrix L with ``LLᵀ`` the covariance."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    # Dependent or constant features: Cholesky needs full rank, the slower eigenvalues do not.
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def kernel_distance(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    rng: torch.Generator,
) -> KernelDistance:
    """The squared maximum mean discrepancy, unbiased and so at times negative, with the kernel ``(aᵀb/d + 1)³``.

    Bińkowski et al. 2018, arXiv:1801.01401. The standard error is that of the delete-d jackknife (Shao & Wu 1989,
    doi:10.1214/aos/1176347263), ``spread² (b/(n − b) + 1/num_subsets)`` for subsets of b of the n items of the smaller
    set; it errs to the large side. UsageError for a subset that is larger than a set; DataError for unusable features.
    """
    if num_subsets < 1 or subset_size < 2:
        raise UsageError(f"num_subsets={num_subsets}, subset_size={subset_size}: accepted are at least 1 and 2")
    real, fake = checked_pair(real, fake, min_items=2)
    num_items = min(len(real), len(fake))
    if subset_size > num_items:
        raise UsageError(f"subset_size={subset_size} but a set has {num_items} items; pass at most {num_items // 2}")
    values = []
    for _ in range(num_subsets):
        real_rows, fake_rows = (torch.randperm(len(x), generator=rng, device=rng.device) for x in (real, fake))
        chosen = (x[rows[:subset_size].to(x.device)] for x, rows in ((real, real_rows), (fake, fake_rows)))
        values.append(_squared_discrepancy(*chosen))
    subsets = torch.stack(values)
    spread = subsets.std().item() if num_subsets > 1 else 0.0
    error = None
    # Larger subsets overlap too much: drawn from all items they are all equal, and their spread says nothing.
    if num_subsets > 1 and 2 * subset_size <= num_items:
        error = spread * math.sqrt(subset_size / (num_items - subset_size) + 1 / num_subsets)
    return KernelDistance(subsets.mean().item(), spread, error)


def neighbourhood(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], *, k: int = 5, block_items: int = 2048
) -> Neighbourhood:
    """Whether items lie in balls that reach to the k-th neighbour within a set, ``NN_k``; in constant memory.

    ``precision = mean_s 1[∃r: d(s,r) ≤ NN_k(r)]``, ``recall = mean_r 1[∃s: d(r,s) ≤ NN_k(s)]``: Kynkäänniemi et al.
    2019, arXiv:1904.06991. ``density = mean_s Σ_r 1[d(s,r) ≤ NN_k(r)] / k``, ``coverage = mean_r 1[min_s d(r,s) ≤
    NN_k(r)]``: Naeem et al. 2020, arXiv:2002.09797. DataError for fewer than k + 1 items or unusable features.
    """
    if k < 1 or block_items < 1:
        raise UsageError(f"k={k}, block_items={block_items}: both must be at least 1")
    real, fake = checked_pair(real, fake, min_items=k + 1)
    # Distances do not depend on the origin, their rounding does. The reals choose it: a fake may be astray.
    origin = real.mean(0)
    real, fake = real - origin, fake - origin
    real_radius, fake_radius = squared_radii(real, k, block_items), squared_radii(fake, k, block_items)
    balls = torch.zeros(len(fake), dtype=torch.int64, device=real.device)  # of reals, around each fake
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = torch.zeros_like(covered)
    for s in blocks(len(fake), block_items):
        for r in blocks(len(real), block_items):
            distance = squared_distances(fake[s], real[r], margin=ROUNDING)
            in_real = distance <= real_radius[r]
            in_fake = distance <= fake_radius[s, None]
            balls[s] += in_real.sum(1)
            covered[r] |= in_real.any(0)
            recalled[r] |= in_fake.any(0)
    return Neighbourhood(
        precision=(balls > 0).double().mean().item(),
        recall=recalled.double().mean().item(),
        density=balls.double().mean().item() / k,
        coverage=covered.double().mean().item(),
        balls=balls,
        covered=covered,
        recalled=recalled,
    )


def covariance_factor(features: Float[Tensor, "n d"]) -> Float[Tensor, "d r"]:
    """A matrix L with ``LLᵀ`` the covariance, no wider than it must be."""
    num_items, width = features.shape
    mean = features.mean(0)
    if num_items < width:
        return (features - mean).T / math.sqrt(num_items - 1)
    # Centre first, block by block: subtracting the squared mean afterwards cancels where means are large.
    covariance = features.new_zeros(width, width)
    for rows in blocks(num_items, 4096):
        centred = features[rows] - mean
        covariance += centred.T @ centred
    return factor_of(covariance / (num_items - 1))


def _nuclear_norm(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, ""]:
    """The sum of the singular values."""
    if min(matrix.shape) <= SVD_LIMIT:
        return torch.linalg.svdvals(matrix).sum()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()


def _squared_discrepancy(real: Float[Tensor, "b d"], fake: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """The unbiased estimate from two sets of one size: items are not compared with themselves."""
    size = len(real)
    value = -2 * _kernel(real, fake).mean()
    for features in (real, fake):
        within = _kernel(features, features)
        value = value + (within.sum() - within.diagonal().sum()) / (size * (size - 1))
    return value


def _kernel(a: Float[Tensor, "rows d"], b: Float[Tensor, "columns d"]) -> Float[Tensor, "rows columns"]:
    """``(aᵀb/d + 1)³``, by products in place: a power of 3 takes most of the time of the whole score."""
    base = (a @ b.T).div_(a.shape[1]).add_(1)
    return (base * base).mul_(base)
