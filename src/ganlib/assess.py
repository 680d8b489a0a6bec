"""Evaluating a model, or files that any program wrote: from paths and models to the data that are compared."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlib import model
from ganlib.core import Spec
from ganlib.data import Data, decode, load, pictures
from ganlib.errors import DataError, GanlibError
from ganlib.evaluation import Evaluation, Limits, evaluate
from ganlib.evaluation.material import MAX_FAKES, Part
from ganlib.metrics.attributes import LEAST, correlation, linear_reader
from ganlib.metrics.features import FeatureExtractor, RandomConvolutions, features, quantise
from ganlib.metrics.intervals import wilson
from ganlib.metrics.paired import Maps, content_kept, map_distance, signal_to_noise, structural_similarity
from ganlib.metrics.report import Score
from ganlib.model import Model
from ganlib.penalties import item_logits
from ganlib.reading import SPLIT_SEED, read_as
from ganlib.sampling import chunk_items
from ganlib.spec import Attribute
from ganlib.training.run import Run

NEAR = ("psnr", "structural_similarity", "map_distance")
"""What is told of a picture and the wanted one, :mod:`ganlib.metrics.paired`; the last on fixed random convolutions."""

MAX_READ = 5000
"""Pictures from which attributes are read, or learned to be read."""

MAX_BYTES = 2**30
"""Samples are held in memory, up to this."""


def assess_model(
    judged: Model,
    held_out: Data,
    *,
    train: Data | None,
    num_items: int = MAX_FAKES,
    extractor: FeatureExtractor | None = None,
    seed: int = 0,
    truncation: float | None = None,
    limits: Limits | None = None,
) -> Evaluation:
    """Draw samples of a model and evaluate them; the discriminator attacks too, where the model has one.

    Of a model that draws nothing, what it makes of the held-out items; where each is meant to be its item, how near it
    comes is among the figures.
    """
    near: dict[str, Score] = {}
    if judged.plan.task.draws:
        fake = drawn(judged, num_items, seed, truncation)
    else:
        fake, near = translated(judged, held_out, num_items)
        if fake.attributes is not None and train is not None:
            near |= attributes_shown(fake, held_out, train)
        if judged.plan.task.one_way:
            held_out, train = _of_class(held_out, 1), None if train is None else _of_class(train, 1)
    found = evaluate(
        fake,
        held_out,
        train=train,
        extractor=extractor,
        judge=(lambda part: _logits(judged, part)) if _can_judge(judged, held_out, train) else None,
        truncation=truncation,
        seed=seed,
        limits=limits,
    )
    return replace(found, good=replace(found.good, scores={**found.good.scores, **near}))


def assess_files(
    fakes: Path | str,
    held_out: Data,
    *,
    train: Path | str | None,
    size: tuple[int, int] | int | None = None,
    num_items: int = MAX_FAKES,
    extractor: FeatureExtractor | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the samples of any program, in whatever :func:`ganlib.data.load` reads, against real items."""
    fake = load(fakes, size=size)
    known = None if train is None else load(train, size=size)
    return evaluate(fake, held_out, train=known, extractor=extractor, num_items=num_items, seed=seed)


def drawn(judged: Model, num_items: int, seed: int, truncation: float | None) -> Data:
    """Samples as data, pictures in 8 bits: fewer than asked for where a gigabyte holds no more."""
    spec = judged.setting.spec
    item_bytes = int(np.prod(spec.shape)) * (1 if spec.kind == "image" else 8)
    count = max(2, min(num_items, MAX_BYTES // item_bytes))
    items, labels = [], []
    for part, known in judged.sampler.stream(count, seed=seed, truncation=truncation):
        items.append(pictures(spec, part).transpose(0, 3, 1, 2) if spec.kind == "image" else decode(spec, part))
        if known is not None:
            labels.append(known.numpy())
    told = "samples of the model"
    own = picture_like(spec) if spec.kind == "image" else spec
    return Data(np.concatenate(items), np.concatenate(labels) if labels else None, own, told)


def translated(judged: Model, held_out: Data, num_items: int) -> tuple[Data, dict[str, Score]]:
    """What a model makes of held-out items, in 8 bits, and how near it comes to what was wanted of each.

    The figures are means with the intervals of a mean; beside them stands what the given picture itself would have, in
    the place of real data, where it has the same channels. Raises :class:`DataError` where pairs are wanted.
    """
    task, spec = judged.plan.task, judged.setting.spec
    if judged.recipe.material == "pairs" and held_out.conditions is None:
        raise DataError(f"{held_out.source} holds single items; recipe {judged.recipe.name} is measured on pairs")
    item_bytes = int(np.prod(spec.shape))
    # Of one set, what is asked of an item is what another one in its batch has.
    some, of_one = min(num_items, MAX_BYTES // item_bytes), task.domains == 1
    chosen = held_out.evenly(some, balanced=judged.plan.balanced, shuffled=of_one)
    items, labels, asked, near, copied, kept = [], [], [], [], [], []
    maps = RandomConvolutions(channels_in=spec.shape[0]).maps
    for first in range(0, len(chosen), chunk_items(spec.shape)):
        pair = judged.sampler.paired(held_out.batch(chosen[first : first + chunk_items(spec.shape)]))
        made, wanted = quantise(pair.fake).float().cpu(), pair.real.float().cpu()
        items.append(pictures(spec, made).transpose(0, 3, 1, 2))
        if task.domains:
            known = torch.ones(len(made)).long() if task.one_way else pair.condition
            if judged.recipe.material == "attributes":
                count = len(spec.classes) if judged.label_share else 0
                assert pair.condition is not None
                known = pair.condition[:, :count].argmax(1) if count else None
                asked.append(pair.condition[:, count:].cpu().double().numpy())
            labels += [] if known is None else [known.cpu().numpy()]
            kept.append(content_kept(maps, task.exhibit(pair)[0].float().cpu(), made))
            continue
        near.append(_distances(maps, made, wanted))
        if pair.condition is not None and pair.condition.shape == wanted.shape:
            copied.append(_distances(maps, pair.condition.float().cpu(), wanted))
    told = f"what the model makes of {held_out.source}"
    data = Data(np.concatenate(items), np.concatenate(labels) if labels else None, picture_like(spec), told)
    if spec.attributes:
        unit = tuple(Attribute(each.name, 0.0, 1.0) for each in spec.attributes)
        data = replace(data, attributes=np.concatenate(asked), spec=replace(data.spec, attributes=unit))
    if not near:
        return data, {"content_kept": _kept(kept)}
    found, base = torch.cat(near, 1), torch.cat(copied, 1) if copied else None
    margin = 1.96 * found.std(1) / len(found[0]) ** 0.5
    note = "beside it: the given picture as it is" if base is not None else ""
    return data, {
        name: Score(
            float(found[k].mean()),
            float(found[k].mean() - margin[k]),
            float(found[k].mean() + margin[k]),
            None if base is None else float(base[k].mean()),
            note,
        )
        for k, name in enumerate(NEAR)
        if not bool(found[k].isnan().any())
    }


def attributes_shown(made: Data, held_out: Data, train: Data) -> dict[str, Score]:
    """The correlation of what was asked of each picture with what a reader that saw the training data reads from it.

    Beside it stands that of real held-out pictures. The reader is linear in fixed random features.
    """
    extractor = RandomConvolutions(channels_in=made.spec.shape[0])

    def seen(data: Data) -> tuple[Tensor, Tensor]:
        batches = [data.batch(part) for part in np.array_split(data.evenly(MAX_READ), math.ceil(MAX_READ / 256))]
        found = features(extractor, (batch["real"] for batch in batches))
        return found, torch.cat([batch["attributes"] for batch in batches])

    if min(len(made), len(held_out), len(train)) < LEAST:
        return {}
    reader = linear_reader(*seen(train))
    (shown, asked), (real, own) = seen(made), seen(held_out)
    read, known, told = reader(shown), reader(real), {}
    for place, attribute in enumerate(train.spec.attributes):
        if asked[:, place].std() > 0 and own[:, place].std() > 0:
            value, interval = correlation(read[:, place], asked[:, place])
            beside, _ = correlation(known[:, place], own[:, place])
            note = "correlation of asked and read; beside it: of real pictures"
            told[f"shows_{attribute.name}"] = Score(value, interval.low, interval.high, beside, note)
    return told


def _kept(batches: list[Tensor]) -> Score:
    """The share of pictures that are nearest to what they were made of, over all whole batches."""
    whole = [kept for kept in batches if len(kept) == len(batches[0])]
    right, count = int(torch.cat(whole).sum()), sum(map(len, whole))
    interval = wilson(right, count)
    return Score(
        right / count, interval.low, interval.high, note=f"of {len(batches[0])} at a time; chance 1/{len(batches[0])}"
    )


def _distances(maps: Maps, made: Tensor, wanted: Tensor) -> Tensor:
    """In the order of NEAR, [3, items]; no structural similarity of pictures smaller than its window."""
    small = min(made.shape[2:]) < 11
    alike = torch.full((len(made),), torch.nan).double() if small else structural_similarity(made, wanted)
    return torch.stack([signal_to_noise(made, wanted), alike, map_distance(maps, made, wanted)])


def _of_class(data: Data, label: int) -> Data:
    return data if data.labels is None else data.subset(np.flatnonzero(data.labels == label))


def picture_like(spec: Spec) -> Spec:
    """Items of this shape as pictures in 8 bits."""
    return Spec("image", spec.shape, spec.classes)


def training_data(folder: Path) -> tuple[Data | None, str]:
    """The data that a run was trained on, read again from where they were; or None, and why they cannot be."""
    run = Run.read(folder)
    try:
        facts, about = run.read_facts("recipe.json"), run.read_facts("data.json")
        recipe, setting, _ = model.from_json(facts, str(folder))
        source = re.sub(r"\[[^\]]*\]$", "", about["source"])  # of an .npz the source names the array too
        data = read_as(recipe.material, source, None, setting.size)
        if data.fingerprint()["sha256"] != about["sha256"]:
            return (
                None,
                f"{about['source']} has changed since {folder} was trained on it; pass the training data as --train",
            )
        held_out = run.read_facts("validation.json") if (folder / "validation.json").exists() else {"count": 0}
        if held_out["count"]:
            train, rest = data.split(held_out["count"], SPLIT_SEED)
            data = train if rest.fingerprint()["sha256"] == held_out["sha256"] else data
        return data, ""
    except (GanlibError, KeyError, TypeError) as error:
        return None, f"the training data of {folder} cannot be read ({error}); pass them as --train"


def _can_judge(judged: Model, *parts: Data | None) -> bool:
    """Whether there is a discriminator, and a class for each item where it wants one."""
    labelled = all(part is not None and part.labels is not None for part in parts)
    return judged.discriminator is not None and (labelled or not judged.label_share)


def _logits(judged: Model, part: Part) -> Tensor:
    """The discriminator's logits of these items, with their labels where it wants them."""
    assert judged.discriminator is not None
    made = []
    for first in range(0, len(part), 256):
        with torch.inference_mode():
            real, condition = judged.sampler.judged(part.data.batch(part.numbers[first : first + 256]))
            verdict = judged.discriminator(real, condition)
        made.append(item_logits(verdict).cpu())
    return torch.cat(made)
