"""How time and memory grow: of a step with image size, batch and width, of the start with the data, of sampling.

    python benchmarks/growth.py [--json] [--sections step start sampling memory] [--rounds 7] [--million]

Protocol: one thread, CPU time of the process, which another program on the same processor does not lengthen much.

`step`: the default recipe's compact networks on random items, from 32 x 32 x 3, batch 32, width 32, one of the three
varied at a time; each point in a process of its own, two steps to warm up, then the median over three blocks of eight
steps, of which one has penalties. Memory is how far the peak of the process rose from before the networks and the
items were made. `exponent` is the slope of a line through the logarithms: 1 is proportional.

`start`: CPU-seconds of a process from its birth to the end of its first step on N grey items of 28 x 28 in memory,
importing torch and making random items included.

`sampling`: items that are drawn, thrown away; in alternation the bare network called in a loop on the same latents
and labels, ready in memory, as many at a time as the sampler runs it on; the same 64 at a time; ``Sampler.stream``,
which draws them; and ``GAN.stream``, which also gives them the form of the owner's data. `share` is the bare network's
time over that, at the same number at a time: the part of its speed that is kept; `share_of_64` is that over the bare
network 64 at a time. That the sampler gives the same bits is checked first.

`memory`: how far the peak of a process rises while it draws N items by ``GAN.stream``, after the first 1,000.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from common import finish, make_parser, note, peak_bytes, report

BASE = {"size": 32, "batch": 32, "width": 32}
VARIED = {"size": (16, 32, 64), "batch": (8, 16, 32, 64, 128), "width": (8, 16, 32, 64)}
BLOCK_STEPS = 8
DATA_ITEMS = (1_000, 10_000, 60_000)
SAMPLE_SHAPES = {"mlp_8": (8, 8, 1), "vectors_20": (20,), "compact_28": (28, 28, 1), "compact_32": (32, 32, 3)}
SAMPLED_ITEMS = {"mlp_8": 128 * 64, "vectors_20": 128 * 64, "compact_28": 16 * 64, "compact_32": 8 * 64}


def step_point(size: int, batch: int, width: int) -> dict[str, float]:
    """CPU-seconds and memory of a step; to be called in a process of its own."""
    from cases import Case, begin, random_data
    from ganlib.recipes.r3 import r3
    from ganlib.training.loop import Report, train
    from ganlib.training.runtime import Runtime, choose_precision

    def steps_of(size: int, batch: int, width: int) -> Iterator[Report]:
        case = Case(r3(network="compact", batch_items=batch, width=width), (size, size, 3), 0, batch)
        training = begin(case, random_data(case, 4 * batch), Runtime(precision=choose_precision("auto", "cpu")))
        return train(training.state, training.plan, training.batches, training.runtime, 0)

    drain(itertools.islice(steps_of(16, 2, 4), 2))  # code and libraries are loaded with the first step
    before = peak_bytes()
    reports = steps_of(size, batch, width)
    drain(itertools.islice(reports, 2))
    taken = [cpu_seconds(lambda: drain(itertools.islice(reports, BLOCK_STEPS))) / BLOCK_STEPS for _ in range(3)]
    return {"milliseconds": 1000 * statistics.median(taken), "mebibytes": (peak_bytes() - before) / 2**20}


def start_point(num_items: int) -> dict[str, float]:
    """The first step on so many items; what it took is for the parent to say."""
    from cases import Case, begin, random_data
    from ganlib.recipes.r3 import r3
    from ganlib.training.loop import train
    from ganlib.training.runtime import Runtime

    case = Case(r3(), (28, 28, 1), 10, 32)
    training = begin(case, random_data(case, num_items), Runtime())
    next(train(training.state, training.plan, training.batches, training.runtime, 0))
    return {"mebibytes": peak_bytes() / 2**20}


def memory_point(num_items: int) -> dict[str, float]:
    """How far the peak rises while so many items are drawn."""
    gan = trained("mlp_8")
    drain(gan.stream(1000))
    before = peak_bytes()
    seconds = cpu_seconds(lambda: drain(gan.stream(num_items)))
    return {"mebibytes": (peak_bytes() - before) / 2**20, "items_per_second": num_items / seconds}


def trained(name: str) -> Any:
    """A generator of the default recipe after hardly any training, with ten classes."""
    from ganlib import GAN

    rng = np.random.default_rng(0)
    items = rng.integers(0, 256, (64, *SAMPLE_SHAPES[name]), np.uint8)
    items = items.astype(np.float32) if items.ndim == 2 else items
    return GAN("r3", device="cpu").fit(items, np.arange(64) % 10, validation=0.0, items=64, progress="none")


def sampling(name: str, num_rounds: int) -> dict[str, Any]:
    """The share of the bare network's speed that each way of sampling keeps."""
    import torch

    gan, count = trained(name), SAMPLED_ITEMS[name]
    network, sampler = gan.model_.generator, gan.model_.sampler
    latents, labels, chunk = sampler.latents(count, 0), sampler.labels(count, 0), sampler.chunk_items

    @torch.inference_mode()
    def bare(at_once: int) -> None:
        for latent, label in zip(latents.split(at_once), labels.split(at_once), strict=True):
            network(latent, label)

    parts = zip(latents.split(chunk), labels.split(chunk), sampler.stream(count, seed=0), strict=True)
    with torch.inference_mode():
        for latent, label, (items, _) in parts:
            assert torch.equal(network(latent, label), items), "the sampler drew other items"
    ways: dict[str, Callable[[], None]] = {
        "bare": lambda: bare(chunk),
        "bare_64": lambda: bare(64),
        "sampler": lambda: drain(sampler.stream(count, seed=0)),
        "gan": lambda: drain(gan.stream(count)),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(num_rounds + 1):
        for way, work in ways.items():
            seconds = cpu_seconds(work)
            if number:  # the first round warms up
                taken[way].append(seconds)
    speeds = {way: round(count / statistics.median(seconds), 1) for way, seconds in taken.items()}
    told: dict[str, Any] = {"at_once": chunk, "items_per_second": speeds}
    for way in ("sampler", "gan"):
        shares = [plain / seconds for plain, seconds in zip(taken["bare"], taken[way], strict=True)]
        told[f"{way}_share"] = round(statistics.median(shares), 4)
        told |= {f"{way}_share_low": round(min(shares), 4), f"{way}_share_high": round(max(shares), 4)}
        told[f"{way}_share_of_64"] = round(speeds[way] / speeds["bare_64"], 4)
    return told


def drain(parts: Iterable[object]) -> None:
    for _ in parts:
        pass


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def exponent(xs: Iterable[float], ys: Iterable[float]) -> float:
    """The slope of a line through the logarithms."""
    slope = np.polyfit(np.log(list(xs)), np.log(list(ys)), 1)[0]
    return round(float(slope), 2)


def child(kind: str, *numbers: int) -> dict[str, float]:
    """One point in a process of its own; `cpu_seconds` is that of all of it."""
    done = finish([sys.executable, __file__, "--point", kind, *map(str, numbers)])
    note(f"{kind} {numbers}: {done.last_line}")
    return {**json.loads(done.last_line), "cpu_seconds": done.cpu_seconds}


def step_section(args: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = {}
    known: dict[tuple[int, ...], dict[str, float]] = {}
    for axis, values in VARIED.items():
        points = []
        for value in values:
            place = tuple({**BASE, axis: value}.values())
            known[place] = known.get(place) or child("step", *place)
            points.append({axis: value, **{key: round(known[place][key], 2) for key in ("milliseconds", "mebibytes")}})
        told[axis] = {
            "time_exponent": exponent(values, (point["milliseconds"] for point in points)),
            "memory_exponent": exponent(values, (point["mebibytes"] for point in points)),
            "points": points,
        }
    return told


def start_section(args: argparse.Namespace) -> dict[str, Any]:
    points = [{"items": count, **child("start", count)} for count in DATA_ITEMS]
    return {"points": [{key: round(value, 2) for key, value in point.items()} for point in points]}


def sampling_section(args: argparse.Namespace) -> dict[str, Any]:
    told = {name: sampling(name, args.rounds) for name in SAMPLE_SHAPES}
    return {"share": min(case["sampler_share"] for case in told.values()), **told}


def memory_section(args: argparse.Namespace) -> dict[str, Any]:
    counts = (10_000, 100_000, *([1_000_000] if args.million else []))
    points = [{"items": count, **child("memory", count)} for count in counts]
    return {"points": [{key: round(value, 2) for key, value in point.items()} for point in points]}


SECTIONS = {"step": step_section, "start": start_section, "sampling": sampling_section, "memory": memory_section}
POINTS = {"step": step_point, "start": start_point, "memory": memory_point}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=7, help="of sampling")
    parser.add_argument("--million", action="store_true", help="memory at a million items too")
    parser.add_argument("--point", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    if args.point:
        kind, *numbers = args.point
        print(json.dumps(POINTS[kind](*map(int, numbers))))
        return
    told = {name: SECTIONS[name](args) for name in args.sections}
    report({**told, "threads": 1, "torch": torch.__version__}, args.json)


if __name__ == "__main__":
    main()
