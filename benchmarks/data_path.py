"""The share of a training step that goes into the data path: choosing items, bytes to float, moving to the device.

    python benchmarks/data_path.py [--json] [--steps 16] [--threads 2] [--device cpu]

Protocol: random uint8 images in memory, two epochs of them so that a reshuffle is counted. Two cases: the DCGAN recipe
on 3 x 64 x 64 at batch 64, and the default recipe on 1 x 28 x 28 with ten classes at batch 32. In each step the time to
get the batch onto the device and the time of the update are taken apart; `share` is the first over the sum of both, and
the larger of the two cases comes first. 16 steps hold two
rounds of the default recipe's penalties, which are due in every eighth.
"""

import time

import torch

from cases import CASES, Case, begin, waited
from common import make_parser, report
from ganlib.training.runtime import Runtime, choose_device
from ganlib.training.step import step

WARM_STEPS = 2


def measure(case: Case, num_steps: int, runtime: Runtime) -> dict[str, float]:
    """Seconds per step in the data path and in the update."""
    training = begin(case, max(num_steps // 2, 1) * case.batch_items, runtime)
    wait = waited(runtime.device)
    in_data = in_update = 0.0
    for number in range(num_steps + WARM_STEPS):
        wait()
        start = time.perf_counter()
        batch = runtime.move(next(training.batches))
        wait()
        middle = time.perf_counter()
        step(training.state, training.plan, batch, runtime, 0)
        wait()
        if number >= WARM_STEPS:
            in_data += middle - start
            in_update += time.perf_counter() - middle
    return {
        "share": round(in_data / (in_data + in_update), 5),
        "data_milliseconds": round(1000 * in_data / num_steps, 3),
        "update_milliseconds": round(1000 * in_update / num_steps, 2),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    runtime = Runtime(choose_device(args.device))
    cases = {name: measure(CASES[name], args.steps, runtime) for name in ("dcgan_64", "r3_28")}
    result = {
        "share": max(case["share"] for case in cases.values()),
        **cases,
        "steps": args.steps,
        "device": runtime.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
