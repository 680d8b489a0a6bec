"""The five questions: each function computes its figures from the parts and answers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.result import Answer
from ganlib.evaluation.verdicts import (
    Limits,
    copies_verdict,
    ratio_verdict,
    recognised_verdict,
    share_verdict,
    worst,
)
from ganlib.metrics.detector import Detector, matched
from ganlib.metrics.diversity import colliding_pairs, different_cells, duplicates, support_size, vendi_score
from ganlib.metrics.frechet import frechet_estimate, frechet_infinity
from ganlib.metrics.intervals import area_under_curve, detection_rate, wilson
from ganlib.metrics.membership import domias, gan_leaks, gan_leaks_calibrated
from ganlib.metrics.memorisation import authenticity, copy_rate, data_copying
from ganlib.metrics.neighbours import nearest
from ganlib.metrics.report import MIN_ITEMS, Score
from ganlib.metrics.scores import Neighbourhood, kernel_distance, neighbourhood

MIN_DISTANCES, MIN_ATTACKED, MIN_DETECTED = 200, 500, 100
"""Fewer held-out items than this leave copies, members or the detector NOT MEASURED."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What the pictures of the page are chosen by: numbers of items within their parts."""

    inside: Bool[Tensor, " fakes"]  # samples within the reach of the reference
    cells_missed: Int64[Tensor, " cells"]
    cells_overdrawn: Int64[Tensor, " cells"]
    fake_cells: Int64[Tensor, " fakes"]
    real_cells: Int64[Tensor, " reals"]


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def too_few(needed: int, given: int, what: str = "items on each side") -> Score:
    return Score(None, note=f"needs at least {needed} {what}, has {given}")


def good(material: Material, near: Neighbourhood | None, of_real: Neighbourhood | None, limits: Limits) -> Answer:
    """By precision and density: distances such as Fréchet's also fall for what is missing, so they do not decide."""
    fake, fresh = material.alike()
    if near is None or of_real is None:
        return Answer("NOT MEASURED", "Too few items.", {"precision": too_few(2 * MIN_ITEMS, len(fake), "samples, and twice as many held-out items")})
    effective = _effective_count(material, fake)
    share = wilson(round(near.precision * effective), effective)
    error = near.balls.double().std().item() / 5 / math.sqrt(effective)
    scores = {
        "precision": Score(near.precision, min(share.low, near.precision), max(share.high, near.precision), of_real.precision),
        "density": Score(near.density, near.density - 1.96 * error, near.density + 1.96 * error, of_real.density),
    }
    verdict, names = worst(
        {name: ratio_verdict(score, limits.quality_warn, limits.quality_fail) for name, score in scores.items()}
    )
    told = {
        "PASS": "A sample lies among real items as often as a real one does.",
        "WARN": f"Fewer samples look real than real items do ({_ratios(scores, names)}).",
        "FAIL": f"Far fewer samples look real than real items do ({_ratios(scores, names)}).",
        "NOT MEASURED": "Too few items.",
    }[verdict]
    return Answer(verdict, told, scores | _distances(material, fake, fresh))


def _distances(material: Material, fake: Part, fresh: Part) -> dict[str, Score]:
    """Fréchet and kernel distances, of samples and of fresh items: they see faults of both quality and coverage."""
    seed, width, reference = material.about["seed"], material.reference.features.shape[1], material.reference.features
    count = min(len(reference), len(fake))
    scores: dict[str, Score] = {}
    if count > width:
        ours, real = (frechet_estimate(reference, part.features, rng=rng_of(seed)) for part in (fake, fresh))
        scores["frechet"] = Score(ours.value, ours.low, ours.high, real.value)
    else:
        scores["frechet"] = too_few(width + 1, count)
    if count >= 15 * 20 and count > 4 * width:
        ours, real = (frechet_infinity(reference, part.features, rng=rng_of(seed)) for part in (fake, fresh))
        scores["frechet_infinity"] = Score(ours.value, ours.low, ours.high, real.value)
    else:
        scores["frechet_infinity"] = too_few(max(300, 4 * width + 1), count)
    size = min(1000, count // 2)
    ours, real = (
        kernel_distance(reference, part.features, subset_size=size, rng=rng_of(seed)) for part in (fake, fresh)
    )
    low, high = ours.interval or (None, None)
    scores["kernel"] = Score(ours.mean, low, high, real.mean)
    return scores


def covered(
    material: Material,
    near: Neighbourhood | None,
    of_real: Neighbourhood | None,
    quality: Answer,
    copies: Bool[Tensor, " fakes"] | None,
    limits: Limits,
) -> tuple[Answer, Findings | None]:
    """By coverage, recall, the regions that are missed, and samples that come twice."""
    fake, fresh = material.alike()
    reference = material.reference
    if near is None or of_real is None:
        return Answer("NOT MEASURED", "Too few items.", {"coverage": too_few(2 * MIN_ITEMS, len(fake), "samples, and twice as many held-out items")}), None
    scores = {}
    for name, value, real in (("coverage", near.coverage, of_real.coverage), ("recall", near.recall, of_real.recall)):
        share = wilson(round(value * len(reference)), len(reference))
        scores[name] = Score(value, share.low, share.high, real)
    verdicts = {
        name: ratio_verdict(score, limits.coverage_warn, limits.coverage_fail) for name, score in scores.items()
    }
    findings, regions = _regions(material, fake, fresh)
    scores |= regions
    verdicts["missed"] = share_verdict(regions["missed"], limits.missed_warn, limits.missed_fail)
    if findings is not None:
        findings = Findings(near.balls > 0, *findings)
    scores |= _repeats(material, fake, fresh, copies)
    verdicts["duplicates"] = share_verdict(scores["duplicates"], limits.duplicates_warn, limits.duplicates_fail)
    scores["vendi"] = Score(vendi_score(fake.features), real_baseline=vendi_score(fresh.features))
    precision = quality.scores["precision"]
    far = (precision.high or 0.0) < limits.unlike_everything * (precision.real_baseline or 1.0)
    if far and verdicts["duplicates"] == "PASS":
        reason = "Almost no sample resembles real items, so what they cover cannot be told: mend the quality first."
        return Answer("NOT MEASURED", reason, scores), findings
    verdict, names = worst(verdicts)
    return Answer(verdict, _covered_reason(verdict, names, scores), scores), findings


def _covered_reason(verdict: str, names: list[str], scores: dict[str, Score]) -> str:
    if verdict == "PASS":
        return "What is in the real data is drawn as well."
    told = []
    if "duplicates" in names:
        told.append(f"{scores['duplicates'].value:.0%} of the samples come twice")
    if "missed" in names:
        told.append(f"regions with {scores['missed'].value:.0%} of the real data are drawn less than half as often")
    rest = [name for name in names if name in ("coverage", "recall")]
    if rest:
        told.append(f"parts of the real data are not drawn ({_ratios(scores, rest)})")
    return f"{'; '.join(told).capitalize()}."


def _regions(material: Material, fake: Part, fresh: Part) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor] | None, dict[str, Score]]:
    """NDB, and the share of real data in cells that samples fill less than half as full; z < −3, so not by chance."""
    count = min(len(fake), len(material.reference))
    num_cells = min(50, count // 20)
    if num_cells < 5:
        needed = too_few(100, count)
        return None, {"missed": needed, "different_cells": needed}
    seed = material.about["seed"]
    ours, real = (
        different_cells(material.reference.features, part.features, rng=rng_of(seed), num_cells=num_cells)
        for part in (fake, fresh)
    )
    missed, chance = (
        (each.z < -3) & (each.fake_shares < 0.5 * each.real_shares) for each in (ours, real)
    )
    over = (ours.z > 3) & (ours.fake_shares > 2 * ours.real_shares)
    value, baseline = ours.real_shares[missed].sum().item(), real.real_shares[chance].sum().item()
    interval = wilson(round(value * len(material.reference)), len(material.reference))
    cells = wilson(int(ours.differs.sum()), num_cells)
    scores = {
        "missed": Score(value, interval.low if value else 0.0, interval.high, baseline),
        "different_cells": Score(ours.share, cells.low, cells.high, real.share),
    }
    found = (missed.nonzero()[:, 0], over.nonzero()[:, 0], ours.fake_cells, ours.real_cells)
    return found, scores


def _repeats(material: Material, fake: Part, fresh: Part, copies: Tensor | None) -> dict[str, Score]:
    """Samples that come twice, those that copy a training item left out, and the support that follows from them."""
    spacing = material.reference.features
    ours, note = fake.features, ""
    if copies is not None and bool(copies[: len(fake)].any()) and int((~copies[: len(fake)]).sum()) >= MIN_ITEMS:
        ours, note = ours[~copies[: len(fake)]], "copies of training items left out"
    found, real = duplicates(ours, spacing), duplicates(fresh.features, spacing)
    interval = wilson(round(found.share * len(ours)), len(ours))
    pairs = colliding_pairs(ours, found.threshold)
    support = support_size(pairs, len(ours))
    estimate = Score(support.estimate, support.low, support.high, note=str(support))
    return {"duplicates": Score(found.share, interval.low, interval.high, real.share, note), "support": estimate}


def _effective_count(material: Material, fake: Part) -> int:
    """As how many different samples these count: n / (1 + 2c/n) with c colliding pairs."""
    threshold = duplicates(fake.features[:2], material.reference.features).threshold
    pairs = colliding_pairs(fake.features, threshold)
    return max(2, round(len(fake) / (1 + 2 * pairs / len(fake))))


@dataclass(frozen=True, eq=False)
class Copies:
    """Which samples are as close to a training item as a copy, which item that is, how far, over the threshold."""

    close: Bool[Tensor, " fakes"]
    neighbours: Int64[Tensor, " fakes"]
    ratios: Float[Tensor, " fakes"]


def copied(material: Material, findings: "Cells | None", limits: Limits) -> tuple[Answer, Copies | None]:
    """By the calibrated copy rate; authenticity and C_T stand beside it."""
    train, held_out = material.train, len(material.reference) + len(material.fresh)
    if train is None:
        return Answer("NOT MEASURED", "The training data are not known: pass them as train."), None
    if held_out < MIN_DISTANCES or len(train) < 2:
        return Answer("NOT MEASURED", "Too few held-out items.", {"copy_rate": too_few(MIN_DISTANCES, held_out, "held-out items")}), None
    distances, neighbours = nearest(material.fake.features, train.features)
    of_reference, _ = nearest(material.reference.features, train.features)
    of_fresh, fresh_neighbours = nearest(material.fresh.features, train.features)
    ours, real = distances[:, 0], of_fresh[:, 0]
    found = copy_rate(ours, torch.cat([of_reference[:, 0], real]))
    fresh_found = copy_rate(real, of_reference[:, 0])
    rate = Score(found.value, found.interval.low, found.interval.high, fresh_found.value)
    share = wilson(round((value := authenticity(ours, _spacing(train, neighbours[:, 0]))) * len(ours)), len(ours))
    fresh_share = authenticity(real, _spacing(train, fresh_neighbours[:, 0]))
    scores = {"copy_rate": rate, "authenticity": Score(value, share.low, share.high, fresh_share)}
    if findings is not None:
        copying = data_copying(ours, of_reference[:, 0], findings.fake, findings.reference)
        by_chance = data_copying(real, of_reference[:, 0], findings.fresh, findings.reference)
        if copying is not None:
            baseline = None if by_chance is None else by_chance.value
            scores["c_t"] = Score(copying.value, copying.interval.low, copying.interval.high, baseline)
    verdict = copies_verdict(rate, limits)
    number = int(found.close.sum())
    told = {
        "PASS": f"No evidence of copying above {max(rate.high or 0.0, 1e-4):.1%} (of {len(ours):,} samples).",
        "WARN": f"{rate.value:.1%} of the samples are copies of training items, or nearly.",
        "FAIL": f"{rate.value:.1%} of the samples are copies of training items, or nearly ({number:,} pairs).",
    }[verdict]
    ratios = ours / max(found.threshold, 1e-12)
    return Answer(verdict, told, scores), Copies(found.close, neighbours[:, 0], ratios)


def _spacing(train: Part, chosen: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The distance of these training items to the nearest other one."""
    wanted, place = chosen.unique(return_inverse=True)
    distances, indices = nearest(train.features[wanted], train.features, k=2)
    own = indices[:, 0] == wanted
    return torch.where(own, distances[:, 1], distances[:, 0])[place]


@dataclass(frozen=True, eq=False)
class Cells:
    """The regions that samples and held-out items lie in."""

    fake: Int64[Tensor, " fakes"]
    reference: Int64[Tensor, " reference"]
    fresh: Int64[Tensor, " fresh"]


def private(
    material: Material, judge: Callable[[Part], Float[Tensor, " n"]] | None, limits: Limits
) -> Answer:
    """By the best of the attacks that need the samples alone. `judge` gives the discriminator's logits, if there is one."""
    members, others = material.members, material.reference
    if members is None:
        return Answer("NOT MEASURED", "The training data are not known: pass them as train.")
    count = min(len(members), len(others))
    if count < MIN_ATTACKED:
        needed = too_few(MIN_ATTACKED, count, "members and as many held-out items twice")
        return Answer("NOT MEASURED", "Too few items to attack.", {"gan_leaks": needed})
    inside, outside = members.features[:count], others.features[:count]
    fake, population = material.fake.features, material.fresh.features
    attacks = {
        "gan_leaks": [gan_leaks(part, fake) for part in (inside, outside)],
        "gan_leaks_calibrated": [gan_leaks_calibrated(part, fake, population) for part in (inside, outside)],
        "domias": [domias(part, fake, population) for part in (inside, outside)],
    }
    scores: dict[str, Score] = {}
    for name, (ours, theirs) in attacks.items():
        scores |= _attack_scores(name, ours, theirs)
    # Several attacks are tried, so each gets its part of what chance may do.
    rates = {name: detection_rate(*pair, confidence=1 - 0.05 / len(attacks)) for name, pair in attacks.items()}
    best = max(rates, key=lambda name: (rates[name].low, rates[name].value))
    lead = Score(rates[best].value, rates[best].low, rates[best].high, 0.01, f"the best attack: {best}")
    verdict = share_verdict(lead, limits.found_warn, limits.found_fail)
    told = f"The best attack finds {lead.value:.1%} of the training items while accusing 1 % of the others"
    reason = f"{told}; guessing finds 1 %." if verdict == "PASS" else f"{told}: samples give away who was in the data."
    if judge is not None:
        scores |= _attack_scores("logan", judge(members.first(count)), judge(others.first(count)), "if you publish the discriminator")
    return Answer(verdict, reason, {"members_found": lead, **scores})


def _attack_scores(name: str, ours: Tensor, theirs: Tensor, note: str = "") -> dict[str, Score]:
    area, rate = area_under_curve(ours, theirs), detection_rate(ours, theirs)
    return {
        f"{name}_auc": Score(area.value, area.low, area.high, 0.5, note),
        f"{name}_found": Score(rate.value, rate.low, rate.high, 0.01, note),
    }


def recognisable(
    material: Material, cells: Cells | None, changed: dict[str, Callable[[Tensor], Tensor]], limits: Limits
) -> Answer:
    """By a detector that is trained on half of the samples and the reference, and tried on the others and fresh items.

    `changed` are ways in which pictures change on their way, under which the detector is tried again.
    """
    half = len(material.fake) // 2
    if min(half, len(material.reference), len(material.fresh)) < MIN_DETECTED:
        needed = too_few(MIN_DETECTED, min(half, len(material.fresh)), "samples twice, and as many held-out items")
        return Answer("NOT MEASURED", "Too few items to train a detector.", {"detector_auc": needed})
    fake, numbers = material.fake.features, torch.arange(len(material.fake))
    rows = [numbers[:half], torch.arange(len(material.reference)), numbers[half:], torch.arange(len(material.fresh))]
    note = ""
    if cells is not None:
        seen = matched(cells.fake[:half], cells.reference)
        tried = matched(cells.fake[half:], cells.fresh)
        if min(len(seen[0]), len(tried[0])) >= MIN_DETECTED:
            rows = [seen[0], seen[1], half + tried[0], tried[1]]
            note = "as many real items as samples from each region"
    detector = Detector(fake[rows[0]], material.reference.features[rows[1]], seed=material.about["seed"])
    ours, real = detector(fake[rows[2]]), detector(material.fresh.features[rows[3]])
    area, rate = area_under_curve(ours, real), detection_rate(ours, real)
    scores = {
        "detector_auc": Score(area.value, area.low, area.high, 0.5, note),
        "detector_found": Score(rate.value, rate.low, rate.high, 0.01, note),
    }
    verdict = recognised_verdict(scores["detector_auc"], limits)
    if verdict == "PASS" and area.value >= 0.75:
        for name, change in changed.items():
            parts = (material.fake, rows[2]), (material.fresh, rows[3])
            under = area_under_curve(*(detector(_extracted_again(material, *part, change)) for part in parts))
            scores[f"detector_auc_{name}"] = Score(under.value, under.low, under.high, 0.5, note)
            verdict = min(verdict, recognised_verdict(scores[f"detector_auc_{name}"], limits), key=("WARN", "PASS").index)
    return Answer(verdict, _recognised_reason(scores, limits), scores)


def _recognised_reason(scores: dict[str, Score], limits: Limits) -> str:
    scope = "It knows this generator alone."
    area = scores["detector_auc"]
    if area.low is not None and area.low <= 0.55:
        return "A detector finds nothing that tells these samples from real items: mark them if they must be known as made."
    weak = [name.removeprefix("detector_auc_") for name, score in scores.items() if name.startswith("detector_auc_") and (score.value or 0) < limits.recognised]
    if (area.value or 0.0) < limits.recognised:
        return f"A detector tells some samples from real items, not all (area {area.value:.2f}). {scope}"
    if weak:
        return f"A detector recognises samples (area {area.value:.3f}), but not after {' or '.join(weak)}. {scope}"
    return f"A detector recognises samples (area {area.value:.3f}). {scope}"


def _extracted_again(material: Material, part: Part, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    from ganlib.evaluation.material import batches
    from ganlib.metrics.features import features

    chosen = part.numbers[rows.numpy()]
    return features(material.extractor, (change(items) for items in batches(part.data, chosen)), batch_items=256)


def _ratios(scores: dict[str, Score], names: list[str]) -> str:
    told = []
    for name in names:
        score = scores[name]
        told.append(f"{name} {score.value:.2f}, real items {score.real_baseline:.2f}")
    return "; ".join(told)


def neighbourhoods(material: Material) -> tuple[Neighbourhood | None, Neighbourhood | None]:
    """Those of the samples and of fresh items with the reference, k = 5; None where items are too few."""
    fake, fresh = material.alike()
    if min(len(fake), len(material.reference)) < MIN_ITEMS:
        return None, None
    return (
        neighbourhood(material.reference.features, fake.features),
        neighbourhood(material.reference.features, fresh.features),
    )


_ = np
