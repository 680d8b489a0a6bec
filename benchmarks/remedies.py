"""What each remedy does to a GAN that loses modes: twenty-five Gaussians, a few seeds, as many items for all.

    python benchmarks/remedies.py [--only NAME ...] [--seeds 2] [--items 200000] [--json]

The recipe is `gan` on vectors without dropout, the weak classic: batch 128, Adam at 2e-4 and 2-column latents. 20,000
points, 5,000 samples. Modes are those of ganlib.metrics.modes: found where one sample is within 3 standard deviations.
`good` is the share of such samples; `even` is 1 where good samples are spread as evenly as the data, the exponential of
the entropy of their counts over 25. A line per remedy: the mean over seeds, with each seed's number of modes. The CPU
time is given beside it. No remedy is tuned: each is at its default, also where that is meant for other data.
"""

import time
from typing import Any

import numpy as np
import torch

from common import make_parser, note, report
from ganlib import GAN, remedies
from ganlib.errors import UsageError
from ganlib.metrics.modes import count_modes, grid_of_gaussians
from ganlib.recipe import Recipe
from ganlib.recipes.gan import gan

NUM_POINTS, NUM_SAMPLES, SD = 20_000, 5_000, 0.05
PLAIN = "none"


def train(recipe: Recipe, seed: int, items: int) -> dict[str, Any]:
    points, centres = grid_of_gaussians(NUM_POINTS, side=5, sd=SD, rng=torch.Generator().manual_seed(seed))
    start = time.process_time()
    model = GAN(recipe, seed=seed, device="cpu").fit(points.numpy(), items=items, progress="none")
    found = count_modes(torch.from_numpy(model.sample(NUM_SAMPLES, seed=seed)), centres, SD)
    share = np.array(found.counts) / max(sum(found.counts), 1)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    return {
        "modes": found.found,
        "good": found.share_within_3sd,
        "even": float(np.exp(entropy)) / len(centres) if found.found else 0.0,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=[PLAIN, *remedies.names()], default=[PLAIN, *remedies.names()])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--items", type=int, default=200_000, help="that each training sees")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for name in args.only:
        recipe = gan(latent=2, dropout=0.0)
        recipe = recipe if name == PLAIN else recipe.with_remedies(remedies.find(name)())
        try:
            runs = [train(recipe, seed, args.items) for seed in range(args.seeds)]
        except UsageError as error:
            note(f"{name:20} not here: {error}")
            continue
        means = {key: round(float(np.mean([run[key] for run in runs])), 3) for key in runs[0]}
        result[name] = {**means, "modes_by_seed": [run["modes"] for run in runs]}
        note(f"{name:20} {result[name]}")
    report({**result, "seeds": args.seeds, "items": args.items, "torch": torch.__version__}, args.json)


if __name__ == "__main__":
    main()
