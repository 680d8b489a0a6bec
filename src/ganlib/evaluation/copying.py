"""Did it copy?"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ganlib.evaluation.coverage import Regions
from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.result import Answer
from ganlib.evaluation.verdicts import Limits, copies_verdict, too_few
from ganlib.metrics.intervals import wilson
from ganlib.metrics.memorisation import authenticity, copy_rate, data_copying
from ganlib.metrics.neighbours import nearest
from ganlib.metrics.report import Score

MIN_HELD_OUT = 200
"""With fewer held-out items nobody knows how near to the training items a new item lies."""

MAX_OVERLAP = 0.1
"""With a larger share of training items among the held-out ones these are no measure of either."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """Distances to the nearest training item, and which item that is."""

    distances: Float[Tensor, " n"]
    items: Int64[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Copies:
    """How near samples and held-out items lie to training items, and which samples are as near as a copy."""

    fake: Nearest
    reference: Nearest
    fresh: Nearest
    rate: Score
    close: Bool[Tensor, " fakes"]
    threshold: float
    overlap: float  # the share of held-out items that are training items themselves

    def muddled(self) -> str:
        """Why nothing can be said of copies and members, where it cannot."""
        if self.overlap <= MAX_OVERLAP:
            return ""
        return (
            f"{self.overlap:.0%} of the held-out items are training items themselves: give items that were not "
            "trained on."
        )


def copies(material: Material) -> Copies | None:
    """Look for copies; None without training items or with too few held-out ones."""
    train, held_out = material.train, len(material.reference) + len(material.fresh)
    if train is None or held_out < MIN_HELD_OUT or len(train) < 2:
        return None
    fake, reference, fresh = (_nearest(part, train) for part in (material.fake, material.reference, material.fresh))
    found = copy_rate(fake.distances, torch.cat([reference.distances, fresh.distances]))
    by_chance = copy_rate(fresh.distances, reference.distances)
    rate = Score(found.value, found.interval.low, found.interval.high, by_chance.value)
    distances = torch.cat([reference.distances, fresh.distances])
    spread = train.features.var(0).sum().sqrt().item()  # features of one picture may differ by rounding
    overlap = (distances <= 1e-6 * spread).double().mean().item()
    return Copies(fake, reference, fresh, rate, found.close, found.threshold, overlap)


def copied(material: Material, found: Copies | None, regions: Regions | None, limits: Limits) -> Answer:
    """By the calibrated copy rate. Authenticity and C_T stand beside it: they see less, and clear nobody."""
    train = material.train
    if train is None:
        return Answer("NOT MEASURED", "The training data are not known: pass them as train.")
    if found is None:
        held_out = len(material.reference) + len(material.fresh)
        needed = too_few(MIN_HELD_OUT, held_out, "held-out items")
        return Answer("NOT MEASURED", f"Too few items: it {needed.note}.", {"copy_rate": needed})
    if why := found.muddled():
        return Answer("NOT MEASURED", why, {"copy_rate": Score(None, note=why)})
    value = authenticity(found.fake.distances, _spacing(train, found.fake.items))
    share = wilson(round(value * len(material.fake)), len(material.fake))
    baseline = authenticity(found.fresh.distances, _spacing(train, found.fresh.items))
    scores = {"copy_rate": found.rate, "authenticity": Score(value, share.low, share.high, baseline)}
    if regions is not None:
        ours, real = (
            data_copying(each.distances, found.reference.distances, cells, regions.reference)
            for each, cells in ((found.fake, regions.fake), (found.fresh, regions.fresh))
        )
        if ours is not None:
            scores["c_t"] = Score(ours.value, ours.interval.low, ours.interval.high, real.value if real else None)
    verdict, rate = copies_verdict(found.rate, limits), found.rate
    reason = f"{rate.value:.1%} of the samples are training items, or nearly: look at the pairs."
    if verdict == "PASS":
        reason = f"No evidence of copying above {max(rate.high or 0.0, 1e-3):.1%} (of {len(material.fake):,} samples)."
    return Answer(verdict, reason, scores)


def _nearest(part: Part, train: Part) -> Nearest:
    distances, items = nearest(part.features, train.features)
    return Nearest(distances[:, 0], items[:, 0])


def _spacing(train: Part, chosen: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The distance of these training items to the nearest other one."""
    wanted, place = chosen.unique(return_inverse=True)
    distances, items = nearest(train.features[wanted], train.features, k=2)
    return torch.where(items[:, 0] == wanted, distances[:, 1], distances[:, 0])[place]
