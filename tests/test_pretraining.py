"""A share of the run in which the generator learns its task's terms alone, before the discriminator begins."""

from dataclasses import replace

import pytest
import torch

from ganlib.core import Batch, Plan, Spec
from ganlib.errors import UsageError
from ganlib.recipe import Setting
from ganlib.recipes.pix2pix import pix2pix
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create
from ganlib.training.step import step

SPEC = Spec("image", (1, 12, 12), condition=Spec("image", (1, 12, 12)))
BATCH, TOTAL = 4, 40


def plan(**options: object) -> Plan:
    return pix2pix(width=4, batch_items=BATCH, **options).plan(Setting(SPEC, 50, "cpu"))  # type: ignore[arg-type]


def begun(of: Plan) -> State:
    return create(of, Runtime(), 0, TOTAL)


def batch(number: int) -> Batch:
    rng = torch.Generator().manual_seed(number)
    return {name: torch.rand(BATCH, 1, 12, 12, generator=rng) * 2 - 1 for name in ("real", "condition")}


def weights(network: torch.nn.Module | None) -> list[torch.Tensor]:
    assert network is not None
    return [weight.detach().clone() for weight in network.parameters()]


def same(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_discriminator_rests_for_the_share_and_works_from_there_on() -> None:
    own = plan(alone=0.5, feature_matching=1.0)
    state = begun(own)
    start = weights(state.discriminator)
    for number in range(10):
        before = weights(state.generator)
        terms = step(state, own, batch(number), Runtime(), 0)
        assert not same(before, weights(state.generator))
        resting = number < 5
        assert same(start, weights(state.discriminator)) == resting
        assert ("generator/adversarial" in terms) != resting and ("discriminator/adversarial" in terms) != resting
        assert ("generator/features" in terms) != resting
        assert {"generator/content", "generator/perceptual"} <= terms.keys()


def test_what_the_generator_learns_alone_is_what_it_would_without_an_adversary() -> None:
    own, without = plan(alone=1.0), plan(adversary="none")
    states = begun(own), begun(without)
    for number in range(3):
        for state, each in zip(states, (own, without), strict=True):
            step(state, each, batch(number), Runtime(), 0)
    assert same(weights(states[0].generator), weights(states[1].generator))
    assert same(weights(states[0].average), weights(states[1].average))


def test_without_a_share_the_adversary_is_there_from_the_first_step() -> None:
    own = replace(plan(), pretraining=0.0)
    terms = step(begun(own), own, batch(0), Runtime(), 0)
    assert "generator/adversarial" in terms and "discriminator/adversarial" in terms


def test_the_rates_of_the_discriminator_fall_from_where_it_begins() -> None:
    rate = plan(alone=0.5).discriminator.learning_rate
    with pytest.raises(UsageError, match=r"alone=1\.5 of recipe pix2pix: accepted is 0 to 1"):
        plan(alone=1.5)
    assert rate(0, TOTAL) == rate(TOTAL // 2, TOTAL) > rate(3 * TOTAL // 4, TOTAL) > rate(TOTAL, TOTAL) > 0
