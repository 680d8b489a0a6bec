"""A run that is killed at random moments ends in the same bits as one that is left alone."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ganlib.training import checkpoint
from ganlib.training.run import Run

ITEMS = 32 * 150
KILLS = 20


class Server:
    """The forking server, and one life at a time."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("fork_fit.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def life(self, run: Path, kill_after_seconds: float | None) -> int:
        """Fit the run in a child; kill it after that time. Returns its exit status, negative for a signal."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{run} {ITEMS}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        timer = None
        if kill_after_seconds is not None:
            timer = threading.Timer(kill_after_seconds, os.kill, (child, signal.SIGKILL))
            timer.start()
        for line in self.process.stdout:
            if line.startswith("done"):
                if timer is not None:
                    timer.cancel()
                return int(line.split()[1])
            pytest.fail(f"the training failed: {line}")
        pytest.fail("the server ended")

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def files_of(folder: Path) -> dict[str, bytes]:
    """All that must be the same: weights, average, optimisers, log. Not the clock times in the facts."""
    newest = checkpoint.listed(folder / "checkpoints")[-1]
    weights = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    return weights | {"log": (folder / "metrics.jsonl").read_bytes(), "newest": newest.name.encode()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork; the protocol itself is tested elsewhere")
def test_twenty_kills_end_in_the_bits_of_an_undisturbed_run(server: Server, tmp_path: Path) -> None:
    start = time.monotonic()
    assert server.life(tmp_path / "whole", None) == 0
    whole_seconds = time.monotonic() - start
    dice = random.Random(0)
    kills = 0
    resumed_at = set()
    while kills < KILLS:
        # Short lives, so that 20 of them fit into one run: each is killed in its first steps or while it saves.
        status = server.life(tmp_path / "killed", dice.uniform(0.05, 1.0) * whole_seconds / 5)
        assert status in (0, -signal.SIGKILL)
        if status == 0:
            break
        kills += 1
        found, damaged = checkpoint.newest(tmp_path / "killed" / "checkpoints")
        assert damaged == [], "a kill left a checkpoint that is visible and damaged"
        resumed_at.add(found.facts["items_seen"] if found is not None else 0)
    assert kills >= 10 and len(resumed_at) >= 5, "too few kills hit the training to mean anything"
    assert server.life(tmp_path / "killed", None) == 0
    whole, killed = files_of(tmp_path / "whole"), files_of(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    different = [name for name in whole if whole[name] != killed[name]]
    assert different == []
    assert Run.read(tmp_path / "killed").records()[-1]["items"] == ITEMS
