"""Order, batches, splits, fingerprints, and the way between the owner's numbers and those of the networks."""

import itertools
import threading
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganlib.core import Batch, Spec
from ganlib.data import Data, decode, encode, load, pictures
from ganlib.data.order import permutation, positions, prefetch
from ganlib.errors import DataError, UsageError


def numbered(count: int, num_classes: int = 0) -> Data:
    """Items whose value is their number."""
    items = np.arange(count, dtype=np.float32)[:, None]
    labels = np.arange(count) % num_classes if num_classes else None
    classes = tuple(str(label) for label in range(num_classes))
    return Data(items, labels, Spec("vector", (1,), classes, "float32", "C", (0.0,), (1.0,)), "test")


def seen(batches: Iterator[Batch], count: int) -> list[int]:
    values: list[int] = []
    while len(values) < count:
        values += [int(value) for value in next(batches)["real"][:, 0]]
    return values[:count]


@settings(max_examples=60, deadline=None)
@given(
    num_items=st.integers(1, 20),
    sizes=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 2**63 - 1),
    skipped=st.integers(0, 80),
)
def test_order_is_one_sequence_whatever_the_cuts(
    num_items: int, sizes: tuple[int, int], seed: int, skipped: int
) -> None:
    def sequence(batch_items: int, start: int, count: int) -> list[int]:
        batches = itertools.islice(positions(num_items, batch_items, seed, start), -(-count // batch_items))
        return np.concatenate(list(batches)).tolist()[:count]

    whole = sequence(sizes[0], 0, 160)
    for epoch in range(160 // num_items):
        assert sorted(whole[epoch * num_items : (epoch + 1) * num_items]) == list(range(num_items))
    assert sequence(sizes[1], skipped, 50) == whole[skipped : skipped + 50]


@pytest.mark.parametrize("skipped", [0, 3, 10, 27])
def test_batches_continue_where_another_run_stopped(skipped: int) -> None:
    data = numbered(10)
    whole = seen(data.batches(4, 5, 0), 80)
    assert seen(data.batches(25, 5, skipped), 40) == whole[skipped : skipped + 40]


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(permutation(20, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_order_is_what_it_was_when_the_first_runs_were_saved() -> None:
    assert permutation(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert permutation(8, 7, 3).tolist() == [2, 4, 7, 3, 5, 1, 0, 6]


def test_every_position_is_equally_likely() -> None:
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), permutation(5, seed, 0)] += 1
    assert (np.abs(counts - 400) < 5 * np.sqrt(400 * 0.8)).all()


def test_a_batch_pairs_items_with_their_labels() -> None:
    data = numbered(10, num_classes=3)
    for batch in itertools.islice(data.batches(7, 0, 3), 5):
        assert batch["label"].dtype == torch.int64 and batch["real"].dtype == torch.float32
        assert torch.equal(batch["label"], batch["real"][:, 0].long() % 3)
    assert "label" not in next(numbered(3).batches(2, 0, 0))


@pytest.mark.parametrize(("num_items", "seed", "items_seen"), [(0, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_impossible_batches_are_refused(num_items: int, seed: int, items_seen: int) -> None:
    with pytest.raises(UsageError, match="cannot make batches"):
        numbered(4).batches(num_items, seed, items_seen)


def test_batches_are_quick() -> None:
    data = Data(np.zeros((500, 3, 64, 64), np.uint8), None, Spec("image", (3, 64, 64)), "test")
    batches = data.batches(64, 0, 0)
    times: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        next(batches)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005  # about 0.4 ms on an idle core


def test_prefetching_gives_the_same_and_ends_its_thread() -> None:
    threads = threading.active_count()
    closed: list[bool] = []

    def count() -> Generator[int, None, None]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    source = count()  # held here, so that only prefetch can close it
    ahead = prefetch(source)
    assert list(itertools.islice(ahead, 5)) == [0, 1, 2, 3, 4] and threading.active_count() == threads + 1
    ahead.close()
    assert threading.active_count() == threads and closed == [True]
    assert list(prefetch(number for number in range(3))) == [0, 1, 2] and threading.active_count() == threads


def test_prefetching_passes_exceptions_on_in_their_place() -> None:
    def broken() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    ahead = prefetch(broken())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="disk is gone"):
        next(ahead)


def test_memory_mapped_items_are_read_ahead_in_the_same_order(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    mapped, plain = load(tmp_path / "a.npy", memory_bytes=10), load(images)
    assert mapped.on_disk and not plain.on_disk and isinstance(mapped.items, np.memmap)
    threads = threading.active_count()
    ahead, there = mapped.batches(8, 1, 5), plain.batches(8, 1, 5)
    for _ in range(10):
        assert torch.equal(next(ahead)["real"], next(there)["real"])
    assert threading.active_count() == threads + 1
    del ahead
    assert threading.active_count() == threads
    part = mapped.split(10, 0)[1]
    assert part.items is mapped.items and part.on_disk
    assert np.array_equal(part.take(np.arange(10)), plain.split(10, 0)[1].take(np.arange(10)))
    assert mapped.fingerprint() == plain.fingerprint()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 60), num_classes=st.integers(0, 6), seed=st.integers(0, 99), data=st.data())
def test_splits_divide_and_keep_the_shares(count: int, num_classes: int, seed: int, data: st.DataObject) -> None:
    num_validation = data.draw(st.integers(0, count - 2))
    whole = numbered(count, num_classes)
    parts = whole.split(num_validation, seed)
    values = [part.take(np.arange(len(part)))[:, 0].astype(int) for part in parts]
    assert len(parts[1]) == num_validation and sorted(np.concatenate(values)) == list(range(count))
    assert all((np.diff(value) > 0).all() for value in values)
    if num_classes:
        for part, value in zip(parts, values, strict=True):
            assert part.labels is not None and np.array_equal(part.labels, value % num_classes)
        counts = np.bincount(values[1] % num_classes, minlength=num_classes)
        assert whole.labels is not None
        exact = np.bincount(whole.labels, minlength=num_classes) * num_validation / count
        assert (np.abs(counts - exact) <= 1 + 1e-9).all() or count < 3 * num_classes
    again = whole.split(num_validation, seed)[1]
    assert np.array_equal(again.take(np.arange(len(again)))[:, 0], values[1])


def test_splits_differ_by_seed_nest_and_refuse_too_many() -> None:
    data = numbered(100)
    first, second = (data.split(20, seed)[1].take(np.arange(20))[:, 0] for seed in (0, 1))
    assert not np.array_equal(first, second)
    train, _ = data.split(20, 0)
    _, inner = train.split(10, 0)
    assert not set(inner.take(np.arange(10))[:, 0]) & set(first)
    for number in (-1, 99):
        with pytest.raises(UsageError, match="choose from 0 to 98"):
            data.split(number, 0)


def test_a_lone_item_of_a_class_stays_for_training() -> None:
    labels = np.array([0] * 50 + [1])
    data = Data(np.zeros((51, 1), np.float32), labels, Spec("vector", (1,), ("a", "b")), "test")
    assert all(np.bincount(data.split(25, seed)[0].labels, minlength=2)[1] == 1 for seed in range(20))  # type: ignore[arg-type]


def test_fingerprints_see_every_change() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 5), dtype=np.uint8)
    labels = np.arange(40) % 2
    changed = images.copy()
    changed[17, 2, 3] ^= 1
    others = labels.copy()
    others[:2] = others[1::-1]
    prints = [
        load(images, labels),
        load(changed, labels),
        load(images, others),
        load(images),
        load(images[:-1], labels[:-1]),
    ]
    assert len({data.fingerprint()["sha256"] + str(data.fingerprint()["label_counts"]) for data in prints}) == 5
    first = prints[0].fingerprint()
    assert first == load(images.copy(), labels.copy()).fingerprint()
    assert first["count"] == 40 and first["shape"] == [1, 5, 5] and first["label_counts"] == [20, 20]
    assert load(images).split(10, 0)[0].fingerprint() == load(images).split(10, 0)[0].fingerprint()


def test_large_data_is_fingerprinted_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 5, 5), dtype=np.uint8)
    monkeypatch.setattr("ganlib.data.dataset.HASHED_BYTES", 250)
    first = load(images).fingerprint()
    unseen, sampled = images.copy(), images.copy()
    unseen[1], sampled[90] = 0, 0
    assert load(unseen).fingerprint() == first != load(sampled).fingerprint()


LAYOUTS = [("HWC", (5, 4, 6, 3)), ("CHW", (5, 3, 4, 6)), ("HW", (5, 4, 6))]


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16", "int64"])
def test_decode_undoes_encode_in_dtype_layout_and_range(layout: str, shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(0)
    high = {"uint8": 255, "int64": 255, "uint16": 65_535}.get(dtype, 1)
    array = rng.integers(0, high, shape, endpoint=True).astype(dtype) if high > 1 else rng.random(shape).astype(dtype)
    array.flat[:2] = 0, high
    data = load(array)
    assert data.spec.layout == layout and data.spec.shape == (1 if layout == "HW" else 3, 4, 6)
    real = data.batch(np.arange(5))["real"]
    assert real.min() == -1 and real.max() == 1 and real.shape == (5, *data.spec.shape)
    back = decode(data.spec, real)
    assert back.dtype == array.dtype and back.shape == shape
    assert (
        np.array_equal(back, array) if high > 1 else np.allclose(back, array, atol=1e-3 if dtype == "float16" else 1e-6)
    )
    assert decode(data.spec, real * 3).max() == high and decode(data.spec, real * 3).min() == 0


def test_encode_of_known_numbers() -> None:
    spec = Spec("image", (1, 1, 3))
    assert encode(spec, np.array([[[[0, 255, 51]]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert pictures(spec, torch.tensor([[[[-1.0, 1.0, -0.6]]]])).flatten().tolist() == [0, 255, 51]
    assert pictures(spec, torch.tensor([[[[-9.0, 9.0, 0.0]]]])).shape == (1, 1, 3, 1)
    with pytest.raises(DataError, match="channels first"):
        encode(spec, np.zeros((2, 1, 3, 1), np.uint8))
    with pytest.raises(DataError, match="the spec says"):
        decode(spec, torch.zeros(2, 3, 1, 3))
    with pytest.raises(DataError, match="not pictures"):
        pictures(Spec("vector", (3,)), torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize(("dtype", "half"), [("uint8", 127.5), ("uint16", 32_767.5)])
def test_decoding_rounds_the_exact_value(dtype: str, half: float) -> None:
    """Also beside a half, where arithmetic of 32 bits would fall on the wrong side of it: against exact fractions."""
    levels = np.linspace(0, 2 * half, 401).round()
    ties = ((levels + 0.5 - half) / half).astype(np.float32)
    near = np.concatenate([ties, np.nextafter(ties, np.float32(9)), np.nextafter(ties, np.float32(-9))])
    other = np.random.default_rng(0).uniform(-1.1, 1.1, 1000).astype(np.float32)
    values = np.concatenate([near[abs(near) > 1e-9], other, np.float32([0, 1, -1])])  # 127.5 + 1e-17 is 127.5
    spec = Spec("image", (1, 1, len(values)), dtype=dtype, offset=(half,), scale=(half,))
    exact = [round(Fraction(half) * (1 + Fraction(float(value)))) for value in values.clip(-1, 1)]
    for precision in (torch.float32, torch.float64):
        tensor = torch.from_numpy(values).to(precision).reshape(1, 1, 1, -1)
        before = tensor.clone()
        assert decode(spec, tensor).flatten().tolist() == exact
        assert torch.equal(tensor, before), "the caller's tensor was changed"


def test_encoding_leaves_the_owner_alone() -> None:
    array = np.arange(2 * 12, dtype=np.uint8).reshape(2, 1, 3, 4)
    spec = Spec("image", (1, 3, 4))
    encode(spec, array).fill_(7)
    assert np.array_equal(array.flatten(), np.arange(24))


def test_vectors_are_standardised_by_column_and_come_back_unclamped() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal([0, 1e9, 5, 3], [1, 2, 0, 50], (500, 4))
    data = load(array)
    real = data.batch(np.arange(500))["real"]
    assert data.spec.kind == "vector" and data.spec.layout == "C" and data.spec.dtype == "float64"
    assert torch.allclose(real.mean(0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(real.std(0, correction=0), torch.tensor([1.0, 1, 0, 1]), atol=1e-3)
    assert np.allclose(decode(data.spec, real), array, rtol=0, atol=1e-4)
    assert data.spec.scale[2] == 1 and decode(data.spec, real * 100).max() > 3e3
    whole = load(np.array([[0, 250], [3, 255]], np.uint8))
    assert decode(whole.spec, torch.full((1, 2), 50.0)).tolist() == [[76, 255]]


def test_positions_need_no_more_than_the_epochs_they_cut() -> None:
    start = time.perf_counter()
    next(positions(1000, 10, 0, 10**15))
    assert time.perf_counter() - start < 0.5
