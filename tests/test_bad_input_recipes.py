"""What every recipe says where it cannot go on: labels missing or of no use, odd sizes, few items, short memory."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlib import GAN, recipes
from ganlib.core import Spec
from ganlib.errors import DataError, UsageError
from ganlib.recipe import Setting
from ganlib.training.runtime import Runtime
from ganlib.training.state import create
from ganlib.training.step import step
from test_recipes import NAMES, make_batch, spec_for, tiny

every_recipe = pytest.mark.parametrize("name", NAMES)
CLASSES = ("a", "b", "c")


def pictures(num_items: int = 12, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num_items, side, side), np.uint8), np.arange(num_items) % 3


def source(name: str, num_items: int = 12) -> tuple[object, np.ndarray | None]:
    """What the recipe learns from: pairs, two sets, or single items, with classes where it needs them."""
    items, labels = pictures(num_items)
    match tiny(name).material:
        case "pairs":
            return (items, items), None
        case "domains":
            return items, labels % 2
        case "attributes":
            return items, labels
        case _:
            return items, labels if tiny(name).labels == "needed" else None


@every_recipe
def test_without_labels_a_recipe_trains_or_says_that_they_are_missing_and_what_to_do(name: str):
    items, labels = pictures()
    if tiny(name).material == "pairs":
        with pytest.raises(UsageError, match=r"cannot read pairs .*accepted are"):
            GAN(tiny(name)).fit(items, items=8, progress="none")
    elif tiny(name).material == "domains":
        for given in (None, labels):
            with pytest.raises(DataError, match="classes, not two sets of pictures; accepted are"):
                GAN(tiny(name)).fit(items, given, items=8, progress="none")
    elif tiny(name).material == "attributes":
        with pytest.raises(UsageError, match=f"recipe {name} needs to know something of each picture: a table"):
            GAN(tiny(name)).fit(items, items=8, progress="none")
    elif tiny(name).labels == "needed":
        with pytest.raises(UsageError, match=f"recipe {name} .*no labels: give them.*or take a recipe"):
            GAN(tiny(name)).fit(items, items=8, progress="none")
    else:
        assert not GAN(tiny(name)).fit(items, items=8, progress="none").model_.label_share


@pytest.mark.parametrize("name", [name for name in NAMES if tiny(name).material == "items"])
def test_labels_are_learned_or_it_is_said_that_they_are_not(name: str, capsys: pytest.CaptureFixture[str]):
    items, labels = pictures()
    made = GAN(tiny(name)).fit(items, labels, items=8, progress="lines")
    said = capsys.readouterr().err
    if tiny(name).labels == "unused":
        assert re.search(f"labels are not used \\(recipe {name} ", said) and not made.model_.label_share
        with pytest.raises(UsageError, match=f"recipe {name} has no use for labels: leave them out"):
            GAN(tiny(name)).fit(items, labels, items=8, conditional=True, progress="none")
        with pytest.raises(UsageError, match=r"trained without labels|draws none of its own"):
            made.sample(2, labels=0)
    else:
        assert "not used" not in said and len(made.model_.label_share) == 3


@pytest.mark.parametrize("name", [name for name in NAMES if tiny(name).material == "pairs"])
def test_pairs_have_no_use_for_labels(name: str):
    items, labels = pictures()
    with pytest.raises(UsageError, match="pairs have no use for labels: leave them out"):
        GAN(tiny(name)).fit((items, items), labels, items=8, progress="none")


@every_recipe
def test_fewer_items_than_a_batch_are_said(name: str, capsys: pytest.CaptureFixture[str]):
    items, labels = source(name, 3)
    made = GAN(tiny(name)).fit(items, labels, items=8, progress="lines")
    plan = made.model_.plan
    assert f"a step takes {plan.batch_items * plan.discriminator_steps} items, more" in capsys.readouterr().err
    assert made.history_


@every_recipe
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (1, 3, 40), (2, 33, 7)], ids=str)
def test_odd_sizes_are_made_or_the_nearest_is_named(name: str, shape: tuple[int, int, int]):
    spec, runtime = spec_for(tiny(name), Spec("image", shape, classes=CLASSES)), Runtime()
    conditional = tiny(name).labels == "needed"
    try:
        plan = tiny(name).plan(Setting(spec, 50, "cpu", conditional=conditional))
        state = create(plan, runtime, 0, 1000)
    except UsageError as error:
        assert re.search(rf"recipe {name}\b.*nearest.*\d+ ?x ?\d+", str(error)), str(error)
        return
    step(state, plan, runtime.move(make_batch(plan, spec, conditional, 0)), runtime, 0)


MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    MemoryError("Unable to allocate 9 GiB for an array"),
]


@pytest.mark.parametrize(("name", "error"), [*zip(NAMES, MEMORY * len(NAMES), strict=False)], ids=NAMES)
def test_memory_that_is_short_names_the_batch_to_lower(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch):
    items, labels = source(name)

    def full(*_: object) -> Tensor:
        raise error

    made = GAN(tiny(name))
    monkeypatch.setattr("ganlib.training.loop.step", full)
    expected = f"out of memory in a step of 4 items.*batch_items={2}"
    with pytest.raises(MemoryError, match=expected):
        made.fit(items, labels, items=8, progress="none")


def test_another_error_of_a_step_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("ganlib.training.loop.step", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        GAN(tiny(recipes.DEFAULT)).fit(pictures()[0], items=8, progress="none")
