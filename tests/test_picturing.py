"""Picture files in, picture files out: what cannot be used, what is shown, and what an interruption leaves."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib import GAN, picturing
from ganlib.cli import main
from ganlib.errors import DataError, UsageError
from ganlib.picturing import Predicted, predict_files
from ganlib.recipes.superres import superres

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of grey pictures of any size, twice as large as what it is given; hardly trained."""
    recipe = superres(scale=2, width=4, growth=2, blocks=1, batch_items=4, perceptual=0.0)
    gan = GAN(recipe, seed=0, device="cpu").fit(RNG.integers(0, 256, (20, 8, 8), np.uint8), items=8, progress="none")
    gan.save(path := tmp_path_factory.mktemp("model") / "larger.gan")
    return path


def save(path: Path, shape: tuple[int, ...] = (5, 7)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_cannot_be_used_is_left_out_and_listed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    whole = save(given / "b.png")
    save(given / "in" / "c.bmp", (9, 4))
    save(given / "red.png", (5, 7, 3))
    (given / "a.png").write_bytes((given / "b.png").read_bytes()[:60])
    (given / "empty.jpg").write_bytes(b"")
    (given / "notes.txt").write_text("no picture, and not meant as one")
    command = ["predict", str(model), str(given), "--out", str(out), "--device", "cpu"]
    main([*command, "--json"])
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["items"] == 2 and told.err == "", "machines are told at the end, once"
    reasons = dict(found["unreadable"])
    assert list(reasons) == ["a.png", "empty.jpg", "red.png"], "by the names that they came with"
    assert reasons["empty.jpg"] == "cannot be read: empty file" and reasons["a.png"].startswith("cannot be read: ")
    assert reasons["red.png"].startswith("has colours")
    assert names(out) == ["b.png", "in/c.png"] and size(out / "in" / "c.png") == (8, 18)
    with Image.open(out / "b.png") as made:
        assert np.array_equal(np.asarray(made), GAN.load(model).predict(whole[None])[0])
    main(command)
    told = capsys.readouterr()
    assert "2 pictures in" in told.out and "3 cannot be used and are left out: a.png: " in told.out
    assert "predict" in told.err and "100 %" in told.err and "5 pictures" in told.err, "progress, of all"


def test_of_many_that_cannot_be_used_the_first_are_named(model: Path, tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "given" / f"{number}.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"none of 7 .*0\.png: .*4\.png: .*; \.\.\.") as refused:
        predict_files(GAN.load(model).model_, tmp_path / "given", tmp_path / "out")
    assert "5.png" not in str(refused.value) and not (tmp_path / "out").exists()
    save(tmp_path / "given" / "9.png")
    found = predict_files(GAN.load(model).model_, tmp_path / "given", tmp_path / "out.npz")
    assert (found.items, len(found.unreadable)) == (1, 7)
    assert np.load(tmp_path / "out.npz")["images"].shape == (1, 10, 14, 1)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_what_is_written_stays_after_an_interruption(
    end: signal.Signals, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        save(tmp_path / "given" / f"{number}.png")
    write, written = picturing.save_png, []

    def ended_at_the_third(path: Path, picture: np.ndarray) -> None:
        written.append(path)
        if len(written) == 3:
            signal.raise_signal(end)
        write(path, picture)

    monkeypatch.setattr(picturing, "save_png", ended_at_the_third)
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(model), str(tmp_path / "given"), "--out", str(tmp_path / "out"), "--json"])
    assert stopped.value.code == 128 + end
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"], "the one in hand is finished, and no other begun"
    assert all(size(path) == (14, 10) for path in (tmp_path / "out").iterdir())
    monkeypatch.undo()
    found = predict_files(GAN.load(model).model_, tmp_path / "given", tmp_path / "out")
    assert found == Predicted(6) and len(names(tmp_path / "out")) == 6


def test_a_fault_while_a_picture_is_written_leaves_no_part_of_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "given" / "a.png")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict_files(GAN.load(model).model_, tmp_path / "given", tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_pictures_are_not_written_over_those_that_are_given(model: Path, tmp_path: Path) -> None:
    before = save(tmp_path / "a.png")
    for source in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(UsageError, match="give another folder"):
            predict_files(GAN.load(model).model_, source, tmp_path)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), before)


def test_many_large_pictures_do_not_wait_in_memory_together(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        save(tmp_path / "given" / f"{number}.png", (8, 8))
    opened, together, waiting = GAN.load(model).model_, [], picturing._finished
    monkeypatch.setattr(picturing, "AT_ONCE_NUMBERS", 2 * 64)
    monkeypatch.setattr(picturing, "_finished", lambda m, some, _: together.append(len(some)) or waiting(m, some, _))
    assert predict_files(opened, tmp_path / "given", tmp_path / "out").items == 5
    assert together == [2, 2, 1]
