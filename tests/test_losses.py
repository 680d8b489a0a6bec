"""Every adversarial loss against numpy written from its paper's equations, and one contract for all."""

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlib import losses
from ganlib.core import AdversarialLoss


def log_sigmoid(a: np.ndarray) -> np.ndarray:
    """log σ(a) = -log(e^0 + e^-a)."""
    return -np.logaddexp(0.0, -a)


def minimax(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    # 1 - σ(a) = σ(-a). G minimises what D maximises, but for the part that does not depend on it.
    real = t * log_sigmoid(r) + (1 - t) * log_sigmoid(-r)
    return float(-(real.mean() + log_sigmoid(-f).mean())), float(log_sigmoid(-f).mean())


def non_saturating(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    return minimax(r, f, t)[0], float(-log_sigmoid(f).mean())


def least_squares(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    # Equation 9 with a = 0, b = t, c = 1.
    return float(((r - t) ** 2).mean() / 2 + (f**2).mean() / 2), float(((f - 1) ** 2).mean() / 2)


def hinge(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    return float(-np.minimum(0, r - 1).mean() - np.minimum(0, -f - 1).mean()), float(-f.mean())


def wasserstein(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    return float(f.mean() - r.mean()), float(-f.mean())


def relativistic_pairing(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    return float(-log_sigmoid(r - f).mean()), float(-log_sigmoid(f - r).mean())


def relativistic_average(r: np.ndarray, f: np.ndarray, t: float) -> tuple[float, float]:
    over_fake, over_real = r - f.mean(0), f - r.mean(0)
    discriminator = -log_sigmoid(over_fake).mean() - log_sigmoid(-over_real).mean()
    return float(discriminator), float(-log_sigmoid(over_real).mean() - log_sigmoid(-over_fake).mean())


REFERENCES = {
    losses.Minimax: minimax,
    losses.NonSaturating: non_saturating,
    losses.LeastSquares: least_squares,
    losses.Hinge: hinge,
    losses.Wasserstein: wasserstein,
    losses.RelativisticPairing: relativistic_pairing,
    losses.RelativisticAverage: relativistic_average,
}
"""A new loss needs its reference here: real logits, fake logits, real target -> (discriminator's, generator's)."""

FOUND = sorted(
    (kind for _, kind in inspect.getmembers(losses, inspect.isclass) if issubclass(kind, AdversarialLoss)),
    key=lambda kind: kind.__name__,
)
CLASSES = [kind for kind in FOUND if not inspect.isabstract(kind)]
SMOOTHED = [kind for kind in CLASSES if "real_target" in inspect.signature(kind).parameters]
every_loss = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)

REAL = torch.tensor([1.5, -0.25, 3.0, 0.5, -2.0], dtype=torch.float64)
FAKE = torch.tensor([-1.0, 0.75, 2.0, -3.5, 0.0], dtype=torch.float64)


def both(loss: AdversarialLoss, real: Tensor, fake: Tensor) -> tuple[float, float]:
    return float(loss.discriminator(real, fake)), float(loss.generator(real, fake))


def slopes(loss: AdversarialLoss, turn: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of one turn's loss to the real and the fake logits; zero where it does not look."""
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    value = getattr(loss, turn)(real, fake)
    assert value.shape == () and bool(value.isfinite())
    found = torch.autograd.grad(value, (real, fake), allow_unused=True)
    return tuple(torch.zeros_like(x) if g is None else g for x, g in zip((real, fake), found, strict=True))  # type: ignore[return-value]


def test_losses_are_found():
    assert len(CLASSES) >= 7


@every_loss
def test_a_loss_is_the_papers_equation(kind: type[AdversarialLoss]):
    assert kind in REFERENCES, f"write the equation of {kind.__name__} in REFERENCES of tests/test_losses.py"
    expected = REFERENCES[kind](REAL.numpy(), FAKE.numpy(), 1.0)
    np.testing.assert_allclose(both(kind(), REAL, FAKE), expected, rtol=1e-12)
    patches = torch.stack([REAL, FAKE.flip(0), REAL + 1], 1), torch.stack([FAKE, REAL, FAKE - 2], 1)
    expected = REFERENCES[kind](*(logits.numpy() for logits in patches), 1.0)
    np.testing.assert_allclose(both(kind(), *patches), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", SMOOTHED, ids=lambda kind: kind.__name__)
def test_a_real_target_below_one_smooths_the_real_side_of_the_discriminator_alone(kind: type[AdversarialLoss]):
    smoothed = kind(real_target=0.9)  # type: ignore[call-arg]
    expected = REFERENCES[kind](REAL.numpy(), FAKE.numpy(), 0.9)
    np.testing.assert_allclose(both(smoothed, REAL, FAKE), expected, rtol=1e-12)
    assert both(smoothed, REAL, FAKE)[1] == both(kind(), REAL, FAKE)[1]
    assert both(smoothed, REAL, FAKE)[0] != both(kind(), REAL, FAKE)[0]


@pytest.mark.parametrize("kind", [losses.Minimax, losses.NonSaturating], ids=lambda kind: kind.__name__)
def test_a_smoothed_cross_entropy_is_least_where_the_probability_is_the_target(kind: type):
    best = torch.full((4,), float(np.log(0.9 / 0.1)), dtype=torch.float64)
    at_best, _ = slopes(kind(real_target=0.9), "discriminator", best, best)
    torch.testing.assert_close(at_best, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


@every_loss
@pytest.mark.parametrize("level", [-0.5, 0.0, 0.5])
def test_each_side_pulls_its_own_way(kind: type[AdversarialLoss], level: float):
    logits = torch.full((6,), level, dtype=torch.float64)
    real, fake = slopes(kind(), "discriminator", logits, logits)
    assert bool((real < 0).all()), "the discriminator must want higher logits of real items"
    if not (kind is losses.LeastSquares and level <= 0):  # there the fakes are judged fake enough already
        assert bool((fake > 0).all()), "the discriminator must want lower logits of fake items"
    real, fake = slopes(kind(), "generator", logits, logits)
    assert bool((fake < 0).all()), "the generator must want higher logits of fake items"
    assert bool((real >= 0).all()), "the generator can only gain where real items look less real"


@every_loss
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("turn", ["discriminator", "generator"])
def test_huge_logits_give_finite_values_and_slopes(kind: type[AdversarialLoss], size: float, turn: str):
    for fake in (size, -size):
        found = slopes(kind(), turn, torch.full((3,), size), torch.full((3,), fake))
        assert all(bool(slope.isfinite().all()) for slope in found)


@every_loss
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 7), (5, 2, 3)])
def test_a_loss_is_a_scalar_in_float32_whatever_the_shape_of_a_head(
    kind: type[AdversarialLoss], shape: tuple[int, ...]
):
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    for value in (kind().discriminator(real, fake), kind().generator(real, fake)):
        assert value.shape == () and value.dtype == torch.float32


@every_loss
def test_patches_of_one_logit_are_that_logit(kind: type[AdversarialLoss]):
    repeated = both(kind(), REAL[:, None].expand(-1, 4), FAKE[:, None].expand(-1, 4))
    np.testing.assert_allclose(repeated, both(kind(), REAL, FAKE), rtol=1e-12)


@every_loss
def test_the_order_of_the_pairs_does_not_matter(kind: type[AdversarialLoss]):
    order = torch.tensor([3, 0, 4, 2, 1])
    np.testing.assert_allclose(both(kind(), REAL[order], FAKE[order]), both(kind(), REAL, FAKE), rtol=1e-12)


@every_loss
def test_twice_the_batch_is_the_same_loss(kind: type[AdversarialLoss]):
    twice = both(kind(), torch.cat([REAL, REAL]), torch.cat([FAKE, FAKE]))
    np.testing.assert_allclose(twice, both(kind(), REAL, FAKE), rtol=1e-12)


@every_loss
def test_only_relativistic_pairing_depends_on_who_is_paired_with_whom(kind: type[AdversarialLoss]):
    other = both(kind(), REAL, FAKE.roll(1))
    same = np.allclose(other, both(kind(), REAL, FAKE), rtol=1e-9)
    assert same == (kind is not losses.RelativisticPairing)


@pytest.mark.parametrize(
    "kind", [losses.RelativisticPairing, losses.RelativisticAverage], ids=lambda kind: kind.__name__
)
def test_relativistic_losses_see_only_differences(kind: type[AdversarialLoss]):
    np.testing.assert_allclose(both(kind(), REAL + 5, FAKE + 5), both(kind(), REAL, FAKE), rtol=1e-12)
    assert both(kind(), REAL, FAKE) == pytest.approx(both(kind(), FAKE, REAL)[::-1], rel=1e-12)


@every_loss
def test_a_generators_loss_without_real_logits_says_so(kind: type[AdversarialLoss]):
    if kind.generator_sees_real:
        real, _ = slopes(kind(), "generator", REAL, FAKE)
        assert bool((real != 0).any()), "generator_sees_real is True, but the real logits are not used"
        with pytest.raises(AssertionError):
            kind().generator(None, FAKE)
    else:
        assert torch.equal(kind().generator(None, FAKE), kind().generator(REAL, FAKE))


@every_loss
def test_a_loss_is_final_and_names_its_paper(kind: type[AdversarialLoss]):
    assert not [child for child in kind.__subclasses__() if child.__module__.startswith("ganlib")]
    assert "arXiv:" in (kind.__doc__ or "")
