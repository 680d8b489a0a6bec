"""A look at a training: what its samples score, what their signs of health are, and pictures of them."""

import math
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from ganlib.core import Batch, Task
from ganlib.data import Data, decode, pictures
from ganlib.data.show import grid, save_png, scatter
from ganlib.metrics.features import FeatureExtractor, Pixels, RandomConvolutions, VectorFeatures, features, quantise
from ganlib.metrics.health import PREFIX, duplicate_share, logit_gap, spread_ratio
from ganlib.metrics.paired import signal_to_noise
from ganlib.metrics.scores import frechet_distance, neighbourhood
from ganlib.penalties import item_logits
from ganlib.sampling import refresh_statistics
from ganlib.session import Session
from ganlib.tasks.unpaired import beside

SCORE_ITEMS = 1000
HEALTH_ITEMS = 500  # of these, for what compares all with all
GAP_ITEMS = 512
NEIGHBOURS = 5
PLOT_SECONDS = 60.0
GRID_ITEMS = 64
PAIRED_ITEMS = 64  # for what is told of each item and what is made of it


def look(session: Session) -> float | None:
    """Refresh the averaged batch statistics, score samples against the validation items, draw the grid and the plot."""
    start = session.pace.now()
    refresh_statistics(session.sampler, session.seed)
    real, fake = real_features(session), fake_features(session)
    found: dict[str, float] = {}
    if session.team.rank == 0:
        score = validation_score(session, fake)
        found = {**({} if score is None else {"score": score}), **measured_signs(session, real, fake, score)}
        if not session.plan.task.draws and not session.plan.task.domains:
            found["psnr"] = noise_ratio(session)
    found = session.team.first(found)
    if found:
        record = {"items": session.state.items_seen, **found}
        session.records.append(record)
        if session.run is not None:
            session.run.log(record)
    if session.run is not None:
        save_png(session.run.samples / f"{session.state.items_seen:012d}.png", draw_grid(session))
        if time.monotonic() - session.plotted_at > PLOT_SECONDS:
            session.run.plot()
            session.plotted_at = time.monotonic()
    pace = session.pace
    pace.look_seconds, pace.looked_items = pace.now() - start, session.state.items_seen
    pace.pause(pace.look_seconds)
    return found.get("score")


def draw_grid(session: Session) -> np.ndarray:
    """The items of fixed latents, images in a grid (a column per class where there are up to 16), else as points.

    Where nothing can be drawn, what the task shows of some held-out items, side by side.
    """
    spec, count, labels = session.data.spec, GRID_ITEMS, None
    if not session.plan.task.draws:
        shown = session.plan.task.exhibit(session.sampler.paired(_some(session, GRID_ITEMS // 4)))
        return grid(pictures(spec, torch.stack(shown, 1).flatten(0, 1)), 2 * len(shown))
    columns = None
    if session.sampler.label_share and len(spec.classes) <= 16:
        columns = len(spec.classes)
        count, labels = columns * 8, torch.arange(columns)
    if spec.kind == "vector":
        count = min(2000, len(session.data))
    items = torch.cat([part for part, _ in session.sampler.stream(count, seed=session.seed, labels=labels)])
    if spec.kind == "vector":
        real = session.data.take(np.arange(count))
        return scatter(decode(spec, items), real) if spec.shape[0] > 1 else np.zeros((8, 8, 3), np.uint8)
    return grid(pictures(spec, items), columns)


def extractor_for(data: Data) -> FeatureExtractor:
    """The features of the score that is watched during training: quick and free of other people's weights."""
    if data.spec.kind == "vector":
        return VectorFeatures()
    channels, height, width = data.spec.shape
    return RandomConvolutions(channels_in=channels) if min(height, width) >= 16 else Pixels(None)


def score_items(session: Session) -> int:
    """How many items a look scores: one number for the whole run, since the Fréchet distance depends on it."""
    reference = session.validation or session.data
    return len(reference.evenly(SCORE_ITEMS, balanced=session.plan.balanced))


def real_features(session: Session) -> Tensor:
    """The features of the items that samples are compared with: held-out ones, of the training where there are none."""
    if session.real_features is None:
        chunks = (_beside_fakes(batch["real"], session.plan.task) for batch in _reference(session))
        session.real_features = _features(session, chunks)
    return session.real_features


def _beside_fakes(real: Tensor, task: Task) -> Tensor:
    """The real items that lie beside what is made of a batch of these; of two sets, in turn, those of the other."""
    if task.one_way:
        return real[1::2]
    return beside(real) if task.domains == 2 else real


def _reference(session: Session) -> Iterator[Batch]:
    """The items that samples are compared with, of which each process has every `size`-th chunk."""
    reference, count = session.validation or session.data, score_items(session)
    # Of one set, what is asked of an item is what another one in its batch has.
    chosen = reference.evenly(count, balanced=session.plan.balanced, shuffled=session.plan.task.domains == 1)
    size = session.sampler.chunk_items
    for first in range(session.team.rank * size, count, session.team.size * size):
        yield reference.batch(chosen[first : first + size])


def _some(session: Session, count: int) -> Batch:
    """A few of the items that samples are compared with."""
    reference = session.validation or session.data
    return reference.batch(reference.evenly(count, balanced=session.plan.balanced))


def noise_ratio(session: Session) -> float:
    """The mean signal-to-noise ratio, in dB, of what the generator makes of held-out items."""
    pair = session.sampler.paired(_some(session, PAIRED_ITEMS))
    return float(signal_to_noise(quantise(pair.fake), pair.real).mean())


def fake_features(session: Session) -> Tensor:
    """The features of as many samples, of latents that stay the same; or of what is made of the real items."""
    image = session.data.spec.kind == "image"
    if not session.plan.task.draws:
        made = (session.sampler.paired(batch).fake.cpu() for batch in _reference(session))
        return _features(session, (quantise(items) if image else items for items in made))
    part = session.team.rank, session.team.size
    drawn = session.sampler.stream(score_items(session), seed=session.seed + 1, part=part)
    return _features(session, (quantise(items) if image else items for items, _ in drawn))


def _features(session: Session, own_chunks: Iterable[Tensor]) -> Tensor:
    """The features of all items that are scored, of which each process brings every `size`-th chunk."""
    per_row = 2 if session.plan.task.one_way else 1  # of an item of each of two sets one is made
    count, size = score_items(session) // per_row, session.sampler.chunk_items // per_row
    some = session.team.rank * size < count
    own = features(extractor_for(session.data), own_chunks, batch_items=size) if some else torch.empty(0, 0)
    return session.team.dealt(own, count, size)


def validation_score(session: Session, fake: Tensor) -> float | None:
    """The Fréchet distance of samples to the validation items, None without any. Lower is better; not an FID.

    Where nothing is drawn, the mean squared distance of features between each item and what is made of it; where that
    has no partner, the mean over the sets of the Fréchet distance of what was made for each.
    """
    if session.validation is None or not bool(torch.isfinite(fake).all()):
        return None
    if count := session.plan.task.domains:
        real = real_features(session)
        return sum(frechet_distance(real[k::count], fake[k::count]) for k in range(count)) / count
    if not session.plan.task.draws:
        return float((real_features(session) - fake).square().sum(1).mean())
    return frechet_distance(real_features(session), fake)


def measured_signs(session: Session, real: Tensor, fake: Tensor, score: float | None) -> dict[str, float]:
    """The signs of health of the samples and, where items were held out, of the discriminator; by their log names."""
    if len(real) <= NEIGHBOURS or not bool(torch.isfinite(fake).all()):
        return {}
    variance = float(real.var(0).sum())
    real, fake = (_spread(found, max(1, session.plan.task.domains)) for found in (real, fake))
    found = {"duplicates": duplicate_share(real, fake), "spread": spread_ratio(real, fake)}
    near = neighbourhood(real, fake, k=NEIGHBOURS)
    found |= {"recall": near.recall, "coverage": near.coverage}
    if score is not None and variance > 0:
        found["distance"] = score / variance
    if session.validation is not None and session.state.discriminator is not None:
        found["logit_gap"] = logit_gap(*(_logits(session, data) for data in (session.data, session.validation)))
    return {PREFIX + name: value for name, value in found.items()}


def _spread(found: Tensor, together: int) -> Tensor:
    """Up to :data:`HEALTH_ITEMS` rows from all over, since items may be sorted by class; rows in turn stay together."""
    stride = math.ceil(len(found) / HEALTH_ITEMS)
    return found.unflatten(0, (-1, together))[::stride].flatten(0, 1)


@torch.no_grad()
def _logits(session: Session, data: Data) -> Tensor:
    """What the discriminator says of items spread over the data, 64 at a time."""
    judge = session.state.discriminator
    assert judge is not None
    if session.plan.task.one_way and data.labels is not None:  # it judges the second of two sets alone
        data = data.subset(np.flatnonzero(data.labels == 1))
    chosen = np.linspace(0, len(data) - 1, min(len(data), GAP_ITEMS)).astype(np.int64)
    was_training = judge.training
    judge.eval()
    found = []
    for part in np.array_split(chosen, math.ceil(len(chosen) / 64)):
        found.append(item_logits(judge(*session.sampler.judged(data.batch(part)))).cpu())
    judge.train(was_training)
    return torch.cat(found)
