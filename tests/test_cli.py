"""The command line: the doors, their exit statuses and messages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.cli import main
from ganlib.data import load

SMALL = ["--network", "mlp", "--width", "16", "--latent", "8"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
        sys.exit(0)
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run("fit", "digits", "--out", str(folder), "--items", "640", "--quiet", *SMALL) == 0
    return folder


def test_fit_leaves_a_run_that_says_where_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", str(trained), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipe"] == "r3" and told["items"] == 640 and told["data"] == "digits"
    assert Path(told["grid"]).exists() and Path(told["plot"]).exists()


def test_running_again_goes_on(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "digits", "--out", str(trained), "--items", "768", *SMALL) == 0
    assert "resuming" in capfd.readouterr().err
    assert run("fit", "digits", "--out", str(trained), "--items", "768") == 0
    assert "already trained on 768 items" in capfd.readouterr().err


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_drawn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for items in ("320", "640"):
        assert run("fit", "digits", "--out", str(out), "--items", items, "--quiet", *SMALL) == 0
    newest = sorted((out / "checkpoints").glob("0*"))[-1] / "average.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    assert run("sample", str(out), "-n", "2", "--out", str(tmp_path / "samples.npz")) == 0
    told = capsys.readouterr().err
    assert str(newest) in told and "taking the one before it" in told


def test_a_reader_that_leaves_does_not_end_the_training(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ganlib", "fit", "digits", "--out", str(out), "--items", "12800", "--json", *SMALL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["items"] < 12800
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert [path.name for path in (out / "checkpoints").glob("*12800")] == ["000000012800"]


def test_sample_writes_the_npz_of_the_door(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.npz"
    assert run("sample", str(trained), "-n", "70", "--seed", "4", "--labels", "3,7", "--out", str(out)) == 0
    with np.load(out) as archive:
        assert archive["images"].shape == (70, 8, 8, 1) and archive["images"].dtype == np.uint8
        assert archive["labels"].tolist() == [3, 7] * 35
    assert run("sample", str(trained), "-n", "5", "--seed", "4", "--out", str(tmp_path / "few.npz")) == 0
    assert run("sample", str(trained), "-n", "9", "--seed", "4", "--out", str(tmp_path / "more.npz")) == 0
    with np.load(tmp_path / "few.npz") as few, np.load(tmp_path / "more.npz") as more:
        assert np.array_equal(few["images"], more["images"][:5])


def test_sample_writes_folders_and_grids(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sample", str(trained), "-n", "3", "--labels", "5", "--out", str(tmp_path / "out"), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"items": 3, "out": str(tmp_path / "out")}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"00000{n}-5.png" for n in range(3)]
    assert run("sample", str(trained), "-n", "20", "--out", str(tmp_path / "grid.png")) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 100


def test_show_draws_the_animation(trained: Path, tmp_path: Path) -> None:
    assert run("show", str(trained), "--animation", str(tmp_path / "training.gif")) == 0
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames >= 5


def test_recipes_prints_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert {"gan", "dcgan", "r3"} <= {line.split()[0] for line in lines}
    assert all("arXiv:" in line for line in lines)


def test_json_lines_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "digits", "--out", str(tmp_path / "run"), "--items", "384", "--json", *SMALL) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["done"] and lines[-1]["items"] == 384
    assert all(line["total_items"] == 384 for line in lines[:-1]) and "score" in lines[-2]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["fit", "nowhere", "--out", "OUT"], 66, "nowhere does not exist"),
        (["fit", "digits", "--out", "OUT", "--recipe", "dcgn"], 2, "did you mean 'dcgan'"),
        (["fit", "digits", "--out", "OUT", "--widht", "3"], 2, "widht"),
        (["fit", "digits", "--out", "OUT", "--width", "wide"], 2, "width"),
        (["fit", "digits", "--out", "OUT", "--items", "-3"], 2, "must be over 0"),
        (["fit", "digits", "--out", "OUT", "--size", "big"], 2, "--size big"),
        (["fit", "digits", "--out", "OUT", "--device", "tpu"], 2, "'tpu' is not on this machine"),
        (["fit", "digits"], 2, "out"),
        (["sample", "OUT", "--out", "OUT2"], 66, "is not there"),
        (["show", "OUT"], 66, "OUT"),
    ],
)
def test_mistakes_are_one_line_without_traceback(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "OUT")
    assert run(*[word.replace("OUT", out) for word in arguments]) == status
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not Path(out).exists()


def test_a_recipe_that_cannot_take_the_data_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(100, 2)))
    points, out = str(tmp_path / "points.npy"), str(tmp_path / "run")
    assert run("fit", points, "--out", out, "--recipe", "dcgan", "--items", "128") == 2
    assert "recipe dcgan makes images" in capsys.readouterr().err
    assert run("fit", points, "--out", str(tmp_path / "run2"), "--items", "256", "--quiet", *SMALL) == 0
    assert run("sample", str(tmp_path / "run2"), "-n", "10", "--out", str(tmp_path / "points.csv")) == 0
    assert np.loadtxt(tmp_path / "points.csv", delimiter=",").shape == (10, 2)


def test_the_recipe_may_come_from_a_file_or_from_the_run(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(f"data: digits\nout: {tmp_path / 'run'}\nrecipe: gan\nitems: 256\nlatent: 8\n")
    assert run("fit", "--config", str(tmp_path / "fit.yaml"), "--quiet") == 0
    assert json.loads((tmp_path / "run/recipe.json").read_text())["recipe"]["options"]["latent"] == 8
    assert run("fit", "digits", "--out", str(tmp_path / "run"), "--items", "384", "--quiet") == 0


def test_pictures_that_were_resized_can_be_evaluated_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(120):
        noise = np.random.default_rng(number).integers(0, 256, (20 + number % 3, 24), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "data" / f"{number}.png")
    data, out = str(tmp_path / "data"), str(tmp_path / "run")
    assert run("fit", data, "--out", out, "--items", "64", "--quiet", *SMALL) == 65
    assert run("fit", data, "--out", out, "--items", "64", "--quiet", "--size", "8x10", *SMALL) == 0
    assert run("evaluate", out, data) == 0


def test_help_is_quick_and_imports_no_torch() -> None:
    script = "import sys; from ganlib.cli import main\ntry: main(['fit', '--help'])\nexcept SystemExit: pass\n"
    script += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--learning_rate" in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_save_and_leave(tmp_path: Path, number: signal.Signals, status: int) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ganlib", "fit", "digits", "--out", str(out), "--items", "9000000", *SMALL]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path
    )
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    for _ in range(2 if number == signal.SIGHUP else 1):  # a terminal that closes sends more than one
        process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"stopped by {number.name}" in told and "Traceback" not in told
    assert len(list((out / "checkpoints").glob("0*"))) == 1


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert run("fit", "digits", "--out", str(out), "--items", "320", "--quiet", *SMALL) == 0
    before = sorted((out / "checkpoints").glob("0*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert run("fit", "digits", "--out", str(out), "--items", "640", "--quiet", *SMALL) == 74
    told = capsys.readouterr().err
    assert "No space left on device" in told and "Traceback" not in told
    monkeypatch.undo()
    assert sorted((out / "checkpoints").glob("0*")) == before
    assert run("fit", "digits", "--out", str(out), "--items", "640", "--quiet", *SMALL) == 0


def test_samples_of_any_program_are_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = load("digits")
    every = digits.take(np.random.default_rng(0).permutation(len(digits)))[:, 0]
    (tmp_path / "fakes").mkdir()
    for number, picture in enumerate(every[:260]):
        Image.fromarray(picture).save(tmp_path / "fakes" / f"{number}.png")
    np.savez(tmp_path / "reals.npz", images=every[300:1000])
    np.savez(tmp_path / "train.npz", images=np.concatenate([every[:60], every[1000:]]))
    fakes, reals, train = (str(tmp_path / name) for name in ("fakes", "reals.npz", "train.npz"))
    page = tmp_path / "new" / "report.html"
    assert run("evaluate", fakes, reals, "--train", train, "--out", str(page), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["copied"]["verdict"] == "FAIL"
    assert told["copied"]["scores"]["copy_rate"]["value"] == pytest.approx(60 / 260, abs=0.01)
    assert page.read_text().startswith("<!doctype html>") and json.loads(page.with_suffix(".json").read_text()) == told
    assert run("evaluate", fakes, reals, "--features", "pixels", "--out", str(page)) == 0
    assert "extractor: pixels" in capsys.readouterr().out


def test_bad_evaluations_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "small.npz", images=np.zeros((300, 6, 6), np.uint8))
    small, out = str(tmp_path / "small.npz"), str(tmp_path / "page.html")
    for arguments, status, words in (
        ((small, "digits", "--out", out), 65, "6x6x1"),
        ((str(tmp_path / "nothing"), "digits", "--out", out), 66, "nothing"),
        ((small, small, "--features", "pixel", "--out", out), 2, "pixels"),
        ((small, small, "--out", str(tmp_path / "page.pdf")), 2, "page.pdf"),
        ((small, small, "--out", str(tmp_path / "small.npz" / "page.html")), 74, "page.html"),
        ((small, small, "--truncation", "2", "--out", out), 2, "truncation"),
        ((str(trained), "digits", "--number", "1"), 2, "number 1"),
    ):
        assert run("evaluate", *arguments) == status, arguments
        assert words in capsys.readouterr().err, arguments
    assert not (tmp_path / "page.html").exists()


def test_a_run_is_evaluated_with_the_data_it_was_trained_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", str(trained), "digits", "--number", "300", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["protocol"]["training_data"] == "digits"
    assert told["protocol"]["n_train"] == 1797 - 180, "without what was held out in training"
    assert told["copied"]["verdict"] == "NOT MEASURED" and "90%" in told["copied"]["reason"]
    assert "How it was learned" in (trained / "evaluation.html").read_text()
