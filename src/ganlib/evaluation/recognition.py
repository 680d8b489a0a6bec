"""Can its output be recognised?"""

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ganlib.evaluation.coverage import Regions
from ganlib.evaluation.material import Material, Part, batches
from ganlib.evaluation.result import Answer
from ganlib.evaluation.verdicts import Limits, recognised_verdict, told_apart, too_few
from ganlib.metrics.detector import Detector, matched
from ganlib.metrics.features import features
from ganlib.metrics.report import Score

MIN_DETECTED = 100
CHANGED_ITEMS = 2500
"""So many pictures of each kind are changed: their features have to be extracted anew."""


def recognisable(material: Material, found: Regions | None, limits: Limits) -> Answer:
    """By a detector trained on half of the samples and the reference, tried on the other half and on fresh items.

    From each region come as many real items as samples: what is missing is another question. Where a detector works, a
    second one learns from changed pictures too and is tried on them: pictures are compressed and resized on their way.
    """
    half = len(material.fake) // 2
    least = min(half, len(material.reference), len(material.fresh))
    if least < MIN_DETECTED:
        needed = too_few(MIN_DETECTED, least, "held-out items in each half, and twice as many samples")
        return Answer("NOT MEASURED", f"Too few items: it {needed.note}.", {"detector_auc": needed})
    seen, tried, note = _chosen(material, found, half)
    learned = material.fake.features[seen[0]], material.reference.features[seen[1]]
    asked = material.fake.features[tried[0]], material.fresh.features[tried[1]]
    detector = Detector(*learned, seed=material.seed)
    scores = told_apart("detector", detector(asked[0]), detector(asked[1]), note)
    area, verdict = scores["detector_auc"], recognised_verdict(scores["detector_auc"], limits)
    if area.low is not None and area.low <= limits.nothing_found:
        reason = "A detector finds nothing that tells samples from real items: only a mark would make them known."
        return Answer(verdict, reason, scores)
    scope = "It knows this generator alone."
    if verdict == "WARN":
        reason = f"A detector tells some samples from real items, not all (area {area.value:.2f}). {scope}"
        return Answer(verdict, reason, scores)
    weak = []
    if material.fake.data.spec.kind == "image":
        scores |= _changed_scores(material, learned, seen, tried, note)
        weak = [name for name in CHANGES if (scores[f"detector_{name}_auc"].value or 0.0) < limits.recognised]
    after = f", but not surely when they are {' or '.join(weak)}" if weak else ""
    reason = f"A detector recognises samples (area {area.value:.3f}){after}. {scope}"
    return Answer("PASS", reason, scores)


def _changed_scores(
    material: Material,
    learned: tuple[Tensor, Tensor],
    seen: tuple[Tensor, Tensor],
    tried: tuple[Tensor, Tensor],
    note: str,
) -> dict[str, Score]:
    """The area under the curve after each change, of a detector that has learned from changed pictures too."""
    to_learn = [learned]
    to_try = {}
    for name, change in CHANGES.items():
        parts = (material.fake, seen[0][:CHANGED_ITEMS]), (material.reference, seen[1][:CHANGED_ITEMS])
        to_learn.append(tuple(_features(material, *part, change) for part in parts))  # pyright: ignore[reportArgumentType]
        parts = (material.fake, tried[0][:CHANGED_ITEMS]), (material.fresh, tried[1][:CHANGED_ITEMS])
        to_try[name] = [_features(material, *part, change) for part in parts]
    detector = Detector(*(torch.cat(side) for side in zip(*to_learn, strict=True)), seed=material.seed)
    scores: dict[str, Score] = {}
    for name, (ours, real) in to_try.items():
        scores |= told_apart(f"detector_{name}", detector(ours), detector(real), note)
    return scores


def _chosen(
    material: Material, found: Regions | None, half: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], str]:
    """Which samples and real items the detector is trained on, and which it is tried on."""
    if found is not None:
        seen = matched(found.fake[:half], found.reference)
        tried = matched(found.fake[half:], found.fresh)
        if min(len(seen[0]), len(tried[0])) >= MIN_DETECTED:
            return seen, (half + tried[0], tried[1]), "as many real items as samples from each region"
    everything = torch.arange(len(material.fake))
    reference, fresh = torch.arange(len(material.reference)), torch.arange(len(material.fresh))
    return (everything[:half], reference), (everything[half:], fresh), ""


def _features(material: Material, part: Part, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    numbers = part.numbers[rows.numpy()]
    return features(material.extractor, (change(items) for items in batches(part.data, numbers)), batch_items=256)


def compressed(items: Tensor, quality: int = 75) -> Tensor:
    """Pictures after JPEG, channel by channel where there are neither one nor three."""
    pictures = (items * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = np.stack([_jpeg(picture, quality) for picture in pictures])
    return (torch.from_numpy(made).permute(0, 3, 1, 2).float() - 127.5) / 127.5


def halved(items: Tensor) -> Tensor:
    """Pictures at half the size, enlarged again."""
    size = items.shape[2:]
    small = F.interpolate(items, [max(1, side // 2) for side in size], mode="bilinear", antialias=True)
    return F.interpolate(small, size, mode="bilinear").clamp(-1, 1)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    if picture.shape[2] not in (1, 3):
        return np.concatenate([_jpeg(picture[:, :, [channel]], quality) for channel in range(picture.shape[2])], 2)
    buffer = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(picture.shape)


CHANGES: Mapping[str, Callable[[Tensor], Tensor]] = {"compressed": compressed, "halved": halved}
"""How pictures change on their way to whoever asks."""
