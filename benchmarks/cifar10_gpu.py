"""CIFAR-10 in minutes on one GPU: images per second, memory, and quality over time for the networks of the default.

    python benchmarks/cifar10_gpu.py [--minutes 3] [--networks residual compact] [--data DIR] [--out DIR] [--json]
    python benchmarks/cifar10_gpu.py --minutes 0.2 --networks compact --points 1 --samples 500   # a look on a processor

Protocol: recipe r3 with each kind of networks for `--minutes` of wall time on the 50,000 training images, with labels,
in bfloat16 where the device has it. At `--points` equal shares of the time, and at the end, the averaged generator is
set aside with fresh batch statistics; all are scored afterwards, so that scoring takes no training time and all points
lie on one run with one schedule: the early ones are those of an unfinished run, with its learning rate still high.

`--samples` samples (10,000) in 8 bits against as many test images: Fréchet and kernel distance, precision, recall,
density and coverage with k = 5; `baseline` is what training images score. The features are MobileNet's, trained on
ImageNet, at 96 x 96 where ../shared/data/feature_nets is there, else random convolutions; neither is used in training,
and no figure is comparable with a published FID. The copy of CIFAR-10 in ../shared/data is JPEG of quality 75.
"""

import argparse
import copy
import importlib.util
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import SHARED, make_parser, needed, new_folder, note, peak_bytes, report
from ganlib import __version__
from ganlib.data import Data, load, pictures
from ganlib.data.show import grid, save_png
from ganlib.fitting import Progress, Session, fit, refresh_statistics
from ganlib.metrics.features import FeatureExtractor, ModuleFeatures, RandomConvolutions, features, quantise
from ganlib.metrics.report import Yardstick, yardstick
from ganlib.opening import Request, prepare
from ganlib.pace import Pace
from ganlib.recipes.r3 import r3
from ganlib.sampling import Sampler
from ganlib.stopping import StopWish
from ganlib.training.runtime import Runtime, choose_device, choose_precision

FEATURE_NETS = SHARED / "data" / "feature_nets"
SAMPLE_SEED = 1


@dataclass(frozen=True)
class Point:
    """The averaged generator at one moment of the training."""

    seconds: float
    items: int
    sampler: Sampler


@dataclass(frozen=True)
class Training:
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


def begin(data: Data, network: str, args: argparse.Namespace, device: str) -> Session:
    """A training of r3 without a run folder, ready to go."""
    recipe = r3(network=network, width=args.width, batch_items=args.batch_items)  # type: ignore[arg-type]
    request = Request(
        load=lambda: data,
        size=None,
        validation=0.0,
        conditional=None,
        pace=Pace(seconds=60 * args.minutes),
        runtime=Runtime(device, choose_precision("auto", device), args.compile),
        asked=recipe,
        seed=args.seed,
        run=None,
        checkpoint_seconds=1e9,
    )
    prepared = prepare(request)
    note("; ".join(prepared.notices))
    sampler = Sampler(prepared.plan.task, prepared.state.average, device, prepared.label_share)
    stop = StopWish()  # signals keep their usual meaning
    return Session(
        prepared.plan, prepared.state, data, None, request.runtime, args.seed, request.pace, sampler, None, stop
    )


def train(session: Session, num_points: int) -> Training:
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
    return Training(
        points,
        dict(session.plan.notes),
        last.items_per_second,
        # On a processor the peak of the process so far, data included.
        torch.cuda.max_memory_allocated() if cuda else peak_bytes(),
        sum(weight.numel() for net in networks if net is not None for weight in net.parameters()),
    )


def set_aside(session: Session) -> Point:
    refresh_statistics(session)
    average, sampler = copy.deepcopy(session.state.average), session.sampler
    kept = Sampler(sampler.task, average, sampler.device, sampler.label_share)
    return Point(session.pace.spent(), session.state.items_seen, kept)


def batches_of(data: Data, count: int, seed: int) -> Iterator[Tensor]:
    """Randomly chosen items."""
    chosen = np.random.default_rng(seed).permutation(len(data))[:count]
    for first in range(0, count, 64):
        yield quantise(data.batch(chosen[first : first + 64])["real"])


def score(
    point: Point, real: Tensor, baseline: Tensor | None, extractor: FeatureExtractor, reference: str, device: str
) -> Yardstick:
    """All scores of a point's samples."""
    parts = (quantise(part) for part, _ in point.sampler.stream(len(real), seed=SAMPLE_SEED))
    fake = features(extractor, parts).to(device)
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


def told(training: Training, yardsticks: list[Yardstick]) -> dict[str, Any]:
    """The figures of one training; those of its end first."""
    rounded = [
        {name: None if score.value is None else round(score.value, 5) for name, score in made.scores().items()}
        for made in yardsticks
    ]
    moments = [{"seconds": round(p.seconds, 1), "items": p.items} for p in training.points]
    return {
        **rounded[-1],
        "images_per_second": None if training.items_per_second is None else round(training.items_per_second, 1),
        "peak_memory_mib": round(training.peak_bytes / 2**20, 1),
        "items": training.points[-1].items,
        "parameters": training.parameters,
        "notes": training.notes,
        "over_time": [moment | made for moment, made in zip(moments, rounded, strict=True)],
    }


def draw_grid(training: Training, data: Data, path: Path) -> None:
    """Ten rows of samples at the end, a column per class."""
    columns = torch.arange(len(data.spec.classes))
    stream = training.points[-1].sampler.stream(10 * len(columns), seed=SAMPLE_SEED, labels=columns)
    save_png(path, grid(pictures(data.spec, torch.cat([part for part, _ in stream])), len(columns)))


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training")
    parser.add_argument("--networks", nargs="+", choices=["residual", "compact"], default=["residual", "compact"])
    parser.add_argument("--points", type=int, default=4, help="moments that are scored before the end")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10")
    parser.add_argument("--width", type=int, help="of the networks; default the recipe's")
    parser.add_argument("--batch-items", type=int, help="default the recipe's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="an empty folder for the JSON file and the grids; default a temporary one")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    device, folder, start = choose_device(args.device), new_folder(args.out), time.monotonic()
    data, test = load(needed(args.data)), load(args.data, split="test")
    extractor, count = make_extractor(device), min(args.samples, len(test))
    real = features(extractor, batches_of(test, count, 0)).to(device)
    baseline = features(extractor, batches_of(data, count, 1)).to(device)
    note(f"{len(data):,} images to train on, {count:,} to score against; results go to {folder}")
    result: dict[str, Any] = {}
    for network in args.networks:
        training = train(begin(data, network, args, device), args.points)
        draw_grid(training, data, folder / f"{network}.png")
        last = len(training.points) - 1
        yardsticks = [
            score(point, real, baseline if number == last else None, extractor, test.source, device)
            for number, point in enumerate(training.points)
        ]
        result[network] = told(training, yardsticks)
        result["baseline"] = {
            name: None if score.real_baseline is None else round(score.real_baseline, 5)
            for name, score in yardsticks[-1].scores().items()
        }
        result["protocol"] = dict(yardsticks[-1].protocol)
        note(f"{network}:\n{yardsticks[-1]}")
    result |= {
        "minutes": args.minutes,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "precision": choose_precision("auto", device),
        "compiled": args.compile,
        "seed": args.seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "wall_seconds": round(time.monotonic() - start, 1),
        "grids": [str(folder / f"{network}.png") for network in args.networks],
    }
    (folder / "cifar10.json").write_text(json.dumps(result, indent=2) + "\n")
    report(result, args.json)


if __name__ == "__main__":
    main()
