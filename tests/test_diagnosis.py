"""The doctor: what a training or a run folder says of its health."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganlib import GAN, cli
from ganlib.errors import MissingError, UsageError
from ganlib.recipes.r3 import r3
from ganlib.training import checkpoint
from ganlib.training.run import Run

COLLAPSED = {"health/duplicates": 1.0, "health/spread": 0.4, "health/recall": 0.5, "health/coverage": 0.1}
HEALTHY = {"health/duplicates": 0.0, "health/spread": 0.9, "health/recall": 0.5, "health/coverage": 0.9}


def doctor(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(folder), "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("doctor") / "run"
    recipe = r3(network="compact", width=4, latent=8, batch_items=32)
    gan = GAN(recipe, seed=1, device="cpu").fit("digits", items=640, run=run, progress="none")
    assert gan.diagnose().healthy, str(gan.diagnose())
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    subprocess.run(["cp", "-r", str(trained), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


def kinds(told: dict) -> list[str]:
    return [finding["kind"] for finding in told["findings"]]


def test_a_finished_run_is_healthy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = doctor(run, capsys)
    assert (status, told["healthy"], told["findings"], told["items"]) == (0, True, [], 640)
    assert GAN.load(run, device="cpu").diagnose().healthy
    with pytest.raises(SystemExit):
        cli.main(["doctor", str(run)])
    assert capsys.readouterr().out.startswith("healthy after 640 items")


def test_taking_up_a_finished_run_leaves_it_finished(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GAN(device="cpu").fit("digits", items=640, run=run, progress="none")
    assert doctor(run, capsys)[0] == 0


def test_a_collapse_in_the_log_is_named_with_its_number(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.open(run) as opened:
        for items, signs in ((641, HEALTHY), (642, COLLAPSED), (643, COLLAPSED)):
            opened.log({"items": items, **signs, "health/distance": 0.01 * items - 6.31})
    status, told = doctor(run, capsys)
    assert status == 1 and kinds(told) == ["collapse"]
    finding = told["findings"][0]
    assert (finding["since_items"], finding["value"], finding["threshold"]) == (642, 1.0, 0.3)
    assert "100%" in finding["text"] and "learning_rate" in finding["advice"]


def test_a_damaged_checkpoint_is_found_by_its_digest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = checkpoint.listed(run / "checkpoints")[-1] / "average.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    status, told = doctor(run, capsys)
    assert (
        status == 1 and kinds(told) == ["damaged checkpoint"] and "average.safetensors" in told["findings"][0]["text"]
    )


def test_a_run_that_ended_early_is_interrupted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = (run / "events.jsonl").read_text().splitlines()
    assert [json.loads(event)["event"] for event in events] == ["finished"]
    (run / "events.jsonl").write_text("")
    status, told = doctor(run, capsys)
    assert status == 1 and kinds(told) == ["interrupted"] and "640 of 640" in told["findings"][0]["text"]


def test_a_new_run_that_nobody_trains_has_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.open(tmp_path / "new"):
        status, told = doctor(tmp_path / "new", capsys)
        assert status == 0 and told["notes"] == [f"{Run.read(tmp_path / 'new').holder()} is training it now"]
        assert str(os.getpid()) in told["notes"][0]
    status, told = doctor(tmp_path / "new", capsys)
    assert status == 1 and kinds(told) == ["no checkpoint"]


def test_a_process_that_died_left_an_interrupted_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "events.jsonl").unlink()
    code = f"from ganlib.training.run import Run; import os; Run.open({str(run)!r}); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert (run / "run.holder.json").exists() and Run.read(run).holder() is None
    assert kinds(doctor(run, capsys)[1]) == ["interrupted"]


def test_a_stop_a_rollback_and_files_left_out_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.open(run) as opened:
        opened.log_event({"items": 5, "event": "skipped", "text": "the input real is nan"})
        opened.log_event({"items": 5, "event": "rollback", "text": "back to item 0"})
        opened.log_event({"items": 9, "event": "stopped", "text": "the weight w is nan", "value": float("nan")})
        opened.write_facts("unreadable.json", [["a.png", "cut off"]])
    status, told = doctor(run, capsys)
    assert status == 1 and kinds(told) == ["stopped"] and "the weight w is nan" in told["findings"][0]["text"]
    assert told["notes"][0] == "back to item 0" and "a.png: cut off" in told["notes"][-1] and len(told["notes"]) == 3


def test_a_bad_line_of_the_log_is_a_finding(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").write_bytes(b"nonsense\n" + (run / "metrics.jsonl").read_bytes())
    status, told = doctor(run, capsys)
    assert status == 1 and kinds(told) == ["damaged log"]


def test_what_is_no_run_is_an_error_as_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(tmp_path / "nowhere")])
    assert ended.value.code == MissingError.exit_status
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("x")
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(tmp_path / "other")])
    assert ended.value.code == 78


def test_a_file_knows_nothing_of_its_training(run: Path, tmp_path: Path) -> None:
    GAN.load(run, device="cpu").save(tmp_path / "model.gan")
    with pytest.raises(UsageError, match="knows nothing"):
        GAN.load(tmp_path / "model.gan", device="cpu").diagnose()
