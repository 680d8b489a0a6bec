"""Intervals against published values, against the binomial itself, and by how often they hold the truth."""

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.intervals import area_under_curve, clopper_pearson, detection_rate, wilson


def binomial_tail(successes: int, trials: int, share: float) -> float:
    """The chance of at least so many successes."""
    return sum(math.comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(successes, trials + 1))


@given(trials=st.integers(1, 60), part=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=40, deadline=None)
def test_clopper_pearson_bounds_are_where_the_binomial_tails_are_half_of_the_rest(trials, part, confidence) -> None:
    successes = round(part * trials)
    interval, tail = clopper_pearson(successes, trials, confidence=confidence), (1 - confidence) / 2
    assert 0 <= interval.low <= successes / trials <= interval.high <= 1
    if successes > 0:
        assert binomial_tail(successes, trials, interval.low) == pytest.approx(tail, rel=1e-6)
    if successes < trials:
        assert 1 - binomial_tail(successes + 1, trials, interval.high) == pytest.approx(tail, rel=1e-6)


@given(trials=st.integers(1, 200), part=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_wilson_bounds_are_the_shares_that_the_score_test_just_accepts(trials: int, part: float) -> None:
    successes, z = round(part * trials), NormalDist().inv_cdf(0.975)
    interval = wilson(successes, trials)
    for bound in (interval.low, interval.high):
        if 0 < bound < 1:
            assert abs(successes / trials - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / trials))
    assert interval.low <= successes / trials <= interval.high
    assert (interval.low == 0) == (successes == 0) and (interval.high == 1) == (successes == trials)


def test_published_intervals_of_a_share() -> None:
    """Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I."""
    expected = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), bounds in expected.items():
        found = wilson(successes, trials)
        assert (found.low, found.high) == pytest.approx(bounds, abs=5e-5)
    exact = {(81, 263): (0.2527, 0.3676), (15, 148): (0.0578, 0.1617), (0, 20): (0, 0.1684), (1, 29): (0.0009, 0.1776)}
    for (successes, trials), bounds in exact.items():
        found = clopper_pearson(successes, trials)
        assert (found.low, found.high) == pytest.approx(bounds, abs=5e-5)


def scores(num_items: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(num_items, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def area_by_loops(positives: Tensor, negatives: Tensor) -> tuple[float, float]:
    """The area and the error of DeLong, from all pairs."""
    pairs = (positives[:, None] > negatives).double() + 0.5 * (positives[:, None] == negatives)
    variance = pairs.mean(1).var() / len(positives) + pairs.mean(0).var() / len(negatives)
    return pairs.mean().item(), variance.sqrt().item()


@pytest.mark.parametrize("digits", [None, 0])
def test_area_and_its_error_are_those_of_all_pairs(digits: int | None) -> None:
    positives, negatives = scores(40, 1, 1.0), scores(55, 2)
    if digits is not None:
        positives, negatives = positives.round(decimals=digits), negatives.round(decimals=digits)  # ties
    found = area_under_curve(positives, negatives)
    value, error = area_by_loops(positives, negatives)
    assert (found.value, found.standard_error) == pytest.approx((value, error), rel=1e-12)
    truth = torch.cat([torch.ones(40), torch.zeros(55)])
    assert found.value == pytest.approx(roc_auc_score(truth, torch.cat([positives, negatives])), rel=1e-12)
    swapped = area_under_curve(negatives, positives)
    assert (swapped.low, swapped.high) == pytest.approx((1 - found.high, 1 - found.low), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_area_interval_holds_the_truth_as_often_as_it_says(shift: float) -> None:
    truth = NormalDist().cdf(shift / math.sqrt(2))
    found = [area_under_curve(scores(60, 2 * i, shift), scores(80, 2 * i + 1)) for i in range(400)]
    held = sum(area.low <= truth <= area.high for area in found)
    assert 368 <= held <= 394  # 380 expected, with 3 standard deviations around
    spread = torch.tensor([area.value for area in found]).std().item()
    assert sum(area.standard_error for area in found) / 400 == pytest.approx(spread, rel=0.12)


def test_area_of_groups_apart_is_not_certain() -> None:
    apart = area_under_curve(torch.arange(10.0) + 100, torch.arange(30.0))
    assert (apart.value, apart.high) == (1, 1)
    assert apart.low == pytest.approx(clopper_pearson(10, 10).low)
    equal = area_under_curve(torch.ones(10), torch.ones(10))
    assert equal.value == 0.5 and equal.low < 0.3 and equal.high > 0.7
    endless = area_under_curve(torch.tensor([math.inf, 1.0, 2.0]), torch.tensor([-math.inf, 1.5, 0.0]))
    assert endless.value == pytest.approx(8 / 9)


def test_detection_rate_lets_no_more_negatives_through_than_asked() -> None:
    negatives = torch.arange(1000.0)
    positives = torch.tensor([989.0, 989.5, 990.0, 2000.0])
    found = detection_rate(positives, negatives, false_positive_rate=0.01)
    assert (found.threshold, found.false_positives, found.value) == (989, 10, 0.75)
    few = detection_rate(positives, negatives[:50], false_positive_rate=0.01)
    assert (few.threshold, few.false_positives, few.value) == (49, 0, 1) and few.low == 0
    tied = detection_rate(torch.ones(5), torch.ones(1000))
    assert (tied.value, tied.false_positives, tied.low) == (0, 0, 0)
    third = detection_rate(positives, torch.arange(100.0), false_positive_rate=0.29)
    assert third.false_positives == 29  # 0.29 · 100 is 28.999… in binary


@pytest.mark.parametrize(("num_negatives", "rate"), [(300, 0.01), (1000, 0.01), (200, 0.1)])
def test_detection_interval_holds_the_truth_wherever_the_threshold_falls(num_negatives: int, rate: float) -> None:
    truth = 1 - NormalDist().cdf(NormalDist().inv_cdf(1 - rate) - 2)
    found = [
        detection_rate(scores(400, 2 * i, 2.0), scores(num_negatives, 2 * i + 1), false_positive_rate=rate)
        for i in range(300)
    ]
    assert sum(each.low <= truth <= each.high for each in found) >= 285  # of 300: conservative
    assert all(each.low <= each.value <= each.high for each in found)
    # The interval of the positives alone, as if the threshold were the true one, is too narrow.
    naive = [clopper_pearson(round(each.value * 400), 400) for each in found]
    assert sum(each.low <= truth <= each.high for each in naive) < 270
    if num_negatives == 1000:
        assert sum(each.high - each.low for each in found) / 300 < 0.5  # it does say something


def test_detection_of_a_rate_that_is_not_there_is_rarely_claimed() -> None:
    """Guessing: the lower bound stays at or below the rate that was asked for."""
    found = [detection_rate(scores(1000, 2 * i), scores(1000, 2 * i + 1)) for i in range(200)]
    assert sum(each.low > 0.01 for each in found) <= 5
    planted = detection_rate(torch.cat([scores(900, 1), scores(100, 2, 20.0)]), scores(1000, 3))
    assert 0.05 < planted.low < planted.value < planted.high < 0.2


def test_impossible_questions_are_refused() -> None:
    for successes, trials in ((0, 0), (-1, 5), (6, 5)):
        with pytest.raises(UsageError, match="accepted are at least 1 trial"):
            wilson(successes, trials)
        with pytest.raises(UsageError, match="accepted are at least 1 trial"):
            clopper_pearson(successes, trials)
    with pytest.raises(UsageError, match="confidence=95"):
        wilson(1, 2, confidence=95)
    with pytest.raises(UsageError, match="false_positive_rate=1"):
        detection_rate(scores(5, 1), scores(5, 2), false_positive_rate=1)
    with pytest.raises(DataError, match="positive scores: number 1 is NaN"):
        area_under_curve(torch.tensor([0.0, math.nan]), scores(5, 1))
    with pytest.raises(DataError, match="at least 2"):
        area_under_curve(scores(5, 1), scores(1, 1))
    with pytest.raises((DataError, TypeCheckError)):
        detection_rate(scores(4, 1)[:, None], scores(5, 2))
