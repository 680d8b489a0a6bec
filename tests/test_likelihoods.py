"""Likelihoods against sums and integrals, and the bound that is logged against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from ganlib.core import Draws, Pair, Verdict
from ganlib.likelihoods import LEVEL, discretised_logistic, divergence_from_prior, gaussian
from ganlib.networks.autoencoder import Coded
from ganlib.tasks.encode import Variational

LEVELS = torch.arange(256, dtype=torch.float64) * LEVEL - 1
NONE = Verdict(())


@pytest.mark.parametrize("mean", [-1.5, -1.0, 0.123, 1.2])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_the_256_probabilities_sum_to_one(mean: float, log_scale: float):
    scale = torch.tensor([log_scale], dtype=torch.float64)
    logs = discretised_logistic(LEVELS[:, None], torch.full((256, 1), mean, dtype=torch.float32), scale)
    assert float(logs.exp().sum()) == pytest.approx(1, abs=1e-6) and bool(logs.isfinite().all())


def test_a_probability_is_the_difference_of_two_logistic_functions():
    mean, scale = 0.25, math.exp(-2.0)
    ends = torch.sigmoid((LEVELS + LEVEL / 2 - mean) / scale), torch.sigmoid((LEVELS - LEVEL / 2 - mean) / scale)
    wanted = ends[0] - ends[1]
    wanted[0], wanted[-1] = ends[0][0], 1 - ends[1][-1]
    made = discretised_logistic(LEVELS[:, None], torch.full((256, 1), mean), torch.tensor([-2.0], dtype=torch.float64))
    torch.testing.assert_close(made.exp(), wanted, rtol=1e-5, atol=1e-9)


def test_a_far_pixel_has_a_gradient_that_pulls_it_near():
    mean = torch.tensor([[0.9]], requires_grad=True)
    discretised_logistic(torch.tensor([[-0.9]]), mean, torch.tensor([-7.0])).sum().backward()
    assert mean.grad is not None and float(mean.grad) == pytest.approx(-math.exp(7), rel=1e-3)


def test_each_channel_has_its_scale_and_pixels_add_up():
    rng = torch.Generator().manual_seed(0)
    items, mean, scales = torch.randn(3, 2, 4, 5, generator=rng), torch.zeros(3, 2, 4, 5), torch.tensor([-1.0, 0.5])
    wanted = sum(
        torch.distributions.Normal(0.0, float(scale.exp())).log_prob(items[:, channel]).flatten(1).sum(1)
        for channel, scale in enumerate(scales)
    )
    torch.testing.assert_close(gaussian(items, mean, scales), wanted)
    parts = [discretised_logistic(items[:, [c]].clamp(-1, 1), mean[:, [c]], scales[[c]]) for c in range(2)]
    torch.testing.assert_close(discretised_logistic(items.clamp(-1, 1), mean, scales), parts[0] + parts[1])


def test_the_divergence_is_that_of_torch():
    rng = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng)
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    wanted = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence_from_prior(mean, log_variance), wanted)


WEIGHT, NOISE = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, 0.1]]), 0.4


def linear(mean: Tensor, deviation: float, item: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    """The terms of x = Wz + noise with a code of this mean and deviation, by many draws."""
    task = Variational(torch.nn.Identity, lambda: None, 2, likelihood="vectors")

    def generator(latent: Tensor, label: None, items: Tensor) -> Coded:
        code = mean + deviation * latent
        log_variance = torch.full_like(code, 2 * math.log(deviation))
        return Coded(code @ WEIGHT.T, mean.expand_as(code), log_variance, torch.full((3,), math.log(NOISE)))

    batch = task.draw({"real": item.expand(200_000, 3)}, Draws(rng))
    return task.generator_terms(task.pair(generator, batch), None, NONE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shift", "deviation"), [(0.0, 0.3), (0.5, 0.3), (0.0, 1.0)])
def test_the_bound_of_a_linear_decoder_is_above_its_likelihood_by_the_divergence_of_the_codes(
    shift: float, deviation: float, rng: torch.Generator
):
    item = torch.tensor([0.8, -1.1, 0.4])
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(3)
    exact = torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(item)
    precision = torch.eye(2) + WEIGHT.T @ WEIGHT / NOISE**2
    posterior = torch.distributions.MultivariateNormal(
        torch.linalg.solve(precision, WEIGHT.T @ item / NOISE**2), torch.linalg.inv(precision)
    )
    own = torch.distributions.MultivariateNormal(posterior.mean + shift, deviation**2 * torch.eye(2))
    gap = torch.distributions.kl_divergence(own, posterior)
    terms = linear(posterior.mean + shift, deviation, item, rng)
    bits = 3 * math.log(2)
    assert float(terms["bits_per_dimension"]) > -float(exact) / bits
    assert float(terms["bits_per_dimension"]) == pytest.approx(float(gap - exact) / bits, abs=0.02)
    torch.testing.assert_close(terms["bits_per_dimension"], terms["reconstruction"] + terms["divergence"])


def test_the_bits_of_a_picture_are_no_less_than_those_of_its_integrated_probability(rng: torch.Generator):
    task, scale = Variational(torch.nn.Identity, lambda: None, 1), torch.tensor([-2.0])
    item = LEVELS[[70, 200]].float().view(1, 1, 1, 2)

    def decoded(code: Tensor) -> Tensor:
        return torch.tanh(torch.cat([code, -0.5 * code], 1)).view(-1, 1, 1, 2)

    grid = torch.linspace(-8, 8, 40_001)[:, None]
    logs = discretised_logistic(item.expand(len(grid), -1, -1, -1), decoded(grid), scale)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid[:, 0])
    exact = -math.log2(float((logs + prior).double().exp().sum()) * 16 / 40_000) / 2

    def bits(mean: float, deviation: float) -> float:
        def generator(latent: Tensor, label: None, items: Tensor) -> Coded:
            code = mean + deviation * latent
            log_variance = torch.full_like(code, 2 * math.log(deviation))
            return Coded(decoded(code), torch.full_like(code, mean), log_variance, scale)

        batch = task.draw({"real": item.expand(50_000, -1, -1, -1)}, Draws(rng))
        return float(task.generator_terms(task.pair(generator, batch), None, NONE)["bits_per_dimension"])  # type: ignore[arg-type]

    found = {(mean, deviation): bits(mean, deviation) for mean in (-1.0, -0.7, 0.0) for deviation in (0.1, 0.3, 1.0)}
    assert all(value > exact - 0.01 for value in found.values())
    assert min(found.values()) < exact + 0.2, "the bound is near where the code is"


def test_pictures_between_the_levels_are_counted_as_the_level_they_are_stored_at():
    task = Variational(torch.nn.Identity, lambda: None, 1)
    batch = {"real": torch.full((2, 1, 2, 2), 0.2501), "latent": torch.zeros(2, 1)}

    def generator(latent: Tensor, label: None, items: Tensor) -> Coded:
        return Coded(torch.zeros_like(items), latent, latent, torch.zeros(1))

    pair: Pair = task.pair(generator, batch)  # type: ignore[arg-type]
    assert torch.allclose((pair.real * 127.5 + 127.5) % 1, torch.zeros(()), atol=1e-4)
