"""What a plan may add to the step: penalties of the generator and of weights, memories, augmentation, growth."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganlib.core import (
    Augment,
    Augmentation,
    Batch,
    Change,
    Draws,
    GeneratorPenalty,
    Grows,
    Objective,
    OptimiserSettings,
    Pair,
    Plan,
    Schedule,
    Terms,
    Verdict,
    WeightedPenalty,
    WeightPenalty,
    constant,
)
from ganlib.losses import NonSaturating, RelativisticPairing, Wasserstein
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.penalties import R1
from ganlib.tasks.generate import Generate
from ganlib.training.augmenting import adapt, set_probability, with_pseudo
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_facts, to_tensors
from ganlib.training.step import step
from ganlib.training.team import Team

CPU, BATCH, LATENT, RATE = Runtime(), 8, 4, 0.1
SGD = OptimiserSettings(constant(RATE), kind="sgd")


class LinearJudge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
        return Verdict((self.linear(items).squeeze(1),), (items,))


def make_plan(objective: Objective | None = None, **changes: Any) -> Plan:
    task = Generate(
        lambda: MLPGenerator((3,), latent=LATENT, widths=(6,), bounded=False),
        lambda: MLPDiscriminator((3,), widths=(6,)),
        LATENT,
    )
    plan = Plan(task, objective or Objective(NonSaturating()), SGD, SGD, BATCH, constant(0.0), 1000)
    return replace(plan, **changes)


def make_batch(position: int = 0) -> Batch:
    return {"real": torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(position))}


def after(plan: Plan, steps: int = 1) -> tuple[State, list[Terms]]:
    state = create(plan, CPU, 3, plan.items)
    return state, [step(state, plan, make_batch(position), CPU, 3) for position in range(steps)]


def values(network: nn.Module | None) -> dict[str, Tensor]:
    assert network is not None
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


class Small(WeightPenalty):
    """Half the squared sum of all weights, whose gradient is the weights."""

    def __call__(self, network: nn.Module) -> Tensor:
        return 0.5 * sum((weight.square().sum() for weight in network.parameters()), torch.zeros(()))


@pytest.mark.parametrize("place", ["penalties", "generator_penalties"])
def test_a_penalty_of_weights_pulls_those_of_its_own_network_only(place: str):
    weight, (plain, _) = 0.5, after(make_plan())
    objective = Objective(NonSaturating(), **{place: {"small": WeightedPenalty(Small(), constant(weight))}})
    state, terms = after(make_plan(objective))
    name = "discriminator" if place == "penalties" else "generator"
    before = values(create(make_plan(), CPU, 3, 1000).networks[name])
    for key, value in values(state.networks[name]).items():
        torch.testing.assert_close(value, values(plain.networks[name])[key] - RATE * weight * before[key])
    if name == "generator":  # the discriminator's turn comes first, and was the same
        for key, value in values(state.discriminator).items():
            assert torch.equal(value, values(plain.discriminator)[key])
    expected = 0.5 * sum(float(value.square().sum()) for value in before.values())
    assert float(terms[0][f"{name}/small"]) == pytest.approx(expected, rel=1e-5)


@dataclass(frozen=True)
class Towards(GeneratorPenalty):
    """The squared distance of the mean fake to the mean real feature: needs all that a penalty is given."""

    sees_real = True
    heard: list[bool] = field(default_factory=list)

    def __call__(
        self,
        generator: Callable[..., Tensor],
        batch: Batch,
        pair: Pair,
        real: Verdict | None,
        fake: Verdict,
        draws: Draws,
    ) -> Tensor:
        assert real is not None
        again = generator(batch["latent"])
        self.heard.append(torch.equal(again, pair.fake))
        return (real.features[0].mean(0) - fake.features[0].mean(0)).square().sum() + 0 * again.sum()


@pytest.mark.parametrize("reuse", [True, False])
def test_a_penalty_of_the_generator_moves_it_in_the_steps_that_it_is_due(reuse: bool):
    penalty = Towards()
    objective = Objective(
        Wasserstein(), generator_penalties={"towards": WeightedPenalty(penalty, constant(0.25), every_steps=2)}
    )
    task = replace(make_plan().task, make_discriminator=LinearJudge)  # type: ignore[call-arg]
    plan = make_plan(objective, task=task, reuse_fakes=reuse)
    state = create(plan, CPU, 3, 1000)
    first, batch = copy.deepcopy(state.generator), make_batch()
    terms = step(state, plan, batch, CPU, 3)
    # By hand: the discriminator's features are the items; every second step with twice the weight.
    with CPU.randomness(3, 0) as draws:
        latent = plan.task.draw(batch, draws)["latent"]
        if not reuse:
            latent = plan.task.draw(batch, draws)["latent"]
    fake = first(latent)
    distance = (batch["real"].mean(0) - fake.mean(0)).square().sum()
    judge = state.discriminator
    assert judge is not None
    (2 * 0.25 * distance - judge(fake).logits[0].mean()).backward()
    for ours, theirs in zip(state.generator.parameters(), first.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours, theirs - RATE * theirs.grad)
    assert float(terms["generator/towards"]) == pytest.approx(float(distance.detach()))
    assert "generator/towards" not in step(state, plan, make_batch(1), CPU, 3)
    assert "generator/towards" in step(state, plan, make_batch(2), CPU, 3)
    assert penalty.heard == [True, True], "the batch is what the fakes were made of"


class Remembering(nn.Module, WeightPenalty):
    """The distance of the first weight's mean to its moving average."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(()))

    def __call__(self, network: nn.Module) -> Tensor:
        mean = next(iter(network.parameters())).mean()
        value = (mean - self.average).square()
        with torch.no_grad():
            self.average.lerp_(mean, 0.3)
        return value


def test_what_a_penalty_remembers_is_saved_and_gives_the_same_bits():
    def plan() -> Plan:
        penalty = {"past": WeightedPenalty(Remembering(), constant(2.0))}
        return make_plan(Objective(NonSaturating(), penalties=penalty))

    whole, _ = after(plan(), 6)
    half, _ = after(plan(), 3)
    tensors = {group: {k: v.clone() for k, v in part.items()} for group, part in to_tensors(half).items()}
    assert float(tensors["memories"]["discriminator/past.average"]) != 0
    second = plan()
    again = create(second, CPU, 3, 1000)
    restore(again, tensors, to_facts(half))
    for position in range(3, 6):
        step(again, second, make_batch(position), CPU, 3)
    assert to_tensors(again).keys() == to_tensors(whole).keys()
    for group, part in to_tensors(whole).items():
        for name, value in part.items():
            assert torch.equal(value, to_tensors(again)[group][name]), (group, name)


@dataclass(frozen=True)
class Stretch(Augment):
    """Each item times a number of its own, drawn from 1 to 3; all with probability 1."""

    drawn: list[Tensor] = field(default_factory=list)

    def draw(self, items: Tensor, probability: Tensor, draws: Draws) -> Change:
        factor = 1 + 2 * draws.uniform(len(items), 1)
        self.drawn.append(factor)
        return lambda given: given * factor


@pytest.mark.parametrize("sigma", [None, 1e-3])
@pytest.mark.parametrize("joint", [False, True])
def test_real_fake_and_penalty_are_judged_under_one_change_and_differentiated_to_the_raw_items(
    sigma: float | None, joint: bool
):
    augment = Stretch()
    task = replace(make_plan().task, make_discriminator=LinearJudge)  # type: ignore[call-arg]
    objective = Objective(RelativisticPairing(), {"r1": WeightedPenalty(R1(sigma), constant(1.0), every_steps=2)})
    plan = make_plan(objective, task=task, augmentation=Augmentation(augment), joint_verdicts=joint)
    state = create(plan, CPU, 3, 1000)
    judge = copy.deepcopy(state.discriminator)
    assert isinstance(judge, LinearJudge)
    generator, batch = copy.deepcopy(state.generator), make_batch()
    terms = step(state, plan, batch, CPU, 3)
    assert len(augment.drawn) == 2, "one for each turn"
    with CPU.randomness(3, 0) as draws, torch.no_grad():
        fake = generator(plan.task.draw(batch, draws)["latent"])
    factor, weight = augment.drawn[0], judge.linear.weight.detach()
    expected = nn.functional.softplus((fake - batch["real"]) * factor @ weight.T).mean()
    torch.testing.assert_close(terms["discriminator/adversarial"], expected)
    if sigma is None:
        torch.testing.assert_close(terms["discriminator/r1"], 0.5 * (factor * weight).square().sum(1).mean())
    else:
        assert float(terms["discriminator/r1"]) < 10 * float((3 * weight).square().sum()), "one change for both passes"
    assert float(terms["augment/probability"]) == 1


def test_a_scheduled_probability_falls():
    heard: list[float] = []

    class Listening(Augment):
        def draw(self, items: Tensor, probability: Tensor, draws: Draws) -> Change:
            heard.append(float(probability))
            return lambda given: given

    after(make_plan(augmentation=Augmentation(Listening(), Schedule(1.0, 0.0, until=0.016, shape="linear"))), 3)
    assert heard == pytest.approx([1, 1, 0.5, 0.5, 0, 0])


@pytest.mark.parametrize("relative", [False, True])
def test_the_adaptive_probability_follows_the_sign_at_its_pace(relative: bool):
    augmentation = Augmentation(None, constant(0.5), target=0.6, rise_items=1000)
    loss = RelativisticPairing() if relative else NonSaturating()
    plan = make_plan(Objective(loss), augmentation=augmentation)
    state = create(plan, CPU, 3, 1000)

    def told(real: float, fake: float, times: int) -> float:
        for _ in range(times):
            real_verdict, fake_verdict = (Verdict((torch.full((BATCH,), value),)) for value in (real, fake))
            adapt(state, plan, real_verdict, fake_verdict, Team())
        return float(state.augment["probability"])

    state.augment["sign"].fill_(1.0)
    # Real logits of 5 are far above the target by themselves, but not above fake logits of 6.
    assert told(5.0, 6.0 if relative else -6.0, 1) != 0.5
    state.augment["probability"].fill_(0.5)
    state.augment["sign"].fill_(1.0)
    assert told(1.0, -1.0, 10) == pytest.approx(0.5 + 10 * BATCH / 1000)
    state.augment["sign"].fill_(-1.0)
    assert told(-1.0, 1.0, 10) == pytest.approx(0.5)
    assert told(-1.0, 1.0, 1000) == 0
    state.augment["sign"].fill_(1.0)
    assert told(1.0, -1.0, 1000) == 1
    if relative:
        assert told(5.0, 6.0, 200) < 1
    else:
        assert told(5.0, 6.0, 200) == 1


def test_an_adaptive_probability_is_saved():
    plan = make_plan(augmentation=Augmentation(None, target=-2.0, probability=constant(0.0), rise_items=100))
    state, terms = after(plan, 3)
    assert float(state.augment["probability"]) == pytest.approx(3 * BATCH / 100)
    assert float(terms[-1]["augment/probability"]) == float(state.augment["probability"])
    again = create(plan, CPU, 4, 1000)
    restore(again, to_tensors(state), to_facts(state))
    assert torch.equal(again.augment["probability"], state.augment["probability"])
    assert torch.equal(again.augment["sign"], state.augment["sign"])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pseudo_items_are_fakes_of_the_same_condition(share: float):
    plan = make_plan(augmentation=Augmentation(None, constant(share), pseudo=True))
    state, count = create(plan, CPU, 3, 1000), 4000
    real, fake = torch.zeros(count, 3), torch.arange(1.0, count + 1)[:, None].expand(count, 3)
    draws = Draws(torch.Generator().manual_seed(0))
    set_probability(state, plan.augmentation)
    made = with_pseudo(state, plan.augmentation, Pair(real, fake), draws)
    replaced = made.real[:, 0] > 0
    assert float(replaced.float().mean()) == pytest.approx(share, abs=0.03)
    assert not bool((made.real == made.fake).any()), "a fake is not paired with itself"
    labels = torch.arange(count)
    made = with_pseudo(state, plan.augmentation, Pair(real, fake, labels), draws)
    assert bool(((made.real == fake) | (made.real == 0)).all())


class Growing(MLPGenerator, Grows):
    def __init__(self) -> None:
        super().__init__((3,), latent=LATENT, widths=(6,), bounded=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def grow(self, items_seen: int, total_items: int) -> None:
        self.seen.fill_(items_seen)


def test_networks_are_told_how_far_the_training_is_and_the_average_with_them():
    task = replace(make_plan().task, make_generator=Growing)  # type: ignore[call-arg]
    state, _ = after(make_plan(task=task, ema_halflife_items=constant(1e6)), 3)
    assert [int(network.seen) for network in (state.generator, state.average)] == [2 * BATCH] * 2  # type: ignore[arg-type]


def test_a_network_within_another_is_told_too():
    plan = make_plan(task=replace(make_plan().task, make_generator=lambda: Around(Growing())))  # type: ignore[call-arg]
    state, _ = after(plan, 3)
    assert int(state.generator.inner.seen) == 2 * BATCH  # type: ignore[union-attr]


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.inner(latent, labels)


def test_a_new_beginning_forgets_what_penalties_remember():
    plan = make_plan(Objective(NonSaturating(), {"past": WeightedPenalty(Remembering(), constant(2.0))}))
    state, _ = after(plan, 2)
    assert float(state.memories["discriminator/past"].average) != 0  # type: ignore[arg-type]
    again = create(plan, CPU, 3, 1000)
    assert float(again.memories["discriminator/past"].average) == 0  # type: ignore[arg-type]


def test_a_comparator_needs_no_adversarial_loss():
    @dataclass(frozen=True)
    class Autoencoder(Generate):
        def networks(self) -> tuple[nn.Module, None]:  # type: ignore[override]
            return self.make_generator(), None

        def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
            made = generator(batch["latent"])
            return Pair(batch["real"], made, extra={"code": made.square()})

        def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
            return {"code": pair.extra["code"].mean()}

    base = make_plan().task
    task = Autoencoder(base.make_generator, base.make_discriminator, LATENT)  # type: ignore[attr-defined]
    _, terms = after(make_plan(Objective(None, weights={"code": constant(1.0)}), task=task), 2)
    assert list(terms[0]) == ["generator/code"] and float(terms[1]["generator/code"]) > 0
