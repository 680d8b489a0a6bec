"""The run folder: one writer, a log that is the same bits after a resume, errors that say what to do."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ganlib import files
from ganlib.errors import BusyError, DamagedError, GanlibError, MissingError, RunError, UsageError, WriteError
from ganlib.training import run as run_module
from ganlib.training.run import Run

HOLDER = """
import sys, time
from ganlib.training.run import Run
run = Run.open(sys.argv[1])
run.log({"items": 1, "score": 2.0})
print("open", flush=True)
time.sleep(60)
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_one_line(error: BaseException) -> None:
    assert isinstance(error, GanlibError) and "\n" not in str(error) and "; " in str(error)


def test_a_run_is_one_writer_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with held_elsewhere(folder) as process:
        holder = json.loads((folder / "run.holder.json").read_text())
        with pytest.raises(BusyError, match=rf"process {process.pid} on .+ since 20.+choose another --out") as caught:
            Run.open(folder)
        assert_one_line(caught.value)
        assert holder["host"] in str(caught.value) and holder["started"] in str(caught.value)
        assert Run.read(folder).records() == [{"items": 1, "score": 2.0}], "reading needs no lock"
        (folder / "run.holder.json").unlink()
        with pytest.raises(BusyError, match="another process"):
            Run.open(folder)
        (folder / "run.holder.json").write_text("[")
        with pytest.raises(BusyError, match="another process"):
            Run.open(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Run.open(folder) as run:
            assert json.loads((folder / "run.holder.json").read_text())["pid"] == os.getpid()
            assert run.records() == [{"items": 1, "score": 2.0}]
        assert "run.holder.json" not in names(folder)


def test_the_lock_is_let_go_by_close_from_any_thread_and_by_a_failed_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(tmp_path)
    with pytest.raises(BusyError, match=f"process {os.getpid()} "):
        Run.open(tmp_path)
    closing = threading.Thread(target=run.close)
    closing.start()
    closing.join()
    with Run.open(tmp_path):
        run.close()  # a second time, which must not take the lock of the next
        with pytest.raises(BusyError):
            Run.open(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run_module.checkpoint, "clean", lambda root: 1 / 0)
        with pytest.raises(ZeroDivisionError) as kept_alive:  # else the lock would go with its object
            Run.open(tmp_path)
    assert kept_alive.traceback
    with Run.open(tmp_path), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    Run.open(tmp_path).close()


def test_opening_cleans_up_after_a_killed_process(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        run.checkpoints.mkdir()
        run.samples.mkdir()
    (tmp_path / ".tmp-recipe.json-12").write_text("{")
    (tmp_path / "checkpoints" / ".tmp-000000000001-12").mkdir()
    (tmp_path / "checkpoints" / ".del-000000000001-12").mkdir()
    (tmp_path / "samples" / ".tmp-1.png-12").touch()
    Run.read(tmp_path)
    assert ".tmp-recipe.json-12" in names(tmp_path), "a reader has no right to clean"
    Run.open(tmp_path).close()
    assert names(tmp_path) == {"run.json", "run.lock", "checkpoints", "samples"}
    assert names(tmp_path / "checkpoints") == names(tmp_path / "samples") == set()


def test_a_folder_of_something_else_is_refused_and_not_littered(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).touch()
    for opening in (Run.open, Run.read):
        with pytest.raises(
            RunError, match=r"not a ganlib run: .* holds 'a.jpg'.* and 1 more.*choose another"
        ) as caught:
            opening(tmp_path)
        assert_one_line(caught.value)
    for marker in ('{"name": "of another program"}', '{"format": "x", "ganlib": 1}', '{"format": 1}', "[]"):
        (tmp_path / "run.json").write_text(marker)
        with pytest.raises(RunError, match="not a ganlib run"):
            Run.open(tmp_path)
    assert names(tmp_path) == {"a.jpg", "b.jpg", "c.jpg", "d.jpg", "run.json"}


def test_a_start_killed_before_the_marker_is_taken_up(tmp_path: Path) -> None:
    for name in ("run.lock", ".tmp-run.json-ab", ".tmp-run.holder.json-ab", ".DS_Store"):
        (tmp_path / name).touch()
    Run.open(tmp_path).close()
    assert names(tmp_path) == {"run.lock", "run.json", ".DS_Store"}


def test_paths_that_cannot_be_runs_get_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path, error, message in (
        (tmp_path / "file", UsageError, "is a file"),
        (tmp_path / "file" / "run", UsageError, "a file is in the way"),
    ):
        with pytest.raises(error, match=message) as caught:
            Run.open(path)
        assert_one_line(caught.value)
    with pytest.raises(MissingError, match="no run at"):
        Run.open(tmp_path / "absent", create=False)
    with pytest.raises(MissingError, match="no run at"):
        Run.read(tmp_path / "absent")
    assert names(tmp_path) == {"file"} and (tmp_path / "file").read_text() == "mine"


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    Run.open(tmp_path).close()
    (tmp_path / "run.json").write_text('{"format": 2, "ganlib": "9.1"}')
    for opening in (Run.open, Run.read):
        with pytest.raises(RunError, match=r"written by ganlib 9\.1.*upgrade"):
            opening(tmp_path)


@pytest.mark.parametrize("call", ["mkdir", "open", "replace"])
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    original = getattr(os, call)

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).startswith(str(tmp_path / "run")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(WriteError, match=r"cannot write .*Permission denied; .*choose another folder") as caught:
            Run.open(tmp_path / "run")
    assert_one_line(caught.value)
    Run.open(tmp_path / "run").close()


def test_facts_come_back_and_names_stay_in_the_folder(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        run.write_facts("recipe.json", {"rate": 0.1 + 0.2, "classes": ["é"]})
        assert run.read_facts("recipe.json") == {"rate": 0.1 + 0.2, "classes": ["é"]}
        with pytest.raises(MissingError, match=r"data\.json is missing"):
            run.read_facts("data.json")
        (tmp_path / "data.json").write_text('{"a":')
        with pytest.raises(DamagedError, match=r"data\.json is not valid JSON"):
            run.read_facts("data.json")
        (tmp_path / "data.json").write_text("1" * 5000)
        with pytest.raises(DamagedError, match=r"data\.json is not valid JSON"):
            run.read_facts("data.json")
        for name in ("../recipe.json", "/recipe.json", "recipe", "run.json"):
            with pytest.raises(UsageError):
                run.write_facts(name, {})
    for writing in (
        lambda: run.log({"items": 1}),
        lambda: run.write_facts("a.json", 1),
        lambda: Run.read(tmp_path).plot(),
    ):
        with pytest.raises(UsageError, match="not open for writing"):
            writing()


def test_the_log_keeps_every_bit_of_every_number(tmp_path: Path) -> None:
    record = {
        "items": 3,
        "a": 0.1 + 0.2,
        "b": 5e-324,
        "c": -0.0,
        "d": None,
        "e": math.inf,
        "f": -math.inf,
        "g": math.nan,
    }
    with Run.open(tmp_path) as run:
        run.log(record)
        run.log_time({"items": 3, "seconds": 1.5})
        found = run.records()
        with pytest.raises(UsageError, match="items"):
            run.log({"a": 1.0})
    assert len(found) == 1 and list(found[0]) == list(record)
    assert [repr(value) for value in found[0].values()] == [repr(value) for value in record.values()]
    line = (tmp_path / "metrics.jsonl").read_text()
    json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert (tmp_path / "timing.jsonl").read_text() == '{"items": 3, "seconds": 1.5}\n'


def test_a_resumed_log_is_bit_identical(tmp_path: Path) -> None:
    records = [{"items": 10 * step, "loss": math.sin(step) / 3, "score": None} for step in range(1, 9)]
    with Run.open(tmp_path / "whole") as run:
        for record in records:
            run.log(record)
    with Run.open(tmp_path / "stopped") as run:
        for record in records[:6]:
            run.log(record)
            run.log_time({"items": record["items"], "seconds": 0.5})
    path = tmp_path / "stopped" / "metrics.jsonl"
    with path.open("ab") as file:
        file.write(b'{"items": 70, "lo')
    with Run.open(tmp_path / "stopped") as run:
        assert run.records() == records[:6], "a reader sees no torn line"
        run.log(records[6])  # opens the log, which must not go on in the file that is replaced
        run.rewind(40)
        assert path.read_bytes() == b"".join((tmp_path / "whole" / "metrics.jsonl").read_bytes().splitlines(True)[:4])
        for record in records[4:]:
            run.log(record)
        run.sync_log()
        run.rewind(80)
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert len((tmp_path / "stopped" / "timing.jsonl").read_text().splitlines()) == 6


def test_a_torn_line_is_not_glued_to_the_next(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        run.log_time({"seconds": 1.0})
    with (tmp_path / "timing.jsonl").open("ab") as file:
        file.write(b'{"secon')
    with Run.open(tmp_path) as run:
        run.log_time({"seconds": 2.0})
    assert (tmp_path / "timing.jsonl").read_text() == '{"seconds": 1.0}\n{"seconds": 2.0}\n'


@pytest.mark.parametrize(
    "line", [b"\0\0\0", b"[1]", b'{"a": 1}', b'{"items": 1, "a": "x"}', b"\xff", b'{"items": "nan"}']
)
def test_a_bad_line_within_the_log_is_named(tmp_path: Path, line: bytes) -> None:
    with Run.open(tmp_path) as run:
        run.log({"items": 1})
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(line + b"\n")
        run.log({"items": 2})
        for reading in (run.records, lambda: run.rewind(5)):
            with pytest.raises(DamagedError, match=r"metrics\.jsonl, line 2 ") as caught:
                reading()
            assert_one_line(caught.value)


def test_a_log_that_cannot_grow_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.open(tmp_path) as run:
        if Path("/dev/full").exists():
            (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
            monkeypatch.setattr(run_module, "_drop_torn_line", lambda path: None)  # the device is read without an end
            with pytest.raises(WriteError, match=r"No space left.*bytes are free"):
                run.log({"items": 1})
            with pytest.raises(WriteError):
                run.close()
    Run.open(tmp_path).close()


def test_too_little_space_is_told_before_training(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        free = files.free_bytes(tmp_path)
        run.check_space(free // 4)
        with pytest.raises(WriteError, match=rf"training needs {3 * (free // 2)} ") as caught:
            run.check_space(free // 2)
        assert_one_line(caught.value)
    assert files.free_bytes(tmp_path / "absent" / "folder") > 0


def test_tensorboard_has_the_scalars_of_both_lives(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((10, 20, 30), (20, 30)):  # killed after 30, resumed from 10
        with Run.open(tmp_path) as run:
            assert not (tmp_path / "tensorboard").exists() or steps[0] == 20, "made before anything was logged"
            run.rewind(steps[0] - 1)
            for items in steps:
                run.log({"items": items, "loss": items + len(steps) / 10, "score": None})
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    found = [(event.step, round(event.value, 3)) for event in events.Scalars("loss")]
    assert found == [(10, 10.3), (20, 20.2), (30, 30.2)]


def test_without_tensorboard_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Run.open(tmp_path / "a") as run, warnings.catch_warnings():
        warnings.simplefilter("error")
        run.log({"items": 1, "loss": 1.0})
        run.log({"items": 2, "loss": 1.0})
    assert "tensorboard" not in names(tmp_path / "a")
    monkeypatch.undo()
    with Run.open(tmp_path / "b") as run:
        (tmp_path / "b" / "tensorboard").write_text("in the way")
        with pytest.warns(UserWarning, match="training goes on"):
            run.log({"items": 1, "loss": 1.0})
        run.log({"items": 2, "loss": 1.0})
        assert len(run.records()) == 2


def test_the_plot_is_a_small_picture_with_a_panel_for_each_kind_of_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its global state is the user's
    heights = []
    with Run.open(tmp_path) as run:
        assert run.plot() is None
        for items in range(1, 2001):
            noise = math.sin(items * items)
            run.log(
                {
                    "items": items,
                    "generator/adversarial": noise,
                    "discriminator/adversarial": math.nan if items == 7 else 1,
                }
            )
        for extra in ({}, {"discriminator/r1": 0.1}, {"score": 3.0}, {"score": math.inf}):
            run.log({"items": 2001, **extra})
            path = run.plot()
            assert path is not None and path.name == "losses.png" and path.stat().st_size < 300_000
            with Image.open(path) as picture:
                picture.load()
                heights.append(picture.size[1])
    assert heights[0] < heights[1] < heights[2] == heights[3]
