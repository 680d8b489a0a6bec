"""Several processes that train one model: the same numbers as one, the same decisions, and what happens without one."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from ganlib.core import Draws
from ganlib.data import load
from ganlib.errors import UsageError
from ganlib.gan import GAN
from ganlib.launching import launch, num_devices, status_of
from ganlib.looking import extractor_for
from ganlib.metrics.features import features, quantise
from ganlib.metrics.scores import frechet_distance
from ganlib.opening import check_batch
from ganlib.reading import split
from ganlib.training.team import Team
from processes_worker import CASES, CHANGING, compact, make_plan
from test_kill import files_of, newest_items

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What two processes found out in one start; see processes_worker."""
    lives = [
        subprocess.Popen(
            [sys.executable, str(HERE / "processes_worker.py"), str(rank), "2", str(folder)],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [life.communicate(timeout=120)[1] for life in lives]
    assert [life.returncode for life in lives] == [0, 0], "\n".join(errors)
    return json.loads((folder / "results.json").read_text())


# Over the places of a patch discriminator much cancels: in float64 the difference of these is 3e-15.
CANCELLING = {"pairs": 5e-6, "spoiled pictures": 5e-6}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process_on_the_joined_batch(found: dict[str, Any], case: str):
    assert found["cases"][case] < CANCELLING.get(case, 1e-6)


@pytest.mark.parametrize("case", CHANGING)
def test_what_changes_over_a_run_is_that_of_one_process_on_the_joined_batch(found: dict[str, Any], case: str):
    (first, (alone, together)), (second, (_, of_the_other)) = found["changing"][case]
    assert max(first, second) < 2e-5, "several steps, each with the rounding of the one before"
    assert together == of_the_other, "to the bit"
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        assert together[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


def test_the_cases_remember_and_change_something(found: dict[str, Any]):
    after = {name: both[0][1][0] for name, both in found["changing"].items()}
    assert after["lecam"]["memories.discriminator/lecam.seen"] == [64]
    assert after["path length"]["memories.generator/paths.mean"][0] > 0
    assert after["history"]["memories.discriminator/history.num_updates"] == [4]
    assert after["buffer"]["buffer.counts"] == [24]
    for case, start in (("adaptive", 0.4), ("pseudo", 0.4)):
        assert 0 < after[case]["augment.probability"][0] < 1 and after[case]["augment.probability"][0] != start
    assert after["growing"]["generator.growing.growth"] == [1 << 20], "a whole stage"
    assert after["cascade"]["discriminator.num_begun"] == [2]


def test_no_process_remembers_a_step_that_is_not_finite_on_one(found: dict[str, Any]):
    assert found["lost memory"] == [True, True]


def test_gradients_agree_in_bfloat16_as_far_as_its_eight_bits_go(found: dict[str, Any]):
    assert found["bfloat16"] < 0.02


def test_joined_batch_normalisation_is_that_of_the_joined_batch(found: dict[str, Any]):
    assert found["norms"] < 1e-10


def test_processes_together_see_the_items_that_one_sees(found: dict[str, Any]):
    alone, together = found["seen"]
    assert alone == together
    assert sorted(alone[:26]) != alone[:26], "the order is shuffled"


@pytest.mark.parametrize(("place", "kind"), [("item", "input real"), ("gradient", "gradient discriminator.")])
def test_a_number_that_is_not_finite_on_one_process_stops_all(found: dict[str, Any], place: str, kind: str):
    first, second = found["lost steps"][place]
    assert first == second
    assert first.startswith(kind) and first.endswith(", unchanged")


def test_processes_tell_each_other(found: dict[str, Any]):
    for told in found["told"]:
        assert told["largest"] == [1, 0]
        assert told["mean"] == [5, 6]
        assert told["first"] == "{'a': [1, None, 'ä'], 'nan': nan}"
        assert told["all"] == ["", "long"]
        assert told["tensors"] == str(
            {
                "group": {
                    "x": torch.tensor([0.0, 1, 2]),
                    "count": torch.tensor(7),
                    "flag": torch.tensor([True]),
                    "none": torch.empty(0, 2),
                }
            }
        )
        assert told["dealt"] == list(range(11))
        assert told["few"] == [[1, 1, 1]], "one chunk for two processes"


def test_fit_says_the_same_in_all_processes(found: dict[str, Any]):
    for histories in (found["histories"], found["timed"]):
        assert histories[0] == histories[1]
        assert histories[0], "a timed run on a busy machine may log at its end only"
    assert len(found["histories"][0]) > 1
    assert found["ends"]["signal"] == ["SystemExit 143"] * 2
    first, second = found["ends"]["diverged"]
    assert first == second and first.startswith("DivergedError")


def test_the_score_is_that_of_one_process(found: dict[str, Any], folder: Path):
    gan = GAN.load(folder / "fitted.gan")
    train, held_out = split(load("digits"), None, None)
    assert held_out is not None
    count, extractor = len(held_out), extractor_for(train)
    real = features(extractor, [held_out.batch(np.arange(count))["real"]])
    drawn = gan.model_.sampler.stream(count, seed=4)
    expected = frechet_distance(real, features(extractor, [quantise(part) for part, _ in drawn]))
    scores = [record["score"] for record in found["histories"][0] if "score" in record]
    assert count % 64 and count > 128, "the last chunk is to be a part of one"
    assert scores[-1] == pytest.approx(expected, rel=1e-12)


COMMAND = [
    "fit",
    "digits",
    "--items",
    "1600",
    "--network",
    "compact",
    "--width",
    "4",
    "--latent",
    "8",
    "--batch_items",
    "32",
    "--seed",
    "3",
]
OPTIONS = ["--precision", "float32", "--checkpoint_seconds", "0", "--json"]


def started(*command: str) -> subprocess.Popen[str]:
    """A command in a process of its own; what it says comes when it has ended."""
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(run: Path, num_items: int, life: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while newest_items(run) < num_items:
        assert life.poll() is None and time.monotonic() < deadline, life.communicate()
        time.sleep(0.02)


def second_process_of(parent: int) -> int:
    """The process number of the worker with rank 1."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                of = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if of == parent and b"\0RANK=1\0" in b"\0" + (entry / "environ").read_bytes() + b"\0":
                    return int(entry.name)
    raise AssertionError(f"process {parent} has started no second worker")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks the worker up in /proc")
def test_a_run_that_is_killed_and_stopped_ends_in_the_bits_of_an_undisturbed_one(
    found: dict[str, Any], folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    whole, disturbed = folder / "whole", tmp_path / "disturbed"
    life = started("ganlib", *COMMAND, *OPTIONS, "--out", str(disturbed), "--devices", "2")
    wait_for(disturbed, 320, life)
    os.kill(second_process_of(life.pid), signal.SIGKILL)
    wait_for(disturbed, newest_items(disturbed) + 160, life)
    life.send_signal(signal.SIGTERM)
    _, errors = life.communicate(timeout=100)
    assert life.returncode == 143 and "SIGKILL; beginning again" in errors and "Traceback" not in errors, errors
    assert newest_items(disturbed) < 1600, "the signal came after the end and means nothing"

    torchrun = ("torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "-m", "ganlib")
    life = started(*torchrun, *COMMAND, *OPTIONS, "--out", str(disturbed))
    said, errors = life.communicate(timeout=200)
    assert life.returncode == 0, errors
    assert ['"done": true' in line for line in said.splitlines()].count(True) == 1, "one process speaks"
    assert newest_items(whole) == newest_items(disturbed) == 1600
    different = [name for name, content in files_of(whole).items() if files_of(disturbed)[name] != content]
    assert different == []

    facts = json.loads((whole / "recipe.json").read_text())
    assert facts["processes"] == 2
    alone = GAN(device="cpu", precision="float32").fit("digits", items=1632, run=whole, progress="lines")
    assert alone.history_[-1]["items"] == 1632
    assert "processes was 2, is 1" in capfd.readouterr().err


def test_an_error_of_all_processes_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.MonkeyPatch.context() as patched:
        for name, value in ENVIRONMENT.items():
            patched.setenv(name, value)
        assert launch(["fit", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")], 2) == 66
    logging.disable(logging.NOTSET)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"ganlib: {tmp_path / 'nowhere'} does not exist")


@pytest.mark.parametrize(
    ("batch", "processes", "parts", "fitting"), [(32, 3, 1, "30 or 33"), (8, 4, 4, "multiples of 16, such as 16")]
)
def test_a_batch_that_cannot_be_dealt_is_refused(batch: int, processes: int, parts: int, fitting: str):
    plan = replace(make_plan(compact(), {}), batch_items=batch, accumulate=parts)
    with pytest.raises(UsageError, match=fitting):
        check_batch(plan, Team(0, processes))
    check_batch(replace(plan, batch_items=2 * processes * parts), Team(0, processes))


def test_the_number_of_devices_is_checked():
    assert num_devices("auto", "cpu") == 1
    assert num_devices("1", "cpu") == 1
    for wrong in ("0", "-1", "many", "100000"):
        with pytest.raises(UsageError, match="accepted are"):
            num_devices(wrong, "cpu")


def test_the_status_is_that_of_the_process_with_an_error_of_its_own():
    def status(*codes: int) -> int:
        return status_of([ProcessFailure(rank, 0, code, "") for rank, code in enumerate(codes)])

    assert status(66, -15) == 66
    assert status(76, 74) == 74, "the first has only lost the second"
    assert status(76, -9) == 137
    assert status(-15, -15) == 76


def test_different_data_are_refused(found: dict[str, Any]):
    first, second = found["ends"]["other data"]
    assert first == second and first.startswith("DataError process 1 has read other data from the array")


def test_draws_of_all_processes_are_those_of_one():
    def drawn(rank: int, world: int) -> torch.Tensor:
        draws = Draws(torch.Generator().manual_seed(5), rank, world)
        return torch.stack([draws.normal(12 // world, 3), draws.uniform(12 // world, 3)])

    alone = drawn(0, 1)
    rng = torch.Generator().manual_seed(5)
    assert torch.equal(alone, torch.stack([torch.randn(12, 3, generator=rng), torch.rand(12, 3, generator=rng)]))
    for world in (2, 3, 4):
        for rank in range(world):
            assert torch.equal(drawn(rank, world), alone[:, rank::world])
