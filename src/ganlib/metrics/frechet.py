"""How sure a Fréchet distance is, and what it would be of endless items."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.checks import checked_pair
from ganlib.metrics.scores import covariance_factor, factor_of, frechet_distance, frechet_of_factors

SMALLEST_SHARE = 0.1
"""Of the items, in the smallest subset of the extrapolation."""

ITEMS_PER_FEATURE = 2
"""In the smallest subset at least: with fewer the bias is no longer a straight line in 1/n."""


@dataclass(frozen=True)
class FrechetEstimate:
    """A distance, its standard error, and its 95 % interval."""

    value: float
    standard_error: float
    low: float
    high: float


def frechet_estimate(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], *, rng: torch.Generator, groups: int = 20
) -> FrechetEstimate:
    """The Fréchet distance of these items with an interval for its mean over sets of as many items.

    The interval says nothing about the bias, which is of the number of items: compare sets of one size. Delete-group
    jackknife on each side, ``s² = Σ (G − 1)/G Σ_g (F₋g − F̄)²``, bounds by Student's t with G − 1 degrees of freedom:
    Shao & Wu 1989, doi:10.1214/aos/1176347263. Groups are drawn at random, and their moments computed once, so that
    each of the 2G deletions costs as much as a distance of few items. DataError for fewer than 2 items a group.
    """
    from scipy.special import stdtrit

    if groups < 2:
        raise UsageError(f"groups={groups}: accepted is at least 2, such as 20")
    real, fake = checked_pair(real, fake, min_items=2 * groups)
    value = frechet_distance(real, fake)
    variance = _deletion_variance(real, fake, groups, rng) + _deletion_variance(fake, real, groups, rng)
    error = math.sqrt(variance)
    half = float(stdtrit(groups - 1, 0.975)) * error
    return FrechetEstimate(value, error, max(0.0, value - half), value + half)


def frechet_infinity(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    *,
    rng: torch.Generator,
    num_sizes: int = 15,
    keep_reals: bool = False,
    groups: int = 20,
) -> FrechetEstimate:
    """The Fréchet distance extrapolated to endless items; it and its bounds may fall below 0 by chance.

    The bias is a line in 1/n: the distances of random subsets of `num_sizes` sizes are fitted by ``a + b/n``, and a is
    given. Chong & Forsyth 2020, arXiv:1911.07023. There only the fakes are cut down, as with `keep_reals`, which keeps
    the bias of the reals; here both are, in proportion. There all sizes count alike; here they have the weight n²,
    since the error of a distance falls as fast as 1/n and small sets bend the line. The standard error adds that of
    the fit, which sees the draw of the subsets, and the jackknife's of :func:`frechet_estimate`, which sees the draw
    of the items. DataError for fewer than 3 items per feature.
    """
    from scipy.special import stdtrit

    if num_sizes < 3:
        raise UsageError(f"num_sizes={num_sizes}: accepted is at least 3, such as 15")
    real, fake = checked_pair(real, fake, min_items=2 * groups)
    fewest, width = len(fake) if keep_reals else min(len(real), len(fake)), real.shape[1]
    smallest = max(SMALLEST_SHARE, ITEMS_PER_FEATURE * width / fewest, 2 / fewest)
    if smallest > ITEMS_PER_FEATURE / 3:
        raise DataError(f"{fewest} items of {width} features; extrapolation needs at least {3 * width}: give more")
    inverse, distances = [], []
    for share in torch.linspace(smallest, 1, num_sizes, dtype=torch.float64).tolist():
        some_fakes = _some(fake, share, rng)
        some_reals = real if keep_reals else _some(real, share, rng)
        inverse.append(1 / len(some_fakes))
        distances.append(frechet_distance(some_reals, some_fakes))
    value, fit_error = _intercept(torch.tensor(inverse, dtype=torch.float64), torch.tensor(distances).double())
    variance = _deletion_variance(real, fake, groups, rng) + _deletion_variance(fake, real, groups, rng)
    error = math.sqrt(fit_error**2 + variance)
    half = float(stdtrit(min(groups - 1, num_sizes - 2), 0.975)) * error
    return FrechetEstimate(value, error, value - half, value + half)


def _some(features: Tensor, share: float, rng: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(features), generator=rng, device=rng.device)[: round(share * len(features))]
    return features[chosen.to(features.device)]


def _intercept(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> tuple[float, float]:
    """That of the line through points whose errors grow as x, and its standard error."""
    weights = x**-2
    middle = (weights * x).sum() / weights.sum()
    level = (weights * y).sum() / weights.sum()
    spread = (weights * (x - middle).square()).sum()
    slope = (weights * (x - middle) * y).sum() / spread
    residual = y - level - slope * (x - middle)
    noise = (weights * residual.square()).sum() / (len(x) - 2)
    error = (noise * (1 / weights.sum() + middle.square() / spread)).sqrt()
    return (level - slope * middle).item(), error.item()


def _deletion_variance(
    changed: Float[Tensor, "n d"], kept: Float[Tensor, "m d"], groups: int, rng: torch.Generator
) -> float:
    """The jackknife variance of the distance over the draw of the items of `changed`."""
    order = torch.randperm(len(changed), generator=rng, device=rng.device).to(changed.device)
    mean, kept_mean = changed.mean(0), kept.mean(0)
    kept_factor = covariance_factor(kept)
    sums, scatters = [], []
    for rows in order.tensor_split(groups):
        centred = changed[rows] - mean
        sums.append((len(rows), centred.sum(0)))
        scatters.append(centred.T @ centred)
    scatter = torch.stack(scatters).sum(0)
    distances = []
    for (size, total), part in zip(sums, scatters, strict=True):
        rest = len(changed) - size
        shift = -total / rest
        covariance = (scatter - part - rest * torch.outer(shift, shift)) / (rest - 1)
        distances.append(frechet_of_factors(mean + shift - kept_mean, factor_of(covariance), kept_factor))
    deleted = torch.tensor(distances, dtype=torch.float64)
    return (groups - 1) / groups * (deleted - deleted.mean()).square().sum().item()
