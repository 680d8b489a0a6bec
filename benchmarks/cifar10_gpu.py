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
import json
import time
from pathlib import Path
from typing import Any

import torch

from common import SHARED, make_parser, needed, new_folder, note, report
from ganlib.data import Data, load, pictures
from ganlib.data.show import grid, save_png
from ganlib.metrics.features import features
from ganlib.metrics.report import Yardstick
from ganlib.recipes.r3 import r3
from ganlib.training.runtime import Runtime, choose_device, choose_precision
from races import SAMPLE_SEED, Race, batches_of, make_extractor, ready, run, score


def told(training: Race, yardsticks: list[Yardstick]) -> dict[str, Any]:
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


def draw_grid(training: Race, data: Data, path: Path) -> None:
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
        recipe = r3(network=network, width=args.width, batch_items=args.batch_items)
        runtime = Runtime(device, choose_precision("auto", device), args.compile)
        training = run(ready(data, recipe, runtime, minutes=args.minutes, seed=args.seed), args.points)
        draw_grid(training, data, folder / f"{network}.png")
        last = len(training.points) - 1
        yardsticks = [
            score(point.draw(count), real, baseline if number == last else None, extractor, test.source, device)
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
