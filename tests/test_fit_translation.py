"""Trainings from picture to picture as a user has them: what is held out, watched, predicted, and refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganlib import GAN
from ganlib.comparison.contenders import contender, fitted
from ganlib.core import Draws, Spec
from ganlib.data import Data, load, load_domains, load_pairs
from ganlib.errors import DataError, UsageError
from ganlib.looking import HEALTH_ITEMS, _features, _reference, _spread, real_features
from ganlib.pace import Pace
from ganlib.reading import split
from ganlib.recipe import Setting
from ganlib.recipes.cut import cut
from ganlib.recipes.cyclegan import cyclegan
from ganlib.recipes.pix2pix import pix2pix
from ganlib.remedies import consistency, deviation, minibatch, packing, virtual_norm
from ganlib.sampling import Sampler
from ganlib.session import Session
from ganlib.stopping import StopWish
from ganlib.tasks.contrast import Contrast
from ganlib.training.runtime import Runtime
from ganlib.training.state import create, restore, to_facts, to_tensors
from ganlib.training.step import step

SMALL: dict[str, Any] = {"width": 4, "batch_items": 4}


def pictures(count: int, first: int = 0) -> np.ndarray:
    """Pictures of one level each, which says which it is."""
    return np.broadcast_to((first + np.arange(count, dtype=np.uint8))[:, None, None], (count, 8, 8)).copy()


def two_sets(first: int, second: int) -> Data:
    labels = np.repeat(["A", "B"], [first, second])
    return load(np.concatenate([pictures(first), pictures(second, 128)]), labels)


def counts(data: Data) -> list[int]:
    assert data.labels is not None
    return np.bincount(data.labels, minlength=2).tolist()


@pytest.fixture(scope="module")
def trained() -> GAN:
    return GAN(cyclegan(**SMALL, blocks=1), device="cpu").fit(two_sets(30, 30), items=4, progress="none")


@pytest.mark.parametrize("sizes", [(1, 60), (4, 100), (2, 2)])
def test_of_a_set_too_small_to_share_nothing_is_held_out(sizes: tuple[int, int]) -> None:
    data = two_sets(*sizes)
    train, held_out = split(data, None, None, "domains")
    assert held_out is None and counts(train) == [*sizes]
    GAN(cyclegan(**SMALL, blocks=1), device="cpu").fit(data, items=4, progress="none")


def test_of_two_sets_a_share_of_each_is_held_out() -> None:
    train, held_out = split(two_sets(30, 70), None, None, "domains")
    assert held_out is not None and counts(held_out) == [3, 7] and counts(train) == [27, 63]


def test_validation_is_read_as_the_training_data_are(tmp_path: Path) -> None:
    for name, first in (("trainA", 0), ("trainB", 128), ("testA", 50), ("testB", 200)):
        (tmp_path / name).mkdir()
        for number, item in enumerate(pictures(4, first)):
            Image.fromarray(item).save(tmp_path / name / f"{number}.png")
    data = two_sets(4, 4)
    for given in (tmp_path, (pictures(3), pictures(2, 9)), load_domains(tmp_path, split="test")):
        held_out = split(data, given, None, "domains")[1]
        assert held_out is not None and min(counts(held_out)) >= 2 and held_out.spec.classes == data.spec.classes
    with pytest.raises(DataError, match="at least 2 of each"):
        split(data, two_sets(3, 1), None, "domains")
    pairs = load_pairs((pictures(4), pictures(4, 9)))
    held_out = split(pairs, (pictures(3), pictures(3, 9)), None, "pairs")[1]
    assert held_out is not None and held_out.conditions is not None


def test_signs_of_health_are_of_both_sets() -> None:
    rows = torch.arange(2 * HEALTH_ITEMS)[:, None]
    found = _spread(rows, 2)[:, 0]
    assert len(found) == HEALTH_ITEMS and (found % 2).float().mean() == 0.5
    assert _spread(rows, 1)[:, 0].tolist() == list(range(0, 2 * HEALTH_ITEMS, 2))


@pytest.mark.parametrize("recipe", [cyclegan(**SMALL, blocks=1), cut(**SMALL, blocks=1)], ids=lambda each: each.name)
def test_what_is_real_is_read_without_making_the_fakes(recipe: Any) -> None:
    data = two_sets(5, 7)
    plan = recipe.plan(Setting(data.spec, 12, "cpu", conditional=True))
    state = create(plan, Runtime(), 0, 12)
    sampler = Sampler(plan.task, state.average, "cpu", (0.5, 0.5))
    session = Session(plan, state, data, None, Runtime(), 0, Pace(), sampler, None, StopWish())
    reals = (sampler.paired(batch).real for batch in _reference(session))
    wanted = _features(session, [torch.cat(list(reals))])

    def busy(*given: Any) -> None:
        raise AssertionError("the generator has no part in this")

    state.average.register_forward_pre_hook(busy)
    assert torch.equal(real_features(session), wanted) and real_features(session) is session.real_features


def test_features_of_no_discriminator_are_refused() -> None:
    setting = Setting(load_pairs((pictures(3), pictures(3, 9))).spec, 3, "cpu")
    with pytest.raises(UsageError, match=r"feature_matching=1\.0 of recipe pix2pix .* adversary=none has none"):
        pix2pix(adversary="none", feature_matching=1.0).plan(setting)
    assert pix2pix(adversary="none").plan(setting).objective.loss is None


def test_a_translation_goes_where_it_is_told(trained: GAN) -> None:
    given = pictures(2)
    there, back = (trained.predict(given, direction=way) for way in ("AtoB", "BtoA"))  # type: ignore[arg-type]
    assert np.array_equal(trained.predict(given), there) and not np.array_equal(there, back)
    with pytest.raises(UsageError, match=r"give a direction .AtoB, BtoA., and no label"):
        trained.predict(given, labels=["A", "A"])
    with pytest.raises(UsageError, match="no label"):
        trained.predict(given, labels=["A", "A"], direction="AtoB")


def test_what_draws_nothing_says_so(trained: GAN) -> None:
    with pytest.raises(UsageError, match="draws none of its own"):
        trained.sample(2)


def test_what_draws_nothing_is_no_contender() -> None:
    setting = Setting(Spec("image", (3, 32, 32), ("a", "b")), 100, "cpu", conditional=True)
    for name in ("cyclegan", "cut", "superres", "pix2pix:degrade=grey"):
        assert fitted(contender(name), setting).refusal, name
    assert "compare judges drawn ones" in fitted(contender("cut"), setting).refusal


@pytest.mark.parametrize("remedy", [packing(), minibatch(), deviation(), consistency(), virtual_norm()])
def test_remedies_that_would_part_a_picture_from_the_given_one_are_refused(remedy: Any) -> None:
    setting = Setting(Spec("image", (3, 16, 16)), 100, "cpu")
    with pytest.raises(UsageError, match=f"remedy {remedy.name}"):
        pix2pix(degrade="grey", **SMALL).with_remedies(remedy).plan(setting)


def test_several_processes_compare_the_places_that_one_would() -> None:
    task = Contrast(torch.nn.Identity, torch.nn.Identity, [(1, 8, 8), (2, 4, 4)], 5)

    def drawn(count: int, rank: int, world: int) -> dict[str, torch.Tensor]:
        batch = {"real": torch.zeros(count, 1, 8, 8)}
        return task.draw(batch, Draws(torch.Generator().manual_seed(0), rank, world))

    whole, odd = drawn(8, 0, 1), drawn(7, 0, 1)
    for name in ("places0", "places1"):
        by_pair = whole[name].unflatten(0, (4, 2))
        for rank in (0, 1):  # balanced batches are dealt pair by pair
            assert torch.equal(drawn(4, rank, 2)[name], by_pair[rank::2].flatten(0, 1))
        assert len(odd[name]) == 7


@pytest.mark.parametrize("asked", [cyclegan(**SMALL, blocks=1), cut(**SMALL), pix2pix(adversary="paper", **SMALL)])
def test_a_training_taken_up_again_is_the_same_bits(asked: Any) -> None:
    data = two_sets(6, 6) if asked.material == "domains" else load_pairs((pictures(12), pictures(12, 9)))
    plan = asked.plan(Setting(data.spec, 12, "cpu", conditional=asked.material == "domains"))
    runtime, ends = Runtime(), []
    for stop in (4, 2):
        state = create(plan, runtime, 3, 16)
        for part in ((0, stop), (stop, 4)):
            if part[0] == part[1]:
                continue
            if part[0]:
                tensors, facts = to_tensors(state), to_facts(state)
                state = create(plan, runtime, 4, 16)
                restore(state, tensors, facts)
            batches = data.batches(4, 3, 4 * part[0], balanced=plan.balanced)
            for _ in range(*part):
                step(state, plan, next(batches), runtime, 3)
        ends.append(to_tensors(state))
    for group, values in ends[0].items():
        for name, value in values.items():
            assert torch.equal(value, ends[1][group][name]), (group, name)
