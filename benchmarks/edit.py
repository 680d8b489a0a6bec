"""Attributes: MNIST digits edited into other digits and other stroke widths, read by a classifier of its own.

    python benchmarks/edit.py [--cpu-minutes 20] [--options '{}'] [--seed 0] [--out DIR] [--json]

Recipe `attributes` on the 60,000 training digits of MNIST, 28 x 28, one thread: the class, and the width of the strokes
in pixels (twice the mean distance to the edge along the ridge of what is over a third of white; clipped to its 1st and
99th percentile). Then 2,000 test digits:

- `class`: each is asked to become another digit, drawn evenly; how often a classifier that was trained on real digits
  reads the wanted one (`reader`: how well it reads real test digits), and the accuracy before the edit (of the digit
  that is there, on the wanted label: chance is 0);
- `width`: each is asked for a width of the training data, drawn at random, and to stay the digit it is: the correlation
  of asked and measured widths, the mean absolute error in pixels beside that of the digits as they are, and how often
  the classifier still reads the digit;
- `background`: of the pixels under a tenth of white both before and after the edit of the class, the share where the
  mask leaves the picture alone (1 - A < 0.5);
- `smooth`: the largest change between two of 24 frames from the 5th to the 95th percentile of the width, over the mean
  change: 1 would be steps of one size.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from common import SHARED, make_parser, needed, new_folder, report
from ganlib import GAN
from ganlib.data import Data, load
from ganlib.data.show import grid, save_png
from ganlib.editing import wanted
from ganlib.recipes.attributes import attributes
from modes import as_input, classifier, predicted

NUM_TEST = 2000
FRAMES = 24


def widths(digits: np.ndarray) -> np.ndarray:
    """The width of the strokes of pictures [n, h, w] in bytes, in pixels."""
    found = np.empty(len(digits))
    for number, digit in enumerate(digits):
        distance = np.asarray(ndimage.distance_transform_edt(digit > 85))
        ridge = (distance > 0) & (distance >= ndimage.maximum_filter(distance, 3))
        found[number] = 2 * distance[ridge].mean() if ridge.any() else 0.0
    return found


def pixels(data: Data) -> np.ndarray:
    return data.take(np.arange(len(data)))[:, 0]


def classes(gan: GAN, reader: torch.nn.Module, test: Data, rng: np.random.Generator) -> dict[str, Any]:
    """Into another digit each: read as wanted, and how much of the background the mask leaves alone."""
    assert test.labels is not None
    given, aims = pixels(test), (test.labels + rng.integers(1, 10, len(test))) % 10
    right, alone = [], []
    for aim in range(10):
        own = given[aims == aim]
        made = gan.predict(own, attributes={"class": str(aim)})
        right.append((predicted(reader, as_input(made[:, None])).numpy() == aim).sum())
        items = as_input(own[:, None])
        with torch.inference_mode():
            mask = gan.model_.generator(items, wanted(gan.model_, {"class": str(aim)}, items)).mask.numpy()[:, 0]
        background = (own < 26) & (made < 26)
        alone.append((1 - mask[background] < 0.5).mean())
    before = (predicted(reader, as_input(given[:, None])).numpy() == aims).mean()
    return {
        "class": round(float(sum(right)) / len(test), 4),
        "class_before": round(float(before), 4),
        "background": round(float(np.mean(alone)), 4),
    }


def strokes(
    gan: GAN, reader: torch.nn.Module, test: Data, known: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """Other widths of stroke: measured, and the digit still read."""
    given, asked = pixels(test), rng.choice(known, len(test))
    parts = np.array_split(np.argsort(asked), 20)
    made = np.empty_like(given)
    for part in parts:  # as one number is asked of all pictures of a call
        asked[part] = asked[part].mean()
        made[part] = gan.predict(given[part], attributes={"width": float(asked[part[0]])})
    found = widths(made)
    return {
        "width_correlation": round(float(np.corrcoef(asked, found)[0, 1]), 4),
        "width_error": round(float(np.abs(asked - found).mean()), 4),
        "width_error_before": round(float(np.abs(asked - widths(given)).mean()), 4),
        "digit_kept": round(float((predicted(reader, as_input(made[:, None])).numpy() == test.labels).mean()), 4),
    }


def sheets(gan: GAN, test: Data, known: np.ndarray, folder: Path) -> float:
    """Pictures of edits to look at, and how even the steps of an animation are."""
    assert test.labels is not None
    chosen = np.array([np.flatnonzero(test.labels == digit)[0] for digit in range(10)])
    given = pixels(test)[chosen]
    rows = [given, *(gan.predict(given, attributes={"class": str(digit)}) for digit in range(10))]
    save_png(folder / "classes.png", grid(np.stack(rows, 1).reshape(-1, 28, 28)[..., None], len(rows)))
    low, high = np.percentile(known, [5, 95])
    frames = np.stack([gan.predict(given, attributes={"width": float(w)}) for w in np.linspace(low, high, FRAMES)], 1)
    save_png(folder / "widths.png", grid(frames[:, ::3].reshape(-1, 28, 28)[..., None], FRAMES // 3))
    steps = np.abs(np.diff(frames.astype(np.float64), axis=1)).mean((0, 2, 3))
    return round(float(steps.max() / steps.mean()), 3)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cpu-minutes", type=float, default=20.0)
    parser.add_argument("--options", type=json.loads, default={}, help="of the recipe, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="an empty folder for the run and the pictures; default a temporary one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder, source = new_folder(args.out), needed(SHARED / "data" / "mnist")
    train, test = load(source), load(source, split="test").subset(np.arange(NUM_TEST))
    known = widths(pixels(train))
    known = known.clip(*np.percentile(known, [1, 99]))
    reader, accuracy = classifier(train, test)
    gan = GAN(attributes(**args.options), seed=args.seed, device="cpu")
    labels = {"class": train.labels, "width": known}
    gan.fit(pixels(train), labels, run=folder / "run", cpu_seconds=60 * args.cpu_minutes, progress="lines")
    rng = np.random.default_rng(0)
    result = classes(gan, reader, test, rng) | strokes(gan, reader, test, known, rng)
    result |= {"smooth": sheets(gan, test, known, folder), "items": max(r["items"] for r in gan.history_)}
    told = {"cpu_minutes": args.cpu_minutes, "seed": args.seed, "folder": str(folder), "reader": round(accuracy, 4)}
    report({**told, **result}, args.json)


if __name__ == "__main__":
    main()
