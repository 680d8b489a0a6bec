"""What one GPU does with the default recipe: speed, memory, use of its arithmetic, and a short quality race.

    python benchmarks/gpu.py [--minutes 10] [--out gpu.json]          # one command, at most so long
    python benchmarks/gpu.py --device cpu --quick --out quick.json    # every section once, tiny, on a processor

Presets are r3's compact and residual networks at 32 x 32 (CIFAR-10's shape) and 64 x 64, widths and batches as the
recipe chooses them on a GPU, ten classes, random items in memory. For each preset three trainings take turns in
blocks of eight steps: ours (bfloat16), ours compiled, and a plain loop (`plain.py`: the same networks, losses and
rates, exact penalties in the same steps, float32, eager, PyTorch's own settings). `ratio` is ours over plain in
images a second. Compiled networks with a penalty in every step take it by finite difference; then that is another
computation, which `compiled_penalties` says.

`utilisation` is (operations of a step) / (seconds of a step) / (peak of the card in bfloat16). Operations are what
torch counts in a step of ours (matrix products and convolutions, forward and backward, the second derivatives of the
penalties included), with the backward of grouped convolutions corrected, for which it counts each group as all. The
peak is the maker's for dense bfloat16 where the name is known, else that of a matrix product timed here (`measured`).

`batch` takes one, two and four times the recipe's batch. `profile` lists the kernels of eight steps by their time on
the device. `race`: r3 for a given time against an SNGAN-type network in a plain loop for the same time on CIFAR-10,
without labels; Frechet distance of features as in cifar10_gpu.py, lower is better, `ratio` is ours over the other's;
too few samples (--quick) have none.

A section that would not fit into what is left of `--minutes` is left out and named; one that fails is recorded with
its error and the others go on. The file of `--out` is written after each section.
"""

import argparse
import functools
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from cases import Case, Training, begin, random_data, waited
from common import SHARED, make_parser, note
from ganlib.core import Penalty
from ganlib.data import load
from ganlib.metrics.features import features
from ganlib.opening import suited
from ganlib.recipes.r3 import r3
from ganlib.training.loop import train
from ganlib.training.runtime import Runtime, choose_device, choose_precision
from plain import PlainR3, PlainSNGAN
from races import batches_of, make_extractor, ready, run, score

BLOCK_STEPS = 8
PEAKS = {"H200": 989e12, "H100 80GB": 989e12, "H100 SXM": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second, by a part of the card's name; NVIDIA's data sheets, SXM boards."""


@dataclass(frozen=True)
class Bench:
    """Where and how thoroughly to measure."""

    device: str
    quick: bool
    minutes: float

    @property
    def seconds(self) -> float:
        """Of each block of measurements."""
        return 0.2 if self.quick else 6.0

    def runtime(self, *, compiled: bool = False) -> Runtime:
        return Runtime(self.device, choose_precision("auto", self.device), compiled)

    def case(self, network: str, side: int, batch_factor: int = 1) -> Case:
        if self.quick:
            width, batch = (8, 4) if network == "compact" else (32, 4)
        else:  # what the recipe chooses on a GPU
            width, batch = (64, 128) if network == "compact" else (256, 256)
        batch *= batch_factor
        return Case(r3(network=network, width=width, batch_items=batch), (side, side, 3), 10, batch)  # type: ignore[arg-type]

    def begin(self, case: Case, *, compiled: bool = False) -> Training:
        training = begin(case, random_data(case, 4 * case.batch_items), self.runtime(compiled=compiled))
        plan, _ = suited(training.plan, training.state, training.data, True, training.runtime)
        return replace(training, plan=plan)

    def allocated(self, peak: bool) -> int:
        if not self.device.startswith("cuda"):
            return 0
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()

    def release(self) -> None:
        """Forget what the last section compiled and allocated: too many versions of one function run uncompiled."""
        torch.compiler.reset()
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


Step = Callable[[], object]


def our_step(training: Training) -> Step:
    return train(training.state, training.plan, training.batches, training.runtime, 0).__next__


def plain_step(training: Training) -> Step:
    """The plain loop on the batches of a training of the same case."""
    loop, device = PlainR3(training.plan, training.runtime.device), training.runtime.device
    batches = training.batches  # alone: a closure over the training would keep our networks in the card's memory

    def step() -> None:
        batch = {name: tensor.to(device) for name, tensor in next(batches).items()}
        loop.step(batch["real"], batch.get("label"))

    return step


def block(step: Step, wait: Callable[[], None]) -> float:
    """Seconds of a step, a mean over eight."""
    wait()
    start = time.perf_counter()
    for _ in range(BLOCK_STEPS):
        step()
    wait()
    return (time.perf_counter() - start) / BLOCK_STEPS


def alternate(steps: dict[str, Step], bench: Bench) -> dict[str, list[float]]:
    """Seconds of a step of each, in turns of eight steps; at least three turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    wait, start = waited(bench.device), time.monotonic()
    while len(next(iter(taken.values()))) < 3 or time.monotonic() - start < bench.seconds * len(steps):
        for name, step in steps.items():
            taken[name].append(block(step, wait))
    return taken


def memory_of(make: Callable[[], Step], bench: Bench) -> tuple[Step, float]:
    """A step, warmed up, and the peak of what it allocates on the card in MiB (0 on a processor)."""
    before = bench.allocated(peak=False)
    step = make()
    if bench.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        block(step, waited(bench.device))
    return step, round((bench.allocated(peak=True) - before) / 2**20, 1)


class Counter(TorchDispatchMode):
    """Counts operations by torch's own formulas. Its FlopCounterMode cannot go through a gradient inside a step."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        count = backward_count if packet is torch.ops.aten.convolution_backward else flop_registry.get(packet)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=made)
        return made


def operations(training: Training) -> float:
    """Floating-point operations of a step, a mean over eight: those with and without penalties as they come."""
    step = our_step(training)
    with Counter() as counter:
        for _ in range(BLOCK_STEPS):
            step()
    return counter.operations / BLOCK_STEPS


def backward_count(grad: Tensor, x: Tensor, weight: Tensor, *others: Any, out_val: Any) -> int:
    """Each of the two gradients of a convolution takes as many products as the convolution; bias is left out."""
    *_, transposed, _, _, mask = others
    return (mask[0] + mask[1]) * conv_flop_count(list(x.shape), list(weight.shape), list(grad.shape), transposed)


def peak_of(bench: Bench) -> dict[str, Any]:
    """Operations a second that the card can do, by its name and by a matrix product timed here."""
    side, dtype = (512 if bench.quick else 8192), torch.bfloat16
    a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    wait, best = waited(bench.device), 0.0
    for _ in range(10):
        best = max(best, 2 * side**3 / block(lambda: a @ b, wait))
    name = torch.cuda.get_device_name(bench.device) if bench.device.startswith("cuda") else "processor"
    stated = next((peak for part, peak in PEAKS.items() if part in name), None)
    return {
        "name": name,
        "measured": round(best / 1e12, 2),
        "stated": None if stated is None else stated / 1e12,
        "used": (stated or best) / 1e12,
    }


def preset(bench: Bench, network: str, side: int) -> dict[str, Any]:
    """Speed, memory and utilisation at one preset: ours, compiled, plain."""
    case = bench.case(network, side)
    compiles = not bench.quick or (network, side) == ("compact", 32)  # minutes on a processor
    makers: dict[str, Callable[[], Step]] = {
        "ours": lambda: our_step(bench.begin(case)),
        "plain": lambda: plain_step(bench.begin(case)),
        **({"compiled": lambda: our_step(bench.begin(case, compiled=True))} if compiles else {}),
    }
    told: dict[str, Any] = {"batch": case.batch_items}
    steps: dict[str, Step] = {}
    for name, make in makers.items():
        try:
            steps[name], told[f"{name}_peak_mib"] = memory_of(make, bench)
        except Exception as error:
            told[f"{name}_error"] = said(error)
    taken = alternate(steps, bench)
    for name, seconds in taken.items():
        told |= speeds(name, seconds, case.batch_items)
    for name in ("ours", "compiled"):
        if name in taken and "plain" in taken:
            told |= ratios("ratio" if name == "ours" else "compiled_ratio", taken["plain"], taken[name])
    flops, peak = operations(bench.begin(case)), peak_of(bench)["used"] * 1e12
    told |= {"operations_per_image": flops / case.batch_items, "peak_tera_per_second": peak / 1e12}
    if "ours" in taken:
        told["utilisation"] = round(flops / statistics.median(taken["ours"]) / peak, 4)
    penalties = bench.begin(case, compiled=True).plan.objective.penalties.values()
    exact = all(not isinstance(item.penalty, Penalty) or item.penalty.double_backward for item in penalties)
    told["compiled_penalties"] = "exact" if exact else "finite difference"
    if "compiled" in taken and exact:
        told["compiled_utilisation"] = round(flops / statistics.median(taken["compiled"]) / peak, 4)
    return told


def speeds(name: str, seconds: list[float], batch: int) -> dict[str, float]:
    """Images a second: median, least, largest."""
    values = (statistics.median(seconds), max(seconds), min(seconds))
    names = (f"{name}_images_per_second", f"{name}_low", f"{name}_high")
    return {key: round(batch / value, 1) for key, value in zip(names, values, strict=True)}


def ratios(name: str, slow: list[float], fast: list[float]) -> dict[str, float]:
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return {
        name: round(statistics.median(each), 3),
        f"{name}_low": round(min(each), 3),
        f"{name}_high": round(max(each), 3),
    }


def batches(bench: Bench) -> dict[str, Any]:
    """Images a second and memory at one, two and four times the batch."""
    told: dict[str, Any] = {}
    for network, factor in itertools.product(("compact", "residual"), (1, 2, 4)):
        case = bench.case(network, 32, factor)
        step, peak = memory_of(lambda case=case: our_step(bench.begin(case)), bench)
        seconds = alternate({"ours": step}, bench)["ours"]
        told[f"{network}_x{factor}"] = {**speeds("ours", seconds, case.batch_items), "peak_mib": peak}
        bench.release()
    return told


def kernels(bench: Bench) -> dict[str, Any]:
    """The kernels of eight steps at each CIFAR-10 preset, by their own time."""
    cuda, told = bench.device.startswith("cuda"), {}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    for network in ("compact", "residual"):
        step = our_step(bench.begin(bench.case(network, 32)))
        block(step, waited(bench.device))
        with profile(activities=activities) as recorded:
            block(step, waited(bench.device))
        events = [e for e in recorded.key_averages() if (e.device_type.name == "CUDA") == cuda]
        own = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in events}
        total, most = sum(own.values()), sorted(own, key=own.__getitem__, reverse=True)[:15]
        told[network] = {name[:70]: round(own[name] / total, 4) for name in most if own[name]}
    return told


def race(bench: Bench) -> dict[str, Any]:
    """The Frechet distance of ours and of a plain SNGAN after the same time."""
    folder = SHARED / "data" / "cifar10"
    if not folder.exists():
        raise FileNotFoundError(f"{folder} is not there")
    data, test = load(folder), load(folder, split="test")
    minutes, count = (0.05, 200) if bench.quick else (0.1 * bench.minutes, 10_000)
    extractor = make_extractor(bench.device)
    real = features(extractor, batches_of(test, count, 0)).to(bench.device)
    baseline = features(extractor, batches_of(data, count, 1)).to(bench.device)
    judged = functools.partial(score, extractor=extractor, reference=test.source, device=bench.device)
    mine = run(ready(data, r3(), bench.runtime(), minutes=minutes, conditional=False), 0)
    ours = judged(mine.points[-1].draw(count), real, baseline).scores()
    loop, items, start = PlainSNGAN(bench.device), 0, time.monotonic()
    for batch in data.batches(PlainSNGAN.batch_items, 0, 0):
        if time.monotonic() - start >= 60 * minutes:
            break
        loop.step(batch["real"].to(bench.device))
        items += PlainSNGAN.batch_items
    theirs = judged(loop.draw(count).split(64), real, None).scores()
    mine_far, theirs_far = ours["frechet"].value, theirs["frechet"].value
    return {
        "frechet": mine_far,
        "sngan_frechet": theirs_far,
        "ratio": None if mine_far is None or theirs_far is None else mine_far / theirs_far,
        "real_frechet": ours["frechet"].real_baseline,
        "minutes_each": minutes,
        "items": mine.points[-1].items,
        "sngan_items": items,
        "notes": mine.notes,
        "extractor": extractor.name,
        "scores": {name: score.value for name, score in ours.items()},
        "sngan_scores": {name: score.value for name, score in theirs.items()},
    }


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def sections(bench: Bench) -> dict[str, tuple[float, Callable[[], dict[str, Any]]]]:
    """What there is to measure, and the minutes that it takes at most on a GPU."""
    return {
        "peak": (0.1, lambda: peak_of(bench)),
        "compact_32": (1.5, lambda: preset(bench, "compact", 32)),
        "residual_32": (2.0, lambda: preset(bench, "residual", 32)),
        "profile": (0.5, lambda: kernels(bench)),
        "batch": (1.0, lambda: batches(bench)),
        "race": (1.0 + 0.2 * bench.minutes, lambda: race(bench)),
        "compact_64": (1.5, lambda: preset(bench, "compact", 64)),
        "residual_64": (2.0, lambda: preset(bench, "residual", 64)),
    }


def show(name: str, told: dict[str, Any]) -> None:
    """A section as lines of a table."""
    print(f"\n{name}")
    for key, value in told.items():
        if isinstance(value, dict):
            print(f"  {key}")
            for inner, number in value.items():
                print(f"    {inner!s:70} {number}")
        else:
            print(f"  {key:40} {value}")


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all; sections that would not fit are left out")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to see that every section runs")
    parser.add_argument("--only", nargs="+", help="these sections alone")
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser.parse_args()


def main() -> None:
    args, start = arguments(), time.monotonic()
    device = choose_device(args.device)
    bench = Bench(device, args.quick, args.minutes)
    torch.manual_seed(0)
    told: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "precision": choose_precision("auto", device),
        "torch": torch.__version__,
        "quick": args.quick,
        "left_out": [],
        "failed": [],
    }
    for name, (minutes, measure) in sections(bench).items():
        if args.only and name not in args.only:
            continue
        if not args.quick and (time.monotonic() - start) / 60 + minutes > args.minutes:
            told["left_out"].append(name)
            note(f"{name} is left out: {minutes} minutes are not left")
            continue
        begun = time.monotonic()
        try:
            told[name] = measure()
        except Exception as error:
            told[name] = {"error": said(error)}
            told["failed"].append(name)
        told[name]["seconds_of_section"] = round(time.monotonic() - begun, 1)
        bench.release()
        if not args.json:
            show(name, told[name])
        told["wall_seconds"] = round(time.monotonic() - start, 1)
        if args.out:
            args.out.write_text(json.dumps(told, indent=2) + "\n")
    if args.json:
        print(json.dumps(told))
    else:
        print(f"\nleft out: {told['left_out']}; failed: {told['failed']}; {told['wall_seconds']} seconds")


if __name__ == "__main__":
    main()
