"""Two minutes on the digits that come with the package: are all ten there, and as varied as real ones?

    python benchmarks/digits.py [--minutes 2] [--seed 0] [--threads 2] [--out DIR] [--json]

Protocol: 360 of the 1,797 digits are held out, the same share of each class; `GAN(seed=…).fit(rest, minutes=…)`, which
watches the held-out digits but neither learns from them nor stops by them; 1,000 samples with drawn labels. A support
vector machine trained on the same rest names the class of each sample; its accuracy on the held-out digits is given.
Precision, recall, density and coverage with k = 5 on the 64 pixels, against the held-out digits; `real_…` is what 1,000
real digits of the rest score. `copying` is the median distance of a sample to the nearest training digit over that of a
held-out digit: far below 1 would be learning by heart.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

from common import make_parser, new_folder, note, report
from ganlib import GAN
from ganlib.data import Data, load, pictures
from ganlib.data.show import grid, save_png
from ganlib.metrics.features import Pixels, features, quantise
from ganlib.metrics.scores import frechet_distance, neighbourhood

NUM_HELD_OUT = 360
NUM_SAMPLES = 1000
SAMPLE_SEED = 1


def pixels_of(data: Data) -> Tensor:
    return features(Pixels(None), [quantise(data.batch(np.arange(len(data)))["real"])])


def pixels_drawn(gan: GAN) -> Tensor:
    parts = (quantise(part) for part, _ in gan.model_.sampler.stream(NUM_SAMPLES, seed=SAMPLE_SEED))
    return features(Pixels(None), parts)


def draw_grid(gan: GAN, path: Path) -> None:
    """Ten rows of samples, a column per class."""
    model = gan.model_
    columns = torch.arange(len(model.setting.spec.classes))
    parts = [part for part, _ in model.sampler.stream(10 * len(columns), seed=SAMPLE_SEED, labels=columns)]
    save_png(path, grid(pictures(model.setting.spec, torch.cat(parts)), len(columns)))


def class_scores(fake: Tensor, labels: np.ndarray, train: Data, held_out: Data) -> dict[str, Any]:
    """What a classifier of real digits makes of the samples."""
    assert train.labels is not None and held_out.labels is not None
    classifier = SVC(gamma="scale").fit(pixels_of(train).numpy(), train.labels)
    named = classifier.predict(fake.numpy())
    shares = np.bincount(named, minlength=len(train.spec.classes)) / len(named)
    return {
        "class_share_least": round(float(shares.min()), 4),
        "class_share_most": round(float(shares.max()), 4),
        "class_share": shares.round(4).tolist(),
        "agreement": round(float((named == labels).mean()), 4),
        "classifier_accuracy": round(float(classifier.score(pixels_of(held_out).numpy(), held_out.labels)), 4),
    }


def scores(real: Tensor, items: Tensor, prefix: str = "") -> dict[str, float]:
    named = {**asdict(neighbourhood(real, items, k=5)), "frechet": frechet_distance(real, items)}
    return {f"{prefix}{name}": round(value, 4) for name, value in named.items()}


def copying(fake: Tensor, real: Tensor, train: Tensor) -> float:
    """The median distance of a sample to the nearest training item, over that of a held-out item."""
    nearest = [float(torch.cdist(items, train).min(1).values.median()) for items in (fake, real)]
    return round(nearest[0] / nearest[1], 4)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--recipe", help="default: that of ganlib")
    parser.add_argument("--out", help="an empty folder for the grid; default a temporary one")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    path = new_folder(args.out) / "digits.png"
    note(f"the grid goes to {path}")
    train, held_out = load("digits").split(NUM_HELD_OUT, args.seed)
    wall, cpu = time.monotonic(), time.process_time()
    gan = GAN(args.recipe, seed=args.seed, device="cpu").fit(train, validation=held_out, minutes=args.minutes)
    spent = {"wall_seconds": round(time.monotonic() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    draw_grid(gan, path)
    real, fake, known = pixels_of(held_out), pixels_drawn(gan), pixels_of(train)
    others = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(args.seed))[:NUM_SAMPLES]]
    result = {
        **class_scores(fake, gan.labels(NUM_SAMPLES, seed=SAMPLE_SEED), train, held_out),
        **scores(real, fake),
        **scores(real, others, "real_"),
        "copying": copying(fake, real, known),
        "grid": str(path),
        **spent,
        "items": max(record["items"] for record in gan.history_),
        "num_held_out": len(held_out),
        "num_samples": NUM_SAMPLES,
        "seed": args.seed,
        "recipe": gan.model_.recipe.name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
