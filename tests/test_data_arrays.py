"""Arrays, lists, labels and data set objects in: what is taken, and what is refused with which words."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ganlib.data import Data, load
from ganlib.data.arrays import class_numbers
from ganlib.errors import DataError, UsageError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_stacked_digits_are_embedded_digits_in_all_combinations_equally_often() -> None:
    digits, stacks = load("digits"), load("stacked_digits")
    pictures, labels = digits.take(np.arange(len(digits))), digits.labels
    assert labels is not None
    classes = {picture.tobytes(): label for picture, label in zip(pictures, labels.tolist(), strict=True)}
    channels = stacks.take(np.arange(len(stacks)))
    assert channels.shape == (20_000, 3, 8, 8) and stacks.labels is None
    named = np.array([[classes[channel.tobytes()] for channel in stack] for stack in channels])
    assert (np.bincount(named @ [100, 10, 1], minlength=1000) == 20).all()
    assert len({stack.tobytes() for stack in channels}) > 19_900, "the twenty of a combination differ"
    assert load("stacked_digits").fingerprint() == stacks.fingerprint()
    with pytest.raises(UsageError, match="stacked_digits has no split"):
        load("stacked_digits", split="test")


def test_digits_are_those_of_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = load_digits()
    data = load("digits")
    assert np.array_equal(data.items[:, 0], np.rint(theirs.images * 255 / 16)) and np.array_equal(
        data.labels, theirs.target
    )
    assert data.spec.classes == tuple("0123456789") and data.spec.shape == (1, 8, 8)
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load("digits")) == 1797
    with pytest.raises(DataError, match="no pictures"):
        load("./digits")
    with pytest.raises(UsageError, match="no split 'test'"):
        load("digits", split="test")


SHAPES = [
    ((9, 5, 6), "HW", (1, 5, 6)),
    ((9, 5, 6, 3), "HWC", (3, 5, 6)),
    ((9, 3, 5, 6), "CHW", (3, 5, 6)),
    ((9, 8, 16, 32), "CHW", (8, 16, 32)),
    ((9, 32, 16, 8), "HWC", (8, 32, 16)),
    ((9, 1, 5, 3), "CHW", (1, 5, 3)),
    ((9, 3, 5, 3), "HWC", (3, 3, 5)),
]


@pytest.mark.parametrize(("shape", "layout", "expected"), SHAPES)
def test_axes(shape: tuple[int, ...], layout: str, expected: tuple[int, ...]) -> None:
    data = load(noise(*shape))
    assert (data.spec.layout, data.spec.shape) == (layout, expected) and data.items.shape == (9, *expected)
    if layout == "HWC":
        assert np.array_equal(data.items[4], np.moveaxis(noise(*shape)[4], -1, 0))


def test_torch_puts_channels_first_where_both_fit() -> None:
    images = torch.from_numpy(noise(9, 3, 5, 3))
    assert load(images).spec.layout == "CHW" and load(list(images)).spec.layout == "CHW"
    assert load(images[:, 0].bfloat16() / 256).spec.dtype == "float32"


RANGES: list[tuple[np.ndarray, tuple[float, float], str, str]] = [
    (np.array([0.0, 1.0]), (0.5, 0.5), "float32", "float64"),
    (np.array([-1.0, 0.5]), (0.0, 1.0), "float32", "float64"),
    (np.array([0, 16]), (127.5, 127.5), "uint8", "int64"),
    (np.array([0, 300]), (32_767.5, 32_767.5), "uint16", "int64"),
    (np.array([0, 300], ">u2"), (32_767.5, 32_767.5), "uint16", "uint16"),
    (np.array([False, True]), (127.5, 127.5), "uint8", "uint8"),
]


@pytest.mark.parametrize(("ends", "numbers", "stored", "owner"), RANGES)
def test_ranges(ends: np.ndarray, numbers: tuple[float, float], stored: str, owner: str) -> None:
    data = load(np.resize(ends, (3, 4, 4)))
    assert (data.spec.offset, data.spec.scale) == ((numbers[0],), (numbers[1],))
    assert data.items.dtype == np.dtype(stored) and data.spec.dtype == owner
    assert set(np.unique(data.items)) == ({0, 255} if ends.dtype == bool else set(ends.tolist()))


REFUSED: list[tuple[Any, str]] = [
    (
        np.resize([0.0, 16.0], (3, 4, 4)),
        r"whole numbers from 0 to 16 of dtype float64; cast them with .astype\('uint8'\)",
    ),
    (np.resize([-0.5, 7.25], (3, 4, 4)), r"numbers from -0.5 to 7.25.*0..1 or -1..1"),
    (np.resize([-1, 3], (3, 4, 4)), r"whole numbers from -1 to 3"),
    (np.resize([0, 70_000], (3, 4, 4)), r"from 0 to 70000"),
    (np.zeros((3, 4, 4), complex), "dtype complex128"),
    (np.zeros((3, 4), object), "dtype object"),
    (np.array([["a", "b"], ["c", "d"]]), "dtype <U1"),
    (np.zeros(9), r"shape \(9,\).*vectors \[n, columns\]"),
    (np.zeros((2, 2, 2, 2, 2)), "shape"),
    (np.zeros((1, 4, 4)), "1 items; at least 2"),
    (np.zeros((0, 4, 4)), "0 items; at least 2"),
    (np.zeros((4, 0, 4)), "not empty"),
    (np.array([[1e308, 1], [-1e308, 1]]) * 1.5, "column 0.*too large"),
    ([noise(3, 4), noise(4, 4)], "2 shapes"),
    ([noise(4, 4)], "1 items"),
    ([], "0 items"),
    ([object(), object()], "dtype object"),
]


@pytest.mark.parametrize(("source", "words"), REFUSED)
def test_unusable_arrays_are_refused(source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(source)


@pytest.mark.parametrize("shape", [(10, 4, 4), (10, 3)])
def test_values_that_are_not_finite_are_counted_and_the_first_is_named(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape)
    array[3, 0], array[7, 0] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 of 10 items in the array.*first is item 3"):
        load(array)


def test_the_remedies_work() -> None:
    whole = np.resize([0.0, 16.0], (3, 4, 4))
    assert load(whole.astype("uint8")).spec.dtype == "uint8" and load(whole / 255).spec.offset == (0.5,)


def test_labels_of_each_kind() -> None:
    def numbers(labels: object, count: int = 3) -> tuple[list[int], tuple[str, ...]]:
        values, classes = class_numbers(labels, count, ())
        assert values.dtype == np.int64
        return values.tolist(), classes

    assert numbers([2, 0, 1]) == ([2, 0, 1], ("0", "1", "2"))
    assert numbers([7, 3, 7]) == ([1, 0, 1], ("3", "7"))
    assert numbers(["b", "a", "b"]) == ([1, 0, 1], ("a", "b"))
    assert numbers(np.array([[1], [0], [1]], np.uint8)) == ([1, 0, 1], ("0", "1"))
    assert numbers(torch.tensor([1.0, 0.0, 1.0])) == ([1, 0, 1], ("0", "1"))
    assert numbers([True, False, True]) == ([1, 0, 1], ("0", "1"))


BAD_LABELS: list[tuple[Any, str]] = [
    ([0, 1], "2 labels for 3 items"),
    ([0, -1, 1], "label 1 is -1"),
    ([0.0, float("nan"), 1.0], "label 1 is nan"),
    ([0.5, 1.0, 2.0], "label 0 is 0.5"),
    ([[1, 0], [0, 1], [1, 0]], r"labels have shape \(3, 2\)"),
    ([None, "a", "b"], "dtype object"),
]


@pytest.mark.parametrize(("labels", "words"), BAD_LABELS)
def test_unusable_labels_are_refused(labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(noise(3, 4, 4), labels)


class Pairs(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


def test_torch_data_sets() -> None:
    images, labels = torch.from_numpy(noise(6, 3, 5, 5)), torch.tensor([0, 1, 0, 1, 2, 2])
    data = load(TensorDataset(images, labels))
    assert (
        np.array_equal(data.items, images.numpy())
        and data.labels is not None
        and data.labels.tolist() == labels.tolist()
    )
    assert load(TensorDataset(images)).labels is None and load(Pairs(list(images))).labels is None
    pillow = load(Pairs([(Image.fromarray(noise(5, 4, 3)), "ab"[number % 2]) for number in range(4)]))
    assert pillow.spec.classes == ("a", "b") and pillow.spec.shape == (3, 5, 4)
    with pytest.raises(UsageError, match="no length"):
        load(Endless())


def test_hugging_face_data_sets() -> None:
    class ClassLabel:
        names = ("cat", "dog")

    class Columns:
        column_names = ("img", "label", "id")
        features = {"img": type("Image", (), {})(), "label": ClassLabel(), "id": object()}  # noqa: RUF012

        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> dict[str, Any]:
            return {"img": Image.fromarray(noise(5, 4)), "label": number % 2, "id": number}

    data = load(Columns())
    assert data.spec.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 1, 0, 1]
    assert data.spec.shape == (1, 5, 4)
    Columns.column_names = ("id",)
    with pytest.raises(DataError, match="no image column among id"):
        load(Columns())


def test_loaded_data_is_returned_as_it_is() -> None:
    data = load("digits")
    assert load(data) is data and isinstance(data, Data)
    with pytest.raises(UsageError, match="loaded already"):
        load(data, size=16)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_arrays_are_resized_in_their_range(dtype: str) -> None:
    steps = np.kron(np.random.default_rng(0).integers(0, 2, (2, 4, 4)), np.ones((8, 8)))
    high = {"uint8": 255, "uint16": 65_535}.get(dtype, 1)
    data = load((steps * high).astype(dtype), size=16)
    assert data.items.shape == (2, 1, 16, 16) and data.items.dtype == np.dtype(dtype)
    expected = steps.reshape(2, 16, 2, 16, 2).mean((2, 4)) * high
    inner = (slice(None), 0)
    assert data.items.max() == high and np.abs(data.items[inner] - expected).mean() < 0.06 * high


def test_npz_by_the_names_of_its_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    images, labels = noise(6, 5, 5), np.arange(6) % 3
    for names in (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("arr_0", "arr_1")):
        np.savez(path, **dict(zip(names, (images, labels), strict=True)))
        data = load(path)
        assert (
            np.array_equal(data.items[:, 0], images)
            and data.labels is not None
            and data.labels.tolist() == labels.tolist()
        )
    np.savez(path, x_train=images, x_test=images[:2], y_train=labels, y_test=labels[:2])
    assert len(load(path, split="test")) == 2 and len(load(path)) == 6
    np.savez(path, faces=images)
    assert load(path).labels is None
    with pytest.raises(DataError, match="or with 'test' in front"):
        np.savez(path, images=images, labels=labels)
        load(path, split="test")
    np.savez(path, images=images, person=labels, note=np.zeros(3))
    assert load(path).spec.classes == ("0", "1", "2")
    np.savez(path, weights=images, bias=labels)
    with pytest.raises(DataError, match=r"bias, weights, none of them named"):
        load(path)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    objects = np.array([Canary(canary), Canary(canary)], object)
    np.savez(tmp_path / "a.npz", images=objects)
    np.save(tmp_path / "b.npy", objects, allow_pickle=True)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Canary(canary)))
    np.savez(tmp_path / "d.npz", images=noise(4, 3, 3), labels=objects)
    for name in ("a.npz", "b.npy", "c.npy", "d.npz"):
        with pytest.raises(DataError, match="pickle"):
            load(tmp_path / name)
    assert not canary.exists()


def test_damaged_numpy_files_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=noise(50, 9, 9))
    np.save(tmp_path / "b.npy", noise(50, 9, 9))
    for name in ("a.npz", "b.npy"):
        whole = (tmp_path / name).read_bytes()
        for content in (whole[: len(whole) // 2], whole[:3], b"", b"\x93NUMPY\x01\0v\0{'descr': 1}" + whole):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match="cannot be read"):
                load(tmp_path / name)
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        (tmp_path / "a.npz").write_bytes(flipped)
        with pytest.raises(DataError):
            load(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((200, 300, 300), np.uint8))
    with pytest.raises(DataError, match="at most 100 times"):
        load(tmp_path / "bomb.npz")


def test_large_npy_stays_on_disk(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 4, 4, 3))
    np.save(tmp_path / "a.npy", values)
    data = load(tmp_path / "a.npy", memory_bytes=100)
    assert data.on_disk
    expected = torch.from_numpy(values.transpose(0, 3, 1, 2)).float() * 2 - 1
    assert torch.allclose(data.batch(np.array([3, 19]))["real"], expected[[3, 19]], atol=1e-6)
