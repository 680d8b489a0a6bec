"""Translation from data to pictures, as a user has it: fit, predict, evaluate, score, and going on after a stop."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganlib import GAN
from ganlib.cli import main
from ganlib.errors import DataError, UsageError
from ganlib.recipes.cut import cut
from ganlib.recipes.cyclegan import cyclegan
from ganlib.recipes.pix2pix import pix2pix
from ganlib.training import checkpoint

RNG = np.random.default_rng(0)
SMOOTH = np.repeat(np.repeat(RNG.integers(0, 256, (60, 4, 4), np.uint8), 3, 1), 3, 2)
"""Sixty grey pictures of 12 x 12 pixels, in blocks."""

COLOUR = np.stack([SMOOTH, 255 - SMOOTH, SMOOTH // 2], -1)
TINY: dict[str, Any] = dict(width=4, batch_items=4)
BOTH = [cyclegan(**TINY, blocks=1), cut(**TINY, blocks=1, units=8)]


def fitted(recipe: Any, data: object, run: Path | None = None, items: int = 40) -> GAN:
    return GAN(recipe, seed=0, device="cpu").fit(data, items=items, run=run, progress="none")


def test_pairs_are_learned_and_predicted_in_the_wanted_channels() -> None:
    gan = fitted(pix2pix(**TINY), (SMOOTH, COLOUR))
    made = gan.predict(SMOOTH[:3])
    assert made.shape == (3, 12, 12, 3) and made.dtype == np.uint8
    assert gan.predict(np.zeros((2, 7, 19), np.uint8)).shape == (2, 7, 19, 3), "of any size"
    with pytest.raises(DataError, match="pictures of any size with 1 channels"):
        gan.predict(COLOUR[:3])
    with pytest.raises(UsageError, match="draws none of its own"):
        gan.sample(2)
    with pytest.raises(UsageError, match="does not go both ways"):
        gan.predict(SMOOTH[:3], direction="BtoA")
    assert gan.score((SMOOTH[:5], COLOUR[:5])).shape == (5,)


def test_more_training_brings_what_is_made_nearer_to_what_is_wanted() -> None:
    recipe = pix2pix(width=8, batch_items=8, learning_rate=5e-3)
    errors = [
        np.abs(fitted(recipe, (SMOOTH, COLOUR), items=items).predict(SMOOTH).astype(float) - COLOUR).mean()
        for items in (8, 800)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_evaluate_tells_how_near_it_comes_and_what_the_given_picture_would_have() -> None:
    gan = fitted(pix2pix(**TINY), (SMOOTH, 255 - SMOOTH))
    found = gan.evaluate((SMOOTH, 255 - SMOOTH)).good.scores
    made = gan.predict(SMOOTH).astype(float)

    def ratio(pictures: np.ndarray) -> float:
        errors = ((pictures - (255.0 - SMOOTH)) ** 2).mean((1, 2))
        return float((10 * np.log10(255**2 / errors)).mean())

    assert found["psnr"].value == pytest.approx(ratio(made), abs=1e-3)
    assert found["psnr"].real_baseline == pytest.approx(ratio(SMOOTH.astype(float)), abs=1e-3)
    assert found["psnr"].low is not None and found["psnr"].low < ratio(made)
    with pytest.raises((DataError, UsageError), match="pairs"):
        gan.evaluate(SMOOTH)


@pytest.mark.parametrize("recipe", BOTH, ids=lambda recipe: recipe.name)
def test_two_sets_are_translated_and_evaluated(recipe: Any) -> None:
    gan = fitted(recipe, (SMOOTH, 255 - SMOOTH[:50]))
    made = gan.predict(SMOOTH[:3], direction="AtoB")
    assert made.shape == (3, 12, 12) and np.array_equal(made, gan.predict(SMOOTH[:3]))
    if recipe.name == "cut":
        with pytest.raises(UsageError, match="direction=BtoA: recipe cut learns AtoB"):
            gan.predict(SMOOTH[:3], direction="BtoA")
    else:
        assert not np.array_equal(made, gan.predict(SMOOTH[:3], direction="BtoA"))
    found = gan.evaluate((SMOOTH, 255 - SMOOTH))
    assert "psnr" not in found.good.scores and found.protocol["n_fake"] > 10
    kept = found.good.scores["content_kept"]
    assert kept.value is not None and kept.low is not None and kept.low < kept.value
    assert "chance 1/" in kept.note and (recipe.name != "cyclegan" or kept.low > 1 / 64)


@pytest.mark.parametrize("recipe", [pix2pix(**TINY), *BOTH], ids=lambda recipe: recipe.name)
def test_a_run_goes_on_to_the_same_bytes(recipe: Any, tmp_path: Path) -> None:
    data = (SMOOTH, 255 - SMOOTH)
    whole = fitted(recipe, data, tmp_path / "whole", items=32)
    fitted(recipe, data, tmp_path / "parts", items=32)
    for folder in checkpoint.listed(tmp_path / "parts" / "checkpoints")[1:]:
        shutil.rmtree(folder)  # as if it had been killed then
    rest = fitted(recipe, data, tmp_path / "parts", items=32)
    weights = [gan.model_.generator.state_dict() for gan in (whole, rest)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert len(checkpoint.listed(tmp_path / "whole" / "checkpoints")) > 1
    assert np.array_equal(GAN.load(tmp_path / "parts").predict(SMOOTH[:4]), rest.predict(SMOOTH[:4]))


def save(folder: Path, pictures: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"p{number}.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_command_line_translates_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "pairs" / "A", SMOOTH)
    save(tmp_path / "pairs" / "B", COLOUR)
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    options = ["--items", "16", "--width", "4", "--batch_items", "4", "--quiet", "--device", "cpu"]
    main(["fit", str(tmp_path / "pairs"), "--recipe", "pix2pix", "--out", run, *options])
    main(["predict", run, str(tmp_path / "pairs" / "A"), "--out", out])
    assert len(list((tmp_path / "out").iterdir())) == 60 and pixels(tmp_path / "out" / "p7.png").shape == (12, 12, 3)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["predict", run, str(tmp_path / "pairs" / "B"), "--out", out])
    assert ended.value.code == 65
    assert "has colours; this model" in capsys.readouterr().err
    save(tmp_path / "sets" / "trainA", SMOOTH)
    save(tmp_path / "sets" / "trainB", 255 - SMOOTH)
    run = str(tmp_path / "cycle")
    options += ["--blocks", "1"]
    main(["fit", str(tmp_path / "sets"), "--recipe", "cyclegan", "--out", run, *options])
    for direction in ("AtoB", "BtoA"):
        made = str(tmp_path / direction)
        main(["predict", run, str(tmp_path / "sets" / "trainA"), "--direction", direction, "--out", made])
    first, second = (pixels(tmp_path / name / "p0.png") for name in ("AtoB", "BtoA"))
    assert not np.array_equal(first, second)


def test_good_pictures_are_enough_with_degrade(tmp_path: Path) -> None:
    gan = fitted(pix2pix(**TINY, degrade="grey"), COLOUR)
    assert gan.predict(SMOOTH[:2]).shape == (2, 12, 12, 3)
    assert fitted(pix2pix(**TINY, degrade="down4"), COLOUR).predict(COLOUR[:2, :4, :4]).shape == (2, 16, 16, 3)
