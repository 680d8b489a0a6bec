"""Comparing recipes: the table and the picture from plain data, verdicts on planted truth, processes and their cost."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlib.cli import main
from ganlib.comparison import Comparison, Cost, Entry, compare
from ganlib.comparison.child import Ended, run_child
from ganlib.comparison.compare import outcome
from ganlib.comparison.contenders import contender, contenders, fitted
from ganlib.comparison.judging import arena_of
from ganlib.comparison.picture import Panel, comparison_png
from ganlib.comparison.result import from_json
from ganlib.comparison.table import markdown
from ganlib.comparison.verdict import verdict_of
from ganlib.core import Plan
from ganlib.data import load
from ganlib.diagnosis import Finding
from ganlib.errors import DamagedError, RunError, UsageError
from ganlib.evaluation import Limits
from ganlib.evaluation.coverage import covered, regions
from ganlib.evaluation.material import deal
from ganlib.evaluation.quality import good, neighbourhoods
from ganlib.gan import GAN
from ganlib.metrics.features import VectorFeatures
from ganlib.metrics.report import Score
from ganlib.recipe import Setting, recipe
from ganlib.recipes.gan import gan
from ganlib.stopping import StopWish

SIZE = {"generator": 1_500_000, "discriminator": 2_500}


def entry(name: str, seed: int = 0, frechet: float = 4.0, **changes: object) -> Entry:
    scores = {"frechet": Score(frechet, frechet - 1, frechet + 1, 0.25), "recall": Score(None, note="too few")}
    made = Entry(name, seed, f"{name}-seed{seed}", "finished", "", True, 1000, 50.0, SIZE, "ok", "", scores)
    return replace(made, cost=Cost(60.0, 61.0, 300_000_000), **changes)  # type: ignore[arg-type]


def cells(table: str, name: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_says_which_had_no_labels():
    told = markdown(Comparison({"data": "digits"}, (entry("r3"), entry("vae", labels=False))))
    assert "Trained without the labels, which the others had: `vae`." in told
    assert "without the labels" not in markdown(Comparison({"data": "digits"}, (entry("r3"), entry("gan"))))


def test_the_table_has_the_mean_and_the_deviation_over_seeds():
    found = Comparison({"data": "digits"}, (entry("r3", 0, 4.0), entry("gan"), entry("r3", 1, 6.0)))
    told = markdown(found)
    assert cells(told, "`r3`") == ["`r3`", "ok", "5 ± 1.4", "1,000", "50", "60", "300", "1.5M + 2.5k"]
    assert cells(told, "*real data*")[2] == "0.25"
    assert "standard deviation over the seeds" in told and "data: digits" in told
    assert "recall" not in told, "a score that nobody has needs no column"


def test_with_one_seed_the_interval_is_the_scores_own_and_that_is_said():
    told = markdown(Comparison({}, (entry("r3"),)))
    assert cells(told, "`r3`")[2] == "4 [3, 5]"
    assert "one seed says nothing" in told


def test_what_went_wrong_stands_out_with_its_reason():
    entries = (
        entry("a", verdict="collapsed", why="30% of the samples come twice."),
        entry("b", verdict="", state="refused", reason="vectors are not for b", items=0, scores={}, parameters={}),
        entry("c"),
        entry("c", 1, verdict="collapsed", why="few"),
    )
    told = markdown(Comparison({}, entries))
    assert cells(told, "`a`")[1] == "**collapsed**"
    assert cells(told, "`b`")[1:] == ["**refused**", *["–"] * 6]
    assert cells(told, "`c`")[1] == "**ok (1 of 2), collapsed (1 of 2)**"
    for remark in ("seed 0: collapsed. 30%", "refused. vectors are not for b", "seed 1: collapsed. few"):
        assert remark in told


def test_a_comparison_comes_back_from_json_and_nothing_else_does():
    found = Comparison({"data": "x"}, (entry("r3"), entry("gan", state="failed", reason="no")))
    assert from_json(found.to_json(), "here") == found
    wild = Comparison({}, (entry("r3", scores={"frechet": Score(float("inf"))}),))
    assert json.loads(wild.to_json())["entries"][0]["scores"]["frechet"]["value"] is None
    for text in ("[", "{}", '{"protocol": {}, "entries": [{"name": "r3"}]}'):
        with pytest.raises(DamagedError, match="here"):
            from_json(text, "here")


@pytest.mark.parametrize("count", [1, 7])
def test_the_picture_shows_every_panel_and_every_curve(count: int):
    colours = [(255, 40 * number, 0) for number in range(count)]
    panels = [Panel(f"r{n}", "ok", np.full((8, 8, 3), colour, np.uint8)) for n, colour in enumerate(colours)]
    curve = {"items": [1.0, 2.0], "seconds": [1.0, 2.0], "score": [3.0, float("nan")]}
    made = comparison_png([*panels, Panel("none", "refused", None)], {"r0": curve, "none": {**curve, "score": []}})
    seen = np.asarray(Image.open(io.BytesIO(made)).convert("RGB")).reshape(-1, 3)
    for colour in [*colours, (0x00, 0x72, 0xB2)]:  # the last is the first curve's
        assert (seen == colour).all(1).sum() > 100
    without = comparison_png(panels, {})
    assert Image.open(io.BytesIO(without)).height < Image.open(io.BytesIO(made)).height


def mixture(count: int, seed: int, modes: int = 10) -> np.ndarray:
    """Points of the first modes of ten well separated ones in eight dimensions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 8, (10, 8))
    return centres[rng.integers(0, modes, count)] + rng.normal(size=(count, 8))


@pytest.mark.parametrize(
    ("fake", "word"),
    [
        (mixture(1000, 1), "ok"),
        (mixture(1000, 1, modes=4), "narrow"),
        (np.tile(mixture(20, 1), (50, 1)), "collapsed"),
        (mixture(1000, 1)[:1] + 1e-2 * mixture(1000, 2), "collapsed"),
        (np.random.default_rng(0).normal(0, 40, (1000, 8)), "poor"),
    ],
    ids=["other items", "four modes", "twenty items", "one point", "noise"],
)
def test_the_verdict_on_planted_samples(fake: np.ndarray, word: str):
    material = deal(load(fake), load(mixture(1000, 0)), None, VectorFeatures(), 0, 1000)
    quality = good(material, neighbourhoods(material), Limits())
    reach = covered(material, neighbourhoods(material), regions(material), None, quality.scores, Limits())
    said, why = verdict_of([], quality, reach)
    assert said == word and bool(why) == (word != "ok")
    for kind, expected in (("stopped", "diverged"), ("divergence", "diverged"), ("collapse", "collapsed")):
        assert verdict_of([Finding(kind, "why it is", "")], quality, reach) == (expected, "why it is")


@recipe
def picky(setting: Setting, *, width: int = 8) -> Plan:
    """A recipe that cannot use labels."""
    if setting.conditional:
        raise UsageError("picky cannot use labels")
    return gan(batch_items=width).plan(setting)


@recipe
def greedy(setting: Setting) -> Plan:
    """A recipe that cannot do without."""
    if not setting.conditional:
        raise UsageError("greedy needs labels")
    return gan().plan(setting)


def test_a_recipe_is_trained_with_labels_where_it_can_be():
    setting = Setting(load("digits").spec, 1000, "cpu", None, 1000, conditional=True)
    plain = contender("gan")
    assert fitted(plain, setting).labels and not fitted(plain, replace(setting, conditional=False)).labels
    without = fitted(replace(plain, recipe=picky()), setting)
    assert not without.labels and not without.refusal
    assert fitted(replace(plain, recipe=greedy()), setting).labels
    refused = fitted(replace(plain, recipe=greedy()), replace(setting, conditional=False))
    assert refused.refusal == "greedy needs labels"


def test_recipes_by_name_and_option():
    made = contender("dcgan:width=8:learning_rate=0.5")
    assert made.recipe.options["width"] == 8 and made.recipe.options["learning_rate"] == 0.5
    assert made.arguments() == ["--recipe", "dcgan", "--width=8", "--learning_rate=0.5"]
    assert made.folder(3) == "dcgan-width=8-learning_rate=0.5-seed3"
    vectors = Setting(load(mixture(60, 0)).spec, 60, "cpu", None, 1000)
    assert {"r3", "gan"} <= {each.name for each in contenders(None, vectors)}
    assert "dcgan" not in {each.name for each in contenders(None, vectors)}, "it makes pictures alone"
    assert "vectors" in contenders(["dcgan"], vectors)[0].refusal
    for names, told in (
        (["nonesuch"], "no recipe named 'nonesuch'"),
        (["gan:depth=3"], "depth"),
        (["gan:batch_items=wide"], "batch_items"),
        (["gan:latent"], "option=value"),
        (["gan", "gan"], "once"),
    ):
        with pytest.raises(UsageError, match=told):
            contenders(names, vectors)


ERROR = '{{"error": "{}", "kind": "{}"}}'


@pytest.mark.parametrize(
    ("status", "line", "state"),
    [
        (0, '{"done": true}', "finished"),
        (130, "", "interrupted"),
        (143, '{"items": 3}', "interrupted"),
        (137, '{"items": 3}', "out of memory"),
        (70, ERROR.format("out of memory (8 GB)", "GanlibError"), "out of memory"),
        (70, ERROR.format("not finite", "DivergedError"), "diverged"),
        (2, ERROR.format("needs labels", "UsageError"), "refused"),
        (75, ERROR.format("another process", "BusyError"), "failed"),
        (139, "", "failed"),
    ],
)
def test_what_became_of_a_training(status: int, line: str, state: str):
    found, reason = outcome(Ended(status, line, "Segmentation fault", Cost()))
    assert found == state and bool(reason) == (state != "finished")


def child(code: str, folder: Path, stop: StopWish | None = None) -> Ended:
    command = [sys.executable, "-c", code]
    return run_child(command, folder / "o.jsonl", stop or StopWish(), threads=1, title="", style="none")


def test_cost_is_that_of_the_process_alone(tmp_path: Path):
    ballast = torch.ones(40_000_000)  # 160 MB of this process, which a child inherits in its largest resident size
    small = child("import time; time.sleep(0.5)", tmp_path)
    assert 1e6 < small.cost.peak_bytes < 60e6 and small.cost.cpu_seconds < 0.3 <= small.cost.wall_seconds
    busy = "import time; x = bytearray(120_000_000)\nwhile time.process_time() < 0.6: pass\nprint('a'); print('last')"
    large = child(busy, tmp_path)
    assert 120e6 < large.cost.peak_bytes < 200e6 and 0.6 <= large.cost.cpu_seconds < 3
    assert large.status == 0 and large.last_line == "last" and len(ballast)


def test_a_wish_to_stop_reaches_the_process_once_and_is_waited_for(tmp_path: Path):
    code = (
        "import signal, sys, time\n"
        "got = []\nsignal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.5); print(len(got)); sys.exit(130)"
    )
    stop = StopWish()

    def ask() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        stop.signal = signal.SIGINT

    thread = threading.Thread(target=ask)
    thread.start()
    ended = child(code, tmp_path, stop)
    thread.join()
    assert (ended.status, ended.last_line) == (130, "1")


def test_the_judge_is_learned_from_training_items_once(tmp_path: Path):
    train, held_out = load("digits").split(180, 0)
    first, second = (arena_of(train, held_out, 100, "cpu") for _ in range(2))
    assert first.extractor.digest() == second.extractor.digest() and first.learned_from == len(train) // 2


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


@pytest.mark.timeout(600)
def test_one_command_compares_goes_on_and_refuses_another(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "points.npz", items=mixture(600, 0).astype(np.float32))
    out = tmp_path / "out"
    small = ["--items", "512", "--number", "300", "--validation", "0.4", "--threads", "1", "--device", "cpu"]
    given = ["compare", str(tmp_path / "points.npz"), "--out", str(out), *small]
    assert run(*given, "--recipes", "gan,nonesuch") == 2 and not out.exists(), "nothing is trained"
    assert run(*given, "--recipes", "gan:batch_items=64,dcgan,gan:learning_rate=1e30") == 0
    told = json.loads((out / "compare.json").read_text())
    trained, refused, wild = told["entries"]
    assert (
        trained["items"] == 512 and trained["scores"]["kernel"]["value"] > trained["scores"]["kernel"]["real_baseline"]
    )
    assert trained["cost"]["cpu_seconds"] > 0.5 and trained["cost"]["peak_bytes"] > 5e7
    assert refused["state"] == "refused" and "vectors" in refused["reason"]
    assert wild["state"] == "diverged" and wild["verdict"] == "diverged"
    assert told["protocol"]["held_out"] == 240 and told["protocol"]["train"] == 360
    assert "**diverged**" in (out / "compare.md").read_text()
    with Image.open(out / "compare.png") as picture:
        assert picture.width > 500
    before = {path: os.stat(path).st_mtime_ns for path in out.glob("*-seed*/checkpoints/*")}
    capfd.readouterr()
    assert run(*given, "--recipes", "gan:batch_items=64,gan:learning_rate=1e30", "--json") == 0
    again = json.loads(capfd.readouterr().out)
    assert again["entries"] == told["entries"]
    assert before == {path: os.stat(path).st_mtime_ns for path in out.glob("*-seed*/checkpoints/*")}
    other = [word if word != "512" else "1024" for word in given]
    assert run(*other, "--recipes", "gan") == RunError.exit_status
    assert "was begun with items 512, not 1024" in capfd.readouterr().err


@pytest.mark.timeout(600)  # three processes that import torch
def test_an_interrupted_training_goes_on_and_its_cost_adds_up(tmp_path: Path):
    """Started, stopped by a signal, started again: the run ends, and both parts are paid for."""
    np.savez(tmp_path / "points.npz", items=mixture(600, 0).astype(np.float32))
    begun = ["gan:batch_items=64"]

    def again() -> Comparison:
        return compare(
            str(tmp_path / "points.npz"), begun, out=tmp_path / "out", items=20_000, num_samples=100, threads=1,
            device="cpu", validation=0.4, progress="none",
        )  # fmt: skip

    def ask() -> None:
        while not list((tmp_path / "out").glob("gan*/recipe.json")):
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        again()
    thread.join()
    stopped = from_json((tmp_path / "out" / "compare.json").read_text(), "").entries[0]
    assert stopped.state == "interrupted" and stopped.cost.cpu_seconds > 0.5
    assert list((tmp_path / "out" / stopped.folder / "checkpoints").iterdir()), "it saved before it ended"
    done = again().entries[0]
    assert done.state == "finished" and done.items >= 20_000
    assert done.cost.cpu_seconds > stopped.cost.cpu_seconds + 0.5


@pytest.fixture
def strays() -> Iterator[list[int]]:
    """Processes that must not outlive a test that fails."""
    processes: list[int] = []
    yield processes
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.timeout(600)  # five processes that import torch
def test_what_is_killed_goes_on_and_what_is_finished_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strays: list[int]
):
    """The comparison is killed in its second training, which stays alone; then that one, and then its successor."""
    np.savez(tmp_path / "points.npz", items=mixture(600, 0).astype(np.float32))
    names, out = ["gan:batch_items=64", "gan:batch_items=32"], tmp_path / "out"
    first, second = (out / f"{name.replace(':', '-')}-seed0" for name in names)
    same = {"items": 2000, "threads": 1, "device": "cpu", "validation": 0.4}
    words = [word for name, value in same.items() for word in (f"--{name}", str(value))]
    words += ["--recipes", ",".join(names), "--number", "100", "--quiet", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    comparison = subprocess.Popen(
        [sys.executable, "-m", "ganlib", "compare", str(tmp_path / "points.npz"), *words], env=environment
    )
    strays.append(left := trainer(second, but={comparison.pid}))
    os.kill(left, signal.SIGSTOP)  # it lives on and holds its folder
    comparison.kill()
    comparison.wait()
    (finished,) = from_json((out / "compare.json").read_text(), "").entries
    assert finished.state == "finished" and finished.verdict
    bytes_of_first = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    told: list[str] = []
    monkeypatch.setattr(sys.modules["ganlib.comparison.compare"], "say", lambda text, style: told.append(text))

    def kill_both() -> None:
        while not any("waiting for" in text for text in told):
            time.sleep(0.01)
        os.kill(left, signal.SIGKILL)
        os.kill(trainer(second, but={left, os.getpid()}), signal.SIGKILL)

    def again() -> Comparison:
        return compare(str(tmp_path / "points.npz"), names, out=out, num_samples=100, progress="none", **same)

    thread = threading.Thread(target=kill_both)
    thread.start()
    assert [each.state for each in again().entries] == ["finished", "out of memory"], "as far as one can tell"
    thread.join()
    done = again()
    assert done.entries[0] == finished
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == bytes_of_first
    assert done.entries[1].state == "finished" and done.entries[1].verdict and done.entries[1].items >= 2000
    assert from_json((out / "compare.json").read_text(), "") == done
    assert all(cells((out / "compare.md").read_text(), f"`{name}`")[2] != "–" for name in names)


def trainer(folder: Path, but: set[int]) -> int:
    """The process that has a run folder, once it is none of those."""
    while True:
        with contextlib.suppress(OSError, ValueError):
            found = int(json.loads((folder / "run.holder.json").read_text())["pid"])
            if found not in but:
                return found
        time.sleep(0.01)


def test_the_same_items_are_held_out_for_every_seed(tmp_path: Path):
    points, marks = mixture(200, 0), []
    for seed in (0, 1):
        made = GAN("gan", seed=seed, device="cpu").fit(points, items=128, run=tmp_path / str(seed), progress="none")
        marks.append((made.data_.fingerprint(), (tmp_path / str(seed) / "validation.json").read_bytes()))
    assert marks[0] == marks[1]


def test_what_cannot_be_compared_is_refused(tmp_path: Path):
    for changes, told in (
        ({}, "minutes, items or cpu_seconds"),
        ({"items": 5, "minutes": 1.0}, "items or minutes"),
        ({"items": 5, "seeds": 0}, "seeds=0"),
    ):
        with pytest.raises(UsageError, match=told):
            compare("digits", ["gan"], out=tmp_path / "x", device="cpu", **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
