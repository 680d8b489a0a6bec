"""The reader of attributes against scikit-learn, and the correlation against scipy."""

import numpy as np
import pytest
import torch

from ganlib.errors import DataError
from ganlib.metrics.attributes import correlation, linear_reader


def planted(count: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of odd scales, and two numbers that are linear in them."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=rng).double() * torch.tensor([1.0, 100, 0.01, 1, 1, 1]) + 5
    slope = torch.tensor([[1.0, 0.0], [0.02, 0.0], [0.0, 50.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]]).double()
    return x, x @ slope + 3 + noise * torch.randn(count, 2, generator=rng).double()


def test_what_is_linear_is_read_and_what_is_not_there_is_not() -> None:
    (x, y), (fresh, true) = planted(400, 0.01), planted(100, 0.0, seed=1)
    assert float((linear_reader(x, y)(fresh) - true).abs().max()) < 0.05
    rng = torch.Generator().manual_seed(2)
    noise = linear_reader(x, torch.randn(400, 2, generator=rng).double())(fresh)
    assert float(noise.std()) < 0.3, "the stiffest reader, of what no feature tells"


def test_the_weights_are_those_of_ridge_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = planted(200, 5.0)
    reader = linear_reader(x, y)
    z = ((x - x.mean(0)) / x.std(0)).numpy()
    found = [np.abs(linear.Ridge(alpha=200 * 10.0**p).fit(z, y.numpy()).coef_.T - reader.weights.numpy()).max()
             for p in range(-4, 2)]  # fmt: skip
    assert min(found) < 1e-9, "one of the six"


def test_a_correlation_has_the_value_and_interval_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(80, generator=rng)
    b = a + torch.randn(80, generator=rng)
    value, interval = correlation(a, b)
    expected = stats.pearsonr(a.numpy(), b.numpy())
    bounds = expected.confidence_interval(0.95)
    assert value == pytest.approx(float(expected.statistic), abs=1e-6)
    assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high), abs=1e-4)
    assert correlation(a, 2 * a + 1)[0] == pytest.approx(1.0) and correlation(a, -a)[0] == pytest.approx(-1.0)


def test_too_little_is_refused() -> None:
    with pytest.raises(DataError, match="19 items to learn attributes from; at least 20"):
        linear_reader(torch.zeros(19, 2), torch.zeros(19, 1))
    with pytest.raises(DataError, match="a correlation of 5 items"):
        correlation(torch.arange(5.0), torch.arange(5.0))
    with pytest.raises(DataError, match="all the same"):
        correlation(torch.ones(30), torch.arange(30.0))
