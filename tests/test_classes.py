"""Scores with classes against closed forms, against scikit-learn, and against conditions that are ignored."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.checks import checked_labels
from ganlib.metrics.classes import (
    _fitted,
    classification_accuracy,
    frechet_by_class,
    inception_score,
    stacked_modes,
)
from ganlib.metrics.intervals import wilson
from ganlib.metrics.scores import frechet_distance


def normal(num_items: int, width: int, seed: int) -> Tensor:
    return torch.randn(num_items, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(num_items: int, num_classes: int, seed: int) -> Tensor:
    return torch.randint(num_classes, (num_items,), generator=torch.Generator().manual_seed(seed))


def test_inception_score_counts_sure_classes(rng: torch.Generator) -> None:
    sure = torch.eye(5).double().repeat(20, 1)
    assert inception_score(sure, logits=False, num_splits=1, rng=rng).mean == pytest.approx(5)
    assert inception_score(1000 * sure, num_splits=1, rng=rng).mean == pytest.approx(5)
    assert inception_score(torch.full((50, 5), 0.2), logits=False, rng=rng).mean == pytest.approx(1)
    assert inception_score(sure[:1].repeat(50, 1), logits=False, rng=rng).mean == pytest.approx(1)
    # Items that come class by class: each split in order sees one class, a shuffled one nearly all.
    ordered = sure.reshape(20, 5, 5).transpose(0, 1).reshape(100, 5)
    assert inception_score(ordered, logits=False, num_splits=5, rng=None).mean == pytest.approx(1)
    assert inception_score(ordered, logits=False, num_splits=5, rng=rng).mean > 4


def test_inception_score_is_the_mutual_information_of_each_split() -> None:
    logits = 2 * normal(60, 7, 1)
    joint = torch.softmax(logits, 1).numpy() / 20
    expected = []
    for part in joint.reshape(3, 20, 7):
        rows, columns = part.sum(1, keepdims=True), part.sum(0, keepdims=True)
        expected.append(math.exp((part * np.log(part / (rows * columns))).sum()))
    found = inception_score(logits, num_splits=3, rng=None)
    assert (found.mean, found.spread) == pytest.approx((np.mean(expected), np.std(expected)))


def test_frechet_by_class_is_the_distance_within_each() -> None:
    real, fake = normal(90, 3, 1), normal(80, 3, 2) * 1.5
    real_labels, fake_labels = 4 * classes(90, 3, 3), 4 * classes(80, 3, 4)  # of numbers that leave gaps
    found = frechet_by_class(real, real_labels, fake, fake_labels)
    expected = {c: frechet_distance(real[real_labels == c], fake[fake_labels == c]) for c in (0, 4, 8)}
    assert found.by_class == expected and found.note == ""
    assert found.mean == pytest.approx(sum(expected.values()) / 3)


def test_frechet_by_class_sees_a_condition_that_is_ignored() -> None:
    labels = classes(600, 3, 1)
    real = normal(600, 4, 2) + 5 * labels[:, None]
    fake = normal(600, 4, 3) + 5 * labels[:, None]
    followed = frechet_by_class(real, labels, fake, labels).mean or 0.0
    ignored = frechet_by_class(real, labels, fake, classes(600, 3, 4)).mean or 0.0
    assert ignored > 50 * followed


def test_frechet_by_class_says_which_class_has_too_few() -> None:
    real, labels = normal(60, 4, 1), torch.arange(60) % 3
    found = frechet_by_class(real, labels, real[:40], torch.cat([torch.arange(37) % 2, torch.full((3,), 2)]))
    assert found.mean is None and found.by_class[2] is None and found.by_class[0] is not None
    assert found.note == "needs at least 4 items of each class on each side: class 2 has 20 reals and 3 fakes"
    none = frechet_by_class(real, labels, real[labels < 2], labels[labels < 2])
    assert none.mean is None and "class 2 has 20 reals and 0 fakes" in none.note
    assert frechet_by_class(real, labels, real, labels, min_items=21).by_class == {0: None, 1: None, 2: None}
    with pytest.raises(DataError, match=r"classes \[7\], which no real item has"):
        frechet_by_class(real, labels, real, torch.where(labels == 1, 7, labels))


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_classifier_is_that_of_scikit_learn(penalty: float) -> None:
    features = normal(200, 5, 1)
    labels = (features[:, :3] + normal(200, 3, 2)).argmax(1)
    weight, bias = _fitted(features, labels, 3, penalty)
    theirs = LogisticRegression(C=1 / (penalty * 200), tol=1e-10, max_iter=2000).fit(features.numpy(), labels.numpy())
    assert weight.T.numpy() == pytest.approx(theirs.coef_, abs=1e-4)
    assert (bias - bias.mean()).numpy() == pytest.approx(theirs.intercept_ - theirs.intercept_.mean(), abs=1e-4)


def digits() -> tuple[Tensor, Tensor]:
    loaded = load_digits(return_X_y=True)
    return torch.from_numpy(loaded[0]), torch.from_numpy(loaded[1])


def test_accuracy_of_real_digits_is_that_of_scikit_learn() -> None:
    features, labels = digits()
    train, test = slice(0, 1200), slice(1200, None)
    found = classification_accuracy(features[train], labels[train], features[test], labels[test])
    mean, deviation = features[train].mean(0), features[train].std(0, correction=0)
    deviation[deviation == 0] = 1
    scaled = ((features - mean) / deviation).numpy()
    theirs = LogisticRegression(C=1 / (1e-3 * 1200), tol=1e-8, max_iter=3000).fit(scaled[train], labels[train].numpy())
    assert found.accuracy == pytest.approx(theirs.score(scaled[test], labels[test].numpy()), abs=2 / 597)
    interval = wilson(round(found.accuracy * 597), 597)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    counts = torch.bincount(labels[test]).double() / 597
    assert sum(found.by_class[c] * counts[c].item() for c in range(10)) == pytest.approx(found.accuracy)
    again = classification_accuracy(features[train], labels[train], features[test], labels[test])
    assert again == found


def test_accuracy_falls_where_classes_are_missing_or_mixed_up() -> None:
    features, labels = digits()
    train, test = slice(0, 1000), slice(1000, None)
    known = labels[train] < 5
    half = classification_accuracy(features[train][known], labels[train][known], features[test], labels[test])
    assert half.accuracy < 0.55 and all(half.by_class[c] == 0 for c in range(5, 10))
    shuffled = labels[train][torch.randperm(1000, generator=torch.Generator().manual_seed(1))]
    assert classification_accuracy(features[train], shuffled, features[test], labels[test]).accuracy < 0.25
    with torch.inference_mode():
        whole = classification_accuracy(features[train], labels[train], features[test], labels[test])
    assert whole.accuracy > 0.88


def test_a_constant_column_says_nothing() -> None:
    features, labels = normal(100, 2, 1), classes(100, 2, 2)
    features[:, 0] += 3 * labels
    test, test_labels = normal(100, 2, 3), classes(100, 2, 4)
    test[:, 0] += 3 * test_labels
    plain = classification_accuracy(features, labels, test, test_labels)
    constant = 5 + 1e-13 * normal(100, 1, 5)  # but for the rounding of the network that made it
    wide = classification_accuracy(
        torch.cat([features, constant], 1), labels, torch.cat([test, 100 * constant], 1), test_labels
    )
    assert wide == plain and plain.accuracy > 0.8


def test_stacked_modes_are_counted_and_compared_with_uniform() -> None:
    every = torch.cartesian_prod(*[torch.arange(10)] * 3)
    found = stacked_modes(every.repeat(3, 1))
    assert (found.found, found.divergence) == pytest.approx((1000, 0))
    half = stacked_modes(every[every[:, 1] < 5])
    assert (half.found, half.divergence) == pytest.approx((500, math.log(2)))
    one = stacked_modes(torch.tensor([[3, 1, 4]] * 8))
    assert (one.found, one.divergence, one.counts[314]) == pytest.approx((1, math.log(1000), 8))
    uneven = stacked_modes(torch.tensor([[0], [0], [0], [1]]), num_classes=2)
    assert uneven.divergence == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    drawn = stacked_modes(torch.stack([classes(26_000, 10, seed) for seed in range(3)], 1))
    assert drawn.found == 1000 and drawn.divergence == pytest.approx(999 / 52_000, rel=0.2)


def test_unusable_predictions_and_labels_are_refused(rng: torch.Generator) -> None:
    features, labels = normal(20, 3, 1), classes(20, 2, 1)
    with pytest.raises(DataError, match="pass logits=True"):
        inception_score(features, logits=False, rng=rng)
    with pytest.raises(DataError, match="at least 21"):
        inception_score(features, num_splits=21, rng=rng)
    with pytest.raises(UsageError, match="num_splits=0"):
        inception_score(features, num_splits=0, rng=rng)
    with pytest.raises((DataError, TypeCheckError), match=r"\(19,\)|real_labels"):
        frechet_by_class(features, labels[:19], features[:19], labels[:19])
    with pytest.raises(DataError, match=r"real labels are torch.float64 of shape \(20,\); accepted are whole numbers"):
        checked_labels(labels.double(), "real", 20)
    with pytest.raises(DataError, match="synthetic labels run from -1 to 1"):
        classification_accuracy(features, torch.where(labels == 0, -1, labels), features, labels)
    with pytest.raises(UsageError, match="penalty=0"):
        classification_accuracy(features, labels, features, labels, penalty=0)
    with pytest.raises(DataError, match="run from 0 to 10; accepted are class numbers from 0 to 9"):
        stacked_modes(torch.tensor([[0, 10, 3]]))
    with pytest.raises(DataError, match="at least one item"):
        stacked_modes(torch.zeros(0, 3, dtype=torch.int64))
