"""Making shards: the same items as the source, whole or not at all, and going on after an interruption."""

import json
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset

from ganlib.data import Data, load, prepare
from ganlib.data.folders import files_below, natural, one_by_one
from ganlib.data.prepare import LOCK, write_shards
from ganlib.data.store import Options
from ganlib.errors import BusyError, DataError, MissingError, UsageError, WriteError


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photos(folder: Path, count: int = 10, *, side: int = 8, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number in range(count):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, side, side, 3)).save(path)
    return folder


def check_same(data: Data, expected: Data) -> None:
    every = np.arange(len(expected))
    assert data.spec == expected.spec and len(data) == len(expected)
    assert np.array_equal(data.take(every), expected.take(every))
    assert (data.labels is None) == (expected.labels is None)
    assert expected.labels is None or np.array_equal(data.labels, expected.labels)
    assert data.unreadable == expected.unreadable


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard_items", [3, 1000])
def test_shards_of_a_folder_hold_its_items_in_its_order(shard_items: int, tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 23)
    (source / "dog" / "5.png").write_bytes(b"no picture")
    (source / "dog" / "notes.txt").write_text("no picture either")
    data = prepare(source, tmp_path / "shards", shard_items=shard_items)
    check_same(data, load(source))
    assert len(data.unreadable) == 1 and data.spec.classes == ("cat", "dog")


def test_shards_are_plain_webdataset_tars(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 5)
    prepare(source, tmp_path / "shards", shard_items=4)
    assert set(files_in(tmp_path / "shards")) == {"shards.json", "index.npy", "shard-000000.tar", "shard-000001.tar"}
    with tarfile.open(tmp_path / "shards" / "shard-000001.tar") as tar:
        assert tar.getnames() == ["000000004.cls", "000000004.png"]
        label, picture = (tar.extractfile(name) for name in tar.getnames())
        assert label is not None and picture is not None and label.read() == b"1"
        assert np.array_equal(np.asarray(Image.open(picture)), noise(3, 8, 8, 3))


def modes() -> dict[str, list[Image.Image]]:
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 65_536, (8, 8), dtype=np.uint16))
    grey, colour = Image.fromarray(noise(1, 8, 8)), Image.fromarray(noise(2, 8, 8, 3))
    keyed = deep.copy()
    keyed.info["transparency"] = 5
    clear, solid = Image.fromarray(noise(3, 8, 8, 4)), colour.convert("RGBA")
    return {
        "grey": [grey, grey],
        "16 bits": [deep, deep],
        "16 bits among 8": [deep, grey],
        "16 bits among colours": [deep, colour],
        "colour among grey": [grey, colour],
        "palette": [colour.quantize(16), colour],
        "transparent": [clear, colour, grey],
        "opaque alpha": [solid, colour],
        "grey with opaque alpha": [grey.convert("LA"), grey],
        "16 bits and alpha": [deep, clear],
        "16 bits with a transparent grey": [keyed, keyed],
    }


@pytest.mark.parametrize("size", [None, (5, 6)])
@pytest.mark.parametrize("name", modes())
def test_pictures_become_what_they_become_in_memory(name: str, size: tuple[int, int] | None, tmp_path: Path) -> None:
    for number, picture in enumerate(modes()[name]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture.save(tmp_path / "photos" / f"{number}.png", transparency=picture.info.get("transparency"))
    expected = load(tmp_path / "photos", size=size)
    check_same(prepare(tmp_path / "photos", tmp_path / "shards", size=size, shard_items=1), expected)


def test_zips_splits_and_exif_are_read_as_by_load(tmp_path: Path) -> None:
    for split in ("train", "test"):
        photos(tmp_path / "set" / split, 6 if split == "train" else 4)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise(9, 8, 8, 3)).save(tmp_path / "set/test/cat/9.jpg", exif=turned)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path))
    for number, source in enumerate([tmp_path / "set", tmp_path / "set.zip"]):
        for split in ("train", "test"):
            data = prepare(source, tmp_path / f"{number}{split}", split=split)
            check_same(data, load(source, split=split))


@pytest.mark.parametrize(
    "array",
    [
        noise(0, 9, 4, 6),
        noise(0, 9, 4, 6, 3),
        noise(0, 9, 2, 5, 6),
        noise(0, 9, 4, 6).astype(np.uint16) * 257,
        noise(0, 9, 4, 6, 3).astype(np.float32) / 255,
        noise(0, 9, 4, 6).astype(np.int64),
        np.random.default_rng(0).normal(size=(9, 5)),
        noise(0, 9, 5),
    ],
    ids=["grey", "colour", "two channels", "16 bits", "floats", "whole numbers", "vectors", "vectors of bytes"],
)
def test_arrays_come_back_as_they_were(array: np.ndarray, tmp_path: Path) -> None:
    labels = [0, 1, 2] * 3
    check_same(prepare(load(array, labels), tmp_path / "shards", shard_items=4), load(array, labels))


def test_hundreds_of_classes_keep_their_numbers(tmp_path: Path) -> None:
    expected = load(noise(0, 300, 2, 2), np.arange(300)[::-1].copy())
    data = prepare(expected, tmp_path / "shards", shard_items=70)
    check_same(data, expected)
    assert data.batch(np.array([0, 299]))["label"].tolist() == [299, 0]
    check_same(load(tmp_path / "shards" / "shard-000000.tar"), load(expected.items[:70, 0], np.arange(300)[::-1][:70]))


def test_tars_of_others_are_prepared_without_what_cannot_be_read(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 6, classes=("a",))
    (source / "a" / "2.png").write_bytes(b"no picture")
    with tarfile.open(tmp_path / "others.tar", "w") as tar:
        for number in range(6):
            tar.add(source / "a" / f"{number}.png", f"x/{number}.png")
    data = prepare(tmp_path / "others.tar", tmp_path / "shards")
    assert len(data) == 5 and data.unreadable[0][0].startswith("x/2.png in ")
    assert np.array_equal(data.take(np.array([2])), noise(3, 8, 8, 3)[None].transpose(0, 3, 1, 2))


def test_an_interrupted_preparation_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 20)
    prepare(source, tmp_path / "whole", shard_items=4)
    steps = write_shards(source, tmp_path / "parts", size=None, split="train", shard_items=4)
    assert [next(steps), next(steps)] == [4, 8]
    steps.close()  # type: ignore[attr-defined]
    (tmp_path / "parts" / ".tmp-shard-000002.tar-ab").write_bytes(b"half of a shard")
    with pytest.raises(DataError, match="not prepared to its end; run the same"):
        load(tmp_path / "parts")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.tar")}
    assert len(made) == 2
    prepare(source, tmp_path / "parts", shard_items=4)
    assert files_in(tmp_path / "parts") == files_in(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == then for path, then in made.items()), "whole shards were made again"


def test_a_changed_source_or_size_begins_anew(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 20)
    next(write_shards(source, tmp_path / "shards", size=None, split="train", shard_items=4))
    (source / "cat" / "0.png").unlink()
    check_same(prepare(source, tmp_path / "shards", shard_items=4), load(source))
    next(write_shards(source, tmp_path / "small", size=6, split="train", shard_items=4))
    check_same(prepare(source, tmp_path / "small", size=5, shard_items=9), load(source, size=5))
    assert len(list((tmp_path / "small").glob("*.tar"))) == 3


def test_other_folders_are_refused_and_left_alone(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shard-000000.tar").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not empty and holds no shards"):
        prepare(source, tmp_path / "mine")
    assert files_in(tmp_path / "mine") == {"shard-000000.tar": b"precious"}
    prepare(source, tmp_path / "shards")
    with pytest.raises(UsageError, match="holds shards already"):
        prepare(source, tmp_path / "shards")
    with pytest.raises(UsageError, match="shard_items=0"):
        prepare(source, tmp_path / "others", shard_items=0)
    with pytest.raises(MissingError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "others")


def test_a_full_disk_is_one_clear_line_and_nothing_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photos(tmp_path / "photos")
    original, calls = os.fsync, iter(range(100))

    def fsync(descriptor: int) -> None:
        if next(calls) == 6:
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        WriteError, match=r"cannot write .*shards.*: No space left on device; .*run the same command again"
    ):
        prepare(source, tmp_path / "shards", shard_items=3)
    assert not list((tmp_path / "shards").glob(".tmp*"))
    monkeypatch.undo()
    check_same(prepare(source, tmp_path / "shards", shard_items=3), load(source))


def test_pictures_of_several_sizes_name_the_one_and_the_remedy(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 8)
    Image.fromarray(noise(0, 9, 7, 3)).save(source / "cat" / "4.png")
    with pytest.raises(DataError, match=r"cat/4.png in .* has 7 x 9 pixels, those before it 8 x 8; pass size=64"):
        prepare(source, tmp_path / "shards", shard_items=2)
    check_same(prepare(source, tmp_path / "shards", size=8), load(source, size=8))


def test_more_bad_than_good_is_an_error(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 4)
    for name in ("cat/0.png", "cat/2.png", "dog/1.png"):
        (source / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 4 pictures .* cannot be read"):
        prepare(source, tmp_path / "shards")


def test_names_come_folder_by_folder_in_the_order_of_the_whole(tmp_path: Path) -> None:
    names = [
        "a/2.png",
        "a/10.png",
        "a1/1.png",
        "a 1/1.png",
        "a.png",
        "b/c/1.png",
        "b/c2/1.png",
        "b/c.png",
        "10/x",
        "9/x",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert list(files_below(tmp_path, [])) == sorted(names, key=natural)


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        source = photos(tmp_path / f"photos{count}", count, side=64)
        tracemalloc.start()
        prepare(source, tmp_path / f"shards{count}", shard_items=20)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # 64 wait to be written at most. The least of two: now and then a table of the interpreter grows by megabytes.
    few, many = peak(64), min(peak(192), peak(193))
    assert many - few < 0.25 * 128 * 64 * 64 * 3


def test_the_command_line_tells_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ganlib.cli import main

    source = photos(tmp_path / "photos", 6)
    (source / "dog" / "1.png").write_bytes(b"no picture")
    main(["prepare", str(source), "--out", str(tmp_path / "shards"), "--size", "6x5", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["items"], told["shape"], told["classes"], told["unreadable"]) == (5, [3, 6, 5], 2, 1)
    assert told["first_unreadable"].startswith("dog/1.png: not a picture")


def test_pictures_that_were_mended_under_their_names_are_read_again(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 8)
    good = {path: path.read_bytes() for path in sorted(source.rglob("*.png"))}
    for path in list(good)[:5]:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="5 of 8 pictures"):
        prepare(source, tmp_path / "shards")
    for path, content in good.items():
        path.write_bytes(content)
    assert len(prepare(source, tmp_path / "shards")) == 8


def test_a_second_writer_is_kept_out_and_a_refused_source_leaves_no_folder(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 6)
    first = write_shards(source, tmp_path / "shards", size=None, split="train", shard_items=2)
    next(first)
    with pytest.raises(BusyError, match="being prepared by another process"):
        prepare(source, tmp_path / "shards", size=16)
    assert list(first) == [4, 6] and len(load(tmp_path / "shards")) == 6
    with pytest.raises(MissingError):
        prepare(tmp_path / "nowhere", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("change", [lambda content: content[:-512], lambda content: content + bytes(512)])
def test_a_kept_shard_of_another_size_is_made_again(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 9)
    prepare(source, tmp_path / "whole", shard_items=4)
    steps = write_shards(source, tmp_path / "parts", size=None, split="train", shard_items=4)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    kept = tmp_path / "parts" / "shard-000000.tar"
    kept.write_bytes(change(kept.read_bytes()))
    prepare(source, tmp_path / "parts", shard_items=4)
    assert kept.read_bytes() == (tmp_path / "whole" / "shard-000000.tar").read_bytes()


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, original = photos(tmp_path / "photos", 10), os.scandir
    (source / "dog" / "shut").mkdir()

    def scandir(path: Path) -> Any:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    data = prepare(source, tmp_path / "shards")
    assert len(data) == 10 and [why for _, why in data.unreadable] == ["Permission denied"]
    assert Path(data.unreadable[0][0]) == source / "dog" / "shut"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 4)
    os.mkfifo(source / "dog" / "9.png")
    listed, _ = one_by_one(source, Options(), [])
    assert sorted(name for name, _, _ in listed) == ["cat/0.png", "cat/2.png", "dog/1.png", "dog/3.png"]


def test_a_folder_that_another_fills_meanwhile_is_left_alone(tmp_path: Path) -> None:
    source, out = photos(tmp_path / "photos", 6), tmp_path / "shards"

    class Slow(Dataset):
        """While its first item is read, another process prepares the same folder."""

        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> np.ndarray:
            if not out.exists():
                prepare(source, out)
            return noise(number, 4, 4, 3)

    with pytest.raises(UsageError, match="holds shards already"):
        prepare(Slow(), out)
    check_same(load(out), load(source))


def test_the_lock_is_never_taken_away_from_one_who_waits(tmp_path: Path) -> None:
    """Removed after its release, two could hold it: one the file that was removed, the other a new one."""
    source, out = photos(tmp_path / "photos", 6), tmp_path / "shards"
    steps = write_shards(source, out, size=None, split="train", shard_items=2)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert (out / LOCK).exists(), "an unfinished folder keeps its lock file"
    prepare(source, out, shard_items=2)
    assert not (out / LOCK).exists()


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.tgz", "photos.tar.xz"])
def test_a_compressed_tar_is_named_as_that(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    for read in (load, lambda path: prepare(path, tmp_path / "shards")):
        with pytest.raises(DataError, match=rf"{name} is a compressed tar.*unpack it, and pass the folder"):
            read(tmp_path / name)
