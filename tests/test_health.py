"""The signs of health by closed forms, what is made of them, and planted collapses in short trainings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ganlib import GAN
from ganlib.core import Action, Health, Plan
from ganlib.errors import DivergedError
from ganlib.metrics import health
from ganlib.metrics.health import Signs, duplicate_share, findings, ill, logit_gap, signs_in, spread_ratio
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.dcgan import dcgan
from ganlib.recipes.gan import gan
from ganlib.recipes.r3 import r3
from ganlib.tasks.generate import Generate
from injection import Dying, Mortal

STEP = 32


def test_duplicates_are_those_within_a_tenth_of_the_usual_distance():
    real = torch.arange(20.0)[:, None] * torch.tensor([[3.0, 4.0]])  # neighbours are 5 apart
    fake = 100 * torch.arange(8.0)[:, None] * torch.ones(1, 2)
    assert duplicate_share(real, fake) == 0
    near, far = torch.tensor([[0.4, 0.0]]), torch.tensor([[0.6, 0.0]])
    assert duplicate_share(real, torch.cat([fake, fake[:2] + near])) == pytest.approx(4 / 10)
    assert duplicate_share(real, torch.cat([fake, fake[:2] + far])) == 0
    assert duplicate_share(real, torch.zeros(8, 2)) == 1


def test_copies_far_from_zero_are_seen_in_spite_of_rounding():
    real = torch.arange(20.0)[:, None] + 1e6
    assert duplicate_share(real, torch.tensor([[1e6], [1e6 + 0.06], [1e6 + 3]])) == pytest.approx(2 / 3)
    assert duplicate_share(real, torch.tensor([[1e6], [1e6 + 0.25], [1e6 + 3]])) == 0


def test_spread_is_the_ratio_of_the_traces(rng: torch.Generator):
    real = torch.randn(50, 3, generator=rng)
    assert spread_ratio(real, 2 * real + 7) == pytest.approx(4)
    assert spread_ratio(real, torch.zeros(5, 3)) == 0
    assert spread_ratio(torch.ones(5, 3), real) == 1


def test_the_gap_of_logits_is_in_pooled_standard_deviations():
    train, held_out = torch.tensor([4.0, 6.0, 8.0]), torch.tensor([0.0, 2.0, 4.0])  # both with a variance of 4
    assert logit_gap(train, held_out) == pytest.approx(4 / 2)
    assert logit_gap(torch.ones(3), torch.ones(3)) == 0


GOOD = Signs(0, duplicates=0.0, spread=0.9, recall=0.5, coverage=0.9, distance=0.1, logit_gap=0.1)


def looks(*several: Signs) -> list[Signs]:
    return [replace(look, items=100 * number) for number, look in enumerate(several, start=1)]


@pytest.mark.parametrize(
    ("sign", "kind", "changes"),
    [
        ("duplicates", "collapse", {"duplicates": 0.31}),
        ("narrow", "collapse", {"spread": 0.04}),
        ("coverage", "collapse", {"coverage": 0.08}),
        ("recall", "collapse", {"recall": 0.04}),
        ("distance", "divergence", {"distance": 0.31}),
        ("wide", "divergence", {"spread": 5.5}),
        ("logit_gap", "overfitting", {"logit_gap": 1.1}),
    ],
)
def test_a_bad_sign_counts_when_two_looks_agree(sign: str, kind: str, changes: dict[str, float]):
    bad = replace(GOOD, **changes)
    assert findings(looks(GOOD, GOOD, bad)) == []
    assert ill(looks(GOOD, GOOD, bad)) == (kind != "overfitting")
    assert findings(looks(GOOD, bad, GOOD, bad)) == []
    (found,) = findings(looks(GOOD, GOOD, bad, bad))
    assert (found.kind, found.sign, found.since_items) == (kind, sign, 300)
    assert found.value == pytest.approx(next(iter(changes.values()))) and found.advice
    assert findings(looks(GOOD, bad, bad, GOOD)) == []


def test_what_is_not_bad_enough_is_not_found():
    edge = replace(GOOD, duplicates=0.29, spread=0.06, coverage=0.1, recall=0.06, distance=0.29, logit_gap=0.9)
    assert findings(looks(GOOD, edge, edge, edge)) == [] and not ill(looks(GOOD, edge))
    # A small distance rises threefold by the noise of few samples alone.
    assert findings(looks(*[replace(GOOD, distance=d) for d in (0.005, 0.04, 0.04)])) == []


def test_a_young_training_may_draw_one_item_of_each_class_while_it_improves():
    young = [replace(GOOD, duplicates=0.9, coverage=0.2, distance=1 / n) for n in range(1, 9)]
    assert findings(looks(*young)) == []
    assert [found.sign for found in findings(looks(*young, young[-1], young[-1]))] == ["duplicates"]
    bare = [replace(look, coverage=0.04) for look in young[:2]]
    assert [found.sign for found in findings(looks(*bare))] == ["duplicates"]
    few = [replace(bare[0], duplicates=share, distance=d) for d in (0.9, 1.1) for share in (0.09, 0.11, 0.31)]
    assert [ill(looks(young[0], look)) for look in few] == [False, False, True, False, True, True]
    unknown = replace(young[0], distance=None)
    assert findings(looks(unknown, unknown, unknown)) == []


def test_a_young_training_may_be_narrow_for_a_while():
    young = replace(GOOD, spread=0.03, coverage=0.0, recall=0.0)
    assert findings(looks(*[young] * 5)) == []
    assert [found.sign for found in findings(looks(*[young] * 6))] == ["narrow"]
    assert findings(looks(*[replace(young, distance=1 / n) for n in range(1, 9)])) == []  # and while it improves
    assert findings([]) == []


def test_signs_are_read_back_from_a_log():
    record = {"items": 5, "score": 1.0, "health/duplicates": 0.1, "health/spread": 2, "health/recall": 0.0}
    whole = {**record, "health/coverage": 0.5, "health/distance": 0.7}
    assert signs_in([{"items": 1, "x": 2.0}, record, whole]) == [Signs(5, 0.1, 2.0, 0.0, 0.5, distance=0.7)]


def dying(num_points: int, deaths: Callable[[int], bool], action: Action = "rollback") -> Recipe:
    def made(setting: Setting) -> Plan:
        plan = r3(batch_items=STEP).plan(setting)
        task = plan.task
        assert isinstance(task, Generate)
        spoilt = Dying(
            lambda: Mortal(task.make_generator(), num_points, task.latent_width),
            task.make_discriminator,
            task.latent_width,
            deaths,
        )
        return replace(plan, task=spoilt, health=Health(collapse=action))

    return Recipe(made, {})


def events_of(recipe: Recipe, steps: int) -> list[dict[str, Any]]:
    return GAN(recipe, seed=100, device="cpu").fit("digits", items=steps * STEP, progress="none").events_[:-1]


@pytest.mark.parametrize("num_points", [1, 8])
def test_a_generator_that_dies_is_noticed_within_two_looks(num_points: int):
    events = events_of(dying(num_points, lambda call: call == 61, "note"), 100)
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "collapse" and len(set(kinds)) == len(kinds)  # once each, not at every look
    assert 60 * STEP < events[0]["items"] <= 68 * STEP  # a look every fourth step


def test_a_collapse_leads_back_to_the_last_healthy_look_twice_and_is_then_noted():
    once = events_of(dying(8, lambda call: call == 61), 100)
    assert [event["event"] for event in once] == ["rollback"]
    assert (once[0]["to_items"], once[0]["rate_factor"]) == (60 * STEP, 0.5)
    always = events_of(dying(8, lambda call: call > 60), 100)
    assert [(event["event"], event["kind"]) for event in always] == [
        ("rollback", "collapse"),
        ("rollback", "collapse"),
        ("finding", "collapse"),
    ]


def test_a_recipe_may_stop_at_a_collapse():
    with pytest.raises(DivergedError, match="collapse since item"):
        events_of(dying(1, lambda call: call > 60, "stop"), 100)


def rate_times_50(setting: Setting) -> Plan:
    plan = r3(learning_rate=0.1).plan(setting)
    return replace(plan, health=Health(collapse="note", nonfinite="note"))


def test_a_rate_fifty_times_too_high_is_noticed():
    events = events_of(Recipe(rate_times_50, {}), 200)
    assert "collapse" in [event["kind"] for event in events]


@pytest.mark.parametrize("recipe", [gan(), dcgan(width=32), r3()], ids=lambda recipe: recipe.name)
def test_a_healthy_short_training_is_not_alarmed(recipe: Recipe):
    trained = GAN(recipe, seed=100, device="cpu").fit("digits", items=3_200, progress="none")
    assert trained.events_ == [{"items": trained.events_[0]["items"], "event": "finished", "text": ""}]
    assert trained.diagnose().healthy and len(signs_in(trained.history_)) == 25


def test_thresholds_stand_where_the_documents_say():
    assert (health.DUPLICATES, health.LEAST_SPREAD, health.MOST_SPREAD) == (0.3, 0.05, 5.0)
    assert (health.SHARE_OF_BEST, health.DISTANCE_OVER_BEST, health.LOGIT_GAP) == (0.1, 3.0, 1.0)
