"""The error and the extrapolation of the Fréchet distance against repeated draws of known distributions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.frechet import _deletion_variance, _intercept, frechet_estimate, frechet_infinity
from ganlib.metrics.scores import frechet_distance


def normal(num_items: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(num_items, width, generator=rng, dtype=torch.float64) + shift


def test_deletion_variance_is_that_of_distances_without_each_group() -> None:
    real, fake = normal(40, 3, 1) + 50, normal(30, 3, 2, shift=0.5) + 50
    order = torch.randperm(40, generator=torch.Generator().manual_seed(9)).tensor_split(7)
    left = [frechet_distance(real[torch.cat([r for r in order if r is not rows])], fake) for rows in order]
    expected = 6 * torch.tensor(left).double().var(correction=0).item()
    found = _deletion_variance(real, fake, 7, torch.Generator().manual_seed(9))
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_estimate_interval_holds_the_mean_over_draws(shift: float) -> None:
    """Of equal distributions too, where the distance is all bias."""
    found = [
        frechet_estimate(normal(120, 3, 2 * i), normal(150, 3, 2 * i + 1, shift), rng=torch.Generator().manual_seed(i))
        for i in range(80)
    ]
    values = torch.tensor([each.value for each in found])
    held = sum(each.low <= values.mean() <= each.high for each in found)
    assert held >= 70 and all(each.low >= 0 for each in found)
    assert 0.8 < sum(each.standard_error for each in found) / 80 / values.std() < 2
    assert found[0].value == frechet_distance(normal(120, 3, 0), normal(150, 3, 1, shift))


def test_intercept_and_its_error_are_those_of_the_line() -> None:
    x = torch.linspace(0.5, 2, 9).double()
    assert _intercept(x, 3 - 2 * x) == pytest.approx((3, 0), abs=1e-7)
    errors = [_intercept(x, 3 - 2 * x + 0.1 * x * normal(1, 9, seed)[0]) for seed in range(600)]
    values = torch.tensor([value for value, _ in errors])
    assert values.mean() == pytest.approx(3, abs=0.02)
    variance = sum(error**2 for _, error in errors) / 600
    assert variance == pytest.approx(values.var().item(), rel=0.15)
    # The best unbiased line for these errors is that of y/x against 1/x, whose slope is the intercept.
    noisy = 3 - 2 * x + 0.1 * x * normal(1, 9, 1)[0]
    line, covariance = np.polyfit(1 / x.numpy(), (noisy / x).numpy(), 1, cov=True)
    assert _intercept(x, noisy) == pytest.approx((line[0], math.sqrt(covariance[0, 0])))


@pytest.mark.parametrize(("keep_reals", "true"), [(False, 0.0), (False, 0.5**2 * 8), (True, 0.5**2 * 8)])
def test_infinity_is_the_distance_of_the_distributions(keep_reals: bool, true: float) -> None:
    """The mean of many estimates has hardly any bias, where that of the plain distance is far off."""
    shift = math.sqrt(true / 8)
    num_reals = 20_000 if keep_reals else 150
    pairs = [(normal(num_reals, 8, 2 * i), normal(200, 8, 2 * i + 1, shift)) for i in range(24)]
    plain = torch.tensor([frechet_distance(*pair) for pair in pairs])
    found = [
        frechet_infinity(*pair, rng=torch.Generator().manual_seed(i), num_sizes=6, keep_reals=keep_reals, groups=5)
        for i, pair in enumerate(pairs)
    ]
    values = torch.tensor([each.value for each in found])
    error_of_mean = values.std() / math.sqrt(24)
    assert plain.mean() - true > 4 * plain.std() / math.sqrt(24)
    assert abs(values.mean() - true) < 3 * error_of_mean
    assert abs(values.mean() - true) < 0.4 * (plain.mean() - true)
    assert sum(each.low <= true <= each.high for each in found) >= 21
    assert 0.7 < sum(each.standard_error for each in found) / 24 / values.std() < 2.5


def test_equal_generators_give_equal_estimates() -> None:
    real, fake = normal(90, 4, 1), normal(80, 4, 2)
    runs = [frechet_infinity(real, fake, rng=torch.Generator().manual_seed(s), num_sizes=4) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_too_few_items_are_refused(rng: torch.Generator) -> None:
    with pytest.raises(DataError, match="39 fake items; this score needs at least 40"):
        frechet_estimate(normal(50, 2, 1), normal(39, 2, 2), rng=rng)
    with pytest.raises(DataError, match="59 items of 20 features; extrapolation needs at least 60"):
        frechet_infinity(normal(80, 20, 1), normal(59, 20, 2), rng=rng)
    with pytest.raises(UsageError, match="groups=1"):
        frechet_estimate(normal(50, 2, 1), normal(50, 2, 2), rng=rng, groups=1)
    with pytest.raises(UsageError, match="num_sizes=2"):
        frechet_infinity(normal(50, 2, 1), normal(50, 2, 2), rng=rng, num_sizes=2)
