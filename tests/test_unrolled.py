"""Unrolled steps and top-k against cases worked by hand."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from ganlib.core import Draws, Objective, OptimiserSettings, Plan, Schedule, Verdict, constant
from ganlib.errors import UsageError
from ganlib.losses import NonSaturating, RelativisticPairing, Wasserstein
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.networks.spectral import spectral_normalise
from ganlib.tasks.generate import Generate
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create
from ganlib.training.step import best, step
from ganlib.training.team import Team

CPU = Runtime()
CPU_DRAWS = Draws(torch.Generator().manual_seed(5))
SGD = OptimiserSettings(constant(0.1), kind="sgd")
ADAM = OptimiserSettings(constant(0.01), beta1=0.5, beta2=constant(0.9))


class Point(nn.Module):
    """A generator that knows one number."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([0.7]))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.place.expand(len(latent), 1)


class Slope(nn.Module):
    """A discriminator D(x) = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.4]))

    def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
        return Verdict(((items * self.weight).sum(1),))


def bilinear(steps: int) -> Plan:
    return Plan(
        Generate(Point, Slope, 1), Objective(Wasserstein()), SGD, SGD, 4, constant(0.0), 100, unrolled_steps=steps
    )


def mlp(loss: NonSaturating | RelativisticPairing, settings: OptimiserSettings, steps: int, dropout: float = 0) -> Plan:
    task = Generate(
        lambda: MLPGenerator((3,), latent=4, widths=(6,), bounded=False),
        lambda: MLPDiscriminator((3,), widths=(6,), dropout=dropout),
        4,
    )
    return Plan(task, Objective(loss), settings, settings, 8, constant(0.0), 100, unrolled_steps=steps)


def batch(count: int = 8, width: int = 3) -> dict[str, Tensor]:
    return {"real": torch.randn(count, width, generator=torch.Generator().manual_seed(1))}


def weights(network: nn.Module | None) -> dict[str, Tensor]:
    assert network is not None
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_in_a_bilinear_game_the_generator_sees_how_the_discriminator_will_turn(steps: int):
    """L_D = w θ - w x and L_G = -w θ: w' = w - k η (θ - x), so ∂L_G/∂θ = -w' + k η θ."""
    plan = bilinear(steps)
    state = create(plan, CPU, 0, 100)
    real = torch.full((4, 1), 2.0)
    terms = step(state, plan, {"real": real}, CPU, 0)
    rate, place, x = 0.1, 0.7, 2.0
    after = 0.4 - rate * (place - x)  # the discriminator's real turn
    ahead = after - steps * rate * (place - x)
    assert isinstance(state.generator, Point) and isinstance(state.discriminator, Slope)
    assert float(state.discriminator.weight.detach()) == pytest.approx(after)
    assert float(terms["generator/adversarial"]) == pytest.approx(-ahead * place)
    expected = place - rate * (-ahead + steps * rate * place)
    assert float(state.generator.place.detach()) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [NonSaturating(), RelativisticPairing()], ids=["non-saturating", "pairing"])
def test_two_unrolled_sgd_steps_are_those_written_by_hand(loss: NonSaturating | RelativisticPairing):
    plan = mlp(loss, SGD, 2)
    state = create(plan, CPU, 3, 100)
    generator, discriminator = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    assert discriminator is not None
    with CPU.randomness(3, 0) as draws:
        latent = draws.normal(8, 4)
    real, fake = batch()["real"], generator(latent)

    def loss_of(theta: dict[str, Tensor], generated: Tensor, turn: str) -> Tensor:
        r, f = (functional_call(discriminator, theta, (items,)).logits[0] for items in (real, generated))
        if isinstance(loss, RelativisticPairing):
            return softplus(f - r).mean() if turn == "d" else softplus(r - f).mean()
        return softplus(-r).mean() + softplus(f).mean() if turn == "d" else softplus(-f).mean()

    theta = {name: value.detach().requires_grad_() for name, value in discriminator.named_parameters()}
    for number in range(3):  # the first is the real turn, on fakes that the discriminator cannot change
        generated = fake.detach() if number == 0 else fake
        gradients = torch.autograd.grad(loss_of(theta, generated, "d"), list(theta.values()), create_graph=True)
        theta = {name: w - 0.1 * g for (name, w), g in zip(theta.items(), gradients, strict=True)}
        if number == 0:
            theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
            expected_discriminator = {name: value.detach() for name, value in theta.items()}
    gradients = torch.autograd.grad(loss_of(theta, fake, "g"), list(generator.parameters()))
    step(state, plan, batch(), CPU, 3)
    for (name, now), before, gradient in zip(
        state.generator.named_parameters(), generator.parameters(), gradients, strict=True
    ):
        torch.testing.assert_close(now, before - 0.1 * gradient, msg=name)
    for name, value in weights(state.discriminator).items():
        torch.testing.assert_close(value, expected_discriminator[name], msg="the virtual steps are virtual")


def run(plan: Plan, steps: int = 2) -> State:
    state = create(plan, CPU, 0, 100)
    for _ in range(steps):
        step(state, plan, batch(), CPU, 0)
    return state


def test_no_unrolled_step_and_all_fakes_are_the_plain_turn():
    plain = mlp(NonSaturating(), ADAM, 0)
    same = replace(plain, top_share=Schedule(1.0, 1.0))
    for name, value in weights(run(plain).generator).items():
        assert torch.equal(value, weights(run(same).generator)[name])
    assert any(
        not torch.equal(value, weights(run(replace(plain, unrolled_steps=1)).generator)[name])
        for name, value in weights(run(plain).generator).items()
    )


def test_looking_ahead_takes_fakes_that_were_made_in_bfloat16():
    plan, runtime = mlp(NonSaturating(), ADAM, 2), Runtime(precision="bfloat16")
    terms = step(create(plan, runtime, 0, 100), plan, batch(), runtime, 0)
    assert all(bool(term.isfinite()) for term in terms.values())


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop", "sgd"])
def test_looking_ahead_moves_as_far_as_the_optimiser_would(kind: str):
    """The first virtual update from a fresh optimiser without momentum is the optimiser's own next one."""
    from ganlib.training.unrolled import looked_ahead

    settings = OptimiserSettings(constant(0.01), kind=kind, beta1=0.0, beta2=constant(0.9))  # type: ignore[arg-type]
    plan = mlp(NonSaturating(), settings, 1)
    state = run(plan, 3)
    assert state.discriminator is not None and state.discriminator_optimiser is not None
    drawn = plan.task.draw(batch(), CPU_DRAWS)
    pair = plan.task.pair(state.generator, drawn)
    ahead = looked_ahead(state, plan, pair, lambda items: items, CPU)(pair.real, None).logits[0].detach()
    r, f = (state.discriminator(items).logits[0] for items in (pair.real, pair.fake.detach()))
    (softplus(-r).mean() + softplus(f).mean()).backward()
    state.discriminator_optimiser.step()
    torch.testing.assert_close(ahead, state.discriminator(pair.real).logits[0].detach(), rtol=1e-4, atol=1e-5)


def test_looking_ahead_through_dropout_and_spectral_norm_is_finite_and_leaves_no_trace():
    plan = mlp(NonSaturating(), ADAM, 3, dropout=0.5)
    inner = plan.task
    assert isinstance(inner, Generate)
    task = replace(inner, make_discriminator=lambda: spectral_normalise(inner.make_discriminator()))
    state = run(replace(plan, task=task), 5)
    assert all(bool(value.isfinite().all()) for value in weights(state.generator).values())


def test_unrolled_steps_are_for_one_process():
    from ganlib.training.unrolled import looked_ahead

    plan = mlp(NonSaturating(), SGD, 1)
    state = create(plan, CPU, 0, 100)
    pair = plan.task.pair(state.generator, plan.task.draw(batch(), CPU_DRAWS))
    with pytest.raises(UsageError, match="one process"):
        looked_ahead(state, plan, pair, lambda items: items, Runtime(team=Team(0, 2)))


@pytest.mark.parametrize(("share", "count"), [(1.0, 5), (0.8, 4), (0.5, 3), (0.2, 1), (0.01, 1)])
def test_the_best_are_those_with_the_highest_logits_with_the_real_items_beside_them(share: float, count: int):
    fake, real = torch.tensor([0.3, -1.0, 2.0, 0.1, 5.0]), torch.arange(5.0)
    kept_real, kept = best(real, fake, share)
    expected = sorted([4, 2, 0, 3, 1][:count])
    assert kept_real is not None
    assert sorted(kept_real.int().tolist()) == expected
    assert sorted(kept.tolist()) == sorted(fake[expected].tolist())
    patches = torch.stack([fake - 1, fake + 1], 1)
    assert best(None, patches, share)[1].shape == (count, 2)


def test_only_the_best_fakes_have_a_gradient():
    fake = torch.tensor([0.3, -1.0, 2.0, 0.1], requires_grad=True)
    NonSaturating().generator(None, best(None, fake, 0.5)[1]).backward()
    assert fake.grad is not None
    expected = [-1 / (1 + math.exp(f)) / 2 for f in (0.3, 2.0)]
    assert fake.grad.tolist() == pytest.approx([expected[0], 0.0, expected[1], 0.0])


def test_the_share_of_the_best_moves_the_generators_loss():
    plan = mlp(NonSaturating(), SGD, 0)
    half = replace(plan, top_share=Schedule(1.0, 0.5, shape="linear"))
    whole_state, half_state = create(plan, CPU, 0, 16), create(half, CPU, 0, 16)
    for number in range(2):
        whole = step(whole_state, plan, batch(), CPU, 0)["generator/adversarial"]
        part = step(half_state, half, batch(), CPU, 0)["generator/adversarial"]
        assert (float(part) < float(whole)) == (number == 1), "the best are better than the mean, from the 2nd step on"
