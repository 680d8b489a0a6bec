"""A recipe on 200 faces, with and without augmentation: kernel distance to 200 other faces, and nearest neighbours.

    python benchmarks/small_data.py [--augment none ada] [--minutes 20] [--seed 0] [--threads 1] [--out DIR] [--json]
    python benchmarks/small_data.py --items 30000         # for a busy machine, where minutes are not CPU-minutes
    python benchmarks/small_data.py --split pictures      # five pictures of each person on either side

Protocol: ../shared/data/olivetti (40 people, 10 pictures of each) cut to squares and resized to 64 x 64; the first 20
people are trained on, all 200 pictures; 1,000 samples are compared with the 200 pictures of the other 20. The kernel
distance (KID, Bińkowski et al. 2018) is the mean over 50 subsets of 200 and 200, of features of a fixed random
convolutional network, and of a MobileNet where its weights lie in ../shared/data/feature_nets; lower is better.
`floor` is that of the training pictures themselves: people differ. `change` is the last augmentation's distance over
the first's, less 1. `copies` is the share of samples nearer to a training picture than half of the other 200 pictures
are to theirs, so half of samples that generalise as new faces do. Each run leaves `neighbours-AUGMENT.png`: samples,
and below each the nearest training picture by the random features.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import SHARED, make_parser, needed, new_folder, note, report
from ganlib import GAN
from ganlib.data import Data, load, pictures
from ganlib.data.show import grid, save_png
from ganlib.metrics.features import FeatureExtractor, RandomConvolutions, features, quantise
from ganlib.metrics.neighbours import nearest
from ganlib.metrics.scores import kernel_distance
from ganlib.metrics.trained import from_file
from ganlib.recipes.r3 import r3

NUM_SAMPLES, NUM_REAL = 1000, 200
MOBILENET = SHARED / "data" / "feature_nets" / "mobilenet_v1_075_imagenet.npz"


def faces(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures to train on and the others, of other people or others of the same people."""
    with np.load(needed(SHARED / "data" / "olivetti" / "olivetti.npz")) as held:
        images, people = held["images"], held["subject"]
    order = np.argsort(people, kind="stable")
    half = np.arange(400) // 200 if split == "people" else np.arange(400) % 2
    return images[order][half == 0], images[order][half == 1]


def tensors(data: Data) -> torch.Tensor:
    """All pictures, in the numbers of the networks."""
    return data.batch(np.arange(len(data)))["real"]


def distance(extractor: FeatureExtractor, real: torch.Tensor, fake: torch.Tensor) -> float:
    """The kernel distance of all pictures, those of the generator rounded as they are when saved."""
    found = (features(extractor, quantise(items).split(64)) for items in (real, fake))
    return kernel_distance(*found, num_subsets=50, subset_size=NUM_REAL, rng=torch.Generator().manual_seed(0)).mean


def judged(samples: torch.Tensor, train: Data, others: Data, judges: dict[str, FeatureExtractor]) -> dict[str, Any]:
    """The distances, and how many samples are copies."""
    found: dict[str, Any] = {}
    for name, extractor in judges.items():
        found[f"kernel_{name}"] = distance(extractor, tensors(others), samples)
    real, new, fake = (
        features(judges["random"], quantise(x).split(64)) for x in (tensors(train), tensors(others), samples)
    )
    near = nearest(fake, real)[0]
    return found | {"copies": float((near < nearest(new, real)[0].median()).double().mean())}


def neighbours_picture(path: Path, samples: torch.Tensor, train: Data, extractor: FeatureExtractor) -> None:
    real = tensors(train)
    found = nearest(*(features(extractor, quantise(items).split(64)) for items in (samples, real)))[1][:, 0]
    rows = [row for at in range(0, len(samples), 8) for row in (samples[at : at + 8], real[found[at : at + 8]])]
    save_png(path, grid(pictures(train.spec, torch.cat(rows)), columns=8))


def trained(augment: str, args: argparse.Namespace, train: Data, folder: Path) -> tuple[GAN, dict[str, Any]]:
    """Train on all of the training pictures."""
    recipe = r3(augment=augment, gamma=args.gamma if augment != "none" else None)  # type: ignore[arg-type]
    model = GAN(recipe, seed=args.seed, device="cpu")
    budget = {"items": args.items} if args.items else {"minutes": args.minutes}
    begun = time.process_time()
    model.fit(train, validation=0.0, conditional=False, run=folder / augment, progress="lines", **budget)
    return model, {"cpu_seconds": round(time.process_time() - begun, 1)}


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    choices = ["none", "diffaugment", "ada", "apa"]
    parser.add_argument("--augment", nargs="+", choices=choices, default=["none", "ada"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--gamma", type=float, help="of the augmented trainings; default the recipe's")
    parser.add_argument("--items", type=int, help="train on so many items instead of for a time")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--split", choices=["people", "pictures"], default="people")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="an empty folder for the runs and the pictures; default a temporary one")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    folder = new_folder(args.out)
    train, others = (load(part, size=args.size) for part in faces(args.split))
    judges: dict[str, FeatureExtractor] = {"random": RandomConvolutions(channels_in=1)}
    if MOBILENET.exists():
        judges["mobilenet"] = from_file(MOBILENET)
    result: dict[str, Any] = {
        "split": args.split,
        "size": args.size,
        "seed": args.seed,
        "threads": args.threads,
        "folder": str(folder),
    }
    for name, extractor in judges.items():
        result[f"floor_{name}"] = distance(extractor, tensors(others), tensors(train))
    for augment in args.augment:
        model, cost = trained(augment, args, train, folder)
        samples = tensors(load(model.sample(NUM_SAMPLES, seed=args.seed)))
        found = cost | judged(samples, train, others, judges)
        result |= {f"{augment}_{key}": value for key, value in found.items()}
        neighbours_picture(folder / f"neighbours-{augment}.png", samples[:32], train, judges["random"])
        note(f"{augment}: {found}")
    first, last = args.augment[0], args.augment[-1]
    for name in judges if first != last else ():
        ratio = result[f"{last}_kernel_{name}"] / result[f"{first}_kernel_{name}"]
        result[f"change_{name}"] = round(ratio - 1, 4)
    report(result, args.json)


if __name__ == "__main__":
    main()
