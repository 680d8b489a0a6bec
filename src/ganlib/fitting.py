"""One call of fit: the loop with its log, looks, checkpoints and budget. The estimator prepares it and shows it."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganlib.core import Plan
from ganlib.data import Data, decode, pictures
from ganlib.data.show import grid, save_png, scatter
from ganlib.errors import DivergedError
from ganlib.metrics.features import FeatureExtractor, Pixels, RandomConvolutions, VectorFeatures, features, quantise
from ganlib.metrics.scores import frechet_distance
from ganlib.pace import Pace
from ganlib.sampling import Sampler
from ganlib.stopping import StopWish
from ganlib.training import checkpoint
from ganlib.training.loop import train
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, to_facts, to_tensors

LOG_STEPS = 50
PATIENCE_LOOKS = 4
SCORE_ITEMS = 1000
PLOT_SECONDS = 60.0
GRID_ITEMS = 64
CHECKPOINT_SECONDS = 60.0


@dataclass
class Session:
    """What one call of fit works with."""

    plan: Plan
    state: State
    data: Data
    validation: Data | None
    runtime: Runtime
    seed: int
    pace: Pace
    sampler: Sampler
    run: Run | None
    stop: StopWish
    patient: bool = False  # stop when the validation score no longer improves
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    records: list[dict[str, Any]] = field(default_factory=list)
    real_features: Tensor | None = None
    saved_items: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    plotted_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Progress:
    """Where the training is, after each step; `terms` at every logged step, `score` after every look."""

    items_seen: int
    total_items: int
    seconds: float
    items_per_second: float | None
    terms: dict[str, float] | None = None
    score: float | None = None


def fit(session: Session) -> Iterator[Progress]:
    """Train until the budget is used, the score no longer improves, or a signal asks for an end; then look and save."""
    state, plan, pace = session.state, session.plan, session.pace
    step_items = plan.batch_items * plan.discriminator_steps
    batches = session.data.batches(step_items, session.seed, state.items_seen)
    pace.begin(state.items_seen)
    looked = state.items_seen
    for report in train(state, plan, batches, session.runtime, session.seed):
        state.total_items = pace.total_items(report.items_seen, state.total_items)
        over = pace.over()
        due = over or (look_due(report.items_seen, step_items, state.total_items) and pace.affords_look())
        terms = log(session) if due or report.items_seen // step_items % LOG_STEPS == 0 else None
        score = None
        if due:
            score, looked = look(session), report.items_seen
        if score is not None or time.monotonic() - session.saved_at > session.checkpoint_seconds:
            save(session)
        yield Progress(report.items_seen, state.total_items, pace.spent(), pace.speed(report.items_seen), terms, score)
        if (
            over
            or pace.over()
            or session.stop.signal
            or (session.patient and score is not None and exhausted(session.records))
        ):
            break
    if session.stop.signal is None and looked < state.items_seen:
        look(session)
    save(session)
    if session.run is not None:
        session.run.plot()


def look_due(items_seen: int, step_items: int, total_items: int) -> bool:
    """True at each look: a function of the items alone, so that a resumed run looks at the same places."""
    num_looks = min(50, max(10, total_items // 100_000))
    return items_seen * num_looks // total_items > (items_seen - step_items) * num_looks // total_items


def exhausted(records: list[dict[str, Any]]) -> bool:
    """True when none of the last looks was better than the best before them."""
    scores = [record["score"] for record in records if record.get("score") is not None]
    return len(scores) > PATIENCE_LOOKS and min(scores[-PATIENCE_LOOKS:]) >= min(scores[:-PATIENCE_LOOKS])


def log(session: Session) -> dict[str, float]:
    """Write the mean terms since the last time. Raises :class:`DivergedError` naming the first that is not finite."""
    terms = session.state.mean.take()
    record = {"items": session.state.items_seen, **terms}
    session.records.append(record)
    if session.run is not None:
        session.run.log(record)
        session.run.log_time({"items": session.state.items_seen, "seconds": round(session.pace.spent(), 3)})
    bad = next((name for name, value in terms.items() if not math.isfinite(value)), None)
    if bad is not None:
        where = f"; the last good checkpoint in {session.run.folder} stays" if session.run is not None else ""
        raise DivergedError(
            f"{bad} became {terms[bad]} by item {session.state.items_seen:,}{where}. "
            "Train again with a lower learning rate or a larger penalty, or look for extreme values in the data"
        )
    return terms


def look(session: Session) -> float | None:
    """Refresh the averaged batch statistics, score samples against the validation items, draw the grid and the plot."""
    start = time.monotonic()
    refresh_statistics(session)
    score = validation_score(session)
    if score is not None:
        record = {"items": session.state.items_seen, "score": score}
        session.records.append(record)
        if session.run is not None:
            session.run.log(record)
    if session.run is not None:
        save_png(session.run.samples / f"{session.state.items_seen:012d}.png", draw_grid(session))
        if time.monotonic() - session.plotted_at > PLOT_SECONDS:
            session.run.plot()
            session.plotted_at = time.monotonic()
    pace = session.pace
    pace.look_seconds = time.monotonic() - start
    pace.pause(pace.look_seconds)
    return score


def draw_grid(session: Session) -> np.ndarray:
    """The items of fixed latents, images in a grid (a column per class where there are up to 16), else as points."""
    spec, count, labels = session.data.spec, GRID_ITEMS, None
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


@torch.no_grad()
def refresh_statistics(session: Session, num_batches: int = 8) -> None:
    """Measure the batch statistics of the averaged generator anew: those averaged so far belong to no one network.

    Standing statistics, Brock et al. 2018, arXiv:1809.11096, section 4.1; drawn as in training, from a fixed seed.
    """
    average = session.state.average
    norms = [module for module in average.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    latents = session.sampler.latents(num_batches * 64, seed=session.seed).chunk(num_batches)
    share = session.sampler.label_share
    labels = session.sampler.labels(num_batches * 64, seed=session.seed).chunk(num_batches) if share else None
    for number, latent in enumerate(latents):
        condition = labels[number].to(session.runtime.device) if labels is not None else None
        session.plan.task.sample(average, latent.to(session.runtime.device), condition)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def extractor_for(data: Data) -> FeatureExtractor:
    """The features of the score that is watched during training: quick and free of other people's weights."""
    if data.spec.kind == "vector":
        return VectorFeatures()
    channels, height, width = data.spec.shape
    return RandomConvolutions(channels_in=channels) if min(height, width) >= 16 else Pixels(None)


def validation_score(session: Session) -> float | None:
    """The Fréchet distance of samples to the validation items, None without any. Lower is better; not an FID."""
    if session.validation is None:
        return None
    count = min(SCORE_ITEMS, len(session.validation))  # one number for the whole run: the distance depends on it
    extractor = extractor_for(session.data)
    if session.real_features is None:
        chosen = np.linspace(0, len(session.validation) - 1, count).astype(np.int64)
        parts = (session.validation.batch(part)["real"] for part in np.array_split(chosen, math.ceil(count / 64)))
        session.real_features = features(extractor, parts)
    image = session.data.spec.kind == "image"
    made = (quantise(part) if image else part for part, _ in session.sampler.stream(count, seed=session.seed + 1))
    fake = features(extractor, made)
    return frechet_distance(session.real_features, fake) if bool(torch.isfinite(fake).all()) else None


def save(session: Session) -> None:
    """Write a checkpoint, unless this state is saved already. Raises :class:`DivergedError` for weights not finite."""
    state, run = session.state, session.run
    if run is None or session.saved_items == state.items_seen:
        return
    start = time.monotonic()
    tensors = to_tensors(state)
    for group, members in tensors.items():
        for name, tensor in members.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DivergedError(
                    f"{group}.{name} is not finite at item {state.items_seen:,}; nothing was saved, and the last "
                    f"good checkpoint in {run.folder} stays. Train again with a lower learning rate"
                )
    scores = [record for record in session.records if record.get("score") is not None]
    score = scores[-1]["score"] if scores and scores[-1]["items"] == state.items_seen else None
    facts = {**to_facts(state), "score": score, "seconds": round(session.pace.spent(), 3)}
    run.log_time({"items": state.items_seen, "seconds": round(session.pace.spent(), 3)})
    run.sync_log()
    checkpoint.save(run.checkpoints / checkpoint.name(state.items_seen), tensors, facts)
    checkpoint.prune(run.checkpoints)
    session.saved_items, session.saved_at = state.items_seen, time.monotonic()
    session.pace.save_seconds = time.monotonic() - start
    session.pace.pause(session.pace.save_seconds)
