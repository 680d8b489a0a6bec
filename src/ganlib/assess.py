"""Evaluating a model, or files that any program wrote: from paths and models to the data that are compared."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlib import model
from ganlib.core import Spec
from ganlib.data import Data, decode, load, pictures
from ganlib.errors import GanlibError
from ganlib.evaluation import Evaluation, Limits, evaluate
from ganlib.evaluation.material import MAX_FAKES, Part
from ganlib.metrics.features import FeatureExtractor
from ganlib.model import Model
from ganlib.penalties import item_logits
from ganlib.reading import SPLIT_SEED
from ganlib.training.run import Run

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
    """Draw samples of a model and evaluate them; the discriminator attacks too, where the model has one."""
    fake = drawn(judged, num_items, seed, truncation)
    return evaluate(
        fake,
        held_out,
        train=train,
        extractor=extractor,
        judge=(lambda part: _logits(judged, part)) if _can_judge(judged, held_out, train) else None,
        truncation=truncation,
        seed=seed,
        limits=limits,
    )


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
    own = Spec("image", spec.shape, spec.classes) if spec.kind == "image" else spec
    return Data(np.concatenate(items), np.concatenate(labels) if labels else None, own, told)


def training_data(folder: Path) -> tuple[Data | None, str]:
    """The data that a run was trained on, read again from where they were; or None, and why they cannot be."""
    run = Run.read(folder)
    try:
        facts, about = run.read_facts("recipe.json"), run.read_facts("data.json")
        _, setting, _ = model.from_json(facts, str(folder))
        source = re.sub(r"\[[^\]]*\]$", "", about["source"])  # of an .npz the source names the array too
        data = load(source, size=setting.size)
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
        batch = judged.sampler.drawn(part.data.batch(part.numbers[first : first + 256]))
        with torch.inference_mode():
            verdict = judged.discriminator(batch["real"], judged.plan.task.condition(batch))
        made.append(item_logits(verdict).cpu())
    return torch.cat(made)
