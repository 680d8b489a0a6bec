"""Mode collapse: eight Gaussians on a ring and twenty-five on a grid, over many seeds, each a minute on one thread.

    python benchmarks/gaussians.py [--kinds ring grid] [--seeds 20] [--seconds 60] [--out DIR] [--json]

Protocol: 20,000 points drawn anew for each seed, `GAN(seed=…).fit(points, minutes=seconds/60)` with all else at its
default, 10,000 samples. A sample is good within 3 standard deviations of its nearest centre, a mode is found if it has
a good sample (ganlib.metrics.modes); of the data itself 98.9 % are good. A seed passes where all modes are found and at
least 95 % of the samples are good. The picture of each kind shows the worst seed. Progress goes to standard error, a
line per seed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import make_parser, new_folder, note, report
from ganlib import GAN
from ganlib.data.show import save_png, scatter
from ganlib.metrics.modes import Modes, count_modes, grid_of_gaussians, ring_of_gaussians

NUM_POINTS = 20_000
NUM_SAMPLES = 10_000
SHARE_WANTED = 0.95


@dataclass(frozen=True)
class Kind:
    """A mixture, how many modes it has, and the standard deviation of each."""

    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    modes: int
    sd: float


KINDS = {
    "ring": Kind(lambda n, rng: ring_of_gaussians(n, modes=8, sd=0.02, rng=rng), 8, 0.02),
    "grid": Kind(lambda n, rng: grid_of_gaussians(n, side=5, sd=0.05, rng=rng), 25, 0.05),
}


@dataclass(frozen=True)
class Outcome:
    """One seed: what was found, what it cost, and the points for the picture."""

    seed: int
    modes: Modes
    cpu_seconds: float
    items: int
    real: np.ndarray
    fake: np.ndarray


def train(kind: Kind, seed: int, seconds: float, recipe: str | None) -> Outcome:
    points, centres = kind.draw(NUM_POINTS, torch.Generator().manual_seed(seed))
    start = time.process_time()
    gan = GAN(recipe, seed=seed, device="cpu").fit(points.numpy(), minutes=seconds / 60, progress="none")
    spent = time.process_time() - start
    fake = gan.sample(NUM_SAMPLES, seed=seed)
    found = count_modes(torch.from_numpy(fake), centres, kind.sd)
    items = max(record["items"] for record in gan.history_)
    return Outcome(seed, found, spent, items, points.numpy(), fake)


def passed(kind: Kind, outcome: Outcome) -> bool:
    return outcome.modes.found == kind.modes and outcome.modes.share_within_3sd >= SHARE_WANTED


def summary(kind: Kind, outcomes: list[Outcome], picture: Path) -> dict[str, Any]:
    """How many seeds pass, and each seed's figures."""
    worst = min(outcomes, key=lambda outcome: (outcome.modes.found, outcome.modes.share_within_3sd))
    save_png(picture, scatter(worst.fake, worst.real))
    shares = [outcome.modes.share_within_3sd for outcome in outcomes]
    return {
        "passed": sum(passed(kind, outcome) for outcome in outcomes),
        "seeds": len(outcomes),
        "modes": kind.modes,
        "all_modes_found": sum(outcome.modes.found == kind.modes for outcome in outcomes),
        "modes_found": [outcome.modes.found for outcome in outcomes],
        "share_within_3sd": [round(share, 4) for share in shares],
        "share_median": round(float(np.median(shares)), 4),
        "share_least": round(min(shares), 4),
        "least_items_of_a_mode": [min(outcome.modes.counts) for outcome in outcomes],
        "cpu_seconds": [round(outcome.cpu_seconds, 1) for outcome in outcomes],
        "items": [outcome.items for outcome in outcomes],
        "picture": str(picture),
        "picture_seed": worst.seed,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="wall time of each training")
    parser.add_argument("--recipe", help="default: that of ganlib")
    parser.add_argument("--out", help="an empty folder for the pictures; default a temporary one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = new_folder(args.out)
    result: dict[str, Any] = {}
    for name in args.kinds:
        outcomes = []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            outcome = train(KINDS[name], seed, args.seconds, args.recipe)
            outcomes.append(outcome)
            good = outcome.modes.share_within_3sd
            note(f"{name} seed {seed}: {outcome.modes.found} modes, {good:.1%} good, {outcome.cpu_seconds:.0f} CPU s")
        result[name] = summary(KINDS[name], outcomes, folder / f"{name}.png")
    asked = {"seconds": args.seconds, "recipe": args.recipe, "num_points": NUM_POINTS, "num_samples": NUM_SAMPLES}
    report({**result, **asked, "threads": torch.get_num_threads(), "torch": torch.__version__}, args.json)


if __name__ == "__main__":
    main()
