"""Enlarging pictures: the reduction is Pillow's, the network the paper's, and predict takes what people have."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlib import GAN
from ganlib.cli import main
from ganlib.core import Draws, Spec, Verdict
from ganlib.data import load
from ganlib.errors import DataError, UsageError
from ganlib.metrics.features import RandomConvolutions
from ganlib.networks.superres import EnlargingGenerator, bicubic, reduced, steps_of
from ganlib.recipe import Setting
from ganlib.recipes.superres import superres
from ganlib.tasks.enlarge import Enlarge


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_reduction_and_the_interpolation_are_those_of_pillow(scale: int, rng: torch.Generator):
    items = torch.rand(2, 3, 24, 36, generator=rng) - 0.5
    made = reduced(items, scale)
    for ours, other in ((made, (36 // scale, 24 // scale)), (bicubic(items, scale), (36 * scale, 24 * scale))):
        for item in range(2):
            for channel in range(3):
                picture = Image.fromarray(items[item, channel].numpy())
                wanted = np.asarray(picture.resize(other, Image.Resampling.BICUBIC))
                assert np.abs(ours[item, channel].numpy() - wanted).max() < 1e-5


def test_the_generator_at_the_published_size_has_the_published_number_of_weights():
    """First 1,792; a dense block 239,808, three in each of 23; four of 64 to 64 with 36,928 each; last 1,731."""
    with torch.device("meta"):
        network = EnlargingGenerator(3, scale=4, width=64, growth=32, blocks=23)
    assert sum(weight.numel() for weight in network.parameters()) == 1792 + 23 * 3 * 239_808 + 4 * 36_928 + 1731
    assert sum(weight.numel() for weight in network.parameters()) == 16_697_987


def test_a_scale_is_cut_into_primes():
    assert [steps_of(scale) for scale in (2, 3, 4, 6, 7, 8)] == [(2,), (3,), (2, 2), (2, 3), (7,), (2, 2, 2)]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_constant_picture_of_any_size_stays_nearly_so_and_grows(scale: int):
    torch.manual_seed(0)
    network = EnlargingGenerator(1, scale=scale, width=8, growth=4, blocks=1)
    with torch.no_grad():
        made = network(torch.full((2, 1, 5, 9), 0.3))
    assert made.shape == (2, 1, 5 * scale, 9 * scale)
    assert float((made - 0.3).abs().max()) < 0.05


def test_the_terms_are_zero_for_the_picture_itself_and_weigh_depths_alike(rng: torch.Generator):
    maps = RandomConvolutions(channels_in=1).maps
    task = Enlarge(torch.nn.Identity, torch.nn.Identity, 2, maps)
    batch = task.draw({"real": torch.rand(3, 1, 16, 16, generator=rng)}, Draws(rng))
    assert torch.allclose((batch["low"] * 127.5 + 127.5) % 1, torch.zeros(()), atol=1e-3), "stored in 8 bits"
    same = task.generator_terms(task.pair(lambda low: batch["real"], batch), None, Verdict(()))
    assert float(same["content"]) == float(same["perceptual"]) == 0
    other = task.pair(lambda low: batch["real"] + 0.25, batch)
    terms = task.generator_terms(other, None, Verdict(()))
    assert float(terms["content"]) == pytest.approx(0.25)
    pairs = [*zip(maps(other.fake), maps(other.real), strict=True)]
    wanted = np.mean([[float((a[k] - b[k]).abs().sum() / b[k].abs().sum()) for k in range(3)] for a, b in pairs])
    assert float(terms["perceptual"]) == pytest.approx(wanted, rel=1e-5)
    low, plain, ours, real = task.exhibit(other)
    assert low.shape == plain.shape == ours.shape == real.shape and torch.equal(low[..., ::2, ::2], batch["low"])


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [((1, 30, 28), {}, "--size 28x28"), ((6,), {}, "vector"), ((1, 8, 8), {"scale": 1}, "scale=1")],
)
def test_what_cannot_be_reduced_is_refused(shape: tuple[int, ...], options: dict[str, int], said: str):
    spec = Spec("image" if len(shape) == 3 else "vector", shape)
    with pytest.raises(UsageError, match="superres") as caught:
        superres(**options).plan(Setting(spec, 50, "cpu"))
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("superres") / "run"
    recipe = superres(scale=2, width=8, growth=4, blocks=1, batch_items=32)
    GAN(recipe, seed=1).fit("digits", items=3200, run=folder, progress="none", conditional=False)
    return folder


def test_enlarged_digits_are_nearer_to_the_originals_than_interpolated_ones(trained: Path):
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    looks = [record for record in records if "psnr" in record]
    assert looks[-1]["psnr"] > looks[0]["psnr"] and looks[-1]["score"] < looks[0]["score"]
    with Image.open(sorted((trained / "samples").glob("*.png"))[-1]) as grid:
        assert grid.size[0] > grid.size[1] // 2
    gan, digits = GAN.load(trained), load("digits").take(np.arange(50))[:, 0]
    low = np.stack([np.asarray(Image.fromarray(each).resize((4, 4), Image.Resampling.BICUBIC)) for each in digits])
    plain = np.stack([np.asarray(Image.fromarray(each).resize((8, 8), Image.Resampling.BICUBIC)) for each in low])
    errors = [((made.astype(float) - digits) ** 2).mean() for made in (gan.predict(low), plain)]
    assert errors[0] < errors[1]
    assert gan.predict(np.zeros((1, 5, 3), np.uint8)).shape == (1, 10, 6)


def test_a_model_survives_a_file_and_says_what_it_cannot_do(trained: Path, tmp_path: Path):
    gan = GAN.load(trained)
    gan.save(tmp_path / "model.gan")
    low = np.random.default_rng(0).integers(0, 256, (3, 4, 6), dtype=np.uint8)
    assert np.array_equal(GAN.load(tmp_path / "model.gan").predict(low), gan.predict(low))
    for ask in (lambda: gan.sample(2), lambda: gan.latents(2)):
        with pytest.raises(UsageError, match="enlarges pictures and draws none"):
            ask()
    with pytest.raises(DataError, match="with 1 channels"):
        gan.predict(np.zeros((2, 4, 4, 3), np.uint8))


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
        sys.exit(0)
    return int(stopped.value.code or 0)


def test_the_command_enlarges_a_folder_of_any_sizes(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (4, 6)), ("b.png", (4, 6)), ("in/c.png", (7, 5))):
        (tmp_path / "low" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / "low" / name)
    assert run("predict", str(trained), str(tmp_path / "low"), "--out", str(tmp_path / "out"), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"items": 3, "out": str(tmp_path / "out"), "unreadable": []}
    made = {p.relative_to(tmp_path / "out").as_posix(): read(p).shape for p in (tmp_path / "out").rglob("*.png")}
    assert made == {"a.png": (8, 12), "b.png": (8, 12), "in/c.png": (14, 10)}
    one = GAN.load(trained).predict(read(tmp_path / "low/a.png")[None])[0]
    assert np.array_equal(one, read(tmp_path / "out/a.png"))
    np.savez(tmp_path / "two.npz", images=rng.integers(0, 256, (2, 4, 4), dtype=np.uint8))
    assert run("predict", str(trained), str(tmp_path / "two.npz"), "--out", str(tmp_path / "two_out.npz")) == 0
    assert np.load(tmp_path / "two_out.npz")["images"].shape == (2, 8, 8, 1)


def test_the_command_says_what_is_wrong(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    colour = tmp_path / "colour.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(colour)
    (tmp_path / "empty").mkdir()
    out = ["--out", str(tmp_path / "out")]
    for source, said in ((colour, "grey pictures"), (tmp_path / "empty", "no pictures"), (tmp_path / "x", "not exist")):
        assert run("predict", str(trained), str(source), *out) != 0
        assert said in capsys.readouterr().err
    assert run("predict", str(trained), str(colour), "--out", "x.csv") != 0
    assert "x.csv" in capsys.readouterr().err
    assert run("sample", str(trained), "--out", str(tmp_path / "s")) != 0
    assert "ganlib predict" in capsys.readouterr().err
