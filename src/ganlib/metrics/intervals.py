"""How sure a share is, and how well scores tell two groups apart: intervals that hold for few items too."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError, UsageError


@dataclass(frozen=True)
class Interval:
    """Two bounds that are meant to hold the true value between them."""

    low: float
    high: float


@dataclass(frozen=True)
class AreaUnderCurve:
    """The chance that a positive scores above a negative, ties counted half; ½ is guessing."""

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class DetectionRate:
    """The share of positives that score above `threshold`, which the stated share of negatives may do at most."""

    value: float
    low: float
    high: float
    threshold: float
    false_positives: int  # among the negatives, at this threshold


def wilson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """The interval of a share from the score test; right on average, now and then a little narrow near 0 and 1.

    ``(p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)``. Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    z, share = _normal_quantile(confidence), _share(successes, trials)
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    stretch = 1 + z * z / trials
    # By rounding the bound of a share of 0 or 1 may miss it.
    low = 0.0 if successes == 0 else (middle - half) / stretch
    return Interval(low, 1.0 if successes == trials else (middle + half) / stretch)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """The interval of a share from the binomial tails: never too narrow, so the one for a bound that must hold.

    Quantiles of Beta(s, n − s + 1) and Beta(s + 1, n − s). Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    from scipy.special import betaincinv

    _share(successes, trials)
    tail = _tail(confidence)
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(low, high)


def area_under_curve(
    positives: Float[Tensor, " n"], negatives: Float[Tensor, " m"], *, confidence: float = 0.95
) -> AreaUnderCurve:
    """The area under the receiver operating characteristic, with the standard error of DeLong et al. 1988.

    ``A = mean ψ(x, y)``, ψ = 1 where x > y, ½ where equal; ``s² = var_x(mean_y ψ)/n + var_y(mean_x ψ)/m``,
    doi:10.2307/2531595. The interval is normal on the scale of ``log(A/(1 − A))``. Where s is 0, as for groups that do
    not overlap, it comes from pairs that share no item: ``A ± (1 − tail^(1/min(n, m)))``. DataError for fewer than 2
    items in a group or scores that are NaN.
    """
    above, below = _scores(positives, "positive", 2), _scores(negatives, "negative", 2)
    by_positive = _share_below(above, below)
    by_negative = 1 - _share_below(below, above)
    value = by_positive.mean().item()
    error = math.sqrt(by_positive.var().item() / len(above) + by_negative.var().item() / len(below))
    if error < 1e-9 or not 0 < value < 1:
        half = 1 - _tail(confidence) ** (1 / min(len(above), len(below)))
        return AreaUnderCurve(value, error, max(0.0, value - half), min(1.0, value + half))
    centre, half = math.log(value / (1 - value)), _normal_quantile(confidence) * error / (value * (1 - value))
    return AreaUnderCurve(value, error, _logistic(centre - half), _logistic(centre + half))


def detection_rate(
    positives: Float[Tensor, " n"],
    negatives: Float[Tensor, " m"],
    *,
    false_positive_rate: float = 0.01,
    confidence: float = 0.95,
) -> DetectionRate:
    """The true positive rate at a given false positive rate: the threshold is chosen on the negatives.

    At most ``⌊rate · m⌋`` negatives score above the threshold; one that ties with it does not, nor does a positive.
    The true false positive rate of a threshold that was chosen so is itself uncertain: above the j-th largest of m
    negatives it is at most Beta(j, m − j + 1). So the lower bound is Clopper and Pearson's at a stricter threshold,
    which keeps the rate all but surely, and the upper bound is theirs at a looser one, which surely exceeds it; each
    of the four events has a quarter of ``1 − confidence``. Wide, but right for any distribution: with fewer negatives
    than about ``4.4 / rate`` nothing is proven and the lower bound is 0. DataError for no items or scores that are NaN.
    """
    from scipy.special import betainc

    if not 0 < false_positive_rate < 1:
        raise UsageError(f"false_positive_rate={false_positive_rate}: accepted is a number between 0 and 1")
    above, below = _scores(positives, "positive", 1), _scores(negatives, "negative", 1).sort(descending=True).values
    num_negatives = len(below)
    allowed = min(math.floor(false_positive_rate * num_negatives + 1e-9), num_negatives - 1)
    threshold = below[allowed]
    half_tail = _tail(confidence) / 2
    ranks = torch.arange(1, num_negatives + 1, dtype=torch.float64)
    # That the rate above the j-th largest negative is at most the one asked for, by j: falls as j grows.
    kept = torch.from_numpy(betainc(ranks.numpy(), (num_negatives + 1 - ranks).numpy(), false_positive_rate))
    strict, loose = (kept >= 1 - half_tail).nonzero(), (kept <= half_tail).nonzero()
    tail_confidence = 1 - 2 * half_tail
    low, high = 0.0, 1.0
    if len(strict):
        found = int((above > below[int(strict[-1])]).sum())
        low = clopper_pearson(found, len(above), confidence=tail_confidence).low
    if len(loose):
        found = int((above >= below[int(loose[0])]).sum())
        high = clopper_pearson(found, len(above), confidence=tail_confidence).high
    value = (above > threshold).double().mean().item()
    return DetectionRate(value, low, high, threshold.item(), int((below > threshold).sum()))


def _share_below(scores: Float[Tensor, " n"], others: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """For each score the share of the others below it, ties counted half."""
    others = others.sort().values
    below, up_to = (torch.searchsorted(others, scores, right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(others))


def _scores(scores: Tensor, name: str, min_items: int) -> Float[Tensor, " n"]:
    if scores.ndim != 1 or len(scores) < min_items:
        raise DataError(f"{name} scores of shape {tuple(scores.shape)}; accepted is one row of at least {min_items}")
    if scores.isnan().any():
        raise DataError(f"{name} scores: number {int(scores.isnan().nonzero()[0])} is NaN; leave it out or mend it")
    return scores.detach().to("cpu", torch.float64).contiguous()


def _share(successes: int, trials: int) -> float:
    if trials < 1 or not 0 <= successes <= trials:
        raise UsageError(f"{successes} of {trials}: accepted are at least 1 trial and from 0 to all successes")
    return successes / trials


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence={confidence}: accepted is a number between 0 and 1, such as 0.95")
    return (1 - confidence) / 2


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(1 - _tail(confidence))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
