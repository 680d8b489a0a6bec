"""What is compared with what: the parts that the items are dealt into, and their features."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ganlib.data import Data
from ganlib.errors import DataError
from ganlib.metrics.encoder import MIN_ITEMS as MIN_ENCODER_ITEMS
from ganlib.metrics.encoder import learn_cached, small
from ganlib.metrics.features import FeatureExtractor, Pixels, VectorFeatures, features, quantise

MAX_FAKES, MAX_HELD_OUT, MAX_TRAIN, MAX_ENCODER = 10_000, 10_000, 60_000, 5_000

Numbers = Int64[np.ndarray, " items"]


@dataclass(frozen=True, eq=False)
class Part:
    """Some items of a data set, by number, and their features."""

    data: Data
    numbers: Numbers
    features: Float[Tensor, "n d"]

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> "Part":
        return Part(self.data, self.numbers[:count], self.features[:count])


@dataclass(frozen=True, eq=False)
class Material:
    """The parts. `reference` and `fresh` are two halves of the held-out items: what samples are measured against, and
    real items in the place of samples. `members` are as many training items as held-out ones; none of the items that
    an encoder was learned from is in any part but `train`, in which copies are looked for.
    """

    fake: Part
    reference: Part
    fresh: Part
    train: Part | None
    members: Part | None
    extractor: FeatureExtractor
    seed: int
    about: dict[str, Any]

    def alike(self) -> tuple[Part, Part]:
        """As many samples as fresh items: most scores depend on the number."""
        count = min(len(self.fake), len(self.fresh))
        return self.fake.first(count), self.fresh.first(count)


def deal(
    fake: Data, held_out: Data, train: Data | None, extractor: FeatureExtractor | None, seed: int, num_items: int
) -> Material:
    """Deal the items into parts and compute their features. DataError where the sets do not hold the same kind."""
    _check_alike(fake, held_out, train)
    fake = fake.of_kind(held_out.spec)
    train = None if train is None else train.of_kind(held_out.spec)
    rng = np.random.default_rng(seed)
    fakes = rng.permutation(len(fake))[: min(num_items, MAX_FAKES)]
    real = rng.permutation(len(held_out))[:MAX_HELD_OUT]
    known = rng.permutation(len(train)) if train is not None else None
    source, spare = (held_out, real) if train is None or known is None else (train, known)
    share = 3 if train is None else 2
    to_learn = np.sort(spare[-min(MAX_ENCODER, len(spare) // share) :])
    if extractor is None:
        extractor, learned = default_extractor(source, to_learn, seed)
    else:
        learned = 0
    if learned and train is None:
        real = real[:-learned]
    half = len(real) // 2
    parts = [(fake, fakes), (held_out, real[:half]), (held_out, real[half : 2 * half])]
    made = [Part(data, numbers, extracted(extractor, data, numbers)) for data, numbers in parts]
    all_train = members = None
    if train is not None and known is not None:
        searched = known[:MAX_TRAIN]
        all_train = Part(train, searched, extracted(extractor, train, searched))
        members = all_train.first(min(2 * half, len(known) - learned, len(searched)))
    about = {
        "extractor": extractor.name,
        "extractor_digest": extractor.digest(),
        "learned_from": f"{learned} {'training' if train is not None else 'held-out'} items"
        if learned
        else "nothing here",
        "reference": held_out.source,
        "training_data": None if train is None else train.source,
        "quantisation": "8 bits" if held_out.spec.kind == "image" else "none",
        "resize": "none; the extractor averages down what is too large for it",
        "n_fake": len(fakes),
        "n_reference": half,
        "n_fresh": half,
        "n_train": 0 if all_train is None else len(all_train),
        "n_members": 0 if members is None else len(members),
        "num_features": made[0].features.shape[1],
        "seed": seed,
    }
    return Material(made[0], made[1], made[2], all_train, members, extractor, seed, about)


def default_extractor(source: Data, numbers: Numbers, seed: int) -> tuple[FeatureExtractor, int]:
    """An encoder learned from these pictures and how many there were; pixels where they are too few, or tiny."""
    if source.spec.kind == "vector":
        return VectorFeatures(), 0
    if len(numbers) < MIN_ENCODER_ITEMS or min(source.spec.shape[1:]) < 4:
        return Pixels(), 0
    # Thousands of large photographs would not fit into memory.
    pictures = torch.cat([small(items) for items in batches(source, numbers)])
    return learn_cached(pictures, seed=seed), len(numbers)


def extracted(extractor: FeatureExtractor, data: Data, numbers: Numbers) -> Float[Tensor, "n d"]:
    return features(extractor, batches(data, numbers), batch_items=256)


def batches(data: Data, numbers: Numbers, batch_items: int = 256) -> Iterator[Tensor]:
    """Items in the numbers of the networks, pictures rounded to 8 bits."""
    for part in np.array_split(numbers, max(1, math.ceil(len(numbers) / batch_items))):
        real = data.batch(part)["real"]
        yield quantise(real) if data.spec.kind == "image" else real


def _check_alike(fake: Data, held_out: Data, train: Data | None) -> None:
    for other in (fake, train):
        if other is not None and (other.spec.kind, other.spec.shape) != (held_out.spec.kind, held_out.spec.shape):
            raise DataError(
                f"{other.source} holds {_said(other)}, {held_out.source} {_said(held_out)}; both must be alike: "
                "cut and resize pictures with size (--size), and give both in colour or both in grey"
            )
    if min(len(fake), len(held_out) // 2) < 2:
        raise DataError(
            f"{fake.source} holds {len(fake)} items, {held_out.source} {len(held_out)}; nothing can be compared: "
            "give some hundreds of each"
        )


def _said(data: Data) -> str:
    shape = data.spec.shape
    return f"{data.spec.kind}s of {'x'.join(map(str, (*shape[1:], shape[0])))}"
