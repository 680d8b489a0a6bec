"""The buffer of earlier fakes: nothing is lost, each stays with its condition, and a resumed training has the same."""

import pytest
import torch
from torch import Tensor

from ganlib.core import (
    Draws,
    FakeBuffer,
    Objective,
    OptimiserSettings,
    Pair,
    Plan,
    constant,
)
from ganlib.data import Data
from ganlib.data.domains import load_domains
from ganlib.errors import UsageError
from ganlib.losses import NonSaturating
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.recipe import Setting
from ganlib.recipes.cyclegan import cyclegan
from ganlib.tasks.generate import Generate
from ganlib.training.buffering import with_earlier
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_facts, to_tensors
from ganlib.training.step import step
from ganlib.training.team import Team

CPU, SHAPE = Runtime(), (1, 8, 8)


def make_plan(buffer: FakeBuffer | None, judge_rate: float = 0.01) -> Plan:
    task = Generate(lambda: CompactGenerator(SHAPE, latent=4, width=2), lambda: CompactDiscriminator(SHAPE, width=2), 4)
    rate, of_judge = (OptimiserSettings(constant(each), kind="sgd") for each in (0.01, judge_rate))
    return Plan(task, Objective(NonSaturating()), rate, of_judge, 8, constant(0), 1000, fake_buffer=buffer)


class Turns:
    """Turns of a discriminator whose fakes are numbered: item number k is a picture of value k."""

    def __init__(self, buffer: FakeBuffer, seed: int = 0) -> None:
        self.buffer, self.state = buffer, create(make_plan(buffer), CPU, 0, 1000)
        self.draws, self.made = Draws(torch.Generator().manual_seed(seed)), 0

    def __call__(self, kinds: list[int] | None, rows: int = 0) -> tuple[list[int], list[int]]:
        """The numbers of the new fakes, and of those that are judged."""
        new = torch.arange(self.made, self.made + (len(kinds) if kinds is not None else rows)).float()
        self.made += len(new)
        condition = None if kinds is None else torch.tensor(kinds)
        pair = Pair(torch.zeros(len(new), 1), new[:, None], condition)
        shown = with_earlier(self.state, self.buffer, pair, self.draws, Team())
        assert shown.condition is condition and shown.real is pair.real
        return new.int().tolist(), shown.fake[:, 0].int().tolist()

    def kept(self) -> list[list[int]]:
        per_kind = self.state.buffer["fakes"][:, 0].int().unflatten(0, (self.buffer.conditions, -1))
        return [row[:count].tolist() for row, count in zip(per_kind, self.state.buffer["counts"], strict=True)]


def test_the_first_fakes_are_kept_and_judged_as_they_are() -> None:
    turn = Turns(FakeBuffer(3, conditions=2))
    for kinds in ([0, 1], [0, 1]):
        new, shown = turn(kinds)
        assert shown == new
    assert turn.kept() == [[0, 2], [1, 3]]
    new, shown = turn([1, 1, 0])
    assert shown[0] == 4 and shown[2] == 6 and [len(row) for row in turn.kept()] == [3, 3]
    assert {shown[1], *turn.kept()[1]} == {1, 3, 4, 5}, "the second has no room: one of the four is judged"


@pytest.mark.parametrize("rows", [2, 6, 20])
def test_half_of_the_fakes_are_exchanged_for_earlier_ones_of_their_kind_and_none_is_lost(rows: int) -> None:
    turn, kinds, exchanged, many = Turns(FakeBuffer(5, conditions=2)), [0, 1] * (rows // 2), 0, 0
    kind_of: dict[int, int] = {}
    for number in range(300):
        before = turn.kept() if number else [[], []]
        new, shown = turn(kinds)
        kind_of |= dict(zip(new, kinds, strict=True))
        assert [kind_of[each] for each in shown] == kinds
        now = turn.kept()
        if all(len(row) == 5 for row in before):
            assert sorted([*shown, *now[0], *now[1]]) == sorted([*new, *before[0], *before[1]])
            exchanged, many = exchanged + sum(a != b for a, b in zip(new, shown, strict=True)), many + min(rows, 10)
        assert all(kind_of[each] == kind for kind in (0, 1) for each in now[kind])
    assert exchanged / many == pytest.approx(0.5, abs=4 * 0.5 / many**0.5), "of as many as the buffer holds"


def test_how_many_are_exchanged_follows_the_share_and_any_of_those_kept_may_come() -> None:
    turn, places = Turns(FakeBuffer(4, share=1.0)), torch.zeros(4)
    turn(None, 4)
    for _ in range(400):
        before = turn.kept()[0]
        _, (shown,) = turn(None, 1)
        places[before.index(shown)] += 1
    assert places.min() > 60, "each is as likely as another: 100 +- 9 each"
    never = Turns(FakeBuffer(4, share=0.0))
    assert all(new == shown for new, shown in (never(None, 3) for _ in range(20)))


def test_the_same_seed_exchanges_the_same() -> None:
    def history(seed: int) -> list[list[int]]:
        turn = Turns(FakeBuffer(3), seed)
        return [turn(None, 3)[1] for _ in range(20)]

    assert history(1) == history(1) != history(2)


def test_what_is_not_finite_is_neither_kept_nor_hidden() -> None:
    buffer = FakeBuffer(2, share=1.0)
    state = create(make_plan(buffer), CPU, 0, 1000)

    def judged(*values: float) -> Tensor:
        pair = Pair(torch.zeros(len(values), 1), torch.tensor(values)[:, None])
        return with_earlier(state, buffer, pair, Draws(torch.Generator().manual_seed(0)), Team()).fake[:, 0]

    assert judged(float("nan"), 1.0).isnan().tolist() == [True, False] and state.buffer["counts"].tolist() == [1]
    judged(2.0)
    shown = judged(float("inf"), 3.0)
    assert shown[0].isinf() and float(shown[1]) in (1.0, 2.0)
    assert bool(state.buffer["fakes"].isfinite().all()) and 3.0 in state.buffer["fakes"]


def test_conditions_that_are_no_classes_are_refused() -> None:
    buffer = FakeBuffer(2)
    state, picture = create(make_plan(buffer), CPU, 0, 1000), torch.zeros(2, 1, 4, 4)
    with pytest.raises(UsageError, match="conditions that are classes"):
        with_earlier(state, buffer, Pair(picture, picture, picture), Draws(torch.Generator()), Team())


def trained(buffer: FakeBuffer | None, judge_rate: float) -> tuple[State, list[float]]:
    plan = make_plan(buffer, judge_rate)
    state, losses = create(plan, CPU, 0, 1000), []
    for number in range(6):
        real = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(number))
        losses.append(float(step(state, plan, {"real": real}, CPU, 0)["discriminator/adversarial"]))
    return state, losses


def test_only_the_discriminator_sees_earlier_fakes() -> None:
    """A discriminator that stands still teaches the generator the same, whatever it was shown itself."""
    (plain, without), (other, with_buffer) = (trained(buffer, 0.0) for buffer in (None, FakeBuffer(4)))
    assert without[0] == with_buffer[0] and without[1:] != with_buffer[1:]
    weights = [state.generator.state_dict() for state in (plain, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "buffer" not in to_tensors(plain) and len(to_tensors(other)["buffer"]["fakes"]) == 4


def two_sets() -> Data:
    numbers = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 256, (12, 12, 12), generator=numbers, dtype=torch.uint8) for _ in range(2))
    return load_domains((first.numpy(), second.numpy()))


def test_a_training_taken_up_again_has_the_same_earlier_fakes() -> None:
    data = two_sets()
    plan = cyclegan(width=2, blocks=1, batch_items=4, buffer=3).plan(Setting(data.spec, 24, "cpu", conditional=True))
    assert plan.fake_buffer == FakeBuffer(3, 2, 0.5)
    ends = []
    for stop in (6, 3):
        state = create(plan, CPU, 3, 24)
        for first, last in ((0, stop), (stop, 6)):
            if first:
                tensors, facts = to_tensors(state), to_facts(state)
                state = create(plan, CPU, 4, 24)
                state.buffer = {"fakes": torch.ones(1)}  # of another training
                restore(state, tensors, facts)
            batches = data.batches(4, 3, 4 * first, balanced=True)
            for _ in range(first, last):
                step(state, plan, next(batches), CPU, 3)
        ends.append(to_tensors(state))
    assert ends[0]["buffer"]["counts"].tolist() == [3, 3]
    for group, values in ends[0].items():
        for name, value in values.items():
            assert torch.equal(value, ends[1][group][name]), (group, name)
    new = create(plan, CPU, 3, 24)
    restore(state, to_tensors(new), to_facts(new))
    assert state.buffer == {}, "a new beginning has no earlier fakes"


def test_a_share_of_none_keeps_none_and_one_over_all_is_refused() -> None:
    setting = Setting(two_sets().spec, 24, "cpu", conditional=True)
    assert cyclegan(earlier=0.0).plan(setting).fake_buffer is None
    assert cyclegan().plan(setting).fake_buffer == FakeBuffer(50, 2, 0.5), "the paper's"
    with pytest.raises(UsageError, match=r"earlier=1\.5 of recipe cyclegan: accepted is 0 to 1"):
        cyclegan(earlier=1.5).plan(setting)
