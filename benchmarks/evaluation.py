"""Planted truth: does the evaluation say what is wrong with samples that were made wrong on purpose, and nothing else?

    python benchmarks/evaluation.py [--data NAME] [--seeds 20] [--items 2000] [--plants fresh half ...] [--json]
    python benchmarks/evaluation.py --cost [--data cifar10] [--json]

Protocol: real pictures in the place of samples, so that the truth is known. For each seed, `items` fresh pictures of
the training split; 5 · `items` others are the training data, 2 · `items` of the test split are held out. The plants:

    fresh     nothing is wrong
    copies_N  N % of the samples are training pictures
    half      only half of the classes
    fifty     fifty fresh pictures, drawn again and again
    noise     uniform noise
    noisy     fresh pictures under noise of a standard deviation of 50 levels

A seed is right where the verdicts are those of EXPECTED. Of a question that it does not name PASS is right, and NOT
MEASURED too, but for `fresh`. The data are read from the folder beside the checkout that the tests use too. `--cost`
makes one report of 10,000 samples against 10,000 held-out items and 40,000 training items, without a cached encoder,
and tells time and memory.
"""

import os
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from common import SHARED, make_parser, needed, new_folder, note, report
from ganlib.data import Data, load
from ganlib.evaluation import Evaluation, evaluate
from ganlib.evaluation.page import save_page

COPIES = (1, 2, 5, 10, 50)
PLANTS = ("fresh", *(f"copies_{share}" for share in COPIES), "half", "fifty", "noise", "noisy")
EXPECTED: dict[str, dict[str, set[str]]] = {
    "copies_1": {"copied": {"WARN", "FAIL"}, "private": {"PASS", "WARN", "FAIL"}},
    "copies_2": {"copied": {"FAIL"}, "private": {"PASS", "WARN", "FAIL"}},
    "copies_5": {"copied": {"FAIL"}, "private": {"PASS", "WARN", "FAIL"}},
    "copies_10": {"copied": {"FAIL"}, "private": {"PASS", "WARN", "FAIL"}},
    "copies_50": {"copied": {"FAIL"}, "private": {"PASS", "WARN", "FAIL"}},
    "half": {"covered": {"FAIL"}},
    "fifty": {"covered": {"FAIL"}},
    "noise": {"good": {"FAIL"}},
    "noisy": {"good": {"FAIL"}},
}
"""Whoever was copied can be found: with copies any verdict on privacy is right."""


@dataclass(frozen=True)
class Outcome:
    """One plant of one seed."""

    plant: str
    seed: int
    verdicts: dict[str, str]
    copy_rate: float
    right: bool


def plant(name: str, pool: Data, train: Data, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures [n, channels, height, width] uint8 that are wrong in one way."""
    fresh = pool.take(np.arange(count))
    if name.startswith("copies"):
        copied = round(count * int(name.partition("_")[2]) / 100)
        fresh[:copied] = train.take(rng.permutation(len(train))[:copied])
    elif name == "half":
        assert pool.labels is not None
        return pool.take(np.flatnonzero(pool.labels < len(pool.spec.classes) // 2)[:count])
    elif name == "fifty":
        return fresh[:50][rng.integers(0, 50, count)]
    elif name == "noise":
        return rng.integers(0, 256, fresh.shape, dtype=np.uint8)
    elif name == "noisy":
        return (fresh + rng.normal(0, 50, fresh.shape)).clip(0, 255).astype(np.uint8)
    return fresh


def judged(name: str, found: Evaluation) -> bool:
    """Whether every question is answered as it should be; of fresh items each has to pass."""
    expected, usual = EXPECTED.get(name, {}), {"PASS"} if name == "fresh" else {"PASS", "NOT MEASURED"}
    return all(answer.verdict in expected.get(question, usual) for question, answer in found.answers().items())


def as_data(pictures: np.ndarray) -> Data:
    return load(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)))


def run_seed(seed: int, plants: list[str], full: Data, test: Data, count: int) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(full))
    train, pool = full.subset(order[: 5 * count]), full.subset(order[5 * count : 10 * count])
    held_out = test.subset(rng.permutation(len(test))[: 2 * count])
    known, unseen = (as_data(data.take(np.arange(len(data)))) for data in (train, held_out))
    outcomes = []
    for name in plants:
        found = evaluate(as_data(plant(name, pool, train, count, rng)), unseen, train=known, seed=seed)
        verdicts = {question: answer.verdict for question, answer in found.answers().items()}
        outcomes.append(Outcome(name, seed, verdicts, found.scores()["copy_rate"].value or 0.0, judged(name, found)))
        note(f"seed {seed} {name}: {' '.join(verdicts.values())}, copies {outcomes[-1].copy_rate:.2%}")
    return outcomes


def summary(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """How many seeds are right, the verdicts of the others, and the copy rates where copies were planted."""
    rates = [outcome.copy_rate for outcome in outcomes]
    told: dict[str, Any] = {
        "right": sum(outcome.right for outcome in outcomes),
        "seeds": len(outcomes),
        "wrong": {outcome.seed: outcome.verdicts for outcome in outcomes if not outcome.right},
    }
    if name == "fresh" or name.startswith("copies"):
        planted = int(name.partition("_")[2] or 0) / 100
        told["copy_rate"] = {"planted": planted, "mean": round(float(np.mean(rates)), 4)}
        told["copy_rate"]["largest_error"] = round(float(np.abs(np.array(rates) - planted).max()), 4)
    return told


def cost(full: Data, test: Data) -> dict[str, Any]:
    """What one report takes, from loaded data to the page on disk."""
    folder = new_folder(None)
    os.environ["GANLIB_HOME"] = str(folder)
    train, fake = full.subset(np.arange(40_000)), full.subset(np.arange(40_000, 50_000))
    wall, cpu = time.monotonic(), time.process_time()
    found = evaluate(fake, test, train=train)
    save_page(found, folder / "report.html", title="cost")
    return {
        "seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "page_kb": (folder / "report.html").stat().st_size // 1024,
        "threads": torch.get_num_threads(),
        "verdicts": {question: answer.verdict for question, answer in found.answers().items()},
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", choices=("fashion_mnist", "mnist", "cifar10"), default="fashion_mnist")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--items", type=int, default=2000, help="samples of each evaluation")
    parser.add_argument("--plants", nargs="+", choices=PLANTS, default=list(PLANTS))
    parser.add_argument("--cost", action="store_true", help="one report of 10,000 samples: time and memory")
    args = parser.parse_args()
    path = needed(SHARED / "data" / args.data)
    full, test = load(path), load(path, split="test")
    if args.cost:
        report(cost(full, test), args.json)
        return
    outcomes: list[Outcome] = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        outcomes += run_seed(seed, args.plants, full, test, args.items)
    told = {name: summary(name, [each for each in outcomes if each.plant == name]) for name in args.plants}
    report({**told, "data": args.data, "items": args.items}, args.json)


if __name__ == "__main__":
    main()
