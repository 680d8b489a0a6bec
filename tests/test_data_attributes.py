"""Pictures with attributes: tables beside them, arrays, columns; what is wrong with a table, by row and column."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlib.data import load, load_attributes
from ganlib.data.dataset import Data
from ganlib.errors import DataError
from ganlib.reading import split


def write(folder: Path, table: str, names: tuple[str, ...] = ("a.png", "b.png", "c.png")) -> Path:
    """Pictures of the shades 0, 1, ... and a table."""
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6), shade, np.uint8)).save(folder / name)
    (folder / "attributes.csv").write_text(table)
    return folder


def of_shades(data: Data) -> dict[int, list[float]]:
    """The owner's attributes by the shade of the picture."""
    assert data.attributes is not None
    batch = data.batch(np.arange(len(data)))
    shades = ((batch["real"][:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    low = np.array([each.low for each in data.spec.attributes])
    high = np.array([each.high for each in data.spec.attributes])
    values = low + batch["attributes"].numpy() * (high - low)
    return {shade: np.round(row, 4).tolist() for shade, row in zip(shades, values, strict=True)}


def test_a_table_gives_each_picture_its_row_whatever_the_order(tmp_path: Path):
    data = load_attributes(write(tmp_path, "file,age,smile\nc.png,30,true\na.png,10,no\nb.png,20.5,1\n"))
    assert [each.name for each in data.spec.attributes] == ["age", "smile"] and data.labels is None
    assert (data.spec.attributes[0].low, data.spec.attributes[0].high) == (10, 30)
    assert of_shades(data) == {0: [10, 0], 1: [20.5, 1], 2: [30, 1]}
    batch = data.batch(np.array([0, 1, 2]))["attributes"]
    assert batch[:, 0].tolist() == pytest.approx([0, 10.5 / 20, 1])
    for delimiter in (";", "\t"):
        table = "file,age,smile\na.png,10,0\nb.png,20,1\nc.png,30,1\n".replace(",", delimiter)
        assert of_shades(load_attributes(write(tmp_path, table))) == {0: [10, 0], 1: [20, 1], 2: [30, 1]}


def test_attributes_follow_their_pictures_through_splits_and_subsets(tmp_path: Path):
    names = tuple(f"{number:02d}.png" for number in range(20))
    rows = "\n".join(f"{name},{number * 3}" for number, name in enumerate(names))
    data = load_attributes(write(tmp_path, f"file,age\n{rows}\n", names))
    for part in (*data.split(6, seed=0), data.subset(np.array([7, 3]))):
        assert all(values == [3 * shade] for shade, values in of_shades(part).items())
    assert len(data.split(6, seed=0)[1]) == 6
    other = load_attributes(write(tmp_path, f"file,age\n{rows.replace(',9', ',8')}\n", names))
    named = load_attributes(write(tmp_path, f"file,height\n{rows}\n", names))
    assert len({each.fingerprint()["sha256"] for each in (data, other, named)}) == 3


def test_classes_come_from_a_column_or_from_folders(tmp_path: Path):
    data = load_attributes(write(tmp_path / "column", "file,age,class\na.png,1,cat\nb.png,2,dog\nc.png,3,cat\n"))
    assert data.spec.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 1, 0]
    names = ("cat/1.png", "dog/1.png", "dog/2.png")
    data = load_attributes(write(tmp_path / "below", "file,age\ndog/1.png,5\ncat/1.png,4\ndog/2.png,6\n", names))
    assert data.spec.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 1, 1]
    assert of_shades(data) == {0: [4], 1: [5], 2: [6]}


def test_pictures_deeper_than_the_table_says_are_found_by_their_file_name_where_it_is_there_once(tmp_path: Path):
    names = ("img/a.png", "img/b.png", "img/c.png")
    data = load_attributes(write(tmp_path / "once", "file,age\na.png,1\nb.png,2\nc.png,3\n", names))
    assert of_shades(data) == {0: [1], 1: [2], 2: [3]}
    twice = ("x/a.png", "y/a.png", "y/b.png", "y/c.png")
    data = load_attributes(write(tmp_path / "twice", "file,age\na.png,1\nb.png,2\nc.png,3\n", twice))
    assert of_shades(data) == {2: [2], 3: [3]}, "nobody can say which a.png the row is for"
    assert {name for name, _ in data.unreadable} == {"x/a.png", "y/a.png", "a.png"}


def test_a_whole_name_is_its_own_row_where_another_folder_has_the_same_file_name(tmp_path: Path):
    names = ("a.png", "x/a.png", "x/b.png")
    data = load_attributes(write(tmp_path, "file,age\na.png,1\nx/a.png,2\nx/b.png,3\n", names))
    assert of_shades(data) == {0: [1], 1: [2], 2: [3]} and not data.unreadable


def test_a_table_of_a_split_names_pictures_from_its_own_folder_or_from_the_whole(tmp_path: Path):
    names = ("train/x/1.png", "train/x/2.png", "train/y/1.png", "test/x/1.png", "test/y/1.png")
    rows = "x/1.png,1\nx/2.png,2\ny/1.png,3\n"
    own = write(tmp_path / "own", "", names)
    (own / "attributes.csv").unlink()
    (own / "train" / "ages.CSV").write_text(f"file,age\n{rows}")
    (own / "train" / "._ages.csv").write_bytes(b"what macOS keeps beside a file")
    data = load_attributes(own)
    assert of_shades(data) == {0: [1], 1: [2], 2: [3]} and data.spec.classes == ("x", "y") and not data.unreadable
    whole = "train/x/1.png,1\ntrain/x/2.png,2\ntrain/y/1.png,3\ntest/x/1.png,4\ntest/y/1.png,5\ntest/z.png,6\n"
    data = load_attributes(write(tmp_path / "whole", f"file,age\n{whole}", names))
    assert of_shades(data) == {0: [1], 1: [2], 2: [3]}
    assert [name for name, _ in data.unreadable] == ["test/z.png"], (
        "what is there is not missing, be it of another split"
    )


def test_what_has_no_row_or_no_picture_is_left_out_and_told(tmp_path: Path):
    write(tmp_path, "file,age\na.png,1\nc.png,3\nd.png,4\nx.png,5\n", ("a.png", "b.png", "c.png", "d.png"))
    (tmp_path / "c.png").write_bytes(b"no picture")
    data = load_attributes(tmp_path)
    assert of_shades(data) == {0: [1], 3: [4]}, "the rows of what follows a broken picture do not move up"
    told = dict(data.unreadable)
    assert told.keys() == {"b.png", "c.png", "x.png"} and "no row" in told["b.png"] and "not there" in told["x.png"]
    with pytest.raises(DataError, match=r"names 1 pictures, the first z.png, and none .* the first is a.png"):
        load_attributes(write(tmp_path, "file,age\nz.png,1\n"))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("file,age\na.png,1\nb.png,\n", "row 3 of .*attributes.csv: age is ''; accepted are numbers"),
        ("file,age\na.png,1\nb.png,old\n", "row 3 of .*: age is 'old'"),
        ("file,age\na.png,1\nb.png,nan\n", "row 3 of .*: age is 'nan'"),
        ("file,age\na.png,1\nb.png,1,2\n", "row 3 of .* has 3 cells, and the first row 2"),
        ("file,age\na.png,1\na.png,2\n", "row 3 of .* names a.png again"),
        ("a.png,1\nb.png,2\n", "first row names the columns"),
        ("file,age,age\na.png,1,2\n", "two columns named 'age'"),
        ("file,age\na.png,1\nb.png,1\nc.png,1\n", "attribute age of .* is 1 everywhere; leave it out|nothing can be"),
        ("", "begins with nothing"),
        ("file,Class\na.png,x\nb.png, \nc.png,y\n", "row 3 of .*attributes.csv has no Class; name one"),
    ],
    ids=range(10),
)
def test_a_table_that_cannot_be_used_is_refused_by_row_and_column(tmp_path: Path, table: str, told: str):
    with pytest.raises(DataError, match=told):
        load_attributes(write(tmp_path, table))


def test_two_tables_are_refused(tmp_path: Path):
    write(tmp_path, "file,age\na.png,1\n")
    (tmp_path / "more.csv").write_text("file,age\n")
    with pytest.raises(DataError, match=r"holds 2 tables \(attributes.csv, more.csv\)"):
        load_attributes(tmp_path)


def test_arrays_with_columns_numbers_or_mere_classes(tmp_path: Path):
    items = np.arange(4, dtype=np.uint8)[:, None, None].repeat(6, 1).repeat(6, 2)
    columns = {"age": [1.0, 2, 3, 4], "class": ["x", "y", "x", "y"]}
    data = load_attributes(items, columns)
    assert data.spec.classes == ("x", "y") and of_shades(data) == {0: [1], 1: [2], 2: [3], 3: [4]}
    assert load_attributes(items, {"age": [1, 2, 3, 4], "Label": ["x", "y", "x", "y"]}).spec.classes == ("x", "y")
    data = load_attributes(items, np.array([[1, 5], [2, 6], [3, 7], [4, 9]]))
    assert [each.name for each in data.spec.attributes] == ["attribute0", "attribute1"]
    assert of_shades(data)[3] == [4, 9] and data.labels is None
    data = load_attributes(items, [0, 1, 1, 0])
    assert data.attributes is None and data.spec.classes == ("0", "1")
    np.savez(tmp_path / "all.npz", images=items, attributes=np.array([[1.0], [2], [3], [4]]), attribute_names=["age"])
    data = load_attributes(tmp_path / "all.npz")
    assert data.spec.attributes[0].name == "age" and of_shades(data)[2] == [3]
    with pytest.raises(DataError, match=r"attribute age .* has shape \(3,\) for 4 items"):
        load_attributes(items, {"age": [1, 2, 3]})
    with pytest.raises(DataError, match=r"attribute age .* is nan in row 2"):
        load_attributes(items, {"age": [1, 2, np.nan, 3]})
    with pytest.raises(DataError, match="two attributes or classes named x"):
        load_attributes(items, {"x": [1, 2, 3, 4], "class": ["x", "y", "x", "y"]})


def test_other_data_take_the_order_and_the_range_of_the_model(tmp_path: Path):
    first = load_attributes(write(tmp_path / "one", "file,age,smile\na.png,10,0\nb.png,20,1\nc.png,30,1\n"))
    second = load_attributes(
        write(tmp_path / "two", "file,smile,extra,age\na.png,0,7,15\nb.png,1,8,40\nc.png,1,9,20\n")
    )
    same = second.of_kind(first.spec)
    assert same.spec.attributes == first.spec.attributes
    assert same.batch(np.arange(3))["attributes"].tolist() == [[0.25, 0], [1.5, 1], [0.5, 1]]
    lacking = load_attributes(write(tmp_path / "three", "file,smile\na.png,0\nb.png,1\nc.png,1\n"))
    with pytest.raises(DataError, match="has no attribute age; it has smile"):
        lacking.of_kind(first.spec)


def test_classes_keep_their_names_not_their_numbers():
    items = np.zeros((4, 6, 6), np.uint8)
    data = load_attributes(items, ["b", "c", "b", "c"])
    same = data.of_classes(("a", "b", "c"))
    assert same.labels is not None and same.labels.tolist() == [1, 2, 1, 2] and same.spec.classes == ("a", "b", "c")
    with pytest.raises(DataError, match="has the class c; there are a, b"):
        data.of_classes(("a", "b"))


def test_validation_keeps_the_names_of_its_classes() -> None:
    items = np.arange(8, dtype=np.uint8)[:, None, None].repeat(6, 1).repeat(6, 2)
    train = load(items, ["a", "b", "c", "d"] * 2)
    _, held_out = split(train, load(items[:4], ["d", "c", "d", "c"]), None)
    assert held_out is not None and held_out.labels is not None and held_out.labels.tolist() == [3, 2, 3, 2]
    with pytest.raises(DataError, match="has the class e; there are a, b, c, d"):
        split(train, load(items[:2], ["d", "e"]), None)
