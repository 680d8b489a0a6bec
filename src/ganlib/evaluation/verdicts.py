"""The rules that turn figures into verdicts, with their limits in one place.

A verdict is given where the whole 95 % interval lies beyond a limit, so that chance alone seldom gives a bad one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ganlib.evaluation.result import Verdict
from ganlib.metrics.intervals import area_under_curve, detection_rate
from ganlib.metrics.report import Score


@dataclass(frozen=True)
class Limits:
    """What is tolerated. Ratios are to what fresh real data scores; shares are of all samples or items."""

    quality_warn: float = 0.9  # precision and density
    quality_fail: float = 0.7
    coverage_warn: float = 0.9  # coverage and recall
    coverage_fail: float = 0.7
    missed_warn: float = 0.05  # share of real data in regions drawn less than half as often
    missed_fail: float = 0.25
    duplicates_warn: float = 0.01
    duplicates_fail: float = 0.1
    copies_warn: float = 0.005
    copies_fail: float = 0.015
    found_warn: float = 0.02  # share of members found while accusing 1 % of the others
    found_fail: float = 0.05
    recognised: float = 0.95  # area under the detector's curve
    nothing_found: float = 0.55  # its lower bound, below which the detector is of no use
    strange_precision: float = 0.5  # as ratios: below either, coverage cannot be judged
    strange_density: float = 0.25


def worst(verdicts: Mapping[str, Verdict]) -> tuple[Verdict, list[str]]:
    """The worst verdict and the names of the figures that gave it; NOT MEASURED only where all are."""
    for verdict in ("FAIL", "WARN", "PASS"):
        names = [name for name, given in verdicts.items() if given == verdict]
        if names:
            return verdict, names
    return "NOT MEASURED", list(verdicts)


def ratio_verdict(score: Score, warn: float, fail: float) -> Verdict:
    """FAIL or WARN where even the upper bound falls short of that share of what real data scores."""
    if score.value is None or not score.real_baseline:
        return "NOT MEASURED"
    ratio = (score.value if score.high is None else score.high) / score.real_baseline
    return "FAIL" if ratio < fail else "WARN" if ratio < warn else "PASS"


def share_verdict(score: Score, warn: float, fail: float) -> Verdict:
    """FAIL or WARN where even the lower bound exceeds that share."""
    if score.value is None:
        return "NOT MEASURED"
    least = score.value if score.low is None else score.low
    return "FAIL" if least > fail else "WARN" if least > warn else "PASS"


def copies_verdict(score: Score, limits: Limits) -> Verdict:
    """By the estimate, where the lower bound rules out that it is chance: a small set cannot bound a small rate."""
    if score.value is None:
        return "NOT MEASURED"
    low = score.low or 0.0
    if score.value >= limits.copies_fail and low > limits.copies_fail / 3:
        return "FAIL"
    return "WARN" if score.value >= limits.copies_warn and low > 0 else "PASS"


def recognised_verdict(area: Score, limits: Limits) -> Verdict:
    """PASS where a detector recognises the samples, or finds nothing that tells them from real items; WARN between."""
    if area.value is None or area.low is None:
        return "NOT MEASURED"
    if area.value >= limits.recognised or area.low <= limits.nothing_found:
        return "PASS"
    return "WARN"


def compared(scores: Mapping[str, Score], names: list[str]) -> str:
    """These figures beside those of real data, in words."""
    told = [f"{name} {scores[name].value:.2f} beside {scores[name].real_baseline:.2f}" for name in names]
    return ", ".join(told)


def too_few(needed: int, given: int, what: str = "items on each side") -> Score:
    """A figure that is not measured, and how many items it takes."""
    return Score(None, note=f"needs at least {needed} {what}, has {given}")


def told_apart(name: str, ours: Tensor, others: Tensor, note: str = "") -> dict[str, Score]:
    """How well scores tell two groups apart: the area under the curve, the share found at one false alarm in 100."""
    area, rate = area_under_curve(ours, others), detection_rate(ours, others)
    return {
        f"{name}_auc": Score(area.value, area.low, area.high, 0.5, note),
        f"{name}_found": Score(rate.value, rate.low, rate.high, 0.01, note),
    }
