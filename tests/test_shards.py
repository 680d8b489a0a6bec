"""Reading shards: the same items and training as from memory, tars of others, and every kind of damage."""

import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganlib import GAN
from ganlib.data import Data, load, prepare, sharded, shards
from ganlib.errors import DamagedError, DataError, GanlibError, MissingError, RunError, UsageError
from ganlib.recipes.r3 import r3
from ganlib.training import checkpoint


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def tar_of(path: Path, members: Mapping[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(90):
        path = folder / ("even", "odd")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(noise(number, 8, 8, 3)))
    return folder


@pytest.fixture
def made(photos: Path, tmp_path: Path) -> Path:
    """Four shards of the photos."""
    prepare(photos, tmp_path / "shards", shard_items=25)
    return tmp_path / "shards"


def trained(data: Path, items: int, run: Path | None = None) -> GAN:
    recipe = r3(network="mlp", width=16, latent=8, batch_items=16)
    return GAN(recipe, seed=3).fit(data, items=items, run=run, progress="none", checkpoint_seconds=0.0)


def weights(gan: GAN) -> dict[str, torch.Tensor]:
    return gan.model_.sampler.generator.state_dict()


def check_equal(left: GAN, right: GAN) -> None:
    assert weights(left).keys() == weights(right).keys()
    assert all(torch.equal(tensor, weights(right)[name]) for name, tensor in weights(left).items())


def test_training_on_shards_is_training_on_the_folder(photos: Path, made: Path) -> None:
    check_equal(trained(made, 96), trained(photos, 96))


def test_a_run_on_shards_goes_on_in_the_middle_of_an_epoch(photos: Path, made: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = trained(made, 128, whole)
    trained(made, 128, parts)
    kept, *later = checkpoint.listed(parts / "checkpoints")
    assert later and int(kept.name) % 81, "of 90 items 9 are held out"
    for folder in later:
        shutil.rmtree(folder)
    check_equal(trained(made, 128, parts), expected)
    for name in ("metrics.jsonl", "data.json", "validation.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    prepare(load(photos).subset(np.arange(89)), tmp_path / "fewer")
    with pytest.raises(RunError, match="the data are not those"):
        trained(tmp_path / "fewer", 400, parts)


def test_batches_come_in_the_order_of_data_in_memory(photos: Path, made: Path) -> None:
    ours, theirs = load(made).batches(7, 5, 40), load(photos).batches(7, 5, 40)
    for _ in range(30):
        batch, expected = next(ours), next(theirs)
        assert torch.equal(batch["real"], expected["real"]) and torch.equal(batch["label"], expected["label"])


def test_threads_read_the_same(photos: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 90, 200)
    monkeypatch.setattr(shards, "num_threads", lambda: 4)
    assert np.array_equal(load(made).take(rows), load(photos).take(rows))
    (made / "shard-000002.tar").write_bytes(b"")
    with pytest.raises(GanlibError):
        load(made).take(rows)


def test_splits_and_subsets_copy_no_items_and_nothing_is_held_per_item_but_its_place(photos: Path, made: Path) -> None:
    data = load(made)
    assert data.items.members.places.nbytes == 8 * 90
    for part, expected in zip(data.split(20, 1), load(photos).split(20, 1), strict=True):
        assert part.items is data.items
        every = np.arange(len(part))
        assert np.array_equal(part.take(every), expected.take(every)) and np.array_equal(part.labels, expected.labels)


def test_sizes_and_labels_may_be_given_at_reading(photos: Path, made: Path, tmp_path: Path) -> None:
    small = load(made, size=5)
    assert small.spec.shape == (3, 5, 5) and np.array_equal(small.take(np.arange(90)), load(photos, size=5).items)
    other = load(made, np.arange(90) % 3)
    assert other.labels is not None and other.spec.classes == ("0", "1", "2") and other.labels[5] == 2
    vectors = prepare(np.random.default_rng(0).normal(size=(9, 5)), tmp_path / "vectors")
    assert len(vectors) == 9
    with pytest.raises(UsageError, match="not resized"):
        load(tmp_path / "vectors", size=4)
    with pytest.raises(UsageError, match="no split 'test'"):
        load(made, split="test")


def test_fingerprints_need_no_reading_and_tell_data_apart(photos: Path, made: Path, tmp_path: Path) -> None:
    data, again = load(made), load(made)
    assert data.fingerprint() == again.fingerprint() and data.fingerprint()["label_counts"] == [45, 45]
    parts = [*data.split(20, 0), *data.split(20, 1), load(made, size=5), load(made, np.arange(90) % 3)]
    assert len({part.fingerprint()["sha256"] for part in parts}) == 6
    for path in made.glob("*.tar"):
        path.unlink()
    assert data.fingerprint() == again.fingerprint()
    changed = tmp_path / "changed"
    prepare(load(photos).subset(np.arange(90)[::-1].copy()), changed)
    assert load(changed).fingerprint()["sha256"] != data.fingerprint()["sha256"]


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (lambda folder: cut_off(folder / "shard-000001.tar"), DamagedError, r"000001.tar has .* cut off or changed"),
        (lambda folder: (folder / "shard-000001.tar").unlink(), MissingError, "shard-000001.tar is not there"),
        (lambda folder: cut_off(folder / "index.npy"), DamagedError, "index.npy is not as it was written"),
        (lambda folder: (folder / "index.npy").unlink(), DamagedError, "index.npy is not as it was written"),
        (lambda folder: cut_off(folder / "shards.json"), DamagedError, "shards.json is not valid JSON"),
        (lambda folder: (folder / "shards.json").write_text('{"format": 1}'), DamagedError, "not as it was written"),
        (lambda folder: (folder / "shards.json").write_text('{"format": 9}'), DataError, "format 9.*update ganlib"),
    ],
)
def test_damaged_shards_are_refused_at_opening(damage, kind: type[Exception], message: str, made: Path) -> None:
    damage(made)
    with pytest.raises(kind, match=message):
        load(made)


def test_doctor_reads_all_shards_and_names_those_that_changed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed byte of a padding block keeps the size and every picture: only the digest knows."""
    from ganlib.cli import main

    def doctor() -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", str(made), "--json"])
        return int(str(ended.value.code)), json.loads(capsys.readouterr().out)

    assert doctor() == (0, {"healthy": True, "changed": []})
    second = made / "shard-000001.tar"
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    load(made)
    assert doctor() == (1, {"healthy": False, "changed": [str(second)]})


def test_what_changes_under_a_training_is_named_with_its_member(made: Path) -> None:
    data, second = load(made), made / "shard-000001.tar"
    before = second.read_bytes()
    place = before.index(b"IDAT") + 40
    second.write_bytes(before[:place] + bytes(20) + before[place + 20 :])
    with pytest.raises(DataError, match=r"000000025.png in .*shard-000001.tar cannot be read: .*"):
        data.take(np.arange(90))
    second.write_bytes(before[:1600])
    with pytest.raises(DamagedError, match=r"shard-000001.tar ends within 000000025.png .*cut off"):
        data.take(np.arange(25, 27))
    second.unlink()
    with pytest.raises(MissingError, match=r"shard-000001.tar is no longer there"):
        next(data.batches(90, 0, 0))
    assert len(data.take(np.arange(25))) == 25


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_others_are_read_whatever_their_form(form: int, tmp_path: Path) -> None:
    deep = "/".join(["a" * 30] * 5) if form != tarfile.USTAR_FORMAT else "a"
    first = {f"{deep}/{n}.webp": encoded(noise(n, 6, 6, 3), "WEBP") for n in range(3)} | {"._0.png": b"of macOS"}
    second = {
        name: content
        for n in range(3, 6)
        for name, content in {f"{n}.txt": b"a caption", f"{n}.input.png": encoded(noise(n, 6, 6, 3))}.items()
    }
    tar_of(tmp_path / "b.tar", second, form)
    tar_of(tmp_path / "a.tar", first, form)
    (tmp_path / "README.md").write_text("about the tars")
    data = load(tmp_path)
    assert data.labels is None and data.spec.shape == (3, 6, 6) and data.on_disk and len(data) == 6
    expected = np.stack([noise(n, 6, 6, 3) for n in range(6)]).transpose(0, 3, 1, 2)
    assert np.array_equal(data.take(np.arange(6)), expected)
    assert np.array_equal(load(tmp_path / "b.tar").take(np.array([2])), expected[5:])
    small = load([Image.fromarray(noise(n, 6, 6, 3)) for n in range(6)], size=4)
    assert np.array_equal(load(tmp_path, size=4).take(np.arange(6)), small.items)


@pytest.mark.parametrize(
    ("texts", "classes", "numbers"),
    [
        (["10", "9", "9"], ("9", "10"), [1, 0, 0]),
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
    ],
)
@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_labels_of_others(
    suffix: str, texts: list[str], classes: tuple[str, ...], numbers: list[int], tmp_path: Path
) -> None:
    members: dict[str, bytes] = {}
    for number, text in enumerate(texts):
        value = int(text) if text.isdecimal() else text
        label = text if suffix == "cls" else json.dumps({"label": value, "url": "x"})
        pair = [(f"{number}.{suffix}", label.encode() + b"\n"), (f"{number}.jpg", encoded(noise(number, 6, 6), "JPEG"))]
        members |= dict(pair if number % 2 else pair[::-1])
    data = load(tar_of(tmp_path / "a.tar", members))
    assert data.spec.classes == classes and data.labels is not None and data.labels.tolist() == numbers
    assert "label" in data.batch(np.array([0]))


GOOD = {f"{n}.png": encoded(noise(n, 6, 6)) for n in range(4)}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (GOOD | {"9.png": encoded(noise(9, 5, 7))}, r"several sizes, width x height: 7 x 5, 6 x 6; pass size=64"),
        (GOOD | {"9.png": b"no picture"}, r"9.png in .*a.tar cannot be read: not a picture.*ganlib prepare"),
        (GOOD | {"0.cls": b"3"}, r"4 of 4 items .* have no label .* first 0.png in .*a.tar"),
        ({"0.cls": b"1", **GOOD}, r"3 of 4 items .* have no label .*1.png in .*a.tar"),
        (GOOD | {"9.cls": b"\xff\xfe", "9.png": GOOD["0.png"]}, r"9.cls in .* is no label"),
        (GOOD | {"9.json": b'{"label": [1]}', "9.png": GOOD["0.png"]}, r"9.json in .* is no label: \[1\]"),
        (GOOD | {"9.a.png": GOOD["0.png"], "9.b.png": GOOD["0.png"]}, r"two pictures for the item '9'.*9.b.png"),
        ({"0.png": GOOD["0.png"]}, r"1 pictures in its tars; at least 2"),
    ],
)
def test_tars_that_cannot_be_used_are_refused(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(tar_of(tmp_path / "a.tar", members))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.8])
def test_a_tar_that_is_cut_off_anywhere_is_damaged(share: float, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {f"{n}.png": encoded(noise(n, 40, 40)) for n in range(20)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DamagedError, match=r"a.tar is damaged"):
        load(path)
    path.write_bytes(content[:0])
    with pytest.raises(DamagedError, match=r"a.tar is damaged"):
        load(path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", GOOD)
    content = bytearray(path.read_bytes())
    place = content.index(b"2.png")
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"no header of a member at byte {place:,}"):
        load(path)


def test_pictures_that_were_not_looked_at_are_checked_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "_LOOKED_AT", 2)
    clear = np.dstack([noise(1, 6, 6, 3), noise(2, 6, 6)])
    for odd, message in [
        (noise(0, 6, 6, 3), "9.png in .* it has colour"),
        (clear, "9.png in .* it has "),
        (noise(0, 5, 6), r"9.png in .* is uint8 of shape \(1, 5, 6\).*--size 64"),
    ]:
        data = load(tar_of(tmp_path / "a.tar", {"0.png": GOOD["0.png"], "9.png": encoded(odd), "z.png": GOOD["1.png"]}))
        with pytest.raises(DataError, match=message):
            data.take(np.arange(3))


def test_a_folder_of_pictures_with_a_tar_beside_them_is_one_of_pictures(tmp_path: Path) -> None:
    tar_of(tmp_path / "backup.tar", GOOD)
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    data: Data = load(tmp_path)
    assert not data.on_disk and len(data) == 4


def test_of_two_labels_of_an_item_one_makes_its_class(tmp_path: Path) -> None:
    members = {}
    for number in range(4):
        members[f"{number}.json"] = json.dumps({"label": f"name {number % 2}"}).encode()
        members[f"{number}.cls"] = str(number % 2).encode()
        members[f"{number}.png"] = encoded(noise(number, 6, 6))
    data = load(tar_of(tmp_path / "a.tar", members))
    assert data.spec.classes == ("0", "1") and data.labels is not None and data.labels.tolist() == [0, 1, 0, 1]
