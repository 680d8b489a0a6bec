"""Trainings for a time and the scores of what they draw, as the CIFAR-10 benchmarks share them."""

import copy
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import SHARED, note, peak_bytes
from ganlib import __version__
from ganlib.data import Data
from ganlib.fitting import Progress, Session, fit
from ganlib.metrics.features import FeatureExtractor, ModuleFeatures, RandomConvolutions, features, quantise
from ganlib.metrics.report import Yardstick, yardstick
from ganlib.opening import Request, prepare
from ganlib.pace import Pace
from ganlib.recipe import Recipe
from ganlib.sampling import Sampler, refresh_statistics
from ganlib.stopping import StopWish
from ganlib.training.runtime import Runtime

FEATURE_NETS = SHARED / "data" / "feature_nets"
SAMPLE_SEED = 1


@dataclass(frozen=True)
class Point:
    """The averaged generator at one moment of the training."""

    seconds: float
    items: int
    sampler: Sampler

    def draw(self, num_items: int) -> Iterator[Tensor]:
        return (part for part, _ in self.sampler.stream(num_items, seed=SAMPLE_SEED))


@dataclass(frozen=True)
class Race:
    """What one training left behind; the last point is its end."""

    points: list[Point]
    notes: dict[str, Any]
    items_per_second: float | None
    peak_bytes: int
    parameters: int


class MobileNetFeatures(nn.Module):
    """The pooled features of a MobileNet, of pictures enlarged to `side`."""

    def __init__(self, net: nn.Module, side: int = 96) -> None:
        super().__init__()
        self.net, self.side = net, side

    def forward(self, items: Tensor) -> Tensor:
        larger = F.interpolate(items, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return self.net.features(larger)  # type: ignore[operator]


def make_extractor(device: str) -> FeatureExtractor:
    """MobileNet where its code and weights lie beside the checkout, else random convolutions."""
    code, weights = FEATURE_NETS / "mobilenet_v1.py", FEATURE_NETS / "mobilenet_v1_075_imagenet.npz"
    if not (code.exists() and weights.exists()):
        return RandomConvolutions(channels_in=3)
    spec = importlib.util.spec_from_file_location("mobilenet_v1", code)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.MobileNetV1(0.75)
    with np.load(weights) as stored:
        missing, unexpected = net.load_state_dict({k: torch.from_numpy(stored[k]) for k in stored}, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return ModuleFeatures(MobileNetFeatures(net).to(device), "mobilenet-v1-0.75-imagenet-96px")


def ready(
    data: Data, recipe: Recipe, runtime: Runtime, *, minutes: float, seed: int = 0, conditional: bool | None = None
) -> Session:
    """A training without a run folder, ready to go."""
    request = Request(
        load=lambda: data,
        size=None,
        validation=0.0,
        conditional=conditional,
        pace=Pace(seconds=60 * minutes),
        runtime=runtime,
        asked=recipe,
        seed=seed,
        run=None,
        checkpoint_seconds=1e9,
    )
    prepared = prepare(request)
    note("; ".join(prepared.notices))
    sampler = Sampler(prepared.plan.task, prepared.state.average, runtime.device, prepared.label_share)
    stop = StopWish()  # signals keep their usual meaning
    return Session(
        prepared.plan, prepared.state, prepared.train, None, runtime, seed, request.pace, sampler, None, stop
    )


def run(session: Session, num_points: int) -> Race:
    """Train to the end of the time, setting the averaged generator aside along the way."""
    cuda = session.runtime.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    budget, points = session.pace.seconds or 0.0, []
    last: Progress | None = None
    for last in fit(session):
        if last.seconds >= budget * (len(points) + 1) / (num_points + 1) and len(points) < num_points:
            points.append(set_aside(session))
    assert last is not None, "no step was taken"
    points.append(set_aside(session))
    networks = (session.state.generator, session.state.discriminator)
    return Race(
        points,
        dict(session.plan.notes),
        last.items_per_second,
        # On a processor the peak of the process so far, data included.
        torch.cuda.max_memory_allocated() if cuda else peak_bytes(),
        sum(weight.numel() for net in networks if net is not None for weight in net.parameters()),
    )


def set_aside(session: Session) -> Point:
    refresh_statistics(session.sampler, session.seed)
    average, sampler = copy.deepcopy(session.state.average), session.sampler
    kept = Sampler(sampler.task, average, sampler.device, sampler.label_share)
    return Point(session.pace.spent(), session.state.items_seen, kept)


def batches_of(data: Data, count: int, seed: int) -> Iterator[Tensor]:
    """Randomly chosen items."""
    chosen = np.random.default_rng(seed).permutation(len(data))[:count]
    for first in range(0, count, 64):
        yield quantise(data.batch(chosen[first : first + 64])["real"])


def score(
    samples: Iterable[Tensor],
    real: Tensor,
    baseline: Tensor | None,
    extractor: FeatureExtractor,
    reference: str,
    device: str,
) -> Yardstick:
    """All scores of samples, rounded to 8 bits."""
    fake = features(extractor, (quantise(part) for part in samples)).to(device)
    protocol = {
        "extractor": extractor.name,
        "extractor_digest": extractor.digest(),
        "reference": reference,
        "quantisation": "8 bits",
        "truncation": None,
        "seed": SAMPLE_SEED,
        "version": __version__,
    }
    return yardstick(real, fake, baseline_feats=baseline, protocol=protocol)
