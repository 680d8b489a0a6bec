"""Several processes that train one model: the same numbers as one, the same decisions, and what happens without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganlib.core import Draws
from ganlib.data import load
from ganlib.fitting import extractor_for
from ganlib.gan import GAN
from ganlib.metrics.features import features, quantise
from ganlib.metrics.scores import frechet_distance
from ganlib.opening import split
from processes_worker import CASES

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


def test_fit_says_the_same_in_all_processes(found: dict[str, Any]):
    for histories in (found["histories"], found["timed"]):
        assert histories[0] == histories[1]
        assert len(histories[0]) > 1
    assert found["ends"]["signal"] == ["SystemExit 143"] * 2
    first, second = found["ends"]["diverged"]
    assert first == second and first.startswith("DivergedError")


def test_the_score_is_that_of_one_process(found: dict[str, Any], folder: Path):
    gan = GAN.load(folder / "fitted.gan")
    train, held_out = split(load("digits"), None, 3, None)
    assert held_out is not None
    count, extractor = len(held_out), extractor_for(train)
    real = features(extractor, [held_out.batch(np.arange(count))["real"]])
    drawn = gan.model_.sampler.stream(count, seed=4)
    expected = frechet_distance(real, features(extractor, [quantise(part) for part, _ in drawn]))
    scores = [record["score"] for record in found["histories"][0] if "score" in record]
    assert count % 64 and count > 128, "the last chunk is to be a part of one"
    assert scores[-1] == pytest.approx(expected, rel=1e-12)


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
