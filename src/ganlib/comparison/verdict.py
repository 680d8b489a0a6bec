"""One word on a training and its samples, so that none that has collapsed looks like a low score among others."""

from collections.abc import Mapping, Sequence

from ganlib.diagnosis import Finding
from ganlib.evaluation import Answer, Limits
from ganlib.evaluation.verdicts import compared, share_verdict
from ganlib.metrics.report import Score

COLLAPSED_REACH = 0.1
"""A generator whose recall or coverage is below this share of what real data scores has collapsed."""


def verdict_of(findings: Sequence[Finding], good: Answer, covered: Answer) -> tuple[str, str]:
    """A word, and the sentence that explains it.

    ``diverged`` and ``collapsed`` are what the training's own signs of health say (:mod:`ganlib.diagnosis`), or what
    the samples show; ``narrow`` leaves out much of the data, ``poor`` lies apart from them; else ``ok``.
    """
    ill = {finding.kind: finding.text for finding in findings}
    for kind, word in (("stopped", "diverged"), ("divergence", "diverged"), ("collapse", "collapsed")):
        if kind in ill:
            return word, ill[kind]
    if (sign := _collapsed(covered.scores, good)) is not None:
        return "collapsed", sign
    also = f" The discriminator has learned its items by heart: {ill['overfitting']}." if "overfitting" in ill else ""
    if good.verdict == "FAIL":
        return "poor", good.reason + also
    if covered.verdict == "FAIL":
        return "narrow", covered.reason + also
    if good.verdict == "NOT MEASURED":
        return "not judged", good.reason + also
    return "ok", also.strip()


def _collapsed(scores: Mapping[str, Score], good: Answer) -> str | None:
    """What shows that the samples are few: many of them twice, or hardly any real item within reach of good ones."""
    limits = Limits()
    twice = scores.get("duplicates")
    if twice is not None and share_verdict(twice, 1.0, limits.duplicates_fail + (twice.real_baseline or 0.0)) == "FAIL":
        return f"{twice.value:.0%} of the samples come twice."
    precision = good.scores.get("precision")
    if precision is None or (precision.value or 0.0) < limits.strange_precision * (precision.real_baseline or 1.0):
        return None  # far from the data, so that what it covers cannot be told
    for name in ("recall", "coverage"):
        score = scores.get(name)
        if score is not None and score.real_baseline and (score.high or 1.0) < COLLAPSED_REACH * score.real_baseline:
            return f"Hardly any real item is reached: {compared(scores, [name])}."
    return None
