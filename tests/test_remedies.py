"""Remedies: every one on every recipe, by name and in JSON, through the estimator and the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganlib import GAN, remedies
from ganlib.cli import main
from ganlib.core import Plan, Spec
from ganlib.errors import RunError, UsageError
from ganlib.recipe import Recipe, Remedy, Setting
from ganlib.recipes.cascade import cascade
from ganlib.recipes.dcgan import dcgan
from ganlib.recipes.gan import gan
from ganlib.recipes.improved import improved
from ganlib.recipes.r3 import r3
from ganlib.recipes.superres import superres
from ganlib.recipes.vae_gan import vae_gan
from ganlib.remedies import (
    consistency,
    deviation,
    history,
    lecam,
    packing,
    parse,
    smoothing,
    top_k,
    two_rates,
    unrolled,
)
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create
from ganlib.training.step import step

CPU = Runtime()
TINY: dict[str, Any] = dict(latent=4, batch_items=6)
RECIPES = [dcgan(width=2, **TINY), gan(**TINY), r3(width=2, **TINY)]
SPECS = {
    "image": Spec("image", (1, 8, 8), ("a", "b", "c")),
    "vector": Spec("vector", (3,), ("a", "b", "c"), layout="C"),
}
REFUSED = {
    ("dcgan", "vector"): {remedy.__name__ for remedy in remedies.ALL},
    ("gan", "vector"): {"consistency"},
    ("r3", "vector"): {"packing", "virtual_norm", "consistency", "smoothing"},
    ("r3", "image"): {"smoothing"},
}
"""What does not go together, and has to say so."""


def trained(
    recipe: Recipe, kind: str, conditional: bool, steps: int = 2
) -> tuple[Plan, State, dict[str, torch.Tensor]]:
    spec = SPECS[kind]
    network = {"network": "compact"} if recipe.name == "r3" and kind == "image" else {}
    recipe = Recipe(recipe.function, {**recipe.options, **network}, recipe.remedies)
    plan = recipe.plan(Setting(spec, 50, "cpu", conditional=conditional))
    state, terms = create(plan, CPU, 0, 20), {}
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = {"real": torch.rand(6, *spec.shape, generator=rng) * 2 - 1}
        batch |= {"label": torch.randint(3, (6,), generator=rng)} if conditional else {}
        terms = step(state, plan, CPU.move(batch), CPU, 0)
    return plan, state, terms


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "classes"])
@pytest.mark.parametrize("kind", list(SPECS))
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("function", remedies.ALL, ids=lambda function: function.__name__)
def test_a_remedy_trains_with_a_recipe_or_says_why_not(function: Any, recipe: Recipe, kind: str, conditional: bool):
    changed = recipe.with_remedies(function())
    if function.__name__ in REFUSED.get((recipe.name, kind), set()):
        with pytest.raises(UsageError):
            trained(changed, kind, conditional)
        return
    _, state, terms = trained(changed, kind, conditional)
    assert all(bool(value.isfinite()) for value in terms.values())
    _, plain, _ = trained(recipe, kind, conditional)
    ours, theirs = (list(each.generator.parameters()) for each in (state, plain))
    assert len(ours) != len(theirs) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)
    ), "a remedy that changes nothing is none"


def test_remedies_go_together():
    together = gan(**TINY).with_remedies(*parse("packing,minibatch,virtual_norm,lecam,consistency,latent_consistency"))
    together = together.with_remedies(*parse("matching,history,top_k,unrolled=1,smoothing,two_rates,clip"))
    _, _, terms = trained(together, "image", conditional=True)
    assert {"discriminator/lecam", "discriminator/history", "generator/history"} <= terms.keys()
    assert {"generator/latent_variety", "generator/feature_matching"} <= terms.keys()
    assert all(bool(value.isfinite()) for value in terms.values())


def test_packing_takes_the_recipes_own_discriminator_of_wider_items():
    def widths(recipe: Recipe) -> list[int]:
        plan, state, _ = trained(recipe, "image", conditional=False, steps=1)
        assert state.discriminator is not None and not plan.joint_verdicts
        return [w.numel() for w in state.discriminator.parameters()]

    plain, packed = widths(dcgan(width=2, **TINY)), widths(dcgan(width=2, **TINY).with_remedies(packing(items=3)))
    assert packed[0] == 3 * plain[0] and packed[1:] == plain[1:], "only the first layer is wider, as in the paper"


def test_remedies_change_the_numbers_of_a_plan():
    plan = (
        gan()
        .with_remedies(two_rates(ratio=5.0), top_k(share=0.25), unrolled(steps=3), smoothing(target=0.8))
        .plan(Setting(SPECS["image"], 50, "cpu"))
    )
    assert plan.generator.learning_rate(0, 1) == pytest.approx(plan.discriminator.learning_rate(0, 1) / 5)
    assert [plan.top_share(seen, 100) for seen in (0, 25, 50, 100)] == pytest.approx([1, 0.625, 0.25, 0.25])
    assert plan.unrolled_steps == 3 and plan.objective.loss is not None
    assert plan.objective.loss.real_target == 0.8  # type: ignore[attr-defined]


def test_improved_is_dcgan_with_the_remedies_of_its_paper():
    plan = improved(width=2, **TINY, history_weight=0.1, matching_weight=0.1).plan(Setting(SPECS["image"], 50, "cpu"))
    assert plan.objective.loss is not None and plan.objective.loss.real_target == 0.9  # type: ignore[attr-defined]
    generator, discriminator = plan.task.networks()
    kinds = {type(module).__name__ for network in (generator, discriminator) if network for module in network.modules()}
    assert {"VirtualBatchNorm", "MinibatchDiscrimination"} <= kinds
    assert not any("BatchNorm" in type(module).__name__[:9] for module in generator.modules())
    assert plan.objective.penalties.keys() == {"history"}
    assert plan.objective.generator_penalties.keys() == {"history", "feature_matching"}


@pytest.mark.parametrize("function", remedies.ALL, ids=lambda function: function.__name__)
def test_a_remedy_survives_json_and_says_what_it_is(function: Any):
    made = function()
    written = json.loads(json.dumps(made.to_json()))
    assert remedies.find(written["name"])(**written["options"]) == made
    assert made.summary.endswith(tuple("0123456789.")) and len(made.summary) <= 110
    assert all(f"        {option}: " in function.__doc__ for option in made.options)


def test_all_remedies_are_listed():
    here = {name for name, value in vars(remedies).items() if getattr(value, "__module__", "") == remedies.__name__}
    public = {name for name in here if not name.startswith("_")} - {"names", "find", "parse"}
    assert public == set(remedies.names())


def test_remedies_are_read_from_a_line():
    assert parse("packing=3, lecam") == (packing(items=3), lecam())
    assert parse("top_k=0.3,unrolled=2") == (top_k(share=0.3), unrolled(steps=2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pakcing", "did you mean 'packing'"),
        ("packing=two", "a whole number"),
        ("packing=0", "1 or more"),
        ("lecam=much", "accepted after = is a number"),
        ("top_k=1.5", "over 0 to 1"),
        ("", "no remedy named ''"),
        ("os.path", "There are: packing"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, told: str):
    with pytest.raises(UsageError, match=told):
        gan().with_remedies(*parse(text)).plan(Setting(SPECS["image"], 50, "cpu"))


def test_a_remedy_is_given_once():
    with pytest.raises(UsageError, match="lecam is there twice"):
        dcgan().with_remedies(lecam(), packing()).with_remedies(lecam())


def test_a_recipe_without_remedies_is_written_as_ever():
    assert "remedies" not in dcgan().to_json()
    changed = dcgan().with_remedies(lecam())
    assert changed != dcgan() and changed == dcgan().with_remedies(lecam(weight=0.3))
    assert changed.to_json()["remedies"] == [{"name": "lecam", "options": {"weight": 0.3, "halflife_items": 4400.0}}]
    assert isinstance(changed.remedies[0], Remedy)


def points(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


def test_a_remedied_training_is_saved_loaded_and_taken_up_again(tmp_path: Path):
    recipe = gan(latent=4, batch_items=8).with_remedies(packing(items=2), lecam(), *parse("virtual_norm=8,history"))
    whole = GAN(recipe, device="cpu").fit(points(), items=48, run=tmp_path / "whole", progress="none")
    parts = tmp_path / "parts"
    GAN(recipe, device="cpu").fit(points(), items=24, run=parts, progress="none")
    again = GAN(device="cpu").fit(points(), items=48, run=parts, progress="none")
    assert GAN.load(parts, device="cpu").recipe == recipe
    # Without a schedule that depends on the budget the two are one training, memories of penalties included.
    np.testing.assert_array_equal(again.sample(20), whole.sample(20))
    np.testing.assert_array_equal(again.score(points()), whole.score(points()))
    whole.save(tmp_path / "model.gan")
    np.testing.assert_array_equal(GAN.load(tmp_path / "model.gan", device="cpu").sample(5), whole.sample(5))
    with pytest.raises(RunError, match="the remedies packing, lecam, virtual_norm, history"):
        GAN(recipe.with_remedies(top_k()), device="cpu").fit(points(), items=200, run=parts, progress="none")


def test_scores_of_packs_are_one_for_each_item_of_any_number():
    model = GAN(gan(latent=4, batch_items=8).with_remedies(packing(items=3)), device="cpu")
    model.fit(points(), items=16, progress="none")
    for count in (1, 2, 65):
        scores = model.score(points(count))
        assert scores.shape == (count,) and np.isfinite(scores).all()


def test_remedies_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "points.npz", points())
    np.save(tmp_path / "points.npy", points())
    command = ["fit", str(tmp_path / "points.npy"), "--out", str(tmp_path / "run"), "--items", "64", "--quiet"]
    command += ["--device", "cpu", "--recipe", "gan", "--latent", "4", "--batch_items", "8"]
    main([*command, "--remedies", "packing=2,lecam"])
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]
    assert [each["name"] for each in written["remedies"]] == ["packing", "lecam"]
    for wrong, status in (("packing=3,lecam", RunError.exit_status), ("lekam", UsageError.exit_status)):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--remedies", wrong])
        assert ended.value.code == status
    told = capsys.readouterr().err
    assert "was begun with recipe gan" in told and "did you mean 'lecam'" in told


def test_consistency_without_fakes_leaves_them_alone():
    _, _, both = trained(dcgan(width=2, **TINY).with_remedies(consistency()), "image", False, steps=1)
    _, _, real = trained(dcgan(width=2, **TINY).with_remedies(consistency(fakes=False)), "image", False, steps=1)
    assert float(both["discriminator/consistency"]) > float(real["discriminator/consistency"]) > 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (dcgan().with_remedies(history(), packing()), "put it last"),
        (cascade().with_remedies(packing()), "cascade"),
        (vae_gan().with_remedies(deviation()), "vae_gan"),
    ],
)
def test_what_cannot_be_joined_says_so(asked: Recipe, told: str):
    with pytest.raises(UsageError, match=told):
        create(asked.plan(Setting(Spec("image", (1, 16, 16)), 50, "cpu")), Runtime(), 0, 1000)


def test_a_task_with_other_networks_keeps_its_manners():
    setting = Setting(Spec("image", (1, 16, 16)), 50, "cpu")
    plain, other = (made.plan(setting).task for made in (superres(), superres().with_remedies(deviation())))
    for name in ("draws", "transforms", "any_size"):
        assert getattr(plain, name) == getattr(other, name), name
