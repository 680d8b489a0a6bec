"""Pictures out: files that others can read, and that are whole or absent."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.data.show import grid, save_animation, save_folder, save_npz, save_png, scatter
from ganlib.errors import DataError, UsageError, WriteError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_every_pixel(tmp_path: Path, channels: int) -> None:
    picture = noise(5, 7, channels)
    save_png(tmp_path / "new" / "a.png", picture)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert np.array_equal(np.asarray(image).reshape(5, 7, channels), picture)


def test_png_keeps_sixteen_bits(tmp_path: Path) -> None:
    picture = np.array([[[0], [65_535], [257]]], np.uint16)
    save_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image)[..., None], picture)
    for bad in (np.zeros((2, 2, 3), np.uint16), np.zeros((2, 2, 5), np.uint8), np.zeros((2, 2, 3), np.float32)):
        with pytest.raises(DataError, match="a picture of shape"):
            save_png(tmp_path / "b.png", bad)
    assert not (tmp_path / "b.png").exists()


def test_folder_names_hold_number_and_class(tmp_path: Path) -> None:
    pictures = noise(3, 4, 4, 3)
    assert save_folder(tmp_path / "out", iter(pictures), iter([1, 0, 1]), ["a/b: c", "dog"]) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "000000-dog.png",
        "000001-a_b_c.png",
        "000002-dog.png",
    ]
    with Image.open(tmp_path / "out" / "000001-a_b_c.png") as image:
        assert np.array_equal(np.asarray(image), pictures[1])
    assert save_folder(tmp_path / "plain", pictures) == 3 and (tmp_path / "plain" / "000002.png").is_file()
    with pytest.raises(DataError, match="only 1 labels"):
        save_folder(tmp_path / "short", pictures, [0])


def test_grid_puts_each_picture_in_its_place() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    sheet = grid(pictures, columns=2, scale=4)
    assert sheet.shape == (2 + 3 * (8 + 2), 2 + 2 * (12 + 2), 1)
    for number in range(5):
        top, left = 2 + number // 2 * 10, 2 + number % 2 * 14
        assert (sheet[top : top + 8, left : left + 12] == number).all()
    assert (sheet[:2] == 255).all() and (sheet[22:30, 16:] == 255).all()


def test_grids_of_small_pictures_are_enlarged_and_large_ones_are_not() -> None:
    assert 512 <= grid(noise(64, 8, 8, 1)).shape[1] <= 700 and 512 <= grid(noise(1, 8, 8, 3)).shape[1] <= 700
    assert grid(noise(4, 300, 300, 3)).shape == (606, 606, 3)
    assert grid(noise(4, 9, 9, 7)).shape[2] == 3
    with pytest.raises(DataError, match="at least one"):
        grid(noise(0, 4, 4, 3))
    with pytest.raises(UsageError, match="columns=0"):
        grid(noise(2, 4, 4, 3), columns=0)


def test_alpha_shows_a_checkerboard() -> None:
    pictures = np.zeros((1, 32, 32, 4), np.uint8)
    pictures[0, :16, :, 3] = 255
    sheet = grid(pictures, scale=1)
    assert sheet.shape[2] == 3 and (sheet[2:18, 2:34] == 0).all() and set(np.unique(sheet[18:34, 2:34])) == {204, 255}
    assert grid(noise(2, 4, 4, 2)).shape[2] == 1


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp"])
def test_animations_have_all_frames_and_their_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_animation(path, iter(noise(4, 16, 16, 3)), 250)
    with Image.open(path) as image:
        assert image.n_frames == 4 and image.size == (16, 16)  # type: ignore[attr-defined]
        image.seek(1)
        image.load()
        assert image.info["duration"] == 250


def test_impossible_animations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.mp4.*accepted are \.gif"):
        save_animation(tmp_path / "a.mp4", [noise(4, 4, 3)])
    with pytest.raises(DataError, match="0 frames"):
        save_animation(tmp_path / "a.gif", [])
    with pytest.raises(DataError, match="one size"):
        save_animation(tmp_path / "a.gif", [noise(4, 4, 3), noise(5, 4, 3)])


def test_npz_in_batches_is_what_numpy_reads(tmp_path: Path) -> None:
    images, labels = noise(10, 4, 5, 3), np.arange(10)
    save_npz(tmp_path / "whole.npz", images, labels)
    save_npz(tmp_path / "parts.npz", (images[start : start + 3] for start in range(0, 10, 3)), labels, 10)
    for name in ("whole.npz", "parts.npz"):
        with np.load(tmp_path / name, allow_pickle=False) as stored:
            assert np.array_equal(stored["images"], images) and np.array_equal(stored["labels"], labels)
            assert stored["labels"].dtype == np.int64
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "parts.npz").read_bytes()


def test_npz_takes_constant_memory(tmp_path: Path) -> None:
    import tracemalloc

    def batches() -> Iterator[np.ndarray]:
        for _ in range(100):
            yield np.zeros((100, 32, 32, 3), np.uint8)

    tracemalloc.start()
    save_npz(tmp_path / "a.npz", batches(), num_items=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 30e6 and peak < 5e6


def test_failed_npz_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_npz(path, noise(2, 3, 3, 1))
    before = path.read_bytes()

    def failing() -> Iterator[np.ndarray]:
        yield noise(2, 3, 3, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_npz(path, failing(), num_items=4)
    for batches, count in (([noise(2, 3, 3, 1)], 3), ([noise(2, 3, 3, 1), noise(1, 3, 4, 1)], 3), ([], 0)):
        with pytest.raises(DataError):
            save_npz(path, batches, num_items=count)
    with pytest.raises(UsageError, match="num_items="):
        save_npz(path, [noise(2, 3, 3, 1)])
    with pytest.raises(DataError, match="1 labels for 2 images"):
        save_npz(path, [noise(2, 3, 3, 1)], np.zeros(1, np.int64), 2)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (
        lambda: save_png(tmp_path / "file" / "a.png", noise(2, 2, 3)),
        lambda: save_folder(tmp_path / "file", noise(1, 2, 2, 3)),
        lambda: save_npz(tmp_path / "file" / "a.npz", noise(2, 2, 2, 3)),
    ):
        with pytest.raises(WriteError, match="file"):
            write()


def test_scatter_shows_points_where_they_are() -> None:
    points = np.concatenate([np.zeros((200, 2)), np.ones((1, 2))])
    picture = scatter(points, np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert picture.shape == (512, 512, 3) and picture.dtype == np.uint8
    orange = (picture[..., 0] > 200) & (picture[..., 2] < 60)
    rows, columns = np.nonzero(orange)
    assert rows.max() > 350 > 150 > rows.min() and columns.max() > 350 > 150 > columns.min()
    Image.open(io.BytesIO(_png_bytes(picture))).verify()
    with pytest.raises(DataError, match="1 column"):
        scatter(np.zeros((3, 1)))


def _png_bytes(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()
