"""Several processes that train one model: the same numbers as one, the same decisions, and what happens without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ganlib.core import Draws
from processes_worker import CASES

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes found out in one start; see processes_worker."""
    folder = tmp_path_factory.mktemp("two")
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


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process_on_the_joined_batch(found: dict[str, Any], case: str):
    assert found["cases"][case] < 1e-6


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
            {"group": {"x": torch.tensor([0.0, 1, 2]), "count": torch.tensor(7), "none": torch.empty(0, 2)}}
        )
        assert told["dealt"] == list(range(11))


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
