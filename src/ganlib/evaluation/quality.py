"""Are the samples good?"""

import math

import torch

from ganlib.evaluation.coverage import repeats_threshold
from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.result import Answer
from ganlib.evaluation.verdicts import Limits, compared, ratio_verdict, too_few, worst
from ganlib.metrics.diversity import colliding_pairs
from ganlib.metrics.frechet import frechet_estimate, frechet_infinity
from ganlib.metrics.intervals import wilson
from ganlib.metrics.report import MIN_ITEMS, Score
from ganlib.metrics.scores import Neighbourhood, kernel_distance, neighbourhood

K = 5
"""Neighbours that the reach of an item is measured by."""


def neighbourhoods(material: Material) -> tuple[Neighbourhood, Neighbourhood] | None:
    """Those of the samples and of as many fresh items with the reference; None where items are too few."""
    fake, fresh = material.alike()
    if min(len(fake), len(material.reference)) < MIN_ITEMS:
        return None
    reference = material.reference.features
    return neighbourhood(reference, fake.features, k=K), neighbourhood(reference, fresh.features, k=K)


def good(material: Material, near: tuple[Neighbourhood, Neighbourhood] | None, limits: Limits) -> Answer:
    """By precision and density. Distances such as Fréchet's also grow with what is missing, so they do not decide.

    Samples that repeat count once in the intervals: fifty pictures drawn a hundred times each say little of quality.
    """
    fake, fresh = material.alike()
    if near is None:
        needed = too_few(MIN_ITEMS, len(fake), "samples, and twice as many held-out items")
        return Answer("NOT MEASURED", f"Too few items: it {needed.note}.", {"precision": needed})
    ours, real = near
    different = _different(material, fake)
    share = wilson(round(ours.precision * different), different)
    half = 1.96 * ours.balls.double().std().item() / K / math.sqrt(different)
    low, high = min(share.low, ours.precision), max(share.high, ours.precision)
    scores = {
        "precision": Score(ours.precision, low, high, real.precision),
        "density": Score(ours.density, ours.density - half, ours.density + half, real.density),
    }
    verdict, names = worst(
        {name: ratio_verdict(score, limits.quality_warn, limits.quality_fail) for name, score in scores.items()}
    )
    reason = "Samples lie among real items as often as real ones do."
    if verdict != "PASS":
        much = "Far fewer" if verdict == "FAIL" else "Fewer"
        reason = f"{much} samples than real items lie among real items: {compared(scores, names)}."
    return Answer(verdict, reason, scores | _distances(material, fake, fresh))


def _distances(material: Material, fake: Part, fresh: Part) -> dict[str, Score]:
    """Fréchet and kernel distances to the reference, of the samples and of fresh items."""
    reference, seed = material.reference.features, material.seed
    width, count = reference.shape[1], min(len(material.reference), len(fake))
    scores: dict[str, Score] = {}
    for name, needed, measure in (
        ("frechet", max(width + 1, 40), frechet_estimate),
        ("frechet_infinity", max(4 * width, 300), frechet_infinity),
    ):
        if count < needed:
            scores[name] = too_few(needed, count)
            continue
        ours, real = (measure(reference, part.features, rng=_rng(seed)) for part in (fake, fresh))
        scores[name] = Score(ours.value, ours.low, ours.high, real.value)
    size = min(1000, count // 2)
    ours, real = (kernel_distance(reference, part.features, subset_size=size, rng=_rng(seed)) for part in (fake, fresh))
    low, high = ours.interval or (None, None)
    scores["kernel"] = Score(ours.mean, low, high, real.mean)
    return scores


def _different(material: Material, fake: Part) -> int:
    """As how many different samples these count: n / (1 + 2c/n), with c pairs that collide."""
    threshold = repeats_threshold(material)
    if threshold is None:
        return len(fake)
    pairs = colliding_pairs(fake.features, threshold)
    return max(2, round(len(fake) / (1 + 2 * pairs / len(fake))))


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
