"""The change of a turn, the adaptive probability, and fakes that stand in for real items."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ganlib.augment import AdaptivePipeline, InstanceNoise
from ganlib.core import (
    Augment,
    Augmentation,
    Batch,
    Change,
    Draws,
    Objective,
    OptimiserSettings,
    Pair,
    Plan,
    Schedule,
    Verdict,
    WeightedPenalty,
    constant,
)
from ganlib.losses import NonSaturating, RelativisticPairing
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.penalties import R1
from ganlib.tasks.generate import Generate
from ganlib.training.augmenting import adapt, probability_now, set_probability, with_pseudo
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_facts, to_tensors
from ganlib.training.step import step

CPU, SHAPE = Runtime(), (1, 8, 8)
ADAM = OptimiserSettings(constant(0.01))


def make_plan(augmentation: Augmentation, loss: Any = None, batch_items: int = 256, **changes: Any) -> Plan:
    task = Generate(lambda: CompactGenerator(SHAPE, latent=4, width=2), lambda: CompactDiscriminator(SHAPE, width=2), 4)
    objective = Objective(loss or NonSaturating(), {"r1": WeightedPenalty(R1(), constant(0.1), 2)})
    return Plan(task, objective, ADAM, ADAM, batch_items, constant(0), 1000, augmentation=augmentation, **changes)


def make(augmentation: Augmentation, **changes: Any) -> tuple[State, Plan]:
    plan = make_plan(augmentation, **changes)
    return create(plan, CPU, 0, 1000), plan


def told(state: State, plan: Plan, real: float, fake: float = 0.0, times: int = 1) -> float:
    """The probability after so many batches of such logits."""
    for _ in range(times):
        adapt(state, plan, Verdict((torch.full((4,), real),)), Verdict((torch.full((4,), fake),)), CPU.team)
    return float(probability_now(state, plan.augmentation))  # type: ignore[arg-type]


ADA = Augmentation(AdaptivePipeline(), constant(0.5), target=0.6, rise_items=25_600, most=0.8)


def test_the_probability_rises_while_real_logits_are_positive_and_falls_while_they_are_negative():
    state, plan = make(ADA)
    assert told(state, plan, 0.0, times=0) == 0.5
    assert told(state, plan, 3.0, times=7) == pytest.approx(0.57), "256 items of 25,600 each"
    assert told(state, plan, -0.1, times=10) == pytest.approx(0.47)
    assert told(state, plan, 3.0, times=100) == pytest.approx(0.8), "and no further than `most`"
    assert told(state, plan, -3.0, times=200) == 0.0


def test_a_mean_sign_below_the_target_lowers_it():
    state, plan = make(ADA)
    logits = torch.tensor([1.0] * 7 + [-1.0] * 3)  # a mean sign of 0.4
    adapt(state, plan, Verdict((logits,)), Verdict((logits,)), CPU.team)
    assert told(state, plan, 0, times=0) == pytest.approx(0.49)
    logits = torch.tensor([1.0] * 9 + [-1.0])  # of 0.8
    adapt(state, plan, Verdict((logits,)), Verdict((logits,)), CPU.team)
    assert told(state, plan, 0, times=0) == pytest.approx(0.5)


def test_a_relativistic_loss_is_told_by_the_difference():
    state, plan = make(ADA, loss=RelativisticPairing())
    assert told(state, plan, real=5.0, fake=6.0) < 0.5
    state, plan = make(ADA, loss=RelativisticPairing())
    assert told(state, plan, real=-6.0, fake=-7.0) > 0.5


def test_small_batches_and_micro_batches_move_it_as_far_per_item():
    state, plan = make(ADA, batch_items=512, accumulate=2)
    assert told(state, plan, 1.0, times=2) == pytest.approx(0.52)
    state, plan = make(ADA, batch_items=64)
    assert told(state, plan, 1.0, times=3) < 0.5, "the mean sign is one over 256 items, and was 0"
    assert told(state, plan, 1.0, times=100) > 0.6


def test_logits_that_are_not_finite_say_nothing():
    state, plan = make(ADA)
    for value in (float("nan"), float("inf"), -float("inf")):
        assert 0 <= told(state, plan, value) <= 0.8
    assert bool(state.augment["sign"].isfinite())


def test_each_collapse_raises_the_least_probability():
    state, plan = make(replace(ADA, probability=constant(0.0), most=0.5))
    assert told(state, plan, -1.0) == 0.0
    state.collapses = 1
    assert told(state, plan, -1.0, times=0) == pytest.approx(0.2)
    assert told(state, plan, -1.0, times=9) == pytest.approx(0.2)
    state.collapses = 9
    assert told(state, plan, -1.0) == 0.5
    state, _ = make(falling := Augmentation(InstanceNoise(), Schedule(1.0, 0.0, shape="linear")))
    state.items_seen, state.collapses = 900, 1
    assert float(probability_now(state, falling)) == pytest.approx(0.2)
    state.items_seen = 300
    assert float(probability_now(state, falling)) == pytest.approx(0.7)


@dataclass(frozen=True)
class Recorded(Augment):
    """Doubles the items, and remembers what it was asked."""

    drawn: list[float] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)

    def draw(self, items: Tensor, probability: Tensor, draws: Draws) -> Change:
        self.drawn.append(float(probability))

        def change(items: Tensor) -> Tensor:
            self.seen.append(items)
            return 2 * items

        return change


def batch(plan: Plan, position: int = 0) -> Batch:
    return {"real": torch.rand(plan.batch_items, *SHAPE, generator=torch.Generator().manual_seed(position)) * 2 - 1}


def test_a_turn_draws_one_change_for_real_and_fake():
    aug = Recorded()
    state, plan = make(Augmentation(aug, constant(0.25)), loss=RelativisticPairing(), batch_items=4)
    given = batch(plan)
    terms = step(state, plan, given, CPU, 0)
    assert aug.drawn == [0.25, 0.25] and float(terms["augment/probability"]) == 0.25
    assert len(aug.seen) == 4 and all(torch.equal(aug.seen[at], given["real"]) for at in (0, 2))


class Counted(Schedule):
    """A line from 1 to 0 that counts how often it is asked."""

    calls: ClassVar[list[int]] = []

    def __call__(self, items_seen: int, total_items: int) -> float:
        self.calls.append(items_seen)
        return 1 - items_seen / total_items


def test_a_step_asks_for_the_probability_once():
    aug = Recorded()
    state, plan = make(Augmentation(aug, Counted(1.0, 0.0), pseudo=True), loss=RelativisticPairing(), batch_items=4)
    Counted.calls.clear()
    for position in range(3):
        terms = step(state, plan, batch(plan, position), CPU, 0)
        assert float(terms["augment/probability"]) == pytest.approx(1 - 4 * position / 1000)
    assert Counted.calls == [0, 4, 8]
    assert aug.drawn == pytest.approx([1.0, 1.0, 0.996, 0.996, 0.992, 0.992])


def test_an_adaptive_probability_moves_between_the_turns_of_a_step():
    aug = Recorded()
    state, plan = make(Augmentation(aug, constant(0.5), target=2.0, rise_items=100), batch_items=4)
    terms = [step(state, plan, batch(plan, position), CPU, 0) for position in range(2)]
    assert aug.drawn == pytest.approx([0.5, 0.46, 0.46, 0.42]), "no mean sign is over the target, and 4 items of 100"
    assert [float(each["augment/probability"]) for each in terms] == pytest.approx([0.46, 0.42])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_apa_replaces_that_share_of_the_real_items_by_fakes(share: float):
    augmentation = Augmentation(None, constant(share), pseudo=True)
    state, _ = make(augmentation)
    set_probability(state, augmentation)
    pair = Pair(torch.zeros(2000, 3), torch.arange(1.0, 2001.0)[:, None].expand(-1, 3))
    real = with_pseudo(state, augmentation, pair, Draws(torch.Generator().manual_seed(0))).real
    replaced = real[:, 0] > 0
    assert bool(((real == pair.fake.roll(1000, 0)).all(1) == replaced).all()), "of another pair"
    assert float(replaced.double().mean()) == pytest.approx(share, abs=0.05)
    conditional = replace(pair, condition=torch.zeros(2000, dtype=torch.long))
    real = with_pseudo(state, augmentation, conditional, Draws(torch.Generator().manual_seed(0))).real
    assert torch.equal(real[replaced], pair.fake[replaced]), "of its own, which alone is of that class"


@pytest.mark.parametrize("pseudo", [False, True], ids=["ada", "apa"])
def test_a_training_that_is_taken_up_again_ends_in_the_bits_of_one_that_never_stopped(pseudo: bool):
    augmentation = Augmentation(None if pseudo else AdaptivePipeline(), constant(0.3), 0.1, 200, pseudo=pseudo)
    state, plan = make(augmentation, loss=RelativisticPairing(), batch_items=8)
    for position in range(3):
        step(state, plan, batch(plan, position), CPU, 0)
    files = {name: {key: value.clone() for key, value in part.items()} for name, part in to_tensors(state).items()}
    facts = to_facts(state)
    again = create(plan, CPU, 5, 1000)
    restore(again, files, facts)
    for resumed in (state, again):
        for position in range(3, 6):
            step(resumed, plan, batch(plan, position), CPU, 0)
    assert float(state.augment["probability"]) != pytest.approx(0.3)
    ends = to_tensors(state), to_tensors(again)
    for name, part in ends[0].items():
        for key, value in part.items():
            assert torch.equal(value, ends[1][name][key]), (name, key)
