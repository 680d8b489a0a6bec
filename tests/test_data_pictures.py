"""Picture files in: every mode, every kind of damage, every way to hold them."""

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.data import Data, decode, load
from ganlib.data.images import SUFFIXES, fit
from ganlib.errors import DataError, MissingError, UsageError


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def colour(seed: int = 0, height: int = 8, width: int = 6) -> Image.Image:
    return Image.fromarray(noise(seed, height, width, 3))


def folder_of(tmp_path: Path, *pictures: Image.Image, suffix: str = ".png") -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}{suffix}")
    return folder


def test_colour_png_keeps_its_pixels_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        colour(number).save(tmp_path / f"{number}.png")
    data = load(tmp_path)
    assert data.items.shape == (3, 3, 8, 6) and data.spec.layout == "HWC" and data.labels is None
    for row, number in enumerate((1, 9, 10)):
        assert np.array_equal(data.items[row], noise(number, 8, 6, 3).transpose(2, 0, 1))
    assert np.array_equal(decode(data.spec, data.batch(np.array([2]))["real"])[0], noise(10, 8, 6, 3))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".gif", ".jpg"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    assert suffix in SUFFIXES
    flat = [Image.new("RGB", (6, 8), (200, 100, 50)), Image.new("RGB", (6, 8), (10, 20, 30))]
    items = load(folder_of(tmp_path, *flat, suffix=suffix)).items
    expected = np.array([[200, 100, 50], [10, 20, 30]])[:, :, None, None]
    assert np.abs(items.astype(int) - expected).max() <= 4  # of the lossy ones


MODES: dict[str, tuple[Callable[[], Image.Image], int]] = {
    "1": (lambda: colour().convert("1"), 1),
    "L": (lambda: colour().convert("L"), 1),
    "LA opaque": (lambda: colour().convert("LA"), 1),
    "P": (lambda: colour().quantize(256), 3),
    "RGBA opaque": (lambda: colour().convert("RGBA"), 3),
    "CMYK": (lambda: colour().convert("CMYK"), 3),
    "YCbCr": (lambda: colour().convert("YCbCr"), 3),
    "PA": (lambda: colour().convert("P").convert("PA"), 3),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_become_grey_or_colour(mode: str) -> None:
    make, channels = MODES[mode]
    data = load([make(), make()])
    assert data.items.shape == (2, channels, 8, 6) and data.items.dtype == np.uint8
    plain = make().convert("L" if channels == 1 else "RGB")
    assert np.array_equal(decode(data.spec, data.batch(np.array([0]))["real"])[0], np.asarray(plain))


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    items = load(folder_of(tmp_path, red, red, suffix=".jpg")).items
    assert items[0, 0].mean() > 200 and items[0, 1].mean() < 60


def test_one_transparent_picture_makes_all_rgba_and_the_others_opaque() -> None:
    clear = colour().convert("RGBA")
    clear.putpixel((0, 0), (1, 2, 3, 0))
    items = load([clear, colour(1).convert("L")]).items
    assert items.shape == (2, 4, 8, 6)
    assert items[0, 3, 0, 0] == 0 and items[0, 3].sum() == 255 * 47 and (items[1, 3] == 255).all()


def test_transparent_palette_keeps_its_alpha(tmp_path: Path) -> None:
    palette = colour().quantize(16)
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(2):
        palette.save(folder / f"{number}.png", transparency=palette.getpixel((0, 0)))
    items = load(folder).items
    assert items.shape[1] == 4 and items[0, 3, 0, 0] == 0 and items[0, 3].max() == 255


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_survive_the_round_trip(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (8, 6), dtype=np.uint16)
    values[0, :2] = 0, 65_535
    data = load(folder_of(tmp_path, Image.fromarray(values), Image.fromarray(values), suffix=suffix))
    assert data.items.dtype == np.uint16 and data.spec.dtype == "uint16"
    assert np.array_equal(decode(data.spec, data.batch(np.array([1]))["real"])[0], values)
    small = load(tmp_path / "photos", size=(4, 3))
    assert small.items.dtype == np.uint16 and abs(float(small.items.mean()) - float(values.mean())) < 6000


def test_sixteen_bits_among_eight_are_reduced(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((8, 6), 65_535, np.uint16))
    items = load(folder_of(tmp_path, deep, colour().convert("L"))).items
    assert items.dtype == np.uint8 and (items[0] == 255).all() and np.array_equal(items[1, 0], colour().convert("L"))


def test_decimal_pixels_and_32_bits_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, colour().convert("L"), colour(1).convert("L"), colour(2).convert("L"))
    Image.fromarray(noise(0, 8, 6).astype(np.float32)).save(folder / "f.tiff")
    Image.fromarray(np.full((8, 6), 70_000, np.int32)).save(folder / "i.tiff")
    data = load(folder)
    assert len(data) == 3 and [name for name, _ in data.unreadable] == ["f.tiff", "i.tiff"]
    assert "mode 'F'" in data.unreadable[0][1] and "70000" in data.unreadable[1][1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # the top left quarter is white
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "ab":
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f"{name}{suffix}", exif=exif)
    for size in (None, (16, 32), (8, 16)):
        items = load(tmp_path, size=size).items
        height, width = size or (16, 32)
        assert items.shape == (2, 3, height, width)
        white = items[0].mean(0) > 128
        assert white[: height // 2 - 1, : width // 2 - 1].all() and not white[height // 2 + 1 :].any()
        assert not white[:, width // 2 + 1 :].any()


def test_mixed_sizes_say_which_and_the_remedy_works(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, colour(), colour(1), colour(2, 20, 10))
    with pytest.raises(DataError, match=r"2 sizes.*6 x 8 \(2, such as 0.png\).*10 x 20 \(1, such as 2.png\).*size=64"):
        load(folder)
    assert load(folder, size=64).items.shape == (3, 3, 64, 64)


def test_resize_cuts_the_middle() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    assert (np.asarray(fit(Image.fromarray(wide), (5, 5)))[:, 1:4] > 240).all()
    items = load([Image.fromarray(wide), Image.fromarray(wide)], size=10).items
    assert items.shape == (2, 1, 10, 10) and (items == 255).all()


def test_draft_and_full_decoding_agree(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:512, :768]
    smooth = np.stack([rows / 2, columns / 3, 128 + 100 * np.sin(columns * 2 * np.pi / 16)], -1).astype(np.uint8)
    for suffix in (".jpg", ".png"):
        folder_of(tmp_path, Image.fromarray(smooth), Image.fromarray(smooth), suffix=suffix).rename(
            tmp_path / suffix[1:]
        )
    small = [load(tmp_path / kind, size=(128, 96)).items.astype(int) for kind in ("jpg", "png")]
    assert np.abs(small[0] - small[1])[:, 2].mean() <= 3


@pytest.mark.parametrize("size", [0, -1, 100_000, (8, 0)])
def test_impossible_sizes_are_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="size="):
        load("digits", size=size)


def test_class_folders_become_labels(tmp_path: Path) -> None:
    for number, name in enumerate(("dog/1", "cat/a/2", "cat/10", ".hidden/3", "dog/.4", "__MACOSX/5")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour(number).save(path)
    data = load(tmp_path)
    assert data.spec.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 0, 1]
    colour().save(tmp_path / "loose.png")
    assert load(tmp_path).labels is None


def test_split_folders_are_splits_and_not_classes(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for number in range(2 * count):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            colour(number).save(path)
    assert (len(load(tmp_path)), len(load(tmp_path, split="test"))) == (6, 4)
    assert load(tmp_path, split="test").spec.classes == ("a", "b")
    with pytest.raises(DataError, match=r"split='dev'.*test, train"):
        load(tmp_path, split="dev")
    with pytest.raises(DataError, match="split='test' means nothing"):
        load(tmp_path / "train", split="test")


def test_given_labels_follow_the_files_and_skip_the_unreadable(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, colour(), colour(1), colour(2))
    (folder / "1.png").write_bytes(b"no")
    data = load(folder, ["x", "y", "z"])
    assert data.spec.classes == ("x", "y", "z") and data.labels is not None and data.labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="2 labels for 3 items"):
        load(folder, [0, 1])


def bomb() -> bytes:
    rows = zlib.compress(bytes(1 + 9000 // 8) * 9000)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_bad_files_among_good_ones_are_listed_with_their_reason(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(colour(number, 32, 32) for number in range(8)))
    whole = (folder / "0.png").read_bytes()
    bad = {
        "bomb.png": (bomb(), "million"),
        "big.png": (bomb().replace(struct.pack(">II", 9000, 9000), struct.pack(">II", 90_000, 9000)), ""),
        "cut.png": (whole[: len(whole) // 2], "truncated"),
        "empty.jpg": (b"", "empty"),
        "text.png": (b"hello", "not a picture"),
        "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    (folder / "lost.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop").symlink_to(folder)
    (folder / "renamed.jpg").write_bytes(whole)
    data = load(folder)
    assert len(data) == 9 and "pipe.png" not in dict(data.unreadable)
    assert sorted(dict(data.unreadable)) == sorted([*bad, "lost.png"])
    assert all(words in dict(data.unreadable)[name] for name, (_, words) in bad.items())
    for row, seed in ((7, 7), (8, 0)):  # those behind a bad one move up as they are
        assert np.array_equal(data.items[row], noise(seed, 32, 32, 3).transpose(2, 0, 1))


def test_mostly_unreadable_is_an_error_with_examples(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, colour(), colour(1))
    for number in range(7):
        (folder / f"bad{number}.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"7 of 9 pictures.*bad0.png: not a picture.*bad4.png.*; \.\.\."):
        load(folder)


def test_too_few_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, colour())
    with pytest.raises(DataError, match="1 readable picture; at least 2"):
        load(folder)
    with pytest.raises(DataError, match=r"one picture.*at least 2"):
        load(folder / "0.png")
    (folder / "0.png").rename(folder / "0.txt")
    (folder / "x.csv").touch()
    with pytest.raises(DataError, match=r"1 \.txt, 1 \.csv; accepted are"):
        load(folder)
    with pytest.raises(MissingError, match=r"nearest names.*photos"):
        load(tmp_path / "photo")
    with pytest.raises(UsageError, match="not a path"):
        load("")
    with pytest.raises(UsageError, match="cannot read data from int"):
        load(3)


def test_a_damaged_header_of_another_size_is_unreadable_and_not_a_second_size(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(colour(number, 32, 32) for number in range(4)), suffix=".bmp")
    content = (folder / "3.bmp").read_bytes()
    (folder / "3.bmp").write_bytes(content[:22] + struct.pack("<i", 999) + content[26:])
    data = load(folder)
    assert len(data) == 3 and data.unreadable[0][0] == "3.bmp"


def test_two_hundred_mutations_end_as_unreadable_or_as_pictures(tmp_path: Path) -> None:
    draw = random.Random(0)
    whole: list[bytes] = []
    for suffix in ("png", "jpeg", "gif", "webp", "tiff"):
        content = io.BytesIO()
        colour(0, 24, 24).save(content, suffix)
        whole.append(content.getvalue())
    for number in range(200):
        content = bytearray(whole[number % 5])
        for _ in range(draw.choice((1, 3, 20))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (tmp_path / f"bad{number}.png").write_bytes(
            content[: draw.choice((len(content), draw.randrange(len(content))))]
        )
    for number in range(200):
        colour(number, 24, 24).save(tmp_path / f"good{number}.png")
    data = load(tmp_path, size=24)
    assert len(data) + len(data.unreadable) == 400
    assert 60 <= len(data.unreadable) <= 200 and all(problem and "\n" not in problem for _, problem in data.unreadable)
    assert not any(name.startswith("good") for name, _ in data.unreadable)


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def png(seed: int) -> bytes:
    content = io.BytesIO()
    colour(seed).save(content, "PNG")
    return content.getvalue()


def test_a_zip_is_read_like_a_folder_and_leaves_nothing(tmp_path: Path) -> None:
    members = {
        "set/cat/2.png": png(2),
        "set/cat/10.png": png(10),
        "set/dog/1.png": png(1),
        "__MACOSX/set/._1.png": b"x",
    }
    data = load(zip_of(tmp_path / "a.zip", members | {"set/readme.txt": b"hi"}))
    assert data.spec.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 0, 1]
    assert np.array_equal(data.items[1], noise(10, 8, 6, 3).transpose(2, 0, 1)) and not data.unreadable
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:evil.png", "a\\..\\evil.png"])
def test_zip_members_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"member.*evil"):
        load(zip_of(tmp_path / "a.zip", {"1.png": png(1), "2.png": png(2), name: png(3)}))


def test_zip_links_bombs_duplicates_and_damage_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        load(tmp_path / "link.zip")
    with pytest.raises(DataError, match="at most 100 times"):
        load(zip_of(tmp_path / "bomb.zip", {"1.png": bytes(20_000_000)}))
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("1.png", png(1))
        archive.writestr("1.png", png(2))
    with pytest.raises(DataError, match="appears twice"):
        load(tmp_path / "twice.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "twice.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="not a zip archive that can be read"):
        load(tmp_path / "cut.zip")


def test_a_damaged_member_is_unreadable(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {f"{number}.png": png(number) for number in range(5)})
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    data = load(path)
    assert len(data) == 4 and data.unreadable[0][0] == "0.png"


def test_what_exceeds_memory_goes_to_a_file_that_has_no_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(colour(number) for number in range(6)))
    (folder / "2.png").write_bytes(b"no")
    in_memory = load(folder)
    on_disk = load(folder, cache=tmp_path / "cache", memory_bytes=100)
    assert on_disk.on_disk and not in_memory.on_disk and isinstance(on_disk, Data)
    assert np.array_equal(on_disk.items, in_memory.items) and on_disk.fingerprint() == in_memory.fingerprint()
    assert os.listdir(tmp_path / "cache") == []


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    for name in "ab":
        first, *rest = (Image.new("RGB", (4, 4), shade) for shade in ("red", "lime", "blue"))
        first.save(tmp_path / f"{name}.gif", save_all=True, append_images=rest)
    assert (load(tmp_path).items[:, :, 0, 0] == [255, 0, 0]).all()


def test_a_list_of_paths_is_read_in_its_order(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, colour(0), colour(1), colour(2))
    data = load([folder / "2.png", str(folder / "0.png"), folder / "9.png"], ["b", "a", "c"])
    assert np.array_equal(data.items[0], noise(2, 8, 6, 3).transpose(2, 0, 1))
    assert data.labels is not None and data.labels.tolist() == [1, 0] and "No such file" in data.unreadable[0][1]


def test_owned_pillow_pictures_stay_as_they_are() -> None:
    content = io.BytesIO()
    colour(0, 64, 48).save(content, "JPEG")
    before = np.asarray(Image.open(content))
    picture = Image.open(content)
    data = load([picture, picture], size=4)
    assert len(data) == 2 and picture.size == (48, 64) and np.array_equal(np.asarray(picture), before)
