"""Attributes from data to pictures: what is real beside what is fake, edits by name, animations, wrong wishes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganlib import GAN
from ganlib.assess import translated
from ganlib.cli import main
from ganlib.core import Draws, Verdict
from ganlib.data import Data, load_attributes
from ganlib.editing import read, wanted, way
from ganlib.errors import DataError, UsageError
from ganlib.looking import _features, _reference, real_features
from ganlib.networks.attributes import Edit as Edited
from ganlib.pace import Pace
from ganlib.recipe import Setting
from ganlib.recipes.attributes import attributes
from ganlib.recipes.pix2pix import pix2pix
from ganlib.recipes.r3 import r3
from ganlib.sampling import Sampler
from ganlib.session import Session
from ganlib.stopping import StopWish
from ganlib.tasks.editing import Edit
from ganlib.training.runtime import Runtime
from ganlib.training.state import create

RNG = np.random.default_rng(0)
SHADES = RNG.integers(20, 236, 60)
PICTURES = np.zeros((60, 12, 12), np.uint8)
PICTURES[:, 3:9, 3:9] = SHADES[:, None, None]
"""Squares of a shade each, on black."""

KIND = np.array(["dark" if shade < 128 else "light" for shade in SHADES])
TINY: dict[str, Any] = dict(width=4, batch_items=4, blocks=1)


def fitted(labels: object, items: int = 24, run: Path | None = None, **options: Any) -> GAN:
    return GAN(attributes(**{**TINY, **options}), seed=0, device="cpu").fit(
        PICTURES, labels, items=items, run=run, progress="none"
    )


@pytest.fixture(scope="module")
def both() -> GAN:
    return fitted({"class": KIND, "shade": SHADES})


def task(classes: int, values: int) -> Edit:
    return Edit(lambda: torch.nn.Identity(), lambda: torch.nn.Identity(), classes, values)


def remember(items: Tensor, attributes: Tensor) -> Edited:
    """A generator whose picture is the first attribute it was told; of its mask a quarter stays."""
    mask = torch.full((len(items), 1, *items.shape[2:]), 0.25)
    return Edited(attributes[:, -1][:, None, None, None].expand_as(items), items, mask)


def test_the_fake_shall_have_what_the_real_item_beside_it_has() -> None:
    """So the two are judged under one condition; whoever edits is half a batch away."""
    batch = {
        "real": torch.arange(6.0)[:, None, None, None].expand(6, 1, 2, 2),
        "label": torch.tensor([0, 1, 2, 0, 1, 2]),
        "attributes": torch.arange(6.0)[:, None] / 6,
    }
    pair = task(3, 1).pair(remember, batch)  # type: ignore[arg-type]
    assert pair.real[:, 0, 0, 0].tolist() == [3, 4, 5, 0, 1, 2]
    assert pair.extra["given"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert pair.condition is not None and pair.condition[:, :3].argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(pair.fake[:, 0, 0, 0], pair.condition[:, 3]), "it was told what the real one beside it has"
    assert torch.equal(pair.condition[:, 3], pair.real[:, 0, 0, 0] / 6)
    assert torch.equal(pair.extra["cycle"][:, 0, 0, 0], batch["attributes"][:, 0]), "and on the way back its own"


def test_two_processes_pair_the_same_items_as_one() -> None:
    real = torch.arange(8.0)[:, None, None, None].expand(8, 1, 2, 2)
    values = torch.arange(8.0)[:, None]
    whole = task(0, 1).pair(remember, {"real": real, "attributes": values})  # type: ignore[arg-type]
    for rank in (0, 1):
        own = task(0, 1).pair(remember, {"real": real[rank::2], "attributes": values[rank::2]})  # type: ignore[arg-type]
        assert torch.equal(own.real, whole.real[rank::2]) and torch.equal(own.fake, whole.fake[rank::2])


def test_terms_are_those_of_the_definition() -> None:
    batch = {
        "real": torch.zeros(4, 1, 3, 3),
        "label": torch.tensor([0, 1, 1, 0]),
        "attributes": torch.tensor([[0.0], [1.0], [0.5], [0.25]]),
    }
    asked = task(2, 1)
    pair = asked.pair(remember, batch)  # type: ignore[arg-type]
    told = torch.tensor([[2.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 3.0, 0.0]])
    verdict = Verdict((), (), told)
    terms = asked.generator_terms(pair, None, verdict)
    right = torch.tensor([1, 0, 0, 1])  # of the item half a batch away
    expected = -(told[:, :2].log_softmax(1)[torch.arange(4), right]).mean()
    assert float(terms["class"]) == pytest.approx(float(expected), rel=1e-6)
    assert float(terms["values"]) == pytest.approx((0.0 + 0.25**2 + 1.0 + 1.0) / 4)
    assert float(terms["cycle"]) == pytest.approx((0 + 1 + 0.5 + 0.25) / 4)
    assert float(terms["area"]) == pytest.approx(0.75) and float(terms["roughness"]) == 0
    assert asked.discriminator_terms(pair, verdict, Verdict(())).keys() == {"class", "values"}
    small = torch.zeros(4, 1, 2, 2)
    rough = Edited(small, small, torch.eye(2).expand(4, 1, 2, 2))
    pair = task(2, 1).pair(lambda items, wish: rough, {**batch, "real": small})  # type: ignore[arg-type, return-value]
    assert float(asked.generator_terms(pair, None, verdict)["roughness"]) == pytest.approx(1.0), "4 steps over 4 places"


def test_what_is_asked_is_told_and_the_rest_is_read_from_the_picture(both: GAN) -> None:
    model, items = both.model_, torch.rand(5, 1, 12, 12) * 2 - 1
    low, high = float(SHADES.min()), float(SHADES.max())
    own = read(model, items)
    assert own.shape == (5, 3) and torch.equal(own[:, :2].sum(1), torch.ones(5))
    assert bool((own[:, 2] >= 0).all()) and bool((own[:, 2] <= 1).all())
    told = wanted(model, {"shade": 100}, items)
    assert torch.equal(told[:, :2], own[:, :2])
    torch.testing.assert_close(told[:, 2], torch.full((5,), (100 - low) / (high - low)))
    told = wanted(model, {"class": "light"}, items)
    assert told[:, :2].tolist() == [[0.0, 1.0]] * 5 and torch.equal(told[:, 2], own[:, 2])
    assert torch.equal(wanted(model, {"light": 1}, items), told) and torch.equal(wanted(model, [100], items)[:, 2:],
        wanted(model, {"shade": "100"}, items)[:, 2:])  # fmt: skip
    assert read(model, torch.rand(2, 1, 30, 17)).shape == (2, 3), "larger pictures are read at the size of the training"


def test_predict_edits_pictures_of_any_size(both: GAN) -> None:
    made = both.predict(PICTURES[:3], attributes={"shade": 200, "class": "light"})
    assert made.shape == (3, 12, 12) and made.dtype == np.uint8
    other = both.predict(PICTURES[:3], attributes={"shade": 30, "class": "dark"})
    assert not np.array_equal(made, other)
    numbers = fitted({"shade": SHADES, "twice": 2 * SHADES})
    listed = numbers.predict(PICTURES[:3], attributes=[100.0, 200.0])
    assert np.array_equal(numbers.predict(PICTURES[:3], attributes=np.array([100.0, 200.0])), listed)
    assert both.predict(np.zeros((2, 7, 19), np.uint8), attributes={"shade": 90}).shape == (2, 7, 19)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (None, "say which attributes .*: shade=.*class=dark|light"),
        ({"age": 1}, "age=1: this model takes shade=.*class=dark"),
        ({"class": "grey"}, "class=grey: this model takes"),
        ({"shade": "much"}, "shade=much: give a number"),
        ({"shade": float("nan")}, "shade=nan: give a number"),
        ([1.0, 2.0], "2 attributes; this model takes 1"),
        ({"dark": 0.5}, "dark=0.5: this model takes"),
    ],
    ids=range(7),
)
def test_a_wish_that_the_model_does_not_know_is_refused(both: GAN, wish: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        both.predict(PICTURES[:2], attributes=wish)


def test_who_knows_no_attributes_says_so(both: GAN, tmp_path: Path) -> None:
    other = GAN("pix2pix", device="cpu").fit((PICTURES, PICTURES), items=2, progress="none")
    with pytest.raises(UsageError, match="recipe pix2pix knows no attributes"):
        other.predict(PICTURES[:2], attributes={"shade": 1})
    with pytest.raises(UsageError, match="name the class among the attributes"):
        both.predict(PICTURES[:2], "light")
    both.save(tmp_path / "small.gan", discriminator=False)
    small = GAN.load(tmp_path / "small.gan")
    with pytest.raises(UsageError, match=r"without its discriminator, .*: name every attribute"):
        small.predict(PICTURES[:2], attributes={"shade": 100})
    everything = {"shade": 100, "class": "light"}
    assert np.array_equal(
        small.predict(PICTURES[:2], attributes=everything), both.predict(PICTURES[:2], attributes=everything)
    )


def test_numbers_alone_and_classes_alone_are_enough() -> None:
    numbers = fitted({"shade": SHADES})
    assert numbers.predict(PICTURES[:2], attributes={"shade": 100}).shape == (2, 12, 12)
    kinds = fitted(KIND)
    assert kinds.predict(PICTURES[:2], attributes={"class": "dark"}).shape == (2, 12, 12)
    with pytest.raises(UsageError, match="recipe attributes needs to know something of each picture"):
        fitted(None)


def test_a_way_passes_its_stops_and_comes_back(both: GAN) -> None:
    item = torch.rand(1, 12, 12) * 2 - 1
    start = read(both.model_, item[None])[0]
    points = way(both.model_, item, [{"shade": 100}, {"class": "light"}], 4)
    assert points.shape == (12, 3)
    stops = [wanted(both.model_, wish, item[None])[0] for wish in ({"shade": 100}, {"shade": 100, "class": "light"})]
    for place, stop in zip((3, 7, 11), (*stops, start), strict=True):
        torch.testing.assert_close(points[place], stop)
    torch.testing.assert_close(points[1], (start + stops[0]) / 2)
    with pytest.raises(UsageError, match="4 steps to 0 stops"):
        way(both.model_, item, [], 4)


def test_scores_are_told_the_attributes_and_evaluation_the_wanted_classes(both: GAN) -> None:
    labels = {"class": KIND, "shade": SHADES}
    logits = both.score(PICTURES[:6], {name: column[:6] for name, column in labels.items()})
    assert logits.shape == (6,) and not np.array_equal(
        logits, both.score(PICTURES[:6], {"class": KIND[:6], "shade": SHADES[:6][::-1].copy()})
    )
    with pytest.raises(DataError, match="has no attribute shade"):
        both.score(PICTURES[:6], KIND[:6])
    held_out = load_attributes(PICTURES, labels).of_kind(both.model_.setting.spec)
    made, _ = translated(both.model_, held_out, 60)
    assert made.labels is not None and held_out.labels is not None
    sampler = both.model_.sampler
    pair = sampler.paired(held_out.batch(held_out.evenly(60, shuffled=True)))
    assert pair.condition is not None and made.labels.tolist() == pair.condition[:, :2].argmax(1).tolist()
    asked = made.batch(np.arange(60))["attributes"][:, 0]
    torch.testing.assert_close(asked, pair.condition[:, 2])


def sorted_by_class() -> Data:
    order = np.argsort(KIND, kind="stable").repeat(4)
    return load_attributes(PICTURES[order], {"class": KIND[order], "shade": SHADES[order]})


def test_pictures_sorted_by_class_are_asked_for_other_classes_too(both: GAN) -> None:
    """The order of a folder of folders: half a batch away there is nothing but the same class."""
    data = sorted_by_class()
    made, _ = translated(both.model_, data, 240)
    assert made.labels is not None
    assert all(set(part.tolist()) == {0, 1} for part in np.split(made.labels, [64, 128, 192]))


def test_a_look_compares_the_edits_with_all_items_once() -> None:
    data = sorted_by_class()
    plan = attributes(**TINY).plan(Setting(data.spec, len(data), "cpu", conditional=True))
    state = create(plan, Runtime(), 0, len(data))
    sampler = Sampler(plan.task, state.average, "cpu", (0.5, 0.5))
    session = Session(plan, state, data, None, Runtime(), 0, Pace(), sampler, None, StopWish())
    batches = list(_reference(session))
    assert all(set(batch["label"].tolist()) == {0, 1} for batch in batches)
    reals = torch.cat([sampler.paired(batch).real for batch in batches])
    wanted = _features(session, [reals])
    assert torch.equal(real_features(session).sum(1).sort().values, wanted.sum(1).sort().values)


def test_pictures_without_classes_are_no_held_out_data_of_a_model_that_knows_classes(both: GAN) -> None:
    with pytest.raises(DataError, match="these pictures have no classes, and this model knows 2"):
        both.evaluate(load_attributes(PICTURES, {"shade": SHADES}))
    with pytest.raises(DataError, match="these pictures have no classes, and this model knows 2"):
        GAN(attributes(**TINY), device="cpu").fit(
            sorted_by_class(), validation=load_attributes(PICTURES, {"shade": SHADES}), items=4, progress="none"
        )


def test_attributes_that_another_recipe_has_no_use_for_are_refused_or_left_alone() -> None:
    data = load_attributes(PICTURES, {"shade": SHADES})
    other = GAN(pix2pix(degrade="noise", width=4, batch_items=4), device="cpu").fit(data, items=4, progress="none")
    assert "psnr" in other.evaluate(data).good.scores
    drawn = GAN(r3(width=4), device="cpu").fit(PICTURES, items=2, progress="none")
    with pytest.raises(UsageError, match="recipe r3 knows no attributes"):
        drawn.predict(drawn.latents(2), attributes={"shade": 1})


def test_learning_makes_the_square_as_light_as_it_is_asked_to_be() -> None:
    labels = {"shade": SHADES}
    gan = fitted(labels, items=3000, width=8, batch_items=8, area=0.0, roughness=0.0, cycle=1.0)
    centres = [gan.predict(PICTURES[:20], attributes={"shade": s})[:, 5:7, 5:7].mean() for s in (40, 128, 216)]
    assert centres[0] + 40 < centres[1] < centres[2] - 40, centres
    found = gan.evaluate(load_attributes(PICTURES, labels)).good.scores["shows_shade"]
    assert found.value is not None and found.value > 0.8
    assert found.real_baseline is not None and found.real_baseline > 0.9


def test_a_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    labels = {"class": KIND, "shade": SHADES}
    whole = fitted(labels, items=48, run=tmp_path / "whole")
    fitted(labels, items=24, run=tmp_path / "parts")
    rest = fitted(labels, items=48, run=tmp_path / "parts")
    assert rest.model_.setting.spec.attributes == whole.model_.setting.spec.attributes
    again = GAN.load(tmp_path / "whole")
    wish = {"shade": 99, "class": "dark"}
    assert np.array_equal(again.predict(PICTURES[:4], attributes=wish), whole.predict(PICTURES[:4], attributes=wish))


def test_the_command_line_edits_and_animates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    for number, picture in enumerate(PICTURES):
        (folder / KIND[number]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / KIND[number] / f"p{number}.png")
    rows = [f"{KIND[number]}/p{number}.png,{shade}" for number, shade in enumerate(SHADES)]
    (folder / "attributes.csv").write_text("\n".join(["file,shade", *rows]) + "\n")
    run = str(tmp_path / "run")
    options = ["--items", "16", "--width", "4", "--batch_items", "4", "--blocks", "1", "--device", "cpu"]
    main(["fit", str(folder), "--recipe", "attributes", "--out", run, *options])
    told = capsys.readouterr()
    assert "attributes shade" in told.err and "PICTURES --attributes NAME=VALUE --out" in told.out + told.err
    one = str(folder / KIND[0] / "p0.png")
    main(["predict", run, one, "--attributes", "shade=200,class=light", "--out", str(tmp_path / "made")])
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["p0.png"]
    main(["animate", run, one, "--way", "shade=30;class=light", "--steps", "4", "--out", str(tmp_path / "way.gif")])
    with Image.open(tmp_path / "way.gif") as animation:
        assert 4 < animation.n_frames <= 12  # type: ignore[attr-defined]  # equal ones that follow are one in a GIF
    main(["animate", run, str(folder / "dark"), "--way", "shade=30", "--steps", "2", "--out", str(tmp_path / "w.png")])
    capsys.readouterr()
    for wish, told in (("shade", "names and numbers once each"), ("age=3", "this model takes shade=")):
        with pytest.raises(SystemExit) as ended:
            main(["predict", run, one, "--attributes", wish, "--out", str(tmp_path / "no")])
        assert ended.value.code == 2 and told in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_the_discriminator_is_told_the_vector_of_the_real_items() -> None:
    batch = {"real": torch.zeros(2, 1, 2, 2), "label": torch.tensor([1, 0]), "attributes": torch.tensor([[0.5], [1.0]])}
    told = task(2, 1).condition(batch, Draws(torch.Generator()))
    assert told is not None and told.tolist() == [[0, 1, 0.5], [1, 0, 1]]
