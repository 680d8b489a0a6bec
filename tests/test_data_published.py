"""Published forms of data sets: IDX, CIFAR and packed pictures, made here and as they are in the world."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.data import load
from ganlib.data.packed import npz_of_split
from ganlib.errors import DataError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folders_and_files(tmp_path: Path, zipped: bool) -> None:
    images, labels = noise(6, 5, 4), np.array([0, 1, 2, 0, 1, 2], np.uint8)
    for split, count in (("train", 6), ("t10k", 3)):
        for kind, array in (("images-idx3", images[:count]), ("labels-idx1", labels[:count])):
            content = idx(array)
            name = f"{split}-{kind}-ubyte" + (".gz" if zipped else "")
            (tmp_path / name).write_bytes(gzip.compress(content) if zipped else content)
    data = load(tmp_path)
    assert (
        np.array_equal(data.items[:, 0], images) and data.labels is not None and data.labels.tolist() == labels.tolist()
    )
    assert len(load(tmp_path, split="test")) == 3
    path = next(tmp_path.glob("train-images*"))
    assert load(path).fingerprint() == data.fingerprint()
    assert load(path, list("abcabc")).spec.classes == ("a", "b", "c")
    with pytest.raises(DataError, match="0 IDX image files for split='val'"):
        load(tmp_path, split="val")
    next(tmp_path.glob("train-labels*")).unlink()
    assert load(path).labels is None


def test_damaged_idx_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = idx(noise(6, 5, 4))
    cases = {
        "ends after": whole[:-1],
        "is longer": whole + b"x",
        "not an IDX file": b"\x01" + whole[1:],
        "within its header": whole[:9],
        "more than the free memory": struct.pack(">BBBBIII", 0, 0, 8, 3, 2**31, 2**16, 2**16),
    }
    for words, content in cases.items():
        for written in (content, gzip.compress(content)):
            path.write_bytes(written)
            with pytest.raises(DataError, match=words):
                load(path)
    path.write_bytes(gzip.compress(whole)[:-12])
    with pytest.raises(DataError, match=r"cannot be read|ends after"):
        load(path)


@pytest.mark.parametrize("num_labels", [1, 2])
def test_cifar_batches(tmp_path: Path, num_labels: int) -> None:
    records = noise(5, num_labels + 3072)
    records[:, :num_labels] %= 10
    names = ("data_batch_1.bin", "test_batch.bin") if num_labels == 1 else ("train.bin", "test.bin")
    (tmp_path / names[0]).write_bytes(records.tobytes())
    (tmp_path / names[1]).write_bytes(records[:2].tobytes())
    data = load(tmp_path)
    assert data.items.shape == (5, 3, 32, 32) and np.array_equal(data.items.reshape(5, -1), records[:, num_labels:])
    assert data.labels is not None and data.labels.tolist() == records[:, num_labels - 1].tolist()
    assert len(data.spec.classes) == (10 if num_labels == 1 else 100)
    assert len(load(tmp_path, split="test")) == 2 and len(load(tmp_path / names[0])) == 5
    meta = "batches.meta.txt" if num_labels == 1 else "fine_label_names.txt"
    (tmp_path / meta).write_text("\n".join(f"class {number}" for number in range(10)) + "\n\n")
    assert load(tmp_path).spec.classes[3] == "class 3"
    (tmp_path / meta).write_text("one\ntwo\n")
    with pytest.raises(DataError, match="only 2 class names"):
        load(tmp_path)
    with pytest.raises(DataError, match="split='val'"):
        load(tmp_path, split="val")


def test_packed_pictures_are_found_by_their_offsets(tmp_path: Path) -> None:
    files: list[bytes] = []
    for number in range(4):
        content = io.BytesIO()
        Image.fromarray(noise(4, 8, 8, 3)[number]).save(content, "PNG")
        files.append(content.getvalue())
    offsets = np.cumsum([0, *(len(content) - 8 for content in files)])
    body = np.frombuffer(b"".join(content[8:] for content in files), np.uint8)
    header = np.frombuffer(files[0][:8], np.uint8)
    np.savez(tmp_path / "a.npz", header=header, body=body, offsets=offsets, labels=[1, 0, 1, 0])
    data = load(tmp_path)  # a folder of one .npz is that file
    assert np.array_equal(data.items, noise(4, 8, 8, 3).transpose(0, 3, 1, 2))
    assert data.labels is not None and data.labels.tolist() == [1, 0, 1, 0]
    for bad in (offsets[::-1], offsets + 10, offsets - 5, offsets.astype(float)):
        np.savez(tmp_path / "a.npz", header=header, body=body, offsets=bad)
        with pytest.raises(DataError, match="offsets must be"):
            load(tmp_path)


def test_of_several_npz_the_one_of_the_split_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "set_train_v2.npz", images=noise(5, 4, 4))
    np.savez(tmp_path / "set_test_v2.npz", images=noise(3, 4, 4))
    (tmp_path / "README.txt").write_text("about it")
    assert (len(load(tmp_path)), len(load(tmp_path, split="test"))) == (5, 3)
    np.savez(tmp_path / "train.npz", images=noise(5, 4, 4))
    with pytest.raises(DataError, match=r"holds 3 .npz files, 2 of them named after split='train'"):
        load(tmp_path)


REAL = [
    ("fashion_mnist", "train", 60_000, (1, 28, 28), 10, 6000),
    ("mnist", "test", 10_000, (1, 28, 28), 10, 980),
    ("olivetti", "train", 400, (1, 112, 92), 40, 10),
    ("usps", "train", 7291, (1, 16, 16), 10, 1194),
    ("pneumoniamnist", "train", 4708, (1, 28, 28), 2, 1214),
]


@pytest.mark.parametrize(("name", "split", "count", "shape", "num_classes", "num_first"), REAL)
def test_real_data_sets(
    shared_data: Path, name: str, split: str, count: int, shape: tuple[int, ...], num_classes: int, num_first: int
) -> None:
    data = load(shared_data / name, split=split)
    assert (len(data), data.spec.shape, len(data.spec.classes)) == (count, shape, num_classes)
    assert data.labels is not None and int((data.labels == 0).sum()) == num_first and not data.unreadable
    assert data.items.dtype == np.uint8 and 30 < data.items[::50].mean() < 200


def test_packed_cifar10_has_the_pixels_that_pillow_finds(shared_data: Path) -> None:
    folder = shared_data / "cifar10"
    names = sorted(path.name for path in folder.iterdir() if path.suffix == ".npz")
    assert npz_of_split(folder, names, "train").name == "cifar10_train_jpegq75.npz"
    data = load(folder, split="test")
    assert data.items.shape == (10_000, 3, 32, 32) and data.labels is not None
    with np.load(npz_of_split(folder, names, "test")) as stored:
        start, end = stored["offsets"][777:779]
        content = stored["header"].tobytes() + stored["body"].tobytes()[start:end]
        assert np.array_equal(data.labels, stored["labels"])
    assert np.array_equal(data.items[777].transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(content))))
