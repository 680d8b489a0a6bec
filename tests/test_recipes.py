"""Every recipe builds for every kind of setting it accepts, trains three steps, and says what it is."""

import inspect
import json
import re
import subprocess
import sys
import typing
from dataclasses import replace
from typing import Any

import pytest
import torch

from ganlib import recipes
from ganlib.augment import DiffAugment
from ganlib.core import Augmentation, Batch, Draws, Plan, Spec
from ganlib.errors import UsageError
from ganlib.recipe import Recipe, Setting, recipe
from ganlib.spec import Attribute
from ganlib.training.runtime import Runtime
from ganlib.training.state import create
from ganlib.training.step import step

TINY: dict[str, Any] = dict(width=8, latent=4, batch_items=4)
"""What makes a recipe small, where it has such an option."""

SPECS = {
    "x".join(map(str, shape)): Spec("image", shape, classes=("a", "b", "c"))
    for shape in [(1, 8, 8), (3, 32, 32), (4, 20, 28)]
} | {"vector": Spec("vector", (6,), classes=("a", "b", "c"), layout="C")}

NAMES = recipes.names()
every_recipe = pytest.mark.parametrize("name", NAMES)


def tiny(name: str, **options: Any) -> Recipe:
    function = recipes.find(name)
    accepted = inspect.signature(function).parameters
    return function(**{key: value for key, value in TINY.items() if key in accepted}, **options)


def choices(name: str) -> list[dict[str, str]]:
    """The recipe as it is, and with each value of each option that is one of several words."""
    found: list[dict[str, str]] = [{}]
    for option in inspect.signature(recipes.find(name)).parameters.values():
        if typing.get_origin(option.annotation) is typing.Literal:
            found += [{option.name: value} for value in typing.get_args(option.annotation)]
    return found


def spec_for(asked: Recipe, spec: Spec) -> Spec:
    """Items as the recipe learns from them: with another picture beside each, of two sets, or with attributes."""
    if asked.material == "pairs" and spec.kind == "image":
        return replace(spec, condition=Spec("image", (2, *spec.shape[1:])))
    if asked.material == "attributes":
        return replace(spec, attributes=(Attribute("age", 0, 80), Attribute("smile", 0, 1)))
    return replace(spec, classes=("a", "b")) if asked.material == "domains" else spec


def make_batch(plan: Plan, spec: Spec, conditional: bool, position: int) -> Batch:
    rng = torch.Generator().manual_seed(position)
    count = plan.batch_items * plan.discriminator_steps
    batch = {"real": torch.rand(count, *spec.shape, generator=rng) * 2 - 1}
    if spec.condition is not None:
        batch["condition"] = torch.rand(count, *spec.condition.shape, generator=rng) * 2 - 1
    if spec.attributes:
        batch["attributes"] = torch.rand(count, len(spec.attributes), generator=rng)
    labels = torch.arange(count) % 2 if plan.balanced else torch.randint(3, (count,), generator=rng)
    return batch | ({"label": labels} if conditional else {})


CASES = [
    pytest.param(name, kind, options, conditional, id=f"{name}-{kind}-{options}-{'classes' * conditional}")
    for name in NAMES
    for options in choices(name)
    for kind in SPECS
    for conditional in (False, True)
]


def test_recipes_are_found():
    assert {"gan", "dcgan", "r3"} <= set(NAMES)
    assert recipes.DEFAULT in NAMES


@pytest.mark.parametrize(("name", "kind", "options", "conditional"), CASES)
def test_a_recipe_trains_or_says_that_it_is_not_for_these_data(
    name: str, kind: str, options: dict[str, str], conditional: bool
):
    asked, runtime = tiny(name, **options), Runtime()
    spec = spec_for(asked, SPECS[kind])
    setting = Setting(spec, num_items=50, device="cpu", budget_seconds=60.0, conditional=conditional)
    if asked.labels == ("unused" if conditional else "needed"):
        with pytest.raises(UsageError, match=f"recipe {name} .* labels"):
            asked.plan(setting)
        return
    try:
        plan = asked.plan(setting)
        state = create(plan, runtime, 0, 1000)
    except UsageError as error:
        if conditional and name in str(error) and "labels" in str(error) and spec.kind == "image":
            assert "--unconditional" in str(error), "what has no use for labels says how to leave them out"
            return
        if options.get("degrade") == "grey" and spec.kind == "image" and spec.shape[0] != 3:
            assert "degrade=grey" in str(error)
            return
        assert spec.kind == "vector", f"a recipe must make images of any size and class: {error}"
        assert "vector" in str(error) and name in str(error)
        return
    before = [weight.detach().clone() for weight in state.generator.parameters()]
    for position in range(3):
        terms = step(state, plan, runtime.move(make_batch(plan, spec, conditional, position)), runtime, 0)
        assert terms and all(bool(value.isfinite()) for value in terms.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, state.generator.parameters(), strict=True))
    assert state.items_seen == 3 * plan.batch_items * plan.discriminator_steps
    labels = torch.tensor([0, len(spec.classes) - 1]) if conditional else None
    if not plan.task.draws:
        with torch.no_grad():
            small = torch.zeros(2, plan.task.given(spec).shape[0], 3, 5)
            numbers = torch.rand(2, 2 + 3 * conditional) if spec.attributes else labels
            made = plan.task.transform(state.average, small, numbers)
        assert plan.task.transforms and len(made) == 2 and bool(made.isfinite().all())
        return
    with torch.no_grad():
        made = plan.task.sample(state.average, plan.task.latent(2, Draws(torch.Generator().manual_seed(0))), labels)
    assert made.shape == (2, *spec.shape) and bool(made.isfinite().all())


def test_the_default_is_for_vectors_too():
    tiny(recipes.DEFAULT).plan(Setting(SPECS["vector"], 50, "cpu"))


def usual(name: str, *, num_items: int = 50, device: str = "cpu", seconds: float | None = None) -> Setting:
    """Pictures, with classes where the recipe needs them."""
    asked = tiny(name)
    return Setting(spec_for(asked, SPECS["3x32x32"]), num_items, device, seconds, conditional=asked.labels == "needed")


@every_recipe
def test_the_same_setting_gives_the_same_plan_and_weights(name: str):
    first, second = (create(tiny(name).plan(usual(name)), Runtime(), 4, 100) for _ in range(2))
    for a, b in zip(first.generator.parameters(), second.generator.parameters(), strict=True):
        assert torch.equal(a, b)


@every_recipe
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("seconds", [10.0, 3600.0, 100_000.0, None])
def test_a_recipe_has_a_plan_for_every_budget(name: str, device: str, seconds: float | None):
    plan = recipes.find(name)().plan(usual(name, device=device, seconds=seconds))
    assert plan.items > 0 and plan.batch_items > 0 and plan.discriminator_steps > 0
    for settings in (plan.generator, plan.discriminator):
        assert all(0 < settings.learning_rate(share, 100) < 1 for share in (0, 50, 100))
        assert 0 <= settings.beta1 < 1 and all(0 <= settings.beta2(share, 100) < 1 for share in (0, 50, 100))
    json.dumps(dict(plan.notes))


@every_recipe
def test_few_items_make_a_small_batch_or_many_passes_but_a_plan(name: str):
    assert tiny(name).plan(usual(name, num_items=2)).batch_items >= 1


@every_recipe
def test_a_recipe_survives_json(name: str):
    for made in (recipes.find(name)(), tiny(name)):
        written = json.loads(json.dumps(made.to_json()))
        again = recipes.find(written["name"])(**written["options"])
        assert again == made and again.to_json() == made.to_json()
    if "width" in inspect.signature(recipes.find(name)).parameters:
        assert recipes.find(name)() != tiny(name)


@every_recipe
def test_a_recipe_is_complete_every_option_is_saved_also_those_left_at_their_default(name: str):
    function = recipes.find(name)
    assert list(function().options) == list(inspect.signature(function).parameters)


@every_recipe
def test_a_recipe_says_what_it_is_and_documents_every_option(name: str):
    function = recipes.find(name)
    summary = function().summary
    assert summary == (function.__doc__ or "").strip().splitlines()[0]
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", summary), f"the first line must name the paper: {summary}"
    assert len(summary) <= 110
    _, args, described = (function.__doc__ or "").partition("Args:")
    assert args, "the options are described under Args:"
    documented = re.findall(r"^ {8}(\w+): \S", described, re.MULTILINE)
    assert documented == list(inspect.signature(function).parameters)


@every_recipe
def test_an_unknown_option_is_refused(name: str):
    with pytest.raises(TypeError, match="unheard_of"):
        recipes.find(name)(unheard_of=1)
    with pytest.raises(TypeError):
        recipes.find(name)(1)


@pytest.mark.parametrize(("wrong", "right"), [("dcgn", "dcgan"), ("gann", "gan"), ("r", "r3")])
def test_an_unknown_recipe_names_the_nearest(wrong: str, right: str):
    with pytest.raises(UsageError, match=f"no recipe named {wrong!r}") as caught:
        recipes.find(wrong)
    assert f"did you mean {right!r}" in str(caught.value)


def test_an_unknown_recipe_lists_all_and_runs_no_code():
    with pytest.raises(UsageError) as caught:
        recipes.find("os.path")
    assert all(name in str(caught.value) for name in NAMES)


def test_options_of_a_recipe_must_be_keyword_only():
    with pytest.raises(TypeError, match="keyword-only"):

        @recipe
        def positional(setting: Setting, width: int = 3) -> Plan:
            raise AssertionError


def test_choosing_recipes_and_their_options_does_not_import_torch():
    code = """
import sys
import ganlib, ganlib.recipe, ganlib.recipes as recipes
for name in recipes.names():
    recipes.find(name)().to_json()
print(*(name for name in ("torch", "numpy", "matplotlib", "jsonargparse") if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [], f"imported: {found.stdout}"


def test_a_long_training_on_grey_pictures_takes_lower_rates():
    grey = Spec("image", (1, 28, 28))

    def rate(spec: Spec, items: int | None = None, seconds: float | None = None, **options: Any) -> float:
        plan = tiny("r3", network="compact", **options).plan(Setting(spec, 50, "cpu", seconds, items))
        return plan.discriminator.learning_rate(0, 1)

    assert rate(grey, items=40_000) == rate(grey, items=80_000) == rate(grey, seconds=60) > rate(grey, items=400_000)
    assert rate(grey, items=8_000_000) == pytest.approx(rate(grey, items=2_000_000) / 2)
    assert rate(grey, seconds=16_000) == pytest.approx(rate(grey, seconds=4_000) / 2)
    assert rate(grey) < rate(grey, items=400_000), "without a budget the recipe's own items count"
    assert rate(grey, items=8_000_000, learning_rate=0.01) == 0.01
    assert rate(SPECS["3x32x32"], items=40_000) == rate(SPECS["3x32x32"], items=10_000_000)


def test_on_colour_the_generator_learns_slower_unless_told_otherwise():
    def rates(kind: str, **options: Any) -> tuple[float, float]:
        plan = tiny("r3", network="compact", **options).plan(Setting(SPECS[kind], 50, "cpu"))
        return plan.generator.learning_rate(0, 1), plan.discriminator.learning_rate(0, 1)

    grey, colour = rates("1x8x8"), rates("3x32x32")
    assert grey[0] == grey[1] / 2 and colour[0] == colour[1] / 4
    assert rates("3x32x32", generator_learning_rate=0.001) == (0.001, colour[1])
    assert rates("3x32x32", learning_rate=0.004) == (0.001, 0.004)


@pytest.mark.parametrize(("kind", "brief", "longer"), [("1x8x8", 100_000, 200_000), ("3x32x32", 50_000, 100_000)])
def test_a_brief_training_has_a_narrower_generator_than_a_longer_one(kind: str, brief: int, longer: int):
    def parameters(items: int) -> tuple[int, ...]:
        plan = recipes.find("r3")(network="compact").plan(Setting(SPECS[kind], 50, "cpu", budget_items=items))
        return tuple(sum(p.numel() for p in network.parameters()) for network in plan.task.networks() if network)

    short, long = parameters(brief), parameters(longer)
    assert short[0] < long[0] and short[1] >= long[1]


def test_few_pictures_are_augmented_unless_they_are_tiny_and_the_pace_follows_the_budget():
    def of(shape: tuple[int, ...], num_items: int, items: int | None = None, **options: Any) -> Augmentation | None:
        spec = Spec("image" if len(shape) == 3 else "vector", shape)
        return (
            tiny("r3", **{"augment": "auto", **options})
            .plan(Setting(spec, num_items, "cpu", budget_items=items))
            .augmentation
        )

    assert of((1, 8, 8), 1797) is None and of((6,), 100) is None and of((1, 28, 28), 60_000) is None
    assert of((1, 28, 28), 200, items=99_000) is None, "too brief to overfit"
    few = of((1, 28, 28), 200)
    assert few is not None and isinstance(few.augment, DiffAugment) and few.probability(0, 1) == 1.0
    ada = of((1, 28, 28), 200, items=40_000, augment="ada")
    assert ada is not None and ada.target == 0.6 and not ada.pseudo and ada.probability(0, 1) == 0.0
    assert ada.rise_items == 4_000 and ada.most < 1
    longer = of((1, 28, 28), 200, items=400_000_000, augment="ada")
    assert longer is not None and 4_000 < longer.rise_items <= 500_000
    assert of((1, 28, 28), 200, augment="none") is None and tiny("r3").options["augment"] == "auto"
    plans = [
        tiny("r3", augment=kind).plan(Setting(SPECS["3x32x32"], 50, "cpu")) for kind in ("none", "diffaugment", "auto")
    ]
    weights = [plan.objective.penalties["r1"].weight(0, 1) for plan in plans]
    assert weights[1] == weights[2] == pytest.approx(weights[0] / 10), "under changes the penalty is smaller"
    apa = of((1, 28, 28), 60_000, augment="apa")
    assert apa is not None and apa.pseudo and apa.augment is None
