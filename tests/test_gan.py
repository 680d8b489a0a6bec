"""The estimator as a user meets it: fit, sample, predict, score, evaluate, save, load, resume; and bad input."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlib import GAN
from ganlib.data import load
from ganlib.errors import BusyError, DamagedError, DataError, MissingError, RunError, UsageError
from ganlib.metrics.modes import ring_of_gaussians
from ganlib.recipe import Recipe
from ganlib.recipes.dcgan import dcgan
from ganlib.recipes.r3 import r3
from ganlib.training import checkpoint
from ganlib.training.run import Run


def small() -> Recipe:
    return r3(network="mlp", width=16, latent=8, batch_items=32)


def trained(data: object = "digits", *, run: Path | None = None, items: int = 640, recipe: Recipe | None = None) -> GAN:
    return GAN(recipe or small(), seed=1).fit(data, items=items, run=run, progress="none")


@pytest.fixture(scope="module")
def model() -> GAN:
    return trained()


def test_sample_has_the_form_of_the_data_and_depends_on_the_seed_alone(model: GAN) -> None:
    images = model.sample(100, seed=5)
    assert images.shape == (100, 8, 8) and images.dtype == np.uint8
    assert np.array_equal(images[:7], model.sample(7, seed=5))
    assert not np.array_equal(images[:7], model.sample(7, seed=6))
    streamed = np.concatenate([part for part, _ in model.stream(100, seed=5)])
    assert np.array_equal(images, streamed)


def test_labels_choose_the_class_in_turn(model: GAN) -> None:
    drawn = [label for _, labels in model.stream(4, labels=[3, "7"]) for label in labels]
    assert drawn == [3, 7, 3, 7]
    own = model.labels(50, seed=2)
    assert np.array_equal(model.sample(50, seed=2), model.predict(model.latents(50, seed=2), own))
    with pytest.raises(UsageError, match="no class '12'; there are 0, 1, 2"):
        model.sample(2, labels=12)


def test_interpolation_begins_and_ends_at_the_samples(model: GAN) -> None:
    frames = model.interpolate(5, start=0, end=3, label=4, seed=9)
    ends = model.predict(model.latents(4, seed=9)[[0, 3]], 4)
    assert np.abs(frames[[0, -1]].astype(int) - ends).max() <= 1  # sin(π - x) rounds


def test_scores_tell_real_digits_from_noise() -> None:
    gan = trained(items=6400)
    digits = load("digits")
    real = gan.score(digits.take(np.arange(100))[:, 0], digits.labels[:100])
    noise = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    assert real.shape == (100,)
    assert np.median(real) > np.median(gan.score(noise, digits.labels[:100]))
    assert np.array_equal(gan.score(noise[:3], [1, 2, 3]), gan.score(noise, [1, 2, 3] + [0] * 97)[:3])


def test_save_and_load_give_the_same_samples_and_scores(model: GAN, tmp_path: Path) -> None:
    model.save(tmp_path / "digits.gan")
    again = GAN.load(tmp_path / "digits.gan")
    assert np.array_equal(model.sample(20), again.sample(20))
    images, labels = model.sample(5), model.labels(5)
    assert np.array_equal(model.score(images, labels), again.score(images, labels))
    model.save(tmp_path / "draws.gan", discriminator=False)
    assert np.array_equal(model.sample(5), GAN.load(tmp_path / "draws.gan").sample(5))
    with pytest.raises(UsageError, match="saved without its discriminator"):
        GAN.load(tmp_path / "draws.gan").score(images, labels)


def test_every_changed_byte_of_a_saved_model_is_noticed(model: GAN, tmp_path: Path) -> None:
    path = tmp_path / "digits.gan"
    model.save(path)
    whole = path.read_bytes()
    dice = np.random.default_rng(0)
    for place in dice.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << dice.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            again = GAN.load(path)
        except (DamagedError, RunError):
            continue
        # Fields of the zip that nobody reads (dates, versions) may change; what is read may not.
        assert np.array_equal(again.sample(3), model.sample(3))
    path.write_bytes(whole[:-100])
    with pytest.raises(DamagedError, match="not a whole"):
        GAN.load(path)


def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    trained(run=tmp_path / "whole", items=960)
    trained(run=tmp_path / "parts", items=960)
    for folder in checkpoint.listed(tmp_path / "parts" / "checkpoints")[1:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert checkpoint.listed(tmp_path / "parts" / "checkpoints")
    resumed = trained(run=tmp_path / "parts", items=960)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "parts/metrics.jsonl").read_bytes()
    assert np.array_equal(resumed.sample(10), GAN.load(tmp_path / "whole").sample(10))


def test_a_finished_run_is_left_alone_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    first = trained(run=tmp_path / "run", items=320)
    log = (tmp_path / "run/metrics.jsonl").read_bytes()
    again = trained(run=tmp_path / "run", items=320)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == log
    assert np.array_equal(first.sample(5), again.sample(5))
    trained(run=tmp_path / "run", items=640)
    assert Run.read(tmp_path / "run").records()[-1]["items"] == 640


def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained(run=tmp_path / "run", items=640)
    newest = checkpoint.listed(tmp_path / "run/checkpoints")[-1] / "average.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(bytes(content))
    GAN(seed=1).fit("digits", items=640, run=tmp_path / "run", progress="lines")
    told = capfd.readouterr().err
    assert "average.safetensors" in told and "taking the one before" in told and "resuming" in told
    assert Run.read(tmp_path / "run").records()[-1]["items"] == 640


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: GAN(dcgan()).fit("digits", items=320, run=run, progress="none"), "was begun with recipe r3"),
        (lambda run: GAN(seed=2).fit("digits", items=320, run=run, progress="none"), "was begun with seed 1, not 2"),
        (
            lambda run: GAN().fit(np.zeros((50, 8, 8), np.uint8), items=320, run=run, progress="none"),
            "the data are not those",
        ),
    ],
)
def test_a_run_of_something_else_is_not_taken_up(tmp_path: Path, change, message: str) -> None:
    trained(run=tmp_path / "run", items=64)
    with pytest.raises(RunError, match=message):
        change(tmp_path / "run")


def test_a_run_of_a_newer_version_says_so(tmp_path: Path) -> None:
    trained(run=tmp_path / "run", items=64)
    facts = json.loads((tmp_path / "run/recipe.json").read_text())
    facts["format"], facts["made_with"]["ganlib"] = 99, "9.0"
    (tmp_path / "run/recipe.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"written by ganlib 9\.0, this is .*; upgrade"):
        GAN.load(tmp_path / "run")


def test_a_second_process_on_the_folder_is_told_so(tmp_path: Path) -> None:
    trained(run=tmp_path / "run", items=64)
    with Run.open(tmp_path / "run"), pytest.raises(BusyError, match=str(os.getpid())):
        trained(run=tmp_path / "run", items=128)


def test_interrupting_saves_and_running_again_goes_on(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "run/metrics.jsonl").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        trained(run=tmp_path / "run", items=32 * 5000)
    stopped_at = int(checkpoint.listed(tmp_path / "run/checkpoints")[-1].name)
    assert 0 < stopped_at < 32 * 5000
    resumed = trained(run=tmp_path / "run", items=stopped_at + 320)
    assert Run.read(tmp_path / "run").records()[-1]["items"] == stopped_at + 320
    assert resumed.sample(2).shape == (2, 8, 8)


def test_a_budget_in_minutes_is_kept() -> None:
    start = time.monotonic()
    gan = GAN(small()).fit("digits", minutes=0.1, progress="none")
    assert 4 < time.monotonic() - start < 12  # six seconds and the slack of a busy machine
    assert gan.history_[-1]["items"] > 32


def test_vectors_are_fitted_and_come_back_in_their_own_numbers() -> None:
    points, _ = ring_of_gaussians(500, rng=torch.Generator().manual_seed(0))
    shifted = points.numpy() * 10 + 100
    gan = trained(shifted, items=32 * 60)
    drawn = gan.sample(300)
    assert drawn.shape == (300, 2) and drawn.dtype == shifted.dtype
    assert 70 < drawn.mean() < 130


@pytest.mark.parametrize("shape", [(60, 20, 28, 3), (60, 9, 13), (60, 12, 12, 4), (60, 10, 12, 6)])
def test_any_size_and_any_channels(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    gan = GAN(r3(width=4, batch_items=16)).fit(images, items=32, progress="none")
    assert gan.sample(3).shape == (3, *shape[1:])


def test_sixteen_bits_and_floats_come_back_as_they_were() -> None:
    dice = np.random.default_rng(0)
    deep = dice.integers(0, 65536, (60, 8, 8), dtype=np.uint16)
    assert trained(deep, items=64).sample(2).dtype == np.uint16
    floats = dice.random((60, 8, 8), dtype=np.float32)
    drawn = trained(floats, items=64).sample(20)
    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() <= 1


def test_few_items_and_a_batch_larger_than_the_data() -> None:
    gan = trained(np.zeros((5, 8, 8), np.uint8), items=64)
    assert gan.sample(3).shape == (3, 8, 8)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            picture = dice.integers(0, 256, (16, 12, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data/dog/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    gan = GAN(r3(width=4, batch_items=8)).fit(tmp_path / "data", items=16, run=tmp_path / "run", progress="none")
    assert gan.sample(4, labels="dog").shape == (4, 16, 12, 3)
    unreadable = json.loads((tmp_path / "run/unreadable.json").read_text())
    assert [name for name, _ in unreadable] == ["dog/broken.png"]
    assert list((tmp_path / "run/samples").glob("*.png")) and (tmp_path / "run/losses.png").exists()


def test_unconditional_and_conditional_are_checked() -> None:
    assert GAN(small()).fit("digits", items=32, conditional=False, progress="none").sample(2).shape == (2, 8, 8)
    with pytest.raises(DataError, match="no labels to condition on"):
        GAN(small()).fit(np.zeros((10, 8, 8), np.uint8), items=32, conditional=True, progress="none")


def test_bad_input_is_named_and_leaves_no_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    nan = np.zeros((10, 8, 8), np.float32)
    nan[3, 2, 2] = np.nan
    for data, labels, error, message in [
        (tmp_path / "nowhere", None, MissingError, "nowhere"),
        (nan, None, DataError, "3"),
        (np.zeros((10, 8, 8), np.uint8), [0, 1], DataError, "2 labels"),
        (np.zeros((1, 8, 8), np.uint8), None, DataError, "at least 2"),
    ]:
        with pytest.raises(error, match=message):
            GAN(small()).fit(data, labels, items=32, run=run, progress="none")
        assert not run.exists()
    with pytest.raises(UsageError, match="not both"):
        GAN().fit("digits", items=3, minutes=1)
    with pytest.raises(UsageError, match="did you mean 'dcgan'"):
        GAN("dcgn").fit("digits", items=3)
    with pytest.raises(UsageError, match="no model yet"):
        GAN().sample(3)


def test_evaluate_carries_its_protocol(model: GAN) -> None:
    found = model.evaluate("digits", num_items=300)
    frechet = found.scores()["frechet"]
    assert frechet.value is not None and frechet.real_baseline is not None
    assert frechet.value > 2 * frechet.real_baseline
    assert found.protocol["n_fake"] == 300 and found.protocol["n_reference"] == 898
    assert len(found.protocol["extractor_digest"]) == 64
    assert found.good.verdict == "FAIL", "it has hardly been trained"
    assert found.private.verdict == "NOT MEASURED", "it was trained on these"


def test_fitting_leaves_the_dice_of_the_user_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    trained(items=64).sample(3)
    assert torch.equal(torch.rand(3), expected)


def test_latents_of_another_width_are_refused() -> None:
    gan = trained(items=64)
    with pytest.raises(DataError, match=r"latents have 3 numbers each; this model takes \[items, \d+\]"):
        gan.predict(np.zeros((2, 3), np.float32))
