"""A run that is killed at random moments ends in the same bits as one that is left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganlib.training import checkpoint
from ganlib.training.run import Run

STEP = 32
ITEMS = STEP * 240
KILLS = 20


class Server:
    """The forking server, and one life at a time."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("fork_fit.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def life(self, run: Path, kill_after_steps: int | None, extra_seconds: float = 0.0) -> int:
        """Fit the run in a child; kill it so many steps on, and a moment later. Its status, negative for a signal."""
        assert self.process.stdin is not None and self.process.stdout is not None
        before = newest_items(run)
        self.process.stdin.write(f"{run} {ITEMS}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after_steps is not None:
            deadline = time.monotonic() + 60
            while newest_items(run) < before + kill_after_steps * STEP and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(extra_seconds)
            os.kill(child, signal.SIGKILL)
        line = self.process.stdout.readline()
        assert line.startswith("done"), f"the training failed: {line}"
        return int(line.split()[1])

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def newest_items(run: Path) -> int:
    found = checkpoint.listed(run / "checkpoints")
    return int(found[-1].name) if found else 0


def files_of(folder: Path) -> dict[str, bytes]:
    """All that must be the same: weights, average, optimisers, log. Not the clock times in the facts."""
    newest = checkpoint.listed(folder / "checkpoints")[-1]
    weights = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    return weights | {"log": (folder / "metrics.jsonl").read_bytes(), "newest": newest.name.encode()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork; the protocol itself is tested elsewhere")
def test_twenty_kills_end_in_the_bits_of_an_undisturbed_run(server: Server, tmp_path: Path) -> None:
    assert server.life(tmp_path / "whole", None) == 0
    dice = random.Random(0)
    for _ in range(KILLS):
        assert server.life(tmp_path / "killed", dice.randint(1, 8), dice.uniform(0, 0.03)) == -signal.SIGKILL
        found, damaged = checkpoint.newest(tmp_path / "killed" / "checkpoints")
        assert found is not None and damaged == [], "a kill left a checkpoint that is visible and damaged"
    assert newest_items(tmp_path / "killed") < ITEMS, "the kills came after the end and mean nothing"
    assert server.life(tmp_path / "killed", None) == 0
    whole, killed = files_of(tmp_path / "whole"), files_of(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    different = [name for name in whole if whole[name] != killed[name]]
    assert different == []
    assert Run.read(tmp_path / "killed").records()[-1]["items"] == ITEMS
