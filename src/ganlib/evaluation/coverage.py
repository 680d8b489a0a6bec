"""Is everything covered?"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ganlib.errors import DataError
from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.result import Answer, Verdict
from ganlib.evaluation.verdicts import Limits, compared, ratio_verdict, share_verdict, too_few, worst
from ganlib.metrics.diversity import (
    DifferentCells,
    colliding_pairs,
    different_cells,
    duplicates,
    support_size,
    vendi_score,
)
from ganlib.metrics.intervals import wilson
from ganlib.metrics.report import MIN_ITEMS, Score
from ganlib.metrics.scores import Neighbourhood

MAX_REGIONS, MIN_REGIONS, ITEMS_A_REGION = 50, 5, 40
SURE = 3.0
"""A region counts as missed or overdrawn where its share differs by so many standard errors, and by a factor of 2."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Into which region of the space each item falls, and which regions are drawn too seldom or too often."""

    ours: DifferentCells
    real: DifferentCells
    fake: Int64[Tensor, " fakes"]
    reference: Int64[Tensor, " reference"]
    fresh: Int64[Tensor, " fresh"]

    def missed(self, of: DifferentCells) -> Bool[Tensor, " regions"]:
        return (of.z < -SURE) & (of.fake_shares < 0.5 * of.real_shares)

    def overdrawn(self) -> Bool[Tensor, " regions"]:
        return (self.ours.z > SURE) & (self.ours.fake_shares > 2 * self.ours.real_shares)


def regions(material: Material) -> Regions | None:
    """K-means regions of the reference; None where items are too few."""
    fake, fresh = material.alike()
    count = min(MAX_REGIONS, min(len(fake), len(material.reference)) // ITEMS_A_REGION)
    if count < MIN_REGIONS or len(material.reference.features.unique(dim=0)) <= count:
        return None
    ours, real = (
        different_cells(
            material.reference.features,
            part.features,
            rng=torch.Generator().manual_seed(material.seed),
            num_cells=count,
        )
        for part in (fake, fresh)
    )
    of_fake, of_fresh = (ours.cells_of(part.features) for part in (material.fake, material.fresh))
    return Regions(ours, real, of_fake, ours.real_cells, of_fresh)


def covered(
    material: Material,
    near: tuple[Neighbourhood, Neighbourhood] | None,
    found: Regions | None,
    copies: Bool[Tensor, " fakes"] | None,
    quality: Mapping[str, Score],
    limits: Limits,
) -> Answer:
    """By coverage, recall, the regions that are missed, and samples that come twice.

    Where hardly any sample resembles real items, what they cover cannot be told.
    """
    fake, fresh = material.alike()
    if near is None:
        needed = too_few(MIN_ITEMS, len(fake), "samples, and twice as many held-out items")
        return Answer("NOT MEASURED", f"Too few items: it {needed.note}.", {"coverage": needed})
    scores = _shares(material, *near)
    verdicts: dict[str, Verdict] = {
        name: ratio_verdict(score, limits.coverage_warn, limits.coverage_fail) for name, score in scores.items()
    }
    scores |= _of_regions(material, found)
    verdicts["missed"] = share_verdict(scores["missed"], limits.missed_warn, limits.missed_fail)
    scores |= _repeats(material, fake, fresh, copies)
    by_chance = scores["duplicates"].real_baseline or 0.0  # in few dimensions real items come near each other too
    verdicts["duplicates"] = share_verdict(
        scores["duplicates"], limits.duplicates_warn + by_chance, limits.duplicates_fail + by_chance
    )
    scores["vendi"] = Score(vendi_score(fake.features), real_baseline=vendi_score(fresh.features))
    strange = any(
        (quality[name].high or 0.0) < limit * (quality[name].real_baseline or 1.0)
        for name, limit in (("precision", limits.strange_precision), ("density", limits.strange_density))
    )
    if strange and verdicts["duplicates"] not in ("WARN", "FAIL"):
        return Answer(
            "NOT MEASURED",
            "Hardly any sample resembles real items, so what they cover cannot be told: mend the quality first.",
            scores,
        )
    verdict, names = worst(verdicts)
    return Answer(verdict, _reason(verdict, names, scores), scores)


def repeats_threshold(material: Material) -> float | None:
    """How near two samples are that count as one; None where half of the real items come twice, as in coarse data."""
    try:
        return duplicates(material.fake.features[:2], material.reference.features).threshold
    except DataError:
        return None


def _shares(material: Material, ours: Neighbourhood, real: Neighbourhood) -> dict[str, Score]:
    count, scores = len(material.reference), {}
    for name, value, baseline in (
        ("coverage", ours.coverage, real.coverage),
        ("recall", ours.recall, real.recall),
    ):
        interval = wilson(round(value * count), count)
        scores[name] = Score(value, interval.low, interval.high, baseline)
    return scores


def _of_regions(material: Material, found: Regions | None) -> dict[str, Score]:
    """The share of real data in missed regions, and NDB/K."""
    if found is None:
        fake, _ = material.alike()
        needed = too_few(
            MIN_REGIONS * ITEMS_A_REGION, min(len(fake), len(material.reference)), "different items on each side"
        )
        return {"missed": needed, "different_regions": needed}
    value, by_chance = (each.real_shares[found.missed(each)].sum().item() for each in (found.ours, found.real))
    counted, number = len(material.reference) // 2, len(found.ours.z)  # the other half has made the regions
    interval = wilson(round(value * counted), counted)
    differ = wilson(int(found.ours.differs.sum()), number)
    return {
        "missed": Score(value, interval.low, interval.high, by_chance),
        "different_regions": Score(found.ours.share, differ.low, differ.high, found.real.share),
    }


def _repeats(material: Material, fake: Part, fresh: Part, copies: Tensor | None) -> dict[str, Score]:
    """Samples that come twice, and the number of different ones that follows; copies of training items left out."""
    ours, note = fake.features, ""
    if copies is not None:
        own = ~copies[: len(fake)]
        if not own.all() and int(own.sum()) >= MIN_ITEMS:
            ours, note = ours[own], "copies of training items left out"
    if repeats_threshold(material) is None:
        none = Score(None, note="half of the real items have a twin themselves, so that twins say nothing")
        return {"duplicates": none, "support": none}
    found, real = (duplicates(items, material.reference.features) for items in (ours, fresh.features))
    interval = wilson(round(found.share * len(ours)), len(ours))
    size = support_size(colliding_pairs(ours, found.threshold), len(ours))
    return {
        "duplicates": Score(found.share, interval.low, interval.high, real.share, note),
        "support": Score(size.estimate or size.low, size.low, size.high, note="" if size.estimate else "at least"),
    }


def _reason(verdict: Verdict, names: list[str], scores: dict[str, Score]) -> str:
    if verdict == "PASS":
        return "What is in the real data is drawn as well."
    told = []
    if "duplicates" in names:
        told.append(f"{scores['duplicates'].value:.0%} of the samples come twice")
    if "missed" in names:
        told.append(f"regions with {scores['missed'].value:.0%} of the real data are drawn less than half as often")
    by_reach = [name for name in names if name in ("coverage", "recall")]
    if by_reach:
        told.append(f"real items are not reached: {compared(scores, by_reach)}")
    reason = "; ".join(told)
    return f"{reason[0].upper()}{reason[1:]}." if reason else "Too few items."
