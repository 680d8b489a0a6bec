"""Which settings of the default recipe learn most in a fixed number of CPU-seconds: successive halving on real data.

    python benchmarks/search.py [--data fashion_mnist usps] [--seconds 30 100] [--number 18] --out DIR [--json]
    python benchmarks/search.py --seconds 600 --candidates '{"width": 24}' '{"width": 32}' --out DIR

Protocol: each candidate is a set of options of recipe r3 over the defaults. It trains in a process of its own, on one
thread, with the labels, for so many CPU-seconds of that process, its schedules fitted to them as `ganlib fit --minutes`
fits them to wall time; reading the data and starting up are not counted, looks and checkpoints are not made. Then 5,000
samples with drawn labels of the averaged generator, its batch statistics measured anew, are compared with as many test
items: Fréchet distance on the features of a small classifier that the script trains on the real training items first
(its accuracy is told). It is not the judge of benchmarks/quality.py, which no search here looks at; the test items are
the same, so that the cleanest examination is that on a data set which was not searched on.

At each rung the best third goes on, from the start, with the next number of seconds. What counts is the geometric mean
of the distances over the data sets and `--seeds` seeds. `--out` keeps a line of JSON for each finished training
(`search.jsonl`): what is there is not trained again, so that a search can be interrupted. The figures compare only with
those of the same `--out`. `--data` are names in ../shared/data, or paths of labelled data with a test split;
`tinted_NAME` is NAME with a colour drawn for the ink and one for the ground of each picture (always the same ones).
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from common import SHARED, make_parser, needed, note, report, same_folder
from ganlib.data import Data, load
from ganlib.metrics.features import ModuleFeatures, features, quantise
from ganlib.metrics.scores import frechet_distance
from ganlib.reading import label_shares
from ganlib.recipe import Setting
from ganlib.recipes.r3 import r3
from ganlib.sampling import Sampler, refresh_statistics
from ganlib.training.runtime import Runtime, choose_precision
from ganlib.training.state import create
from ganlib.training.step import step

NUM_SAMPLES = 5_000
READER_SECONDS = 90.0
KEPT = 3  # one of so many goes on
TINTED = "tinted_"

SPACES: dict[str, dict[str, Sequence[Any]]] = {
    "grey": {
        "width": (16, 24, 32),
        "discriminator_width": (16, 24, 32),
        "batch_items": (16, 32, 64),
        "learning_rate": (1.5e-3, 2e-3, 3e-3, 4e-3),
        "generator_rate_share": (0.5, 1.0),
        "gamma": (0.5, 1.0, 2.0, 4.0),
        "penalty_every_steps": (4, 8, 16),
        "ema_halflife_items": (5_000, 10_000, 20_000),
    },
    "colour": {
        "width": (16, 24, 32),
        "discriminator_width": (24, 32, 48),
        "batch_items": (16, 32, 64),
        "learning_rate": (1e-3, 2e-3, 4e-3),
        "generator_rate_share": (0.25, 0.5, 1.0),
        "gamma": (0.1, 0.3, 1.0, 2.0),
        "penalty_every_steps": (4, 8),
        "ema_halflife_items": (5_000, 10_000),
    },
}


def opened(name: str, split: str = "train") -> Data:
    """The data of a name or path, tinted where the name says so."""
    source = name.removeprefix(TINTED)
    data = load(source if "/" in source else needed(SHARED / "data" / source), split=split)
    if source == name:
        return data
    grey = data.take(np.arange(len(data))).astype(np.float32) / 255
    ink, ground = np.random.default_rng(split == "test").uniform(0, 255, (2, len(data), 3, 1, 1)).astype(np.float32)
    colours = grey * ink + (1 - grey) * ground
    return load(colours.round().astype(np.uint8).transpose(0, 2, 3, 1), data.labels)


class Reader(nn.Module):
    """A small classifier; its features say how a sample looks to somebody who knows the classes."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()

        def stage(a: int, b: int, kernel: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(a, b, kernel, stride, 1, bias=False), nn.BatchNorm2d(b), nn.SiLU()]

        self.body = nn.Sequential(
            *stage(channels, width, 4, 2), *stage(width, 2 * width, 3, 1), *stage(2 * width, 3 * width, 3, 2)
        )
        self.head = nn.Linear(3 * width, classes)

    def forward(self, items: Tensor) -> Tensor:
        return self.body(items).mean((2, 3))


def make_reader(data: Data, test: Data, path: Path) -> ModuleFeatures:
    """The classifier from `path`, or trained now on the real training items."""
    channels, classes = data.spec.shape[0], len(data.spec.classes)
    torch.manual_seed(0)
    reader = Reader(channels, classes)
    if path.exists():
        reader.load_state_dict(load_file(path))
    else:
        train_reader(reader, data)
        save_file({name: value.contiguous() for name, value in reader.state_dict().items()}, path)
        reader.eval()
        with torch.no_grad():
            batch = test.batch(np.arange(min(len(test), 5000)))
            found = reader.head(reader(batch["real"])).argmax(1)
        note(f"classifier of real items: {float((found == batch['label']).float().mean()):.4f} of the test items right")
    return ModuleFeatures(reader.eval(), "search-reader")


def train_reader(reader: Reader, data: Data) -> None:
    total, start = READER_SECONDS, time.process_time()
    reader.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(reader.parameters(), 2e-3)
    for batch in data.batches(128, 123, 0):
        share = (time.process_time() - start) / total
        if share >= 1:
            return
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * (1 - share)
        optimiser.zero_grad()
        with Runtime("cpu", choose_precision("auto", "cpu")).autocast():
            logits = reader.head(reader(batch["real"]))
        F.cross_entropy(logits.float(), batch["label"]).backward()
        optimiser.step()


def trained(data: Data, options: dict[str, Any], seconds: float, seed: int) -> tuple[Sampler, int]:
    """The sampler after so many CPU-seconds, and the items seen."""
    runtime = Runtime("cpu", choose_precision("auto", "cpu"))
    setting = Setting(data.spec, len(data), "cpu", seconds, None, conditional=True)
    plan = r3(**options).plan(setting)
    state = create(plan, runtime, seed, plan.items)
    start = time.process_time()
    for batch in data.batches(plan.batch_items, seed, 0):
        step(state, plan, runtime.move(batch), runtime, seed)
        spent = time.process_time() - start
        state.total_items = max(int(state.items_seen * seconds / spent), state.items_seen + 1)
        if spent >= seconds:
            break
    sampler = Sampler(plan.task, state.average, "cpu", label_shares(data))
    refresh_statistics(sampler, seed)
    return sampler, state.items_seen


def train_one(args: argparse.Namespace, folder: Path) -> None:
    """The child process: one training, its figures as one line."""
    data, test = opened(args.data[0]), opened(args.data[0], "test")
    reader = make_reader(data, test, folder / f"{Path(args.data[0]).name}.safetensors")
    sampler, items = trained(data, json.loads(args.one), args.seconds[0], args.seed)
    chosen = np.random.default_rng(0).permutation(len(test))[:NUM_SAMPLES]
    real = features(reader, (quantise(test.batch(part)["real"]) for part in np.array_split(chosen, 50)))
    fake = features(reader, (quantise(part) for part, _ in sampler.stream(NUM_SAMPLES, seed=1)))
    print(json.dumps({"frechet": round(frechet_distance(real, fake), 4), "items": items}))


def measure(folder: Path, data: str, options: dict[str, Any], seconds: float, seed: int) -> float:
    """The figure of one training, from the log where it is there; infinite where the training failed."""
    log = folder / "search.jsonl"
    key = {"data": Path(data).name, "options": options, "seconds": seconds, "seed": seed}
    for line in log.read_text().splitlines() if log.exists() else []:
        record = json.loads(line)
        if {name: record[name] for name in key} == key:
            return record["frechet"]
    command = [sys.executable, __file__, "--one", json.dumps(options), "--data", data, "--out", str(folder)]
    done = subprocess.run([*command, "--seconds", str(seconds), "--seed", str(seed)], stdout=subprocess.PIPE, text=True)
    if done.returncode < 0:
        sys.exit(f"the training was ended by signal {-done.returncode}; run the search again to go on")
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"frechet": math.inf, "items": 0}
    with log.open("a") as file:
        file.write(json.dumps(key | found) + "\n")
    note(f"{key['data']} {seconds:g} s {found['frechet']:8.3f}  {found['items']:,} items  {json.dumps(options)}")
    return found["frechet"]


def mean_over_all(args: argparse.Namespace, folder: Path, options: dict[str, Any], seconds: float) -> float:
    """The geometric mean over data sets and seeds: a factor counts alike wherever it is won."""
    found = [measure(folder, data, options, seconds, seed) for data in args.data for seed in range(args.seeds)]
    return math.exp(statistics.fmean(math.log(value) for value in found))


def candidates(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Those that are named, else the defaults and random points of the space."""
    if args.candidates:
        return [json.loads(text) for text in args.candidates]
    dice, space = random.Random(args.space_seed), SPACES[args.space]
    drawn = [{name: dice.choice(values) for name, values in space.items()} for _ in range(args.number - 1)]
    for options in drawn:
        options["generator_learning_rate"] = options.pop("generator_rate_share") * options["learning_rate"]
    return [{}, *drawn]


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--data", nargs="+", default=["fashion_mnist", "usps"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[30.0, 100.0], help="CPU-seconds of each rung")
    parser.add_argument("--space", choices=sorted(SPACES), default="grey")
    parser.add_argument("--space-seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=18, help="of candidates at the first rung")
    parser.add_argument("--candidates", nargs="*", help="options as JSON instead of the space")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", help="a folder for the log; default a temporary one")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    folder = same_folder(args.out)
    if args.one is not None:
        return train_one(args, folder)
    going, table = candidates(args), []
    for rung, seconds in enumerate(args.seconds):
        scores = [mean_over_all(args, folder, options, seconds) for options in going]
        order = sorted(range(len(going)), key=scores.__getitem__)
        table = [{"seconds": seconds, "frechet": round(scores[n], 4), "options": going[n]} for n in order]
        note("\n".join(f"{row['seconds']:6g} s  {row['frechet']:8.3f}  {json.dumps(row['options'])}" for row in table))
        if rung + 1 < len(args.seconds):
            going = [going[n] for n in order[: math.ceil(len(going) / KEPT)]]
    report({"best": table[0], "table": table, "data": args.data, "folder": str(folder)}, args.json)


if __name__ == "__main__":
    main()
