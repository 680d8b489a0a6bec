"""Translation: pairs against the difference of pixels alone; digits of one set into another, read by a classifier.

    python benchmarks/translate.py pairs [--kind grey edges] [--cpu-minutes 5] [--options '{"content": 50}'] [--json]
    python benchmarks/translate.py digits [--recipes cyclegan cut] [--cpu-minutes 10] [--options '{}'] [--json]

pairs: `grey` is CIFAR-10 without colour, to be coloured (recipe pix2pix, `degrade=grey`); `edges` are the outlines of
Fashion-MNIST (the magnitude of Sobel's gradient over a quarter of its range, one channel, black and white) and the
pictures they are of. pix2pix as it is and with `adversary="none"`, the same generator under the difference of pixels
alone, for as many CPU-seconds of one thread each; then 1,000 test pictures: the signal-to-noise ratio in dB, structural
similarity, and the distance of LPIPS's form (ganlib.metrics.paired.map_distance) in MobileNet-v1 0.75 trained on
ImageNet (../shared/data/feature_nets), after the separable convolutions 1, 3, 5 and 11: lower is better, comparable
only with itself. `copy` is the given picture itself.

digits: MNIST (A) and USPS (B) at 28 x 28, no pairs. A small classifier for each is trained on its own real training
digits; told are its accuracy on its own test digits, on 2,000 test digits of the other set as they are, and on the
same ones translated. Each recipe is trained in a process of its own, one thread: `peak_mb` is its memory beyond that of
the data and libraries.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import SHARED, make_parser, needed, new_folder, note, report
from ganlib import GAN, recipes
from ganlib.data import Data, load, load_domains
from ganlib.data.show import grid, save_png
from ganlib.metrics.features import quantise
from ganlib.metrics.paired import map_distance, signal_to_noise, structural_similarity
from modes import as_input, classifier, predicted
from superres import raw_maps, trunk

NUM_TEST = 1000
NUM_DIGITS = 2000


def edges(data: Data) -> np.ndarray:
    """Outlines [n, h, w] of grey pictures, 0 or 255."""
    items = torch.from_numpy(data.take(np.arange(len(data)))).float() / 255
    sobel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    kernels = torch.stack([sobel, sobel.T])[:, None] / 4
    parts = [F.conv2d(F.pad(part, (1, 1, 1, 1), mode="replicate"), kernels) for part in items.split(5000)]
    return (torch.cat(parts).norm(dim=1) > 0.25).numpy().astype(np.uint8) * 255


def pairs(kind: str) -> tuple[object, np.ndarray, np.ndarray]:
    """What to train on, and given and wanted test pictures, channels last."""
    folder = needed(SHARED / "data" / ("cifar10" if kind == "grey" else "fashion_mnist"))
    train, test = load(folder), load(folder, split="test").subset(np.arange(NUM_TEST))
    wanted = test.take(np.arange(NUM_TEST)).transpose(0, 2, 3, 1)
    if kind == "grey":
        grey = (wanted * np.array([0.299, 0.587, 0.114])).sum(-1, keepdims=True)
        return train, grey.round().astype(np.uint8), wanted
    given = edges(test)[..., None]
    return (edges(train), train.take(np.arange(len(train)))[:, 0]), given, wanted


def tensor(items: np.ndarray) -> Tensor:
    """Pictures [n, h, w, c] in bytes as [n, 3, h, w] from -1 to 1."""
    found = torch.from_numpy(items).permute(0, 3, 1, 2).float() / 127.5 - 1
    return quantise(found.expand(-1, 3, -1, -1))


def scores(made: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    network = trunk()

    def maps(items: Tensor) -> list[Tensor]:
        return raw_maps(network, items)

    with torch.no_grad():
        both = [*zip(tensor(made).split(100), tensor(wanted).split(100), strict=True)]
        return {
            "psnr": round(float(torch.cat([signal_to_noise(*two) for two in both]).mean()), 3),
            "ssim": round(float(torch.cat([structural_similarity(*two) for two in both]).mean()), 4),
            "distance": round(float(torch.cat([map_distance(maps, *two) for two in both]).mean()), 4),
        }


def compare_pairs(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for kind in args.kind:
        train, given, wanted = pairs(kind)
        copied = np.broadcast_to(given, wanted.shape)
        found: dict[str, Any] = {"copy": scores(copied, wanted)}
        shown = [copied[:64]]
        for adversary in args.adversaries:
            options = {"adversary": adversary, "degrade": "grey" if kind == "grey" else "none", **args.options}
            if adversary == "none":
                options["perceptual"] = 0.0  # the difference of pixels alone
            gan = GAN(recipes.find("pix2pix")(**options), seed=args.seed, device="cpu")
            gan.fit(train, run=folder / f"{kind}-{adversary}", cpu_seconds=60 * args.cpu_minutes, progress="lines")
            made = gan.predict(given[..., 0])
            made = made if made.ndim == 4 else made[..., None]
            found[adversary] = scores(made, wanted) | {"items": max(r["items"] for r in gan.history_)}
            shown.append(made[:64])
            note(f"{kind} {adversary}: {found[adversary]}")
        columns = [np.broadcast_to(part, (64, *wanted.shape[1:])) for part in (*shown, wanted[:64])]
        save_png(folder / f"{kind}.png", grid(np.stack(columns, 1).reshape(-1, *wanted.shape[1:]), len(columns) * 2))
        result[kind] = found
    return result


def digits(split: str) -> tuple[Data, Data]:
    first, second = (load(needed(SHARED / "data" / name), size=28, split=split) for name in ("mnist", "usps"))
    return first, second


def train_digits(args: argparse.Namespace, folder: Path) -> None:
    """The child process: one training; its memory as one line."""
    both = load_domains(digits("train"))
    gan = GAN(recipes.find(args.one)(**args.options), seed=args.seed, device="cpu")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of reading the data, is forgotten
    before = memory("VmRSS")
    gan.fit(both, run=folder / args.one, cpu_seconds=60 * args.cpu_minutes, progress="lines")
    items = max(record["items"] for record in gan.history_)
    print(json.dumps({"peak_mb": round((memory("VmHWM") - before) / 1024, 1), "items": items}))


def memory(name: str) -> int:
    """Of this process, in kilobytes: what it has now (VmRSS) or the most it had (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def compare_digits(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    readers, result = [], {}
    tests = [data.subset(np.arange(min(NUM_DIGITS, len(data)))) for data in digits("test")]
    for name, known, unseen in zip("AB", digits("train"), tests, strict=True):
        network, accuracy = classifier(known, unseen)
        readers.append(network)
        result[f"reader_{name}"] = round(accuracy, 4)
    for recipe in args.recipes:
        given = ["--one", recipe, "--cpu-minutes", str(args.cpu_minutes), "--options", json.dumps(args.options)]
        command = [sys.executable, __file__, "digits", *given, "--out", str(folder), "--seed", str(args.seed)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        gan, shown = GAN.load(folder / recipe, device="cpu"), []
        for number, direction in enumerate(gan.model_.plan.task.directions):
            own, reader = tests[number], readers[1 - number]
            items, labels = own.take(np.arange(len(own))), own.labels
            assert labels is not None
            made = gan.predict(items[:, 0], direction=direction)  # type: ignore[arg-type]
            for key, pictures in ((f"{direction}_before", items), (direction, made[:, None])):
                read = predicted(reader, as_input(np.ascontiguousarray(pictures))).numpy()
                found[key] = round(float((read == labels).mean()), 4)
            shown += [items[:64, 0], made[:64]]
        columns = len(shown) * 4
        save_png(folder / f"{recipe}.png", grid(np.stack(shown, 1).reshape(-1, 28, 28)[..., None], columns))
        result[recipe] = found
        note(f"{recipe}: {found}")
    return result


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("what", choices=["pairs", "digits"])
    parser.add_argument("--kind", nargs="+", choices=["grey", "edges"], default=["grey", "edges"])
    parser.add_argument("--adversaries", nargs="+", default=["none", "r3"], help="of pix2pix")
    parser.add_argument("--recipes", nargs="+", default=["cyclegan", "cut"])
    parser.add_argument("--cpu-minutes", type=float, default=5.0)
    parser.add_argument("--options", type=json.loads, default={}, help="of the recipes, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="an empty folder for the runs and the pictures; default a temporary one")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    if args.one is not None:
        return train_digits(args, Path(args.out))
    folder = new_folder(args.out)
    result = compare_pairs(args, folder) if args.what == "pairs" else compare_digits(args, folder)
    report({"cpu_minutes": args.cpu_minutes, "seed": args.seed, "folder": str(folder), **result}, args.json)


if __name__ == "__main__":
    main()
