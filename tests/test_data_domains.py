"""Two sets of pictures without partners: each layout, and batches that hold as many of each."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.data import load, load_domains
from ganlib.errors import DataError, UsageError


def write(folder: Path, numbers: range, colour: bool = False) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.full((8, 8, 3) if colour else (8, 8), number, np.uint8)
        if colour:
            pixels[0, 0] = (0, 100, 200)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_the_usual_four_folders_by_split(tmp_path: Path) -> None:
    for name, numbers in (("trainA", (0, 5)), ("trainB", (100, 103)), ("testA", (50, 52)), ("testB", (150, 152))):
        write(tmp_path / name, range(*numbers))
    data = load_domains(tmp_path)
    assert data.spec.classes == ("trainA", "trainB") and data.labels is not None
    assert data.labels.tolist() == [0] * 5 + [1] * 3
    assert data.take(np.arange(8))[:, 0, 4, 4].tolist() == [0, 1, 2, 3, 4, 100, 101, 102]
    assert load_domains(tmp_path, split="test").take(np.arange(4))[:, 0, 4, 4].tolist() == [50, 51, 150, 151]


def test_any_two_folders_and_two_arrays(tmp_path: Path) -> None:
    write(tmp_path / "cats", range(3))
    write(tmp_path / "dogs", range(100, 104), colour=True)
    data = load_domains(tmp_path)
    assert data.spec.classes == ("cats", "dogs") and data.spec.shape == (3, 8, 8)
    grey, colour = np.full((3, 8, 8), 7, np.uint8), np.full((4, 8, 8, 3), 9, np.uint8)
    data = load_domains((grey, colour))
    assert data.spec.shape == (3, 8, 8) and data.labels is not None and data.labels.tolist() == [0] * 3 + [1] * 4
    assert data.take(np.array([0, 6]))[:, 1, 4, 4].tolist() == [7, 9]


def test_what_is_not_two_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 classes, not two sets"):
        load_domains("digits")
    with pytest.raises(DataError, match="8x8 and 6x6 pixels"):
        load_domains((np.zeros((3, 8, 8), np.uint8), np.zeros((3, 6, 6), np.uint8)))
    write(tmp_path / "trainA", range(3))
    (tmp_path / "trainB").mkdir()
    with pytest.raises(DataError, match="trainB has no pictures"):
        load_domains(tmp_path)


def test_balanced_batches_hold_one_of_each_in_turn_and_every_item_once_an_epoch() -> None:
    items = np.concatenate([np.arange(6), np.arange(100, 104)]).astype(np.uint8)
    data = load(np.broadcast_to(items[:, None, None], (10, 8, 8)).copy(), np.repeat([0, 1], [6, 4]))
    seen: list[int] = []
    batches = data.batches(4, 3, 0, balanced=True)
    for _ in range(6):
        batch = next(batches)
        assert batch["label"].tolist() == [0, 1, 0, 1]
        seen += (batch["real"][:, 0, 0, 0] * 127.5 + 127.5).round().long().tolist()
    first = [number for number in seen if number < 100]
    assert sorted(first[:6]) == sorted(first[6:]) == list(range(6))
    second = [number for number in seen if number >= 100]
    assert sorted(second[:4]) == sorted(second[4:8]) == [100, 101, 102, 103]
    again = next(data.batches(4, 3, 8, balanced=True))
    later = data.batches(4, 3, 0, balanced=True)
    assert [next(later), next(later), next(later)][2]["real"].equal(again["real"])


def test_balanced_batches_are_dealt_to_processes() -> None:
    items = np.arange(40, dtype=np.uint8)
    data = load(np.broadcast_to(items[:, None, None], (40, 8, 8)).copy(), np.repeat([0, 1], 20))
    whole = next(data.batches(8, 0, 0, balanced=True))["real"]
    parts = [next(data.batches(8, 0, 0, (rank, 2), balanced=True)) for rank in (0, 1)]
    assert all(part["label"].tolist() == [0, 1, 0, 1] for part in parts)
    found = sorted(value for part in parts for value in part["real"][:, 0, 0, 0].tolist())
    assert found == sorted(whole[:, 0, 0, 0].tolist())
    with pytest.raises(UsageError, match="multiple of 4"):
        next(data.batches(6, 0, 0, (0, 2), balanced=True))
