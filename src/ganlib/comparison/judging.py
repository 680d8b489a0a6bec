"""Judging a trained run by what all runs of a comparison are judged by."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ganlib import diagnosis, model
from ganlib.assess import drawn
from ganlib.comparison.result import Entry
from ganlib.comparison.verdict import verdict_of
from ganlib.data import Data, decode, pictures
from ganlib.data.show import grid, scatter
from ganlib.evaluation import Limits
from ganlib.evaluation.classes import by_class
from ganlib.evaluation.coverage import covered, regions
from ganlib.evaluation.material import MAX_ENCODER, deal, default_extractor
from ganlib.evaluation.quality import good, neighbourhoods
from ganlib.metrics.features import FeatureExtractor
from ganlib.training.run import Run

SHOWN = 36


@dataclass(frozen=True, eq=False)
class Arena:
    """Held-out items that none was trained on, and one extractor for all, learned from the training items.

    `seed` is of all that is drawn at random in judging.
    """

    train: Data
    held_out: Data
    extractor: FeatureExtractor
    learned_from: int
    num_items: int
    device: str
    seed: int = 0

    def protocol(self) -> dict[str, Any]:
        """By what the scores were computed, for those that would compare them with others."""
        return {
            "extractor": self.extractor.name,
            "extractor_digest": self.extractor.digest(),
            "learned_from": f"{self.learned_from} training items" if self.learned_from else "nothing here",
            "held_out": len(self.held_out),
            "reference": len(self.held_out) // 2,
            "samples": self.num_items,
            "checkpoint": "the newest, or the best by validation score where that is 10 % better",
        }


def arena_of(train: Data, held_out: Data, num_items: int, device: str) -> Arena:
    """Learn the extractor, in seconds, or find the one that was learned before."""
    order = np.random.default_rng(0).permutation(len(train))
    extractor, learned = default_extractor(train, np.sort(order[: min(MAX_ENCODER, len(train) // 2)]), 0)
    return Arena(train, held_out, extractor, learned, num_items, device)


def judged(entry: Entry, folder: Path, arena: Arena) -> tuple[Entry, np.ndarray]:
    """The entry with size, scores and verdict of the trained run, and a grid of its first samples.

    All runs draw as many samples, from the same seed, and are measured against the same half of the held-out items;
    what real items would score comes from the other half.
    """
    trained = model.load(folder, arena.device)
    fake = drawn(trained, arena.num_items, arena.seed, None)
    material = deal(fake, arena.held_out, None, arena.extractor, arena.seed, arena.num_items)
    near, found, limits = neighbourhoods(material), regions(material), Limits()
    quality = good(material, near, limits)
    scores = {**quality.scores, **by_class(material)}
    reach = covered(material, near, found, None, scores, limits)
    told = diagnosis.of_run(folder)
    verdict, why = verdict_of(told.findings, quality, reach)
    networks = {"generator": trained.generator, "discriminator": trained.discriminator}
    parameters = {
        name: sum(weight.numel() for weight in network.parameters())
        for name, network in networks.items()
        if network is not None
    }
    seconds = max((float(record["seconds"]) for record in Run.read(folder).times()), default=0.0)
    entry = replace(
        entry,
        items=told.items,
        items_per_second=told.items / seconds if seconds > 0 else None,
        parameters=parameters,
        verdict=verdict,
        why=" ".join(
            [why, *([f"On the way: {len(told.notes)} notes of ganlib doctor."] if told.notes else [])]
        ).strip(),
        scores={**scores, **reach.scores},
    )
    return entry, sheet(fake, arena.held_out)


def sheet(shown: Data, reference: Data) -> np.ndarray:
    """The first pictures as a square grid; of vectors as many points as there are reference items, above those."""
    if shown.spec.kind == "image":
        items = shown.batch(np.arange(min(SHOWN, len(shown))))["real"]
        return grid(pictures(shown.spec, items))
    if shown.spec.shape[0] < 2:
        return np.full((8, 8, 3), 255, np.uint8)
    count = min(2000, len(shown), len(reference))
    ours, real = (decode(d.spec, d.batch(np.arange(count))["real"]) for d in (shown, reference))
    return scatter(ours, real)


def curve(folder: Path) -> dict[str, list[float]]:
    """The validation score over items and seconds of the budget: the same extractor and items for all."""
    run = Run.read(folder)
    looks = [(int(r["items"] or 0), float(r["score"])) for r in run.records() if r.get("score") is not None]  # type: ignore[arg-type]
    times = {int(record["items"]): float(record["seconds"]) for record in run.times()}
    known = sorted(times)
    seconds = np.interp([items for items, _ in looks], known, [times[items] for items in known]) if known else []
    return {
        "items": [float(items) for items, _ in looks],
        "seconds": [float(second) for second in seconds],
        "score": [score for _, score in looks],
    }
