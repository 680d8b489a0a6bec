"""Pairs of pictures: each layout, partners that belong together, and what is said of those that do not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.data import load, load_pairs
from ganlib.errors import DataError, MissingError, UsageError

Draw = Callable[[int], np.ndarray]


def picture(number: int, channels: int = 1, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    """A picture that says its number in every pixel."""
    made = np.full((*size, channels), number, np.uint8)
    if channels == 3:
        made[0, 0] = (0, 100, 200)  # some colour
    return made[:, :, 0] if channels == 1 else made


def write(folder: Path, names: list[str], draw: Draw) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(draw(number)).save(folder / name)


def folders(root: Path, count: int = 12, prefix: str = "") -> Path:
    names = [f"p{number}.png" for number in range(count)]
    write(root / prefix / "A", names, lambda number: picture(number))
    write(root / prefix / "B", names, lambda number: picture(100 + number, 3))
    return root


def test_folders_of_equal_names_are_pairs_in_natural_order(tmp_path: Path) -> None:
    data = load_pairs(folders(tmp_path))
    assert data.spec.shape == (3, 8, 8) and data.spec.condition is not None and data.spec.condition.shape == (1, 8, 8)
    batch = data.batch(np.array([11, 2]))
    assert batch["real"].shape == (2, 3, 8, 8) and batch["condition"].shape == (2, 1, 8, 8)
    assert data.take(np.array([11, 2]))[:, 0, 4, 4].tolist() == [111, 102]
    assert (batch["condition"][:, 0, 4, 4] * 127.5 + 127.5).round().tolist() == [11, 2]


@pytest.mark.parametrize("layout", ["train/A", "A/train"])
def test_splits_outside_and_inside_of_the_two_folders(tmp_path: Path, layout: str) -> None:
    for split, start in (("train", 0), ("test", 50)):
        for side, more in (("A", 0), ("B", 100)):
            inner = tmp_path / (f"{split}/{side}" if layout == "train/A" else f"{side}/{split}")
            write(inner, ["x.png", "y.png"], lambda number, base=start + more: picture(base + number))
    for split, start in (("train", 0), ("test", 50)):
        data = load_pairs(tmp_path, split=split)
        assert data.take(np.arange(2))[:, 0, 4, 4].tolist() == [start + 100, start + 101]
        assert data.only_conditions().take(np.arange(2))[:, 0, 4, 4].tolist() == [start, start + 1]


def test_pairs_stay_together_through_splits_and_subsets(tmp_path: Path) -> None:
    train, rest = load_pairs(folders(tmp_path)).split(4, seed=0)
    for data in (train, rest, rest.subset(np.array([3, 0]))):
        wanted, given = data.take(np.arange(len(data))), data.only_conditions().take(np.arange(len(data)))
        assert (wanted[:, 0, 4, 4] - 100).tolist() == given[:, 0, 4, 4].tolist()
    assert len(train) == 8 and len(rest) == 4


def test_pictures_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, ["a.png", "b.png"], lambda n: np.concatenate([picture(n), picture(n + 100)], 1))
    data = load_pairs(tmp_path)
    assert data.spec.shape == (1, 8, 8)
    assert data.take(np.arange(2))[:, 0, 0, 0].tolist() == [100, 101]
    assert data.only_conditions().take(np.arange(2))[:, 0, 7, 7].tolist() == [0, 1]
    assert load_pairs(tmp_path, size=4).spec.shape == (1, 4, 4)
    with pytest.raises(DataError, match="halves are not of the shape"):
        load_pairs(tmp_path, size=(4, 8))


def test_square_pictures_are_not_two_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, ["a.png", "b.png"], picture)
    with pytest.raises(DataError, match="not two side by side"):
        load_pairs(tmp_path)


def test_names_without_a_partner_are_listed(tmp_path: Path) -> None:
    folders(tmp_path)
    for number in range(7):
        (tmp_path / "B" / f"p{number}.png").unlink()
    write(tmp_path / "B", ["other.png"], picture)
    with pytest.raises(DataError, match=r"8 pictures .* have no partner.*B/other, A/p0, A/p1, A/p2, A/p3, \.\.\."):
        load_pairs(tmp_path)


def test_an_unreadable_picture_takes_its_partner_along(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "A" / "p3.png").write_bytes(b"no picture")
    (tmp_path / "B" / "p7.png").write_bytes(b"no picture")
    data = load_pairs(tmp_path)
    wanted, given = data.take(np.arange(len(data))), data.only_conditions().take(np.arange(len(data)))
    assert given[:, 0, 4, 4].tolist() == [n for n in range(12) if n not in (3, 7)]
    assert (wanted[:, 0, 4, 4] - 100).tolist() == given[:, 0, 4, 4].tolist()
    assert [name for name, _ in data.unreadable] == ["A/p3.png", "B/p7.png"]


def test_one_domain_without_pictures(tmp_path: Path) -> None:
    folders(tmp_path)
    for path in (tmp_path / "B").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="accepted are a folder with two folders"):
        load_pairs(tmp_path)


def test_two_arrays_and_their_misfits() -> None:
    given, wanted = np.zeros((5, 8, 8), np.uint8), np.zeros((5, 8, 8, 3), np.uint8)
    data = load_pairs((given, wanted))
    assert data.spec.shape == (3, 8, 8) and data.spec.condition is not None and data.spec.condition.shape == (1, 8, 8)
    with pytest.raises(DataError, match="5 and 4 items"):
        load_pairs((given, wanted[:4]))
    with pytest.raises(DataError, match="8x8 and 8x6 pixels"):
        load_pairs((given, wanted[:, :, :6]))
    with pytest.raises(UsageError, match="cannot read pairs from int"):
        load_pairs(3)
    with pytest.raises(UsageError, match="single items"):
        load_pairs(load(given))
    with pytest.raises(MissingError, match="does not exist"):
        load_pairs("nowhere/at/all")


def test_fingerprints_tell_the_given_pictures_apart() -> None:
    wanted = np.zeros((5, 8, 8), np.uint8)
    same, other = (load_pairs((np.full_like(wanted, n), wanted)).fingerprint()["sha256"] for n in (1, 2))
    assert same != other != load(wanted).fingerprint()["sha256"]


def test_a_size_cuts_no_half_away_from_the_other(tmp_path: Path) -> None:
    write(tmp_path / "wide", ["a.png", "b.png"], lambda n: np.full((64, 188), n, np.uint8))
    with pytest.raises(DataError, match=r"188 x 64 .* halves are not of the shape"):
        load_pairs(tmp_path / "wide", size=64)
    write(tmp_path / "odd", ["a.png", "b.png"], lambda n: np.full((64, 127), n, np.uint8))
    assert load_pairs(tmp_path / "odd", size=64).spec.shape == (1, 64, 64), "half a pixel on either side"


def test_upright_halves_where_a_size_says_so(tmp_path: Path) -> None:
    write(
        tmp_path, ["a.png", "b.png"], lambda n: np.concatenate([picture(n, 1, (8, 4)), picture(n + 100, 1, (8, 4))], 1)
    )
    with pytest.raises(DataError, match="not two side by side"):
        load_pairs(tmp_path)
    data = load_pairs(tmp_path, size=(8, 4))
    assert data.spec.shape == (1, 8, 4) and data.take(np.arange(2))[:, 0, 0, 0].tolist() == [100, 101]


def test_unreadable_pictures_of_two_paths_move_no_partner(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "A" / "p3.png").write_bytes(b"no picture")
    (tmp_path / "B" / "p7.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"p3\.png cannot be read"):
        load_pairs((tmp_path / "A", tmp_path / "B"))
