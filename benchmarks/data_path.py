"""The share of a training step that goes into the data path: choosing items, bytes to float, moving to the device.

    python benchmarks/data_path.py [--json] [--steps 16] [--threads 2] [--device cpu]

Protocol: random uint8 images, two epochs of them so that a reshuffle is counted, in memory and again from shards of PNG
files on the disk. Two cases: the DCGAN recipe on 3 x 64 x 64 at batch 64, and the default recipe on 1 x 28 x 28 with
ten classes at batch 32. In each step the time to get the batch onto the device and the time of the update are taken
apart; `share` is the first over the sum of both, and the larger of the two cases comes first. From shards a thread
reads ahead while the step computes, so that waiting is not all that it costs: `cpu_share` is the processor's time to
read and decode a batch over the sum of that and of an update from memory, which is the cost where no processor is idle.
16 steps hold two rounds of the default recipe's penalties, which are due in every eighth.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cases import CASES, Case, Training, begin, random_data, waited
from common import make_parser, report
from ganlib.data import Data, prepare
from ganlib.training.runtime import Runtime, choose_device, choose_precision
from ganlib.training.step import step

WARM_STEPS = 2


def measure(training: Training, num_steps: int) -> dict[str, float]:
    """Seconds per step in the data path and in the update, and the processor's time of an update."""
    runtime = training.runtime
    wait = waited(runtime.device)
    in_data = in_update = busy = 0.0
    for number in range(num_steps + WARM_STEPS):
        wait()
        start = time.perf_counter()
        batch = runtime.move(next(training.batches))
        wait()
        middle, middle_busy = time.perf_counter(), time.process_time()
        step(training.state, training.plan, batch, runtime, 0)
        wait()
        if number >= WARM_STEPS:
            in_data += middle - start
            in_update += time.perf_counter() - middle
            busy += time.process_time() - middle_busy
    return {
        "share": round(in_data / (in_data + in_update), 5),
        "data_milliseconds": round(1000 * in_data / num_steps, 3),
        "update_milliseconds": round(1000 * in_update / num_steps, 2),
        "update_cpu_milliseconds": round(1000 * busy / num_steps, 2),
    }


def reading_milliseconds(case: Case, data: Data) -> float:
    """The processor's time to make a batch, with nothing beside it."""
    rows = np.random.default_rng(0).integers(0, len(data), (20, case.batch_items))
    data.batch(rows[0])
    start = time.process_time()
    for chosen in rows:
        data.batch(chosen)
    return 1000 * (time.process_time() - start) / len(rows)


def compare(case: Case, num_steps: int, runtime: Runtime) -> dict[str, dict[str, float]]:
    """The same items from memory and from shards."""
    data = random_data(case, max(num_steps // 2, 1) * case.batch_items)
    memory = measure(begin(case, data, runtime), num_steps)
    with tempfile.TemporaryDirectory() as folder:
        shards = prepare(data, Path(folder) / "shards")
        streamed = measure(begin(case, shards, runtime), num_steps)
        reading = reading_milliseconds(case, shards)
    streamed["reading_cpu_milliseconds"] = round(reading, 2)
    streamed["cpu_share"] = round(reading / (reading + memory["update_cpu_milliseconds"]), 4)
    return {"memory": memory, "shards": streamed}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    runtime = Runtime(device, choose_precision("auto", device))
    cases = {name: compare(case, args.steps, runtime) for name, case in CASES.items()}
    result = {
        "share": max(case["memory"]["share"] for case in cases.values()),
        "streaming_share": max(case["shards"]["share"] for case in cases.values()),
        "streaming_cpu_share": max(case["shards"]["cpu_share"] for case in cases.values()),
        **cases,
        "steps": args.steps,
        "device": runtime.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
