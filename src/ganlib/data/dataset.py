"""Items with their labels and what they are: the one thing that the data layer hands over."""

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64, Integer, Shaped

from ganlib.core import Batch, Spec
from ganlib.data.codec import encode
from ganlib.data.order import permutation, positions, prefetch
from ganlib.data.shards import Shards
from ganlib.errors import DataError, UsageError
from ganlib.spec import Attribute

HASHED_BYTES = 64 * 2**20
"""Up to this size all content goes into the fingerprint; of more, as much in evenly spaced items."""

_CLASS_SEED = 1_000_003
"""Between the seeds of two classes: in one order they would meet the same partners again and again."""

_SPLIT_EPOCH = 2**40
"""Splits draw from epochs that no run reaches, so that they say nothing about its order."""


@final
@dataclass(frozen=True, eq=False)
class Data:
    """A set of items in memory, in a memory-mapped file or in shards.

    `items` is the store, [rows, *spec.shape], channels first, in the owner's numbers. `index` says which rows of the
    store are this data (None: all), so that a split copies nothing; read items through :meth:`take`. `labels` has one
    class number per item of this data. `unreadable` lists what was left out, by name and reason. `conditions` are the
    pictures that come with the items of the store, row by row, where the data are pairs; ``spec.condition`` says what.
    `attributes` are numbers of the owner's that come with them so, [rows, attributes], in the order of
    ``spec.attributes``.
    """

    items: np.ndarray | Shards
    labels: np.ndarray | None
    spec: Spec
    source: str
    unreadable: tuple[tuple[str, str], ...] = ()
    index: np.ndarray | None = None
    conditions: np.ndarray | None = None
    attributes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.items if self.index is None else self.index)

    @property
    def on_disk(self) -> bool:
        """Whether the items lie in files rather than in memory."""
        if isinstance(self.items, Shards):
            return True
        store: Any = self.items
        while store is not None and not isinstance(store, np.memmap):
            store = store.base if isinstance(store, np.ndarray) else None
        return store is not None

    def take(self, indices: Integer[np.ndarray, " batch"]) -> Shaped[np.ndarray, "batch *item"]:
        """A copy of the items with these numbers, as they are stored: the owner's numbers, channels first."""
        rows = indices if self.index is None else self.index[indices]
        return self.items.take(rows) if isinstance(self.items, Shards) else self.items.take(rows, axis=0)

    def batch(self, indices: Integer[np.ndarray, " batch"]) -> Batch:
        """The items with these numbers, in the numbers of the networks, and their labels if there are any."""
        batch = {"real": encode(self.spec, self.take(indices))}
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[indices].astype(np.int64, copy=False))
        rows = indices if self.index is None else self.index[indices]
        if self.conditions is not None and self.spec.condition is not None:
            batch["condition"] = encode(self.spec.condition, self.conditions.take(rows, axis=0))
        if self.attributes is not None:
            low, high = np.array([(each.low, each.high) for each in self.spec.attributes]).T
            values = (self.attributes.take(rows, axis=0) - low) / (high - low)
            batch["attributes"] = torch.from_numpy(values.astype(np.float32))
        return batch

    def only_conditions(self) -> "Data":
        """The pictures that come with the items, as data of their own. Raises :class:`UsageError` without any."""
        if self.conditions is None or self.spec.condition is None:
            raise UsageError(f"{self.source} holds single items, not pairs")
        return replace(self, items=self.conditions, spec=self.spec.condition, labels=None, conditions=None)

    def batches(
        self, num_items: int, seed: int, items_seen: int, part: tuple[int, int] = (0, 1), *, balanced: bool = False
    ) -> Iterator[Batch]:
        """Endless batches of `num_items`, shuffled anew each epoch.

        The order is a pure function of the seed and of how many items were seen: starting at `items_seen` equals
        continuing there. Of a `part` (rank, size) the batches have every `size`-th item from number `rank` on: `size`
        processes together see what one would, also where each cuts its rows into equal parts, and reads no other items.
        Items on disk are read ahead by a thread, which ends when the iterator is closed. `balanced` batches hold as
        many items of each class, one of each in turn, and each class has epochs of its own.
        Raises :class:`UsageError` for a batch of nothing, a negative seed or no items.
        """
        if num_items < 1 or seed < 0 or items_seen < 0 or not len(self):
            raise UsageError(
                f"cannot make batches of {num_items} from {len(self)} items with seed {seed} after {items_seen} items; "
                "there must be items, a batch of at least 1, and neither seed nor items seen below 0"
            )
        made = (self._in_turn if balanced else self._batches)(num_items, seed, items_seen, part)
        return prefetch(made) if self.on_disk else made

    def _batches(
        self, num_items: int, seed: int, items_seen: int, part: tuple[int, int]
    ) -> Generator[Batch, None, None]:
        for indices in positions(len(self), num_items, seed, items_seen):
            yield self.batch(indices[part[0] :: part[1]])

    def _in_turn(
        self, num_items: int, seed: int, items_seen: int, part: tuple[int, int]
    ) -> Generator[Batch, None, None]:
        assert self.labels is not None
        count = len(self.spec.classes)
        members = [np.flatnonzero(self.labels == label) for label in range(count)]
        if num_items % (count * part[1]) or not all(map(len, members)):
            raise UsageError(
                f"batches of {num_items} cannot hold as many items of each of {count} classes on {part[1]} processes; "
                f"take a multiple of {count * part[1]}"
            )
        each, seen = num_items // count, items_seen // count
        rows = [positions(len(own), each, seed + _CLASS_SEED * k, seen) for k, own in enumerate(members)]
        for places in zip(*rows, strict=True):
            chosen = [own[place[part[0] :: part[1]]] for own, place in zip(members, places, strict=True)]
            yield self.batch(np.stack(chosen, 1).ravel())

    def evenly(self, count: int, *, balanced: bool = False, shuffled: bool = False) -> Integer[np.ndarray, " chosen"]:
        """The numbers of up to `count` items spread over the data; `balanced` as in :meth:`batches`.

        `shuffled` ones are in an order of chance, the same each time: data are often sorted by class.
        """
        if not balanced:
            chosen = np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64)
            return chosen[permutation(len(chosen), 0, 0)] if shuffled else chosen
        assert self.labels is not None
        members = [np.flatnonzero(self.labels == label) for label in range(len(self.spec.classes))]
        each = max(1, min(count // len(members), *map(len, members)))
        return np.stack([own[np.linspace(0, len(own) - 1, each).astype(np.int64)] for own in members], 1).ravel()

    def subset(self, indices: Integer[np.ndarray, " chosen"]) -> "Data":
        """The items with these numbers, in this order, as a data set of their own; nothing is copied."""
        rows = indices if self.index is None else self.index[indices]
        rows = np.asarray(rows, np.min_scalar_type(len(self.items)))  # there may be many millions
        return replace(self, index=rows, labels=None if self.labels is None else self.labels[indices])

    def split(self, num_validation: int, seed: int) -> tuple["Data", "Data"]:
        """The rest, and `num_validation` items drawn at random; each class gives its share where there are classes.

        Both parts keep the order of the items. Raises :class:`UsageError` where fewer than 2 items would be left.
        """
        if not 0 <= num_validation <= len(self) - 2 or seed < 0:
            raise UsageError(
                f"cannot hold out {num_validation} of {len(self)} items with seed {seed}; the seed is 0 or more; "
                f"choose from 0 to {max(len(self) - 2, 0)}, so that 2 are left to train on"
            )
        if self.labels is None:
            chosen = permutation(len(self), seed, _SPLIT_EPOCH)[:num_validation]
        else:
            shares = _shares(np.bincount(self.labels, minlength=len(self.spec.classes)), num_validation)
            parts: list[np.ndarray] = []
            for label, share in enumerate(shares):  # one class after another: there may be millions of items
                members = np.flatnonzero(self.labels == label)
                parts.append(members[permutation(len(members), seed, _SPLIT_EPOCH + label)[:share]])
            chosen = np.concatenate(parts)
        held_out = np.zeros(len(self), bool)
        held_out[chosen] = True
        return self.subset(np.flatnonzero(~held_out)), self.subset(np.flatnonzero(held_out))

    def of_kind(self, spec: Spec) -> "Data":
        """The same items for a model of `spec`. Raises :class:`DataError` where kind or shape differ.

        Numbers keep their own meaning: bytes are not floats, and floats from 0 to 1 not those from -1 to 1. Floats that
        lie within the range of `spec` are taken to be in it, since a part of the data need not reach its ends.
        """
        if self.conditions is not None and spec.condition is not None:
            given, others = self.only_conditions().of_kind(spec.condition), replace(self, conditions=None)
            own = others.of_kind(replace(spec, condition=None))
            return replace(own, conditions=given.items, spec=replace(own.spec, condition=given.spec))  # type: ignore[arg-type]
        if [each.name for each in self.spec.attributes] != [each.name for each in spec.attributes]:
            return self._with_attributes(spec.attributes).of_kind(spec)
        if self.spec.kind != spec.kind or self.spec.shape != spec.shape:
            raise DataError(
                f"{self.source} holds {self.spec.kind}s of shape {self.spec.shape}; expected are {spec.kind}s of shape "
                f"{spec.shape} (channels first)"
            )
        if spec.kind == "vector":
            return replace(self, spec=spec)
        own, given = np.dtype(self.spec.dtype), np.dtype(spec.dtype)
        if own.kind == given.kind == "f":
            low, high = spec.offset[0] - spec.scale[0], spec.offset[0] + spec.scale[0]
            parts = (self.take(np.arange(start, min(start + 1024, len(self)))) for start in range(0, len(self), 1024))
            same = all(items.min() >= low and items.max() <= high for items in parts)
        else:
            same = own == given
        kept = replace(self.spec, classes=spec.classes, attributes=spec.attributes)
        return replace(self, spec=spec if same else kept)

    def of_classes(self, classes: tuple[str, ...]) -> "Data":
        """The same items with the numbers that their classes have among these; raises :class:`DataError` for others."""
        if self.labels is None or self.spec.classes == classes:
            return self
        if strange := [name for name in self.spec.classes if name not in classes]:
            known = ", ".join(classes[:20]) + " …" * (len(classes) > 20)
            raise DataError(f"{self.source} has the class {strange[0]}; there are {known}")
        numbers = np.array([classes.index(name) for name in self.spec.classes])
        return replace(self, labels=numbers[self.labels], spec=replace(self.spec, classes=classes))

    def _with_attributes(self, wanted: tuple[Attribute, ...]) -> "Data":
        """The same items with these attributes alone, in this order."""
        names = [each.name for each in self.spec.attributes]
        if missing := [each.name for each in wanted if each.name not in names]:
            raise DataError(f"{self.source} has no attribute {missing[0]}; it has {', '.join(names) or 'none'}")
        columns = [names.index(each.name) for each in wanted]
        values = None if self.attributes is None or not columns else self.attributes[:, columns]
        return replace(self, attributes=values, spec=replace(self.spec, attributes=wanted))

    def fingerprint(self) -> dict[str, Any]:
        """What tells this data from other data: count, shape, dtype, classes, label counts and a SHA-256.

        Of prepared shards that is one of their own digests and of which items are meant: nothing is read for it.
        """
        labels = self.labels
        num_bytes_each = max(int(np.prod(self.spec.shape)) * self.items.dtype.itemsize, 1)
        num_hashed = min(len(self), max(HASHED_BYTES // num_bytes_each, 1))
        chosen = np.arange(num_hashed, dtype=np.int64) * len(self) // max(num_hashed, 1)
        content = hashlib.sha256(f"{len(self)} {self.spec.shape} {self.items.dtype.str}".encode())
        if isinstance(self.items, Shards) and self.items.digests:
            content.update("".join(self.items.digests).encode())
            content.update(b"" if self.index is None else self.index.data)
            num_hashed = 0
        step = max(2**22 // num_bytes_each, 1)
        for start in range(0, num_hashed, step):
            part = chosen[start : start + step]
            content.update(np.ascontiguousarray(self.take(part)).data)
            if self.conditions is not None:
                content.update(np.ascontiguousarray(self.only_conditions().take(part)).data)
        if labels is not None:
            content.update(np.ascontiguousarray(labels, np.int64).data)
        if self.attributes is not None:
            own = self.attributes if self.index is None else self.attributes[self.index]
            content.update(" ".join(each.name for each in self.spec.attributes).encode())
            content.update(np.ascontiguousarray(own, np.float64).data)
        return {
            "count": len(self),
            "shape": list(self.spec.shape),
            "dtype": self.spec.dtype,
            "classes": list(self.spec.classes),
            "label_counts": None if labels is None else np.bincount(labels, minlength=len(self.spec.classes)).tolist(),
            "sha256": content.hexdigest(),
        }


def _shares(counts: Int64[np.ndarray, " classes"], num_wanted: int) -> Int64[np.ndarray, " classes"]:
    """How many of each class make `num_wanted`, by largest remainder; the last item of a class goes last."""
    exact = counts * (num_wanted / counts.sum())
    shares = np.floor(exact).astype(np.int64)
    for _ in range(num_wanted - int(shares.sum())):
        room = counts - shares
        best = np.lexsort((-(exact - shares), room <= 1, room <= 0))[0]
        shares[best] += 1
    return shares
