"""The commands that look into the latent space: what they write, and what they refuse."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlib import GAN, model
from ganlib.cli import main
from ganlib.core import Spec
from ganlib.data import load
from ganlib.recipes.autoencoder import autoencoder
from ganlib.recipes.r3 import r3
from ganlib.recipes.stylegan2 import stylegan2
from ganlib.recipes.superres import superres
from latent_models import of_recipe


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
        sys.exit(0)
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models as .gan files."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    digits = Spec("image", (1, 8, 8), tuple("0123456789"))
    colour = Spec("image", (3, 16, 16))
    made = {
        "digits": of_recipe(r3(network="mlp", width=16, latent=8), digits, conditional=True),
        "styles": of_recipe(stylegan2(width=8, widest=8, latent=8, mapping_layers=2), colour),
        "codes": of_recipe(autoencoder(width=8, latent=4), Spec("image", (1, 8, 8))),
        "larger": of_recipe(superres(width=8), colour),
        "points": of_recipe(r3(width=16, latent=4), Spec("vector", (2,), layout="C")),
    }
    for name, each in made.items():
        model.save(each, folder / f"{name}.gan")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two digits: as they are, and four times as large in a folder of its own, by the same name."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = load("digits").take(np.arange(2))[:, 0]
    Image.fromarray(digits[0]).save(folder / "a.png")
    (folder / "sub").mkdir()
    Image.fromarray(digits[0].repeat(4, 0).repeat(4, 1)).save(folder / "sub" / "a.png")
    Image.fromarray(digits[1]).save(folder / "sub" / "a.bmp")
    return folder


def test_a_walk_is_an_animation_of_its_keys_and_steps_that_repeats(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk.gif"
    walk = ("interpolate", models / "digits.gan", "--keys", 3, "--steps", 4, "--seconds", 2.4)
    assert run(*walk, "--label", "3,7", "--out", out) == 0
    with Image.open(out) as animation:
        assert animation.n_frames == 12 and animation.info["loop"] == 0  # type: ignore[attr-defined]
        scale = 256 // 16
        assert animation.size == (2 * 8 * scale + 3 * 2, 8 * scale + 2 * 2)
        frames = []
        for number in range(12):
            animation.seek(number)
            assert animation.info["duration"] == 200
            frames.append(np.asarray(animation.convert("L")).astype(float))
    steps = [np.abs(a - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert steps[-1] < 2 * np.median(steps), "the last frame is a step before the first"
    strip = tmp_path / "walk.png"
    assert run(*walk, "--label", "3", "--out", strip) == 0
    gan = GAN.load(models / "digits.gan", device="cpu")
    keys = gan.predict(gan.latents(3), 3)
    with Image.open(strip) as opened:
        sheet = np.asarray(opened)
    scale = (sheet.shape[1] - 2) // 4 - 2
    for row in range(3):
        top = 2 + row * (scale + 2)
        first = sheet[top : top + scale : scale // 8, 2 : 2 + scale : scale // 8]
        assert np.abs(first.astype(int) - keys[row].reshape(8, 8)).max() <= 1


@pytest.mark.parametrize("name", ["styles", "codes"])
def test_models_with_styles_or_codes_walk_too(name: str, models: Path, tmp_path: Path) -> None:
    for ending in ("gif", "webp", "apng", "png"):
        out = tmp_path / f"{name}.{ending}"
        assert run("interpolate", models / f"{name}.gan", "--out", out, "--keys", 2, "--steps", 2) == 0
        with Image.open(out) as written:
            assert getattr(written, "n_frames", 1) in ((1,) if ending == "png" else (3, 4)), "frames alike are one"


def test_project_writes_pictures_latents_and_how_near_they_are(
    models: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    project = ("project", models / "digits.gan", pictures, "--out", out, "--steps", 4, "--random", 64)
    assert run(*project, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "project.json").read_text())
    assert [each["name"] for each in told["pictures"]] == ["a", "sub/a.bmp", "sub/a.png"]
    gan, given = GAN.load(models / "digits.gan", device="cpu"), []
    for each in told["pictures"]:
        assert each["projection"]["features"] <= 1.05 * each["best_random"]["features"]
        with np.load(out / f"{each['name']}.npz") as found:
            assert str(found["label"]) == each["label"] and found["latent"].shape == (8,)
            again = gan.predict(found["latent"][None], int(found["label"]))
        with Image.open(out / f"{each['name']}.png") as both:
            assert both.size == (2 * 64 + 3 * 2, 64 + 2 * 2)
            right = np.asarray(both)[2:66:8, 68:132:8]
            left = np.asarray(both)[2:66:8, 2:66:8]
        given.append(left.astype(int))
        assert np.abs(right.astype(int) - again.reshape(8, 8)).max() <= 1
        mse = np.square(left.astype(float) - right).mean()
        assert each["projection"]["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=0.1)
    assert np.array_equal(given[0], load("digits").take(np.arange(1))[0, 0])
    assert np.abs(given[2] - given[0]).mean() < 0.2 * np.abs(given[1] - given[0]).mean(), "resized to the model's size"
    assert run(*project, "--label", "7") == 0
    said = capsys.readouterr()
    assert "sub/a.bmp: class 7," in said.out and "12 steps" in said.err


def test_project_finds_styles_of_one_or_of_each_stage(models: Path, pictures: Path, tmp_path: Path) -> None:
    for space, shape in (("auto", (8,)), ("styles", (3, 8)), ("latent", (8,))):
        out = tmp_path / space
        project = ("project", models / "styles.gan", pictures / "a.png", "--out", out, "--space", space)
        assert run(*project, "--steps", 2, "--random", 64, "--quiet") == 0
        with np.load(out / "a.npz") as found:
            assert found["style" if space == "auto" else space].shape == shape and "label" not in found


@pytest.mark.parametrize(("name", "method"), [("digits", "sefa"), ("styles", "pca"), ("codes", "pca")])
def test_directions_are_drawn_and_written(name: str, method: str, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("directions", models / f"{name}.gan", "--out", out, "--number", 3, "--method", method) == 0
    side = 64
    with Image.open(out / "directions.png") as sheet:
        assert sheet.size == (7 * (side + 2) + 2, 3 * (side + 2) + 2)
        middle = np.asarray(sheet)[:, 2 + 3 * (side + 2) : -2 - 3 * (side + 2)]
    assert np.array_equal(middle[2 : 2 + side], middle[2 + side + 2 : 2 + side + 2 + side]), "one picture in the middle"
    with np.load(out / "directions.npz") as found:
        assert found["vectors"].shape == (3, len(found["point"])) and found["deviations"].shape == (3,)


def test_mix_draws_a_sheet_with_the_parents_at_its_edges(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "mix.png"
    assert run("mix", models / "styles.gan", "--out", out, "--rows", 2, "--columns", 3, "--first-fine", 1) == 0
    with Image.open(out) as opened:
        sheet = np.asarray(opened)
    cells = [
        [sheet[2 + 66 * row : 66 + 66 * row : 4, 2 + 66 * c : 66 + 66 * c : 4] for c in range(4)] for row in range(3)
    ]
    parents = GAN.load(models / "styles.gan", device="cpu").sample(5)
    for place, parent in zip([(1, 0), (2, 0), (0, 1), (0, 2), (0, 3)], parents, strict=True):
        assert np.abs(cells[place[0]][place[1]].astype(int) - parent).max() <= 1
    assert bool((cells[0][0] == 255).all())


def test_what_cannot_be_done_is_said(
    models: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits, styles, larger, points = (models / f"{name}.gan" for name in ("digits", "styles", "larger", "points"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("none here")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / "red.png")
    picture, out, gif = pictures / "a.png", tmp_path / "out", tmp_path / "walk.gif"
    for arguments, status, words in (
        (("interpolate", larger, "--out", gif), 2, "ganlib predict"),
        (("project", larger, picture, "--out", out), 2, "ganlib predict"),
        (("directions", larger, "--out", out), 2, "ganlib predict"),
        (("interpolate", points, "--out", gif), 2, "vectors"),
        (("mix", digits, "--out", tmp_path / "mix.png"), 2, "stylegan2"),
        (("mix", styles, "--out", tmp_path / "mix.png", "--first-fine", 3), 2, "1 to 2"),
        (("mix", styles, "--out", tmp_path / "mix.gif"), 2, "mix.gif"),
        (("project", digits, picture, "--out", out, "--space", "style"), 2, "stylegan2"),
        (("project", digits, tmp_path / "none.png", "--out", out), 66, "none.png"),
        (("project", digits, tmp_path / "notes.txt", "--out", out), 65, "notes.txt"),
        (("project", digits, tmp_path / "broken.png", "--out", out), 65, "broken.png"),
        (("project", digits, tmp_path / "red.png", "--out", out), 65, "grey"),
        (("project", digits, picture, "--out", picture / "out"), 74, "a.png"),
        (("project", digits, picture, "--out", ""), 2, "--out"),
        (("project", digits, picture, "--out", out, "--steps", 0), 2, "1 step"),
        (("project", digits, picture, "--out", out, "--random", 63), 2, "64"),
        (("project", digits, picture, "--out", out, "--label", "3,4"), 2, "one class"),
        (("project", styles, picture, "--out", out, "--label", "3"), 2, "without labels"),
        (("interpolate", digits, "--out", gif, "--label", "ten"), 2, "'ten'"),
        (("interpolate", digits, "--out", gif, "--keys", 1), 2, "2 keys"),
        (("interpolate", digits, "--out", gif, "--truncation", 0), 2, "truncation"),
        (("interpolate", digits, "--out", gif, "--seed", -1), 2, "seed"),
        (("interpolate", digits, "--out", gif, "--seconds", 0.1), 2, "more seconds"),
        (("interpolate", digits, "--out", tmp_path / "walk.mp4"), 2, "walk.mp4"),
        (("interpolate", digits, "--out", picture / "walk.gif"), 74, "walk.gif"),
        (("interpolate", tmp_path / "none", "--out", gif), 66, "none"),
        (("directions", digits, "--out", out, "--number", 0), 2, "1 or more"),
    ):
        assert run(*arguments) == status, arguments
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said, (arguments, said)
    assert not gif.exists() and not list(out.glob("*"))
