"""Several processes: speed and traffic measured with two on this machine, efficiency simulated for 8 and 64 GPUs.

    python benchmarks/processes.py [--steps 64] [--repeats 3] [--quick] [--json]

Measured: r3's compact networks on 32 x 32 x 3, 32 items for each process and step, float32, one thread, gloo. One
process and two take turns, `repeats` times; the median of each is told. `speed_ratio` is items a second of two over
one: 2 on two free cores, 1 on a single core, less by what the processes cost. `cpu_ratio` is processor time per item of
two over one; it does not depend on how many cores are free. `bytes_sent` is what the kernel saw one process write in a
step; `bytes_formula` is 2 (W - 1) / W · 4 · parameters for each network, a ring's share of an all-reduce.
`decision_microseconds` is one of the two small messages of a step.

Simulated: a ring all-reduce of b bytes over W takes 2 (W - 1) / W · b / bandwidth + 2 (W - 1) · latency, in buckets of
25 MB (the first 1 MB), each begun once its gradients are there and the one before it is through; gradients appear
evenly over the second half of a turn. Small messages take 2 log2 W · latency: one for each batch normalisation and
direction, and two decisions a step over TCP (50 µs). A step computes for as long as its counted operations take at
40 % of a card's 989 TFLOP/s, but at least 5 µs for each kernel that eager code starts; a card that computes more
slowly hides more, and is more efficient than is told here. Efficiency is the time of one GPU over that of W, for the
same items on each GPU (`weak`), or W times less for the recipe's batch dealt to all (`strong`).
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cases import Case, begin, random_data
from common import make_parser, note, report
from ganlib.recipes.r3 import r3
from ganlib.training.runtime import Runtime
from ganlib.training.step import step
from ganlib.training.team import Team, join
from gpu import operations

ITEMS = 32  # of each process
BUCKET_BYTES, FIRST_BYTES = 25 * 2**20, 2**20
OPERATIONS_PER_SECOND = 0.4 * 989e12
LAUNCH_SECONDS = 5e-6
TCP_SECONDS = 50e-6


@dataclass(frozen=True)
class Link:
    """What a ring of GPUs is joined by."""

    gpus: int
    bandwidth: float  # bytes a second through each place of the ring
    latency: float  # seconds of a hop


LINKS = {
    "8 GPUs, NVLink at 300 GB/s": Link(8, 300e9, 3e-6),
    "64 GPUs, a 400 Gbit/s card each, at 40 GB/s": Link(64, 40e9, 5e-6),
    "64 GPUs, a 100 Gbit/s card per 8, at 10 GB/s": Link(64, 10e9, 10e-6),
}


@dataclass(frozen=True)
class Load:
    """What a step computes and sends."""

    operations: float  # for each item
    launches: float  # of kernels in a step
    generator_bytes: int
    discriminator_bytes: int
    messages: int  # small ones: a batch normalisation, forwards or backwards
    batch_items: int


def work(rank: int, size: int, steps: int, folder: Path) -> None:
    """One of `size` processes: takes steps and writes what they cost."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    team = join("cpu")
    case = Case(r3(network="compact", batch_items=ITEMS * size), (32, 32, 3), 10, ITEMS * size)
    training = begin(case, random_data(case, 2048), Runtime(team=team))
    batches = training.data.batches(ITEMS * size, 0, 0, (team.rank, team.size))
    for _ in range(8):
        step(training.state, training.plan, training.runtime.move(next(batches)), training.runtime, 0)
    wall, cpu, sent = time.perf_counter(), time.process_time(), bytes_written()
    for _ in range(steps):
        step(training.state, training.plan, training.runtime.move(next(batches)), training.runtime, 0)
    found = {
        "seconds": (time.perf_counter() - wall) / steps,
        "cpu_seconds": (time.process_time() - cpu) / steps,
        "bytes_sent": (bytes_written() - sent) / steps,
        "decision_seconds": decision_seconds(team),
        "parameters": sum(map(num_parameters, (training.state.generator, training.state.discriminator))),
    }
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


def decision_seconds(team: Team, repeats: int = 500) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        team.largest(1.0, 2.0)
    return (time.perf_counter() - start) / repeats


def bytes_written() -> int:
    """What this process has written to sockets and files so far; 0 where the system does not tell."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split("wchar:")[1].split()[0]) if counts.exists() else 0


def num_parameters(network: nn.Module | None) -> int:
    return sum(weight.numel() for weight in network.parameters()) if network is not None else 0


def cost_of(size: int, steps: int) -> dict[str, float]:
    """What a step costs in so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--steps", str(steps), "--worker"]
        lives = [Popen([*command, str(rank), str(size), folder]) for rank in range(size)]
        if any([life.wait() for life in lives]):
            sys.exit("a process of the benchmark has failed")
        return json.loads((Path(folder) / "found.json").read_text())


def measured(steps: int, repeats: int) -> dict[str, Any]:
    """One process and two in turns."""
    taken: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for number in range(repeats):
        note(f"measuring, {number + 1} of {repeats}")
        for size, costs in taken.items():
            costs.append(cost_of(size, steps))
    one, two = ({key: statistics.median(cost[key] for cost in costs) for key in costs[0]} for costs in taken.values())
    speeds = [2 * a["seconds"] / b["seconds"] for a, b in zip(taken[1], taken[2], strict=True)]
    return {
        "items_per_second_1": round(ITEMS / one["seconds"], 1),
        "items_per_second_2": round(2 * ITEMS / two["seconds"], 1),
        "speed_ratio": round(statistics.median(speeds), 3),
        "speed_ratio_low": round(min(speeds), 3),
        "speed_ratio_high": round(max(speeds), 3),
        "cpu_ratio": round(two["cpu_seconds"] / one["cpu_seconds"], 3),
        "bytes_sent": round(two["bytes_sent"] - one["bytes_sent"]),
        "bytes_formula": round(4 * two["parameters"]),  # 2 (W - 1) / W is 1
        "decision_microseconds": round(1e6 * two["decision_seconds"], 1),
        "step_milliseconds_2": round(1e3 * two["seconds"], 2),
    }


class Launches(TorchDispatchMode):
    """Counts the operations that eager code hands to the device one by one."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def step_seconds(load: Load, items: float) -> float:
    """A step on one GPU: as long as its arithmetic takes, or the starting of its kernels."""
    return max(load.operations * items / OPERATIONS_PER_SECOND, load.launches * LAUNCH_SECONDS)


def load_of(network: str, side: int) -> Load:
    """What r3 computes and sends at a preset of a GPU, counted on two items."""
    width, batch_items = {"compact": (64, 128), "residual": (256, 256)}[network]
    case = Case(r3(network=network, width=width, batch_items=2), (side, side, 3), 10, 2)  # type: ignore[arg-type]
    training = begin(case, random_data(case, 64), Runtime())
    with Launches() as launches:
        counted = operations(training) / 2
    state = training.state
    norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in state.generator.modules())
    sizes = (4 * num_parameters(each) for each in (state.generator, state.discriminator))
    return Load(counted, launches.count / 8, *sizes, messages=2 * norms + 2, batch_items=batch_items)


def turn_seconds(compute: float, num_bytes: int, link: Link) -> float:
    """How long a turn takes with its all-reduce."""
    done, sent = compute, 0
    while sent < num_bytes:
        bucket = min(BUCKET_BYTES if sent else FIRST_BYTES, num_bytes - sent)
        sent += bucket
        ready = compute * (0.5 + 0.5 * sent / num_bytes)
        begun = max(ready, done) if sent > bucket else ready
        ring = 2 * (link.gpus - 1)
        done = begun + ring / link.gpus * bucket / link.bandwidth + ring * link.latency
    return max(compute, done)


def efficiency(load: Load, link: Link, items: float) -> float:
    """The time of a step on one GPU over that of one of many, each with so many items."""
    compute = step_seconds(load, items)
    hops = 2 * math.log2(link.gpus)
    small = hops * (load.messages * link.latency + 2 * TCP_SECONDS)
    turns = (turn_seconds(compute / 2, each, link) for each in (load.discriminator_bytes, load.generator_bytes))
    return compute / (sum(turns) + small)


def simulated(quick: bool) -> dict[str, Any]:
    """Each preset on each link."""
    told: dict[str, Any] = {}
    for network, side in (("residual", 32), ("residual", 64), ("compact", 32), ("compact", 64)):
        if quick and (network, side) != ("compact", 32):
            continue
        note(f"counting {network} at {side} x {side}")
        load = load_of(network, side)
        row: dict[str, Any] = {
            "mega_bytes": round((load.generator_bytes + load.discriminator_bytes) / 1e6, 1),
            "giga_operations_per_item": round(load.operations / 1e9, 1),
            "milliseconds": round(1e3 * step_seconds(load, load.batch_items), 1),
            "batch": load.batch_items,
        }
        for name, link in LINKS.items():
            weak = efficiency(load, link, load.batch_items)
            each = load.batch_items / link.gpus
            shrunk = step_seconds(load, load.batch_items) / link.gpus / step_seconds(load, each)
            row[name] = {"weak": round(weak, 3), "strong": round(shrunk * efficiency(load, link, each), 3)}
        told[f"{network}_{side}"] = row
    return told


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=64, help="steps that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="turns of one process and two")
    parser.add_argument("--quick", action="store_true", help="count operations of the smallest preset only")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        rank, size, folder = options.worker
        work(int(rank), int(size), options.steps, Path(folder))
        return
    report({**measured(options.steps, options.repeats), **simulated(options.quick)}, options.json)


if __name__ == "__main__":
    main()
