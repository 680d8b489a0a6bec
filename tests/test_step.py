"""The adversarial step against a plain one written by hand; what each turn may touch; stopping and resuming."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganlib.core import (
    AdversarialLoss,
    Batch,
    Draws,
    Judge,
    Objective,
    OptimiserSettings,
    Pair,
    Penalty,
    Plan,
    Schedule,
    Spec,
    Terms,
    Verdict,
    WeightedPenalty,
    constant,
)
from ganlib.errors import RunError
from ganlib.losses import NonSaturating, RelativisticPairing, Wasserstein
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.penalties import R1, R2, ClipWeights, Dragan, GradientPenalty
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.dcgan import dcgan
from ganlib.recipes.gan import gan
from ganlib.recipes.r3 import r3
from ganlib.tasks.generate import Generate
from ganlib.training import checkpoint
from ganlib.training.loop import train
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_facts, to_tensors
from ganlib.training.step import discriminator_turn, due_penalties, frozen, generator_turn, split, step, update_average

CPU = Runtime()
BATCH, LATENT, SEED = 8, 4, 3
SGD = OptimiserSettings(constant(0.1), kind="sgd")
ADAM = OptimiserSettings(constant(0.01), beta1=0.5, beta2=constant(0.9))
PENALTIES = {"r1": WeightedPenalty(R1(), constant(0.7)), "r2": WeightedPenalty(R2(), constant(0.3))}


def vectors(num_classes: int = 0) -> Generate:
    return Generate(
        lambda: MLPGenerator((3,), latent=LATENT, widths=(6,), num_classes=num_classes, bounded=False),
        lambda: MLPDiscriminator((3,), widths=(6,), num_classes=num_classes),
        LATENT,
    )


def pictures(family: str, size: int = 8) -> Generate:
    shape = (1, size, size)
    if family == "dcgan":
        return Generate(
            lambda: DCGANGenerator(shape, latent=LATENT, width=2), lambda: DCGANDiscriminator(shape, width=2), LATENT
        )
    return Generate(
        lambda: CompactGenerator(shape, latent=LATENT, width=2), lambda: CompactDiscriminator(shape, width=2), LATENT
    )


def make_plan(loss: AdversarialLoss | None = None, **changes: Any) -> Plan:
    """A small plan; `penalties`, `weights` and `constraints` go to the objective, everything else to the plan."""
    parts = {name: changes.pop(name) for name in ("penalties", "weights", "constraints") if name in changes}
    plan = Plan(
        task=vectors(),
        objective=Objective(loss or RelativisticPairing(), **parts),
        generator=SGD,
        discriminator=SGD,
        batch_items=BATCH,
        ema_halflife_items=constant(0.0),
        items=1000,
    )
    return replace(plan, **changes)


def make_batch(plan: Plan, position: int = 0, shape: tuple[int, ...] = (3,), num_classes: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(position + 100)
    count = plan.batch_items * plan.discriminator_steps
    batch = {"real": torch.randn(count, *shape, generator=rng)}
    if num_classes:
        batch["label"] = torch.randint(num_classes, (count,), generator=rng)
    return CPU.move(batch)


def weights_of(network: nn.Module | None) -> dict[str, Tensor]:
    assert network is not None
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    for name, value in first.items():
        torch.testing.assert_close(
            value, second[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def changed(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return any(not torch.equal(first[name], second[name]) for name in first)


def after(plan: Plan, steps: int = 1, runtime: Runtime = CPU, **of_batch: Any) -> tuple[State, list[Terms]]:
    state = create(plan, runtime, SEED, plan.items)
    return state, [step(state, plan, make_batch(plan, k, **of_batch), runtime, SEED) for k in range(steps)]


# What each turn may touch


@pytest.mark.parametrize("penalties", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("reuse", [True, False])
def test_the_discriminators_turn_leaves_the_generator_bit_identical(penalties: dict, reuse: bool):
    plan = make_plan(penalties=penalties)
    state = create(plan, CPU, SEED, 100)
    generator, discriminator = weights_of(state.generator), weights_of(state.discriminator)
    rng = torch.Generator().manual_seed(0)
    discriminator_turn(
        state, plan, make_batch(plan), due_penalties(plan.objective.penalties, 0), reuse, CPU, Draws(rng)
    )
    assert_same(generator, weights_of(state.generator))
    assert changed(discriminator, weights_of(state.discriminator))
    assert all(weight.grad is None for weight in [*state.generator.parameters(), *state.discriminator.parameters()])  # type: ignore[union-attr]


def test_the_generators_turn_leaves_the_discriminator_bit_identical():
    plan = make_plan()
    state = create(plan, CPU, SEED, 100)
    generator, discriminator = weights_of(state.generator), weights_of(state.discriminator)
    generator_turn(state, plan, make_batch(plan), None, {}, CPU, Draws(torch.Generator().manual_seed(0)))
    assert_same(discriminator, weights_of(state.discriminator))
    assert changed(generator, weights_of(state.generator))
    assert all(weight.grad is None for weight in [*state.generator.parameters(), *state.discriminator.parameters()])  # type: ignore[union-attr]


def test_frozen_computes_no_gradients_and_restores_what_it_found():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(RuntimeError, match="on purpose"), frozen(network):
        assert not any(weight.requires_grad for weight in network.parameters())
        raise RuntimeError("on purpose")
    assert [weight.requires_grad for weight in network.parameters()] == [True, True, False, False]


def test_constraints_hold_after_the_discriminators_update():
    plan = make_plan(
        Wasserstein(), constraints=(ClipWeights(0.01),), discriminator=replace(SGD, learning_rate=constant(5.0))
    )
    state, _ = after(plan)
    largest = max(float(weight.detach().abs().max()) for weight in state.discriminator.parameters())  # type: ignore[union-attr]
    assert largest <= 0.01
    assert max(float(weight.detach().abs().max()) for weight in state.generator.parameters()) > 0.01


def test_the_global_random_state_is_the_users():
    plan = gan(latent=4).plan(Setting(Spec("image", (1, 4, 4)), 100, "cpu"))  # it has dropout
    state = create(plan, CPU, SEED, 1000)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    step(state, plan, make_batch(plan, shape=(1, 4, 4)), CPU, SEED)
    create(plan, CPU, SEED + 1, 1000)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]


@pytest.mark.parametrize("seed_of_user", [0, 1])
def test_the_same_seed_gives_the_same_bits_whatever_the_user_drew(seed_of_user: int):
    plan = gan(latent=4, batch_items=BATCH).plan(Setting(Spec("image", (1, 4, 4)), 100, "cpu"))
    torch.manual_seed(5)
    first, terms = after(plan, 2, shape=(1, 4, 4))
    torch.manual_seed(seed_of_user)
    again, same_terms = after(plan, 2, shape=(1, 4, 4))
    assert_same(weights_of(first.generator), weights_of(again.generator))
    assert_same(weights_of(first.discriminator), weights_of(again.discriminator))
    assert_same(terms[-1], same_terms[-1])
    other = create(plan, CPU, SEED + 1, 100)
    assert changed(weights_of(create(plan, CPU, SEED, 100).generator), weights_of(other.generator))


# Against steps written by hand


def judged(discriminator: nn.Module, items: Tensor) -> Tensor:
    return discriminator(items).logits[0]


def descend(network: nn.Module, loss: Tensor, rate: float) -> None:
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    with torch.no_grad():
        for weight, gradient in zip(network.parameters(), gradients, strict=True):
            weight -= rate * gradient


def test_a_step_with_r1_and_r2_is_the_plain_one():
    plan = make_plan(penalties=PENALTIES, joint_verdicts=True)
    state = create(plan, CPU, SEED, 100)
    generator, discriminator = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    assert discriminator is not None
    real = make_batch(plan)["real"]
    terms = step(state, plan, {"real": real}, CPU, SEED)

    with CPU.randomness(SEED, 0) as draws:
        latent = draws.normal(BATCH, LATENT)
    fake = generator(latent)
    x, y = real.clone().requires_grad_(), fake.detach().clone().requires_grad_()
    r, f = judged(discriminator, x), judged(discriminator, y)
    r1 = 0.5 * torch.autograd.grad(r.sum(), x, create_graph=True)[0].pow(2).sum(1).mean()
    r2 = 0.5 * torch.autograd.grad(f.sum(), y, create_graph=True)[0].pow(2).sum(1).mean()
    of_discriminator = softplus(f - r).mean()
    # The bias of the logit cancels in the difference; the graph still holds it.
    descend(discriminator, of_discriminator + 0.7 * r1 + 0.3 * r2, 0.1)
    of_generator = softplus(judged(discriminator, real).detach() - judged(discriminator, fake)).mean()
    descend(generator, of_generator, 0.1)

    assert_close(weights_of(discriminator), weights_of(state.discriminator))
    assert_close(weights_of(generator), weights_of(state.generator))
    expected = {
        "discriminator/adversarial": of_discriminator,
        "discriminator/r1": r1,
        "discriminator/r2": r2,
        "generator/adversarial": of_generator,
    }
    assert list(terms) == list(expected)
    assert_close(terms, {name: value.detach() for name, value in expected.items()})
    assert not any(value.requires_grad for value in terms.values())


def test_a_step_without_penalties_is_the_plain_one_of_the_tutorials():
    plan = make_plan(NonSaturating(), reuse_fakes=False)
    state = create(plan, CPU, SEED, 100)
    generator, discriminator = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    assert discriminator is not None
    real = make_batch(plan)["real"]
    step(state, plan, {"real": real}, CPU, SEED)
    with CPU.randomness(SEED, 0) as draws:
        first, second = (draws.normal(BATCH, LATENT) for _ in range(2))
    ones, cross_entropy = torch.ones(BATCH), nn.BCEWithLogitsLoss()
    fake = generator(first).detach()
    loss = cross_entropy(judged(discriminator, real), ones) + cross_entropy(judged(discriminator, fake), 0 * ones)
    descend(discriminator, loss, 0.1)
    descend(generator, cross_entropy(judged(discriminator, generator(second)), ones), 0.1)
    assert_close(weights_of(discriminator), weights_of(state.discriminator))
    assert_close(weights_of(generator), weights_of(state.generator))


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_micro_batches_are_one_large_batch(parts: int, num_classes: int):
    plan = make_plan(penalties=PENALTIES, reuse_fakes=False, task=vectors(num_classes))
    whole, terms = after(plan, 2, num_classes=num_classes)
    cut, terms_of_parts = after(replace(plan, accumulate=parts), 2, num_classes=num_classes)
    assert_close(weights_of(whole.generator), weights_of(cut.generator))
    assert_close(weights_of(whole.discriminator), weights_of(cut.discriminator))
    assert_close(terms[-1], terms_of_parts[-1])


def test_a_batch_that_cannot_be_cut_into_equal_parts_is_refused():
    with pytest.raises(ValueError, match="8 items of 'real' cannot be cut into 3"):
        after(make_plan(accumulate=3))
    parts = split({"real": torch.arange(6), "label": torch.arange(6) * 10}, 3)
    assert [part["label"].tolist() for part in parts] == [[0, 10], [20, 30], [40, 50]]


@pytest.mark.parametrize("num_classes", [0, 3])
def test_one_pass_over_real_and_fake_is_two(num_classes: int):
    plan = make_plan(task=vectors(num_classes))
    two, terms = after(plan, 2, num_classes=num_classes)
    one, terms_of_one = after(replace(plan, joint_verdicts=True), 2, num_classes=num_classes)
    assert_close(weights_of(two.discriminator), weights_of(one.discriminator))
    assert_close(weights_of(two.generator), weights_of(one.generator))
    assert_close(terms[-1], terms_of_one[-1])


def test_a_pair_shares_its_condition():
    """The labels that the discriminator sees beside real and fake items are those of the batch, in its order."""
    plan = make_plan(task=vectors(3), penalties=PENALTIES)
    state = create(plan, CPU, SEED, 100)
    seen = spy_on(state)
    batch = make_batch(plan, num_classes=3)
    step(state, plan, batch, CPU, SEED)
    assert seen["generator"] and all(torch.equal(label, batch["label"]) for _, label in seen["generator"])
    assert seen["discriminator"] and all(torch.equal(label, batch["label"]) for _, label in seen["discriminator"])


# Reuse, several updates, penalties now and then


def spy_on(state: State) -> dict[str, list[tuple[Tensor, Tensor | None]]]:
    """What each network is given, call by call."""
    seen: dict[str, list[tuple[Tensor, Tensor | None]]] = {"generator": [], "discriminator": []}
    for name in seen:
        getattr(state, name).register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append((args[0].detach().clone(), args[1] if len(args) > 1 else None))
        )
    return seen


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        (dict(reuse_fakes=True), 1),
        (dict(reuse_fakes=False), 2),
        (dict(reuse_fakes=True, discriminator_steps=3), 3),
        (dict(reuse_fakes=False, discriminator_steps=3), 4),
        (dict(reuse_fakes=True, accumulate=2), 4),
    ],
)
def test_reused_fakes_save_one_pass_of_the_generator(changes: dict, calls: int):
    plan = make_plan(**changes)
    state = create(plan, CPU, SEED, 1000)
    seen = spy_on(state)
    step(state, plan, make_batch(plan), CPU, SEED)
    latents = [latent for latent, _ in seen["generator"]]
    assert len(latents) == calls
    assert all(not torch.equal(a, b) for k, a in enumerate(latents) for b in latents[:k]), "a latent was drawn twice"


def test_reused_fakes_are_judged_again_by_the_discriminator_as_it_is_now():
    plan = make_plan(NonSaturating())
    state = create(plan, CPU, SEED, 1000)
    generator = copy.deepcopy(state.generator)
    seen = spy_on(state)
    terms = step(state, plan, make_batch(plan), CPU, SEED)
    real, fake, fake_again = (items for items, _ in seen["discriminator"])
    assert torch.equal(fake, fake_again) and torch.equal(real, make_batch(plan)["real"])
    torch.testing.assert_close(generator(seen["generator"][0][0]).detach(), fake)
    assert state.discriminator is not None
    expected = softplus(-judged(state.discriminator, fake)).mean()  # after the step: its weights are those of that turn
    torch.testing.assert_close(terms["generator/adversarial"], expected.detach())


def test_five_updates_of_the_discriminator_see_five_times_as_many_items_each_once():
    plan = make_plan(NonSaturating(), discriminator_steps=5, generator=ADAM, discriminator=ADAM)
    state = create(plan, CPU, SEED, 1000)
    seen = spy_on(state)
    batch = make_batch(plan)
    step(state, plan, batch, CPU, SEED)
    assert state.items_seen == 5 * BATCH
    reals = torch.cat([items for items, _ in seen["discriminator"][0:10:2]])
    assert torch.equal(reals, batch["real"])
    updates = {
        name: {int(numbers["step"]) for numbers in optimiser.state.values()}
        for name, optimiser in (("g", state.generator_optimiser), ("d", state.discriminator_optimiser))
        if optimiser is not None
    }
    assert updates == {"g": {1}, "d": {5}}


@dataclass(frozen=True)
class Nothing(AdversarialLoss):
    """A loss without a gradient, so that only the other terms move the weights."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0 * (real + fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return 0 * fake.mean()


@dataclass(frozen=True)
class Constantly(Penalty):
    """The mean logit of ones: its derivative to each weight of a linear discriminator is one."""

    @property
    def double_backward(self) -> bool:
        return False

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Tensor:
        return judge(torch.ones_like(pair.real)).logits[0].mean()


def linear_plan(every_steps: int, **changes: Any) -> Plan:
    task = replace(vectors(), make_discriminator=lambda: MLPDiscriminator((3,), widths=()))
    penalties = {"ones": WeightedPenalty(Constantly(), constant(0.5), every_steps)}
    return make_plan(Nothing(), task=task, penalties=penalties, **changes)


def moved(plan: Plan, steps: int, first: int = 0) -> list[float]:
    """By how much the discriminator's weights fall in each step."""
    state = create(plan, CPU, SEED, 1000)
    state.items_seen = first * plan.batch_items * plan.discriminator_steps
    falls = []
    for _ in range(steps):
        before = weights_of(state.discriminator)["head.linear.weight"]
        terms = step(state, plan, make_batch(plan), CPU, SEED)
        fall = before - weights_of(state.discriminator)["head.linear.weight"]
        assert float(fall.max() - fall.min()) < 1e-6
        assert ("discriminator/ones" in terms) == (float(fall.mean()) > 1e-6)
        falls.append(float(fall.mean()))
    return falls


def test_a_lazy_penalty_is_applied_in_every_kth_step_with_k_times_the_weight():
    assert moved(linear_plan(1), 3) == pytest.approx([0.05] * 3, abs=1e-6)
    assert moved(linear_plan(4), 9) == pytest.approx([0.2, 0, 0, 0, 0.2, 0, 0, 0, 0.2], abs=1e-6)


def test_a_lazy_penalty_keeps_its_rhythm_after_resuming_and_counts_updates_of_the_discriminator():
    assert moved(linear_plan(4), 3, first=3) == pytest.approx([0, 0.2, 0], abs=1e-6)
    plan = linear_plan(4, discriminator_steps=2)  # updates 0 1 | 2 3 | 4 5 | 6 7 | 8 9
    state = create(plan, CPU, SEED, 1000)
    logged = ["discriminator/ones" in step(state, plan, make_batch(plan), CPU, SEED) for _ in range(5)]
    assert logged == [True, False, True, False, True]


def test_the_weight_of_a_penalty_is_a_schedule_of_items_seen():
    plan = linear_plan(1)
    penalties = {"ones": replace(plan.objective.penalties["ones"], weight=Schedule(1.0, 0.0, shape="linear"))}
    plan = replace(plan, objective=replace(plan.objective, penalties=penalties))
    assert moved(plan, 2, first=0) == pytest.approx([0.1, 0.1 * (1 - BATCH / 1000)], abs=1e-6)


@pytest.mark.parametrize("penalty", [R1(), R2(), R1(0.1), R2(0.1), GradientPenalty(), Dragan()], ids=str)
def test_every_penalty_moves_the_discriminator_and_has_a_gradient(penalty: Penalty):
    plan = make_plan(Nothing(), penalties={"it": WeightedPenalty(penalty, constant(1.0))})
    state = create(plan, CPU, SEED, 1000)
    before = weights_of(state.discriminator)
    terms = step(state, plan, make_batch(plan), CPU, SEED)
    assert changed(before, weights_of(state.discriminator)) and bool(terms["discriminator/it"].isfinite())


# The average, schedules, names


@pytest.mark.parametrize("batch_items", [4, 16])
def test_after_one_half_life_of_items_the_average_is_half_way_whatever_the_batch(batch_items: int):
    still = replace(SGD, learning_rate=constant(0.0))
    plan = make_plan(ema_halflife_items=constant(64.0), batch_items=batch_items, generator=still, discriminator=still)
    state = create(plan, CPU, SEED, 10_000)
    state.items_seen = 640  # far enough for the half-life to hold: it is at most a fifth of the items seen
    with torch.no_grad():
        for weight in state.generator.parameters():
            weight.add_(1.0)
    old, new = weights_of(state.average), weights_of(state.generator)
    for k in range(64 // batch_items):
        step(state, plan, make_batch(plan, k), CPU, SEED)
    assert_close(weights_of(state.average), {name: (old[name] + new[name]) / 2 for name in old})
    assert not any(weight.requires_grad for weight in state.average.parameters()) and not state.average.training


def test_the_half_life_is_at_most_a_fifth_of_the_items_seen():
    still = replace(SGD, learning_rate=constant(0.0))
    plan = make_plan(ema_halflife_items=constant(1e9), batch_items=16, generator=still, discriminator=still)
    state = create(plan, CPU, SEED, 10_000)
    state.items_seen = 64
    with torch.no_grad():
        for weight in state.generator.parameters():
            weight.add_(1.0)
    old, new = weights_of(state.average), weights_of(state.generator)
    step(state, plan, make_batch(plan, 0), CPU, SEED)  # 16 items later the half-life is 16
    assert_close(weights_of(state.average), {name: (old[name] + new[name]) / 2 for name in old})


def test_without_a_half_life_the_average_is_the_generator():
    state, _ = after(make_plan(ema_halflife_items=constant(0.0), generator=ADAM), 3)
    assert_same(weights_of(state.average), weights_of(state.generator))


def test_the_average_takes_batch_statistics_along_and_copies_counts():
    plan = make_plan(task=pictures("compact"), ema_halflife_items=constant(float(BATCH)))
    state = create(plan, CPU, SEED, 1000)
    state.items_seen = 1000
    mean, count = "norms.0.norm.running_mean", "norms.0.norm.num_batches_tracked"
    with torch.no_grad():
        state.generator.get_buffer(mean).fill_(3.0)
        state.generator.get_buffer(count).fill_(7)
    update_average(state, plan)
    torch.testing.assert_close(state.average.get_buffer(mean), torch.full_like(state.average.get_buffer(mean), 1.5))
    assert int(state.average.get_buffer(count)) == 7


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "rmsprop"])
def test_schedules_reach_both_optimisers(kind: Any):
    rate = Schedule(0.1, 0.0, shape="linear")
    of_generator = OptimiserSettings(rate, kind=kind, beta1=0.5, beta2=Schedule(0.9, 0.99, shape="linear"))
    of_discriminator = replace(of_generator, learning_rate=constant(0.02))
    plan = make_plan(generator=of_generator, discriminator=of_discriminator)
    state = create(plan, CPU, SEED, 100)
    state.items_seen = 48
    step(state, plan, make_batch(plan), CPU, SEED)
    (group,), (other,) = state.generator_optimiser.param_groups, state.discriminator_optimiser.param_groups  # type: ignore[union-attr]
    assert group["lr"] == pytest.approx(0.052) and other["lr"] == pytest.approx(0.02)
    if kind in ("adam", "adamw"):
        assert group["betas"] == pytest.approx((0.5, 0.9 + 0.09 * 0.48))
    if kind == "sgd":
        assert group["momentum"] == 0.5


@dataclass(frozen=True)
class WithTerms(Generate):
    """A task with a term of its own in either turn; the generator's needs the verdict on real items."""

    generator_sees_real = True

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        return {"spread": real.features[0].square().mean()}

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        assert real is not None
        return {"matching": (real.features[0].mean(0) - fake.features[0].mean(0)).square().mean()}


def with_terms(**weights: float) -> Plan:
    base = vectors()
    task = WithTerms(base.make_generator, base.make_discriminator, LATENT)
    return make_plan(NonSaturating(), task=task, weights={name: constant(value) for name, value in weights.items()})


def test_the_terms_of_a_task_are_logged_and_weighted():
    heavy, terms = after(with_terms(spread=1.0, matching=2.0))
    assert {"discriminator/spread", "generator/matching"} <= set(terms[0])
    without, same_terms = after(with_terms(spread=0.0, matching=0.0))
    plain, _ = after(make_plan(NonSaturating()))
    assert changed(weights_of(heavy.discriminator), weights_of(without.discriminator))
    assert_close(weights_of(without.generator), weights_of(plain.generator))
    assert_close(weights_of(without.discriminator), weights_of(plain.discriminator))
    assert float(same_terms[0]["generator/matching"]) > 0, "the log holds the term, not its weighted value"


def test_a_term_without_a_weight_and_a_weight_without_a_term_are_refused():
    with pytest.raises(KeyError, match="no weight for the term 'spread'"):
        after(with_terms(matching=1.0))
    with pytest.raises(KeyError, match="no weight for the term 'matching'"):
        after(with_terms(spread=1.0))
    with pytest.raises(KeyError, match="mathing"):
        after(with_terms(spread=1.0, matching=1.0, mathing=1.0))


class TwoHeads(nn.Module):
    """One logit of the whole and a patch of logits: what multi-scale discriminators return."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.parts = nn.Linear(3, 1), nn.Linear(1, 1)

    def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
        return Verdict((self.whole(items).squeeze(1), self.parts(items[:, :, None]).squeeze(2)))


@pytest.mark.parametrize("joint", [True, False])
def test_several_heads_weigh_the_same(joint: bool):
    task = replace(vectors(), make_discriminator=TwoHeads)
    plan = make_plan(task=task, joint_verdicts=joint)
    state = create(plan, CPU, SEED, 1000)
    network = copy.deepcopy(state.discriminator)
    assert network is not None
    terms = step(state, plan, make_batch(plan), CPU, SEED)
    with CPU.randomness(SEED, 0) as draws, torch.no_grad():
        fake = create(plan, CPU, SEED, 1000).generator(draws.normal(BATCH, LATENT))
        pairs = list(zip(network(make_batch(plan)["real"]).logits, network(fake).logits, strict=True))
    expected = sum(softplus(f - r).mean() for r, f in pairs) / 2
    torch.testing.assert_close(terms["discriminator/adversarial"], expected)


@dataclass(frozen=True)
class Autoencoder(Generate):
    """A comparator without an adversary."""

    def networks(self) -> tuple[nn.Module, None]:  # type: ignore[override]
        return self.make_generator(), None

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        return {"error": (pair.fake - pair.real).square().mean()}


def test_without_a_discriminator_there_is_only_the_generators_turn(tmp_path: Path):
    base = vectors()
    task = Autoencoder(base.make_generator, base.make_discriminator, LATENT)
    plan = make_plan(task=task, weights={"error": constant(1.0)})
    state, terms = after(plan, 2)
    assert list(terms[0]) == ["generator/error"] and state.items_seen == 2 * BATCH
    again = saved_and_restored(state, plan, tmp_path)
    assert_same(weights_of(state.generator), weights_of(again.generator))


# Number formats and compilation


@dataclass(frozen=True)
class ListeningPenalty(R1):
    """R1 that notes which number formats a GPU would compute it, and differentiate it, in."""

    heard: list[str] = field(default_factory=list)

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Tensor:
        value = super().__call__(judge, pair, real, fake, draws)
        self.listen(value)
        value.register_hook(self.listen)
        return value

    def listen(self, value: Tensor) -> None:
        self.heard.extend([torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision])


@pytest.fixture(params=["newer switch", "older switch"])
def tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    """A user who has allowed TF32 for matrix products too."""
    before = torch.get_float32_matmul_precision()
    if request.param == "newer switch":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("tf32")
def test_penalties_are_never_computed_in_tf32():
    penalty = ListeningPenalty()
    plan = make_plan(RelativisticPairing(), penalties={"r1": WeightedPenalty(penalty, constant(1.0))})
    step(create(plan, Runtime(), SEED, 100), plan, make_batch(plan, 0), Runtime(), SEED)
    assert len(penalty.heard) == 4 and "tf32" not in penalty.heard
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"


class Listening(MLPDiscriminator):
    """A discriminator that notes whether autocast was on and in which format its items came."""

    def __init__(self) -> None:
        super().__init__((3,), widths=(6,))
        self.heard: list[tuple[bool, torch.dtype]] = []

    def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
        self.heard.append((torch.is_autocast_enabled("cpu"), items.dtype))
        return super().forward(items, labels)


@dataclass(frozen=True)
class ListeningLoss(AdversarialLoss):
    """Relativistic pairing that insists on float32."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        assert real.dtype == fake.dtype == torch.float32
        return RelativisticPairing().discriminator(real, fake)

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        assert real is not None and real.dtype == fake.dtype == torch.float32
        return RelativisticPairing().generator(real, fake)


@pytest.mark.parametrize("sigma", [None, 0.05])
@pytest.mark.parametrize("joint", [True, False])
def test_in_bfloat16_penalties_and_logits_are_float32(sigma: float | None, joint: bool):
    lazy = {"r1": WeightedPenalty(R1(sigma), constant(1.0), 2), "r2": WeightedPenalty(R2(sigma), constant(1.0), 2)}
    task = replace(vectors(), make_discriminator=Listening)
    plan = make_plan(ListeningLoss(), penalties=lazy, task=task, joint_verdicts=joint)
    runtime = Runtime(precision="bfloat16")
    state = create(plan, runtime, SEED, 1000)
    heard = state.discriminator.heard  # type: ignore[union-attr]
    with_penalties = step(state, plan, make_batch(plan, 0), runtime, SEED)
    in_turn = heard[:-2]
    assert in_turn == [(False, torch.float32)] * (2 if sigma is None else 4)
    assert [autocast for autocast, _ in heard[-2:]] == [True, True]
    heard.clear()
    plain = step(state, plan, make_batch(plan, 1), runtime, SEED)
    assert [autocast for autocast, _ in heard] == [True] * (3 if joint else 4)
    for terms in (with_penalties, plain):
        assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in terms.values())
    assert all(weight.dtype == torch.float32 for weight in state.generator.parameters())
    exact, exact_terms = after(plan, 2)
    assert_close(weights_of(state.generator), weights_of(exact.generator), 0.02)
    assert_close(plain, exact_terms[1], 0.05)


@pytest.mark.parametrize("family", ["dcgan", "compact"])
def test_pictures_in_bfloat16(family: str):
    runtime = Runtime(precision="bfloat16")
    plan = make_plan(task=pictures(family, 9), generator=ADAM, discriminator=ADAM)
    _, terms = after(plan, 2, runtime, shape=(1, 9, 9))
    assert all(bool(value.isfinite()) for value in terms[-1].values())


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own look at tensors while it traces
@pytest.mark.parametrize("sigma", [None, 0.05])
def test_compiled_networks_take_the_same_steps(
    sigma: float | None, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
):
    if pytestconfig.getoption("--jaxtyping-packages", default=None):
        pytest.skip("torch cannot trace the checks of shapes; this test runs without them")
    compiled, original = [], torch.compile

    def compile_eagerly(module: nn.Module) -> Callable[..., Any]:
        made = original(module, backend="eager")
        compiled.append(module)
        return made

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    lazy = {"r1": WeightedPenalty(R1(sigma), constant(1.0), 2), "r2": WeightedPenalty(R2(sigma), constant(1.0), 2)}
    plan = make_plan(penalties=lazy)
    plain, terms = after(plan, 3)
    assert not compiled
    made, terms_of_made = after(plan, 3, Runtime(compiled=True))
    assert compiled == [made.generator, made.discriminator]
    assert_close(weights_of(plain.generator), weights_of(made.generator))
    assert_close(weights_of(plain.discriminator), weights_of(made.discriminator))
    assert_close(terms[-1], terms_of_made[-1])


def test_what_is_differentiated_twice_does_not_run_compiled():
    """torch.compile refuses, or drops, the second derivative: the exact penalties need the module itself."""

    def refuse(*_: object) -> Verdict:
        raise RuntimeError("the compiled discriminator was called")

    for sigma, refused in ((None, False), (0.1, True)):
        plan = make_plan(penalties={"r1": WeightedPenalty(R1(sigma), constant(1.0))})
        state = create(plan, CPU, SEED, 1000)
        state.call_discriminator = refuse
        rng = torch.Generator().manual_seed(0)
        turn = (state, plan, make_batch(plan), due_penalties(plan.objective.penalties, 0), False, CPU, Draws(rng))
        if refused:
            with pytest.raises(RuntimeError, match="compiled"):
                discriminator_turn(*turn)
        else:
            _, terms = discriminator_turn(*turn)
            assert float(terms["discriminator/r1"]) > 0


# Stopping and resuming


def saved_and_restored(state: State, plan: Plan, folder: Path) -> State:
    """Through real files into a new state that began elsewhere."""
    path = folder / checkpoint.name(state.items_seen)
    checkpoint.save(path, to_tensors(state), to_facts(state))
    new = create(plan, CPU, SEED + 1, 1)
    restore(new, *checkpoint.load(path))
    return new


def assert_same_state(first: State, second: State) -> None:
    tensors, others = to_tensors(first), to_tensors(second)
    assert tensors.keys() == others.keys()
    for name in tensors:
        assert_same(tensors[name], others[name])
    assert to_facts(first) == to_facts(second)


def run_steps(state: State, plan: Plan, numbers: range, **of_batch: Any) -> list[Terms]:
    batches = (make_batch(plan, k, **of_batch) for k in numbers)
    return [report.terms for report in train(state, plan, batches, CPU, SEED)]


def of_recipe(recipe: Recipe, size: int) -> Plan:
    return recipe.plan(Setting(Spec("image", (1, size, size)), 1000, "cpu", budget_items=1000))


RESUMED: dict[str, tuple[Callable[[], Plan], tuple[int, ...]]] = {
    "gan, with dropout": (lambda: of_recipe(gan(latent=4, batch_items=BATCH), 4), (1, 4, 4)),
    "dcgan, with batch statistics": (lambda: of_recipe(dcgan(width=4, latent=4, batch_items=BATCH), 16), (1, 16, 16)),
    "r3": (lambda: of_recipe(r3(network="compact", width=4, latent=4, batch_items=BATCH), 8), (1, 8, 8)),
    "residual": (lambda: of_recipe(r3(network="residual", width=16, latent=4, batch_items=BATCH), 8), (1, 8, 8)),
} | {
    kind: (
        lambda kind=kind: make_plan(
            task=pictures("dcgan", 16),
            generator=OptimiserSettings(constant(1e-2), kind=kind, beta1=0.5),
            discriminator=OptimiserSettings(constant(1e-2), kind=kind),
            ema_halflife_items=constant(20.0),
        ),
        (1, 16, 16),
    )
    for kind in ("adam", "adamw", "sgd", "rmsprop")
}


@pytest.mark.parametrize("name", RESUMED)
def test_stopping_and_resuming_is_not_having_stopped(name: str, tmp_path: Path):
    make, shape = RESUMED[name]
    plan = make()
    through = create(plan, CPU, SEED, 1000)
    all_terms = run_steps(through, plan, range(6), shape=shape)
    stopped = create(plan, CPU, SEED, 1000)
    run_steps(stopped, plan, range(3), shape=shape)
    resumed = saved_and_restored(stopped, plan, tmp_path)
    assert_same_state(stopped, resumed)
    terms = run_steps(resumed, plan, range(3, 6), shape=shape)
    for expected, found in zip(all_terms[3:], terms, strict=True):
        assert_same(expected, found)
    assert_same_state(through, resumed)
    assert resumed.mean.take() == through.mean.take()


def test_a_restored_optimiser_lies_in_memory_as_its_weights_do(tmp_path: Path):
    """Fused optimisers read weight and moment as they lie: row-major moments mix up channels-last weights."""
    plan = make_plan(task=pictures("dcgan", 16), generator=ADAM, discriminator=ADAM)
    state, _ = after(plan, 2, shape=(1, 16, 16))
    resumed = saved_and_restored(state, plan, tmp_path)
    for optimiser in (resumed.generator_optimiser, resumed.discriminator_optimiser):
        assert optimiser is not None
        for weight, numbers in optimiser.state.items():
            assert numbers["exp_avg"].stride() == numbers["exp_avg_sq"].stride() == weight.stride()


def test_a_restored_state_shares_no_memory_with_the_saved_one():
    plan = make_plan(generator=ADAM, discriminator=ADAM)
    state, _ = after(plan, 2)
    other = create(plan, CPU, SEED, 1000)
    restore(other, to_tensors(state), to_facts(state))
    before = {name: {key: value.clone() for key, value in part.items()} for name, part in to_tensors(state).items()}
    step(other, plan, make_batch(plan, 2), CPU, SEED)
    for name, part in to_tensors(state).items():
        assert_same(before[name], part)


def test_weights_of_another_network_are_refused_by_name_and_shape():
    state, _ = after(make_plan())
    tensors = to_tensors(state)
    with pytest.raises(RunError, match=r"saved generator does not fit: layers\.0\.weight is \(1,\), expected \(6, 4\)"):
        restore(state, tensors | {"generator": tensors["generator"] | {"layers.0.weight": torch.zeros(1)}}, {})
    missing = {name: value for name, value in tensors["discriminator"].items() if name != "head.linear.bias"}
    with pytest.raises(RunError, match=r"discriminator does not fit: head\.linear\.bias is nothing"):
        restore(state, tensors | {"discriminator": missing}, {})
    with pytest.raises(RunError, match="average does not fit: more is"):
        restore(state, tensors | {"average": tensors["average"] | {"more": torch.zeros(1)}}, {})


# The loop


def test_the_loop_stops_at_the_total_and_reports_every_step():
    plan = make_plan()
    state = create(plan, CPU, SEED, 3 * BATCH - 1)
    reports = list(train(state, plan, (make_batch(plan, k) for k in range(10)), CPU, SEED))
    assert [report.items_seen for report in reports] == [BATCH, 2 * BATCH, 3 * BATCH]
    means = state.mean.take()
    values = [float(report.terms["discriminator/adversarial"]) for report in reports]
    assert means["discriminator/adversarial"] == pytest.approx(sum(values) / 3)
    assert state.mean.take() == {}
    assert list(train(state, plan, iter([make_batch(plan)]), CPU, SEED)) == []


def test_the_loop_ends_with_its_batches_and_does_nothing_until_asked():
    plan = make_plan()
    state = create(plan, CPU, SEED, 1000)
    reports = train(state, plan, [make_batch(plan, k) for k in range(2)], CPU, SEED)
    assert state.items_seen == 0
    assert next(reports).items_seen == BATCH == state.items_seen
    assert len(list(reports)) == 1
