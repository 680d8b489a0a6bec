"""Where both sides have labels: are the samples of the class that they were drawn for, and do they teach it?"""

import textwrap

import torch
from jaxtyping import Int64
from torch import Tensor

from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.verdicts import too_few
from ganlib.metrics.classes import classification_accuracy, frechet_by_class
from ganlib.metrics.report import Score

MIN_LABELLED = 100


def by_class(material: Material) -> dict[str, Score]:
    """Figures that need labels; none where a side has none, or the classes are not the same.

    ``class_agreement``: the share of samples that a classifier of real items takes for their class.
    ``classification_accuracy``: a classifier that learned from samples alone, tried on real items. Both beside fresh
    items in the place of the samples. ``frechet_by_class``: the mean distance within a class.
    """
    fake, fresh = material.alike()
    reference = material.reference
    ours, theirs, real = (_labels(part) for part in (fake, fresh, reference))
    if ours is None or theirs is None or real is None or fake.data.spec.classes != reference.data.spec.classes:
        return {}
    if min(len(fake), len(reference)) < MIN_LABELLED or len(ours.unique()) < 2 or len(real.unique()) < 2:
        return {"class_agreement": too_few(MIN_LABELLED, len(fake), "items of at least two classes on each side")}
    agreement, of_fresh = (
        classification_accuracy(reference.features, real, part.features, labels)
        for part, labels in ((fake, ours), (fresh, theirs))
    )
    taught = classification_accuracy(fake.features, ours, reference.features, real)
    by_real = classification_accuracy(fresh.features, theirs, reference.features, real)
    scores = {
        "class_agreement": Score(agreement.accuracy, agreement.low, agreement.high, of_fresh.accuracy),
        "classification_accuracy": Score(taught.accuracy, taught.low, taught.high, by_real.accuracy),
    }
    known = torch.isin(ours, real.unique())
    within, of_real = (
        frechet_by_class(reference.features, real, features, labels)
        for features, labels in ((fake.features[known], ours[known]), (fresh.features, theirs))
    )
    scores["frechet_by_class"] = Score(within.mean, real_baseline=of_real.mean, note=textwrap.shorten(within.note, 120))
    return scores


def _labels(part: Part) -> Int64[Tensor, " n"] | None:
    labels = part.data.labels
    return None if labels is None else torch.from_numpy(labels[part.numbers]).long()
