"""Signs of collapse, divergence and overfitting at each look of a training, and what they mean: pure functions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

PREFIX = "health/"
"""Of the signs' names in a log."""

IN_A_ROW = 2  # looks that must agree
PERSISTENT = 6  # looks that must agree where the training has never been better: it may only be young

DUPLICATES = 0.3  # Thresholds, found on the digits and 25 Gaussians with seeds from 100 up.
BARE = 0.05  # coverage of a generator that does not resemble the data at all, or not yet
BARE_DUPLICATES = 0.1  # where such a one comes no nearer to them
LEAST_SPREAD, MOST_SPREAD = 0.05, 5.0
SHARE_OF_BEST = 0.1  # recall and coverage below this share of their best have fallen
WORTH_FALLING = 0.3  # from where they can fall
DISTANCE_OVER_BEST = 3.0
LEAST_DISTANCE = 0.05  # below it a distance is mostly the noise of few samples
LOGIT_GAP = 1.0


@dataclass(frozen=True)
class Signs:
    """What one look measured: shares of items, but for the last three.

    `spread` is the variance of fakes over that of reals, `distance` the Fréchet distance over the variance of reals,
    `logit_gap` is in standard deviations; None without held-out items.
    """

    items: int
    duplicates: float
    spread: float
    recall: float
    coverage: float
    distance: float | None = None
    logit_gap: float | None = None


@dataclass(frozen=True)
class Finding:
    """What is wrong since which item: the sign, its number and the threshold, in plain words, and what to change."""

    kind: Literal["collapse", "divergence", "overfitting"]
    sign: str
    since_items: int
    value: float
    threshold: float
    text: str
    advice: str


def duplicate_share(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """The share of fakes nearer to another fake than a tenth of the median distance between neighbouring reals.

    ``mean_s 1[NN_1(s; S∖s) < 0.1 · median NN_1(r; R∖r)]``. Both sets need two items.
    """
    return (_nearest(fake) < 0.1 * _nearest(real).median()).double().mean().item()


def spread_ratio(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """The total variance of the fakes over that of the reals, ``tr Σ_fake / tr Σ_real``; 1 for reals without any."""
    of_real, of_fake = (x.double().var(0).sum().item() for x in (real, fake))
    return of_fake / of_real if of_real > 0 else 1.0


def logit_gap(train: Float[Tensor, " n"], held_out: Float[Tensor, " m"]) -> float:
    """How far the mean logit of training items is above that of held-out ones, in their pooled standard deviation.

    ``(μ_train − μ_held) / √((σ²_train + σ²_held) / 2)``; 0 for logits that do not differ at all.
    """
    pooled = math.sqrt((train.double().var().item() + held_out.double().var().item()) / 2)
    gap = (train.double().mean() - held_out.double().mean()).item()
    return gap / pooled if pooled > 0 else 0.0


def signs_in(records: Iterable[Mapping[str, Any]]) -> list[Signs]:
    """The signs of each look among the records of a log, in order."""
    names = ("duplicates", "spread", "recall", "coverage")
    return [
        Signs(
            record["items"],
            *(float(record[PREFIX + name]) for name in names),
            distance=record.get(PREFIX + "distance"),
            logit_gap=record.get(PREFIX + "logit_gap"),
        )
        for record in records
        if all(record.get(PREFIX + name) is not None for name in names)
    ]


def findings(history: Sequence[Signs]) -> list[Finding]:
    """What is wrong at the last of these looks, and has been in the looks before it; of each kind the first sign.

    A sign counts when two looks in a row agree; where there never was a better look, and a young training looks the
    same, when six do.
    """
    found: dict[str, Finding] = {}
    for name in _SIGNS:
        run = 0
        while run < len(history) and _bad(name, history[: len(history) - run]):
            run += 1
        needed = PERSISTENT if _always(name, history) else IN_A_ROW
        if run >= needed and _SIGNS[name] not in found:
            found[_SIGNS[name]] = _worded(name, history, history[-run].items)
    return list(found.values())


def ill(history: Sequence[Signs]) -> bool:
    """Whether any sign of a collapse or divergence is bad at the last look, even if only there."""
    return any(_bad(name, history) for name, kind in _SIGNS.items() if kind != "overfitting")


_LOWER = "train again with a lower learning_rate or a larger penalty (gamma of r3), or take the best checkpoint"
ADVICE = {
    "collapse": _LOWER,
    "divergence": _LOWER,
    "overfitting": "give more data, a larger penalty (gamma of r3) or a smaller discriminator, or stop earlier",
}

_SIGNS: dict[str, Literal["collapse", "divergence", "overfitting"]] = {
    "duplicates": "collapse",
    "narrow": "collapse",
    "coverage": "collapse",
    "recall": "collapse",
    "distance": "divergence",
    "wide": "divergence",
    "logit_gap": "overfitting",
}


def _always(name: str, history: Sequence[Signs]) -> bool:
    """Whether the spread was never better than it is now said to be: the training may only be young."""
    narrow, wide = (look.spread <= LEAST_SPREAD for look in history), (look.spread >= MOST_SPREAD for look in history)
    return (name == "narrow" and all(narrow)) or (name == "wide" and all(wide))


def _bad(name: str, history: Sequence[Signs]) -> bool:
    """Whether a sign is bad at the last of these looks, by the looks before it."""
    last = history[-1]
    match name:
        case "duplicates":
            return last.duplicates >= _most_duplicates(history)
        case "narrow":
            return last.spread <= LEAST_SPREAD and not _nearer(history, unknown=False)
        case "wide":
            return last.spread >= MOST_SPREAD
        case "coverage":
            return _fallen([look.coverage for look in history])
        case "recall":
            return _fallen([look.recall for look in history])
        case "distance":
            return last.distance is not None and last.distance >= _most_distance(history)
        case _:
            return last.logit_gap is not None and last.logit_gap >= LOGIT_GAP


def _nearest(points: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The distance of each point to its nearest neighbour. Not by a matrix product, whose rounding hides copies."""
    distances = torch.cdist(points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(math.inf).amin(1)


def _most_duplicates(history: Sequence[Signs]) -> float:
    """From which share on duplicates are a bad sign; a young training draws one item of each class before several.

    So more are allowed while the samples come nearer to the data, and any share while they cover some of it too.
    """
    nearer = _nearer(history, unknown=True)
    if history[-1].coverage > BARE:
        return math.inf if nearer else DUPLICATES
    return DUPLICATES if nearer else BARE_DUPLICATES


def _nearer(history: Sequence[Signs], *, unknown: bool) -> bool:
    """Whether the samples are nearer to the data than ever before."""
    distances = [look.distance for look in history if look.distance is not None]
    return distances[-1] < min(distances[:-1]) if len(distances) > 1 else unknown


def _fallen(shares: Sequence[float]) -> bool:
    return max(shares) >= WORTH_FALLING and shares[-1] <= SHARE_OF_BEST * max(shares)


def _most_distance(history: Sequence[Signs]) -> float:
    """From where the distance has risen too far over the best before; infinite at the first look."""
    before = [look.distance for look in history[:-1] if look.distance is not None]
    return max(LEAST_DISTANCE, DISTANCE_OVER_BEST * min(before)) if before else math.inf


def _worded(name: str, history: Sequence[Signs], since_items: int) -> Finding:
    """A sign that is bad, in words."""
    last, kind = history[-1], _SIGNS[name]
    best_coverage, best_recall = max(look.coverage for look in history), max(look.recall for look in history)
    value, threshold, text = {
        "duplicates": (
            last.duplicates,
            _most_duplicates(history),
            "{:.0%} of the samples are copies of each other (limit {:.0%})",
        ),
        "narrow": (last.spread, LEAST_SPREAD, "samples vary {:.1%} as much as the data (limit {:.0%})"),
        "coverage": (last.coverage, SHARE_OF_BEST * best_coverage, "samples cover {:.1%} of the data (limit {:.1%})"),
        "recall": (last.recall, SHARE_OF_BEST * best_recall, "samples reach {:.1%} of the data (limit {:.1%})"),
        "distance": (
            last.distance or 0.0,
            _most_distance(history),
            "samples are {:.2g} from the data, in units of their variance (limit {:.2g})",
        ),
        "wide": (last.spread, MOST_SPREAD, "samples vary {:.1f} times as much as the data (limit {:.0f})"),
        "logit_gap": (
            last.logit_gap or 0.0,
            LOGIT_GAP,
            "the discriminator rates training items {:.1f} standard deviations over held-out ones (limit {:.1f})",
        ),
    }[name]
    return Finding(kind, name, since_items, value, threshold, text.format(value, threshold), ADVICE[kind])
