"""Penalties of consistency, memory and features against loops and closed forms, and what they remember."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganlib.core import (
    Augment,
    Change,
    Draws,
    Judge,
    Objective,
    OptimiserSettings,
    Pair,
    Penalty,
    Plan,
    Verdict,
    WeightedPenalty,
    constant,
)
from ganlib.errors import UsageError
from ganlib.losses import NonSaturating
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.penalties.consistency import (
    DISTURBED,
    Consistency,
    LatentConsistency,
    LatentVariety,
    ShiftAndFlip,
)
from ganlib.penalties.matching import FeatureMatching
from ganlib.penalties.memory import HistoricalAverage, LeCam
from ganlib.tasks.generate import Generate
from ganlib.tasks.wrapped import Disturbed
from ganlib.training import checkpoint
from ganlib.training.runtime import Runtime
from ganlib.training.state import create, restore, to_facts, to_tensors
from ganlib.training.step import step

CPU = Runtime()


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def verdict(*logits: float) -> Verdict:
    return Verdict((torch.tensor(logits, requires_grad=True),))


def unused(items: Tensor) -> Verdict:
    raise AssertionError("nothing is to be judged")


def lecam(penalty: LeCam, real: Verdict, fake: Verdict) -> Tensor:
    return penalty(unused, Pair(torch.zeros(2, 1), torch.zeros(2, 1)), real, fake, draws())


def test_lecam_of_the_first_batch_is_about_its_own_means():
    # Means 2 and -1: (1+1)² and (3+1)² over 2, (-2-2)² and (0-2)² over 2.
    found = lecam(LeCam(), verdict(1.0, 3.0), verdict(-2.0, 0.0))
    assert float(found.detach()) == pytest.approx((4 + 16) / 2 + (16 + 4) / 2)


def test_lecam_follows_a_mean_by_items_and_pulls_logits_to_the_opposite_one():
    penalty, rng = LeCam(halflife_items=4.0), np.random.default_rng(0)
    real_mean, fake_mean, seen = 0.0, 0.0, 0
    for _ in range(30):
        r, f = rng.normal(1, 1, 2).astype(np.float32), rng.normal(-1, 1, 2).astype(np.float32)
        seen += 2
        share = max(2 / seen, 1 - 0.5 ** (2 / 4))
        real_mean, fake_mean = real_mean + share * (r.mean() - real_mean), fake_mean + share * (f.mean() - fake_mean)
        real = verdict(*r.tolist())
        found = lecam(penalty, real, verdict(*f.tolist()))
        assert float(found.detach()) == pytest.approx(
            ((r - fake_mean) ** 2).mean() + ((f - real_mean) ** 2).mean(), rel=1e-4
        )
    found.backward()
    gradient = real.logits[0].grad
    assert gradient is not None
    np.testing.assert_allclose(gradient.numpy(), 2 * (r - fake_mean) / 2, rtol=1e-4)


def test_lecam_forgets_a_batch_that_is_not_finite():
    penalty = LeCam()
    lecam(penalty, verdict(1.0, 3.0), verdict(-2.0, 0.0))
    before = {name: value.clone() for name, value in penalty.state_dict().items()}
    assert not lecam(penalty, verdict(1.0, float("nan")), verdict(5.0, 5.0)).isfinite()
    assert all(torch.equal(value, penalty.state_dict()[name]) for name, value in before.items())


def test_history_is_the_distance_to_the_mean_of_the_past():
    network = nn.Linear(2, 1)
    penalty, past = HistoricalAverage(network), []
    for number in range(4):
        with torch.no_grad():
            for weight in network.parameters():
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
        now = torch.cat([weight.detach().flatten() for weight in network.parameters()]).numpy()
        found = penalty(network)
        expected = ((now - np.mean(past, 0)) ** 2).sum() if past else 0.0
        assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
        past.append(now)
    (gradient,) = torch.autograd.grad(found, network.weight)
    np.testing.assert_allclose(gradient[0], 2 * (now - np.mean(past[:-1], 0))[:2], rtol=1e-5)


def test_a_shift_and_flip_is_one_that_can_be_read_off_each_item():
    items = torch.arange(30.0).view(1, 1, 5, 6).repeat(400, 2, 1, 1) * torch.tensor([1.0, -1.0])[:, None, None]
    made = ShiftAndFlip(2).draw(items, torch.ones(()), draws())(items)
    moves = list(itertools.product(range(-2, 3), range(-2, 3), (False, True)))
    moved, seen = {move: by_loops(items[0, 0], *move) for move in moves}, set()
    for item in made:
        candidates = [move for move, picture in moved.items() if torch.equal(item[0], picture)]
        assert len(candidates) == 1
        assert torch.equal(item[1], -item[0]), "all channels move together"
        seen.add(candidates[0])
    assert len(seen) == 50, "every shift of up to 2 each way, mirrored or not, comes up in 400 draws"


def by_loops(picture: Tensor, down: int, right: int, flip: bool) -> Tensor:
    height, width = picture.shape
    made = torch.empty_like(picture)
    for row in range(height):
        for column in range(width):
            source = min(max(column + right, 0), width - 1)
            made[row, column] = picture[min(max(row + down, 0), height - 1), width - 1 - source if flip else source]
    return made


def test_a_shift_and_flip_of_probability_zero_is_none_and_a_half_changes_half():
    items = torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    change = ShiftAndFlip().draw(items, torch.zeros(()), draws())
    assert torch.equal(change(items), items)
    half = ShiftAndFlip().draw(items, torch.tensor(0.5), draws())(items)
    changed = (half != items).flatten(1).any(1).float().mean()
    # A drawn change is none in 1 of 81 · 2.
    assert float(changed) == pytest.approx(0.5 * (1 - 1 / 162), abs=0.05)


class Double(Augment):
    """T(x) = 2x, whose effect is known."""

    def draw(self, items: Tensor, probability: Tensor, draws: Draws) -> Change:
        assert float(probability) == 1.0
        return lambda given: 2 * given


def doubled(pair: Pair, fakes: bool) -> float:
    judge: Judge = lambda items: Verdict((items.sum(1), 3 * items.sum(1)))  # noqa: E731
    return float(Consistency(Double(), fakes)(judge, pair, judge(pair.real), judge(pair.fake), draws()))


def test_consistency_is_the_mean_squared_change_of_the_logits():
    pair = Pair(torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    # D(2x) - D(x) = D(x): heads s and 3s, so 5 s² on average over heads.
    assert doubled(pair, fakes=False) == pytest.approx(5 * (4 + 9) / 2)
    assert doubled(pair, fakes=True) == pytest.approx(5 * (4 + 9) / 2 + 5 * (1 + 4) / 2)


def test_consistency_of_latents_is_about_the_fakes_of_disturbed_latents():
    near = torch.tensor([[1.5, 0.0], [0.0, 4.0]])
    pair = Pair(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), extra={DISTURBED: near})
    judge: Judge = lambda items: Verdict((items.sum(1),))  # noqa: E731
    found = LatentConsistency()(judge, pair, judge(pair.real), judge(pair.fake), draws())
    assert float(found) == pytest.approx((0.25 + 4) / 2)
    variety = LatentVariety()(unused, {}, pair, None, judge(pair.fake), draws())
    assert float(variety) == pytest.approx(-(0.25 + 4) / 4)
    with pytest.raises(UsageError, match="Disturbed"):
        LatentConsistency()(judge, Pair(pair.real, pair.fake), judge(pair.real), judge(pair.fake), draws())


def task() -> Generate:
    return Generate(
        lambda: MLPGenerator((3,), latent=4, widths=(6,), bounded=False),
        lambda: MLPDiscriminator((3,), widths=(6,)),
        4,
    )


def test_disturbed_fakes_are_those_of_latents_a_little_off():
    plain, disturbed = task(), Disturbed(task(), sigma=0.2)
    batch = disturbed.draw({"real": torch.zeros(5000, 3)}, draws())
    assert torch.equal(batch["latent"], plain.draw({"real": torch.zeros(5000, 3)}, draws())["latent"])
    pair = disturbed.pair(lambda latent, label: latent, batch)
    assert torch.equal(pair.fake, batch["latent"])
    assert float((pair.extra[DISTURBED] - pair.fake).std()) == pytest.approx(0.2, rel=0.03)


def test_feature_matching_is_the_squared_distance_of_mean_features():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(4, 2, 3)).astype(np.float32), rng.normal(size=(6, 2, 3)).astype(np.float32)
    pair, none = Pair(torch.zeros(4, 1), torch.zeros(6, 1)), torch.zeros(0)
    given = [Verdict((none,), (none, torch.tensor(part, requires_grad=True))) for part in (real, fake)]
    found = FeatureMatching()(unused, {}, pair, *given, draws())
    difference = real.mean(0) - fake.mean(0)
    assert float(found.detach()) == pytest.approx((difference**2).sum(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, given[1].features[1])
    np.testing.assert_allclose(gradient[0], -2 * difference / 6, rtol=1e-4)
    with pytest.raises(UsageError, match="features"):
        FeatureMatching()(unused, {}, pair, Verdict((none,)), Verdict((none,)), draws())


def make_plan() -> Plan:
    settings = OptimiserSettings(constant(0.05), kind="sgd")
    plan = Plan(task(), Objective(NonSaturating()), settings, settings, 8, constant(0.0), 1000)
    with torch.random.fork_rng(devices=[]):
        generator, discriminator = plan.task.networks()
    return replace(
        plan,
        objective=replace(
            plan.objective,
            penalties={
                "lecam": WeightedPenalty(LeCam(), constant(0.3)),
                "history": WeightedPenalty(HistoricalAverage(discriminator), constant(0.1)),
            },
            generator_penalties={"history": WeightedPenalty(HistoricalAverage(generator), constant(0.1))},
        ),
    )


def batch_of(number: int) -> dict[str, Tensor]:
    return {"real": torch.randn(8, 3, generator=torch.Generator().manual_seed(number))}


def test_a_training_that_stopped_goes_on_with_its_memory(tmp_path: Path):
    plan = make_plan()
    state = create(plan, CPU, 0, 1000)
    for number in range(6):
        step(state, plan, batch_of(number), CPU, 0)
        if number == 2:
            saved = checkpoint.Checkpoint(
                tmp_path,
                {group: {k: v.detach().clone() for k, v in part.items()} for group, part in to_tensors(state).items()},
                to_facts(state),
            )
    again_plan = make_plan()
    again = create(again_plan, CPU, 0, 1000)
    restore(again, saved.tensors, saved.facts)
    for number in range(3, 6):
        step(again, again_plan, batch_of(number), CPU, 0)
    assert len(saved.tensors["memories"]) == 3 + 5 + 5
    for group, part in to_tensors(state).items():
        for name, value in part.items():
            assert torch.equal(value, to_tensors(again)[group][name]), f"{group} {name}"
    lost = create(make_plan(), CPU, 0, 1000)
    assert float(lost.memories["discriminator/lecam"].seen) == 0 < float(state.memories["discriminator/lecam"].seen)


def test_no_penalty_here_differentiates_twice():
    for penalty in (LeCam(), Consistency(ShiftAndFlip()), LatentConsistency()):
        assert isinstance(penalty, Penalty) and not penalty.double_backward
