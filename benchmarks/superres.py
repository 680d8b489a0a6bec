"""Faces of people who were not trained on, enlarged four times: ours against bicubic interpolation.

    python benchmarks/superres.py [--cpu-minutes 5] [--scale 4] [--seed 0] [--out DIR] [--json] [-- fit options]
    python benchmarks/superres.py --run DIR/run      # measure a run that is trained already

Protocol: ../shared/data/olivetti, 40 people with 10 pictures each, cut to a square and resized to 64 x 64. Every eighth
person (50 pictures) is never trained on. `ganlib fit --recipe superres` gets the rest, `ganlib predict` the held-out
pictures reduced four times (Pillow's bicubic, as 8-bit PNG files), and both results are compared with the originals.

`distance` is that of LPIPS (Zhang et al. 2018, arXiv:1801.03924, equation 1) with weights of one, in a network that no
training has seen: MobileNet-v1 0.75 trained on ImageNet (../shared/data/feature_nets), after the separable convolutions
1, 3, 5 and 11, feature vectors of each pixel normalised. Comparable only with itself. `ratio` is ours over
bicubic's: the bar is 0.7. `psnr` is in dB, the mean over pictures.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from common import SHARED, finish, make_parser, needed, new_folder, note, report
from ganlib.metrics.nets.mobilenet import MobileNetV1

SIDE = 64
EVERY_PERSON = 8
LAYERS = ("conv_pw_1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu")
FACES = SHARED / "data" / "olivetti" / "olivetti.npz"
NETWORK = SHARED / "data" / "feature_nets" / "mobilenet_v1_075_imagenet.npz"


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Pictures to train on and pictures of other people, uint8 [n, 64, 64]."""
    with np.load(needed(FACES)) as stored:
        pictures, people = stored["images"], stored["subject"]
    top = (pictures.shape[1] - pictures.shape[2]) // 2
    squares = pictures[:, top : top + pictures.shape[2]]
    small = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for each in squares]
    held_out = people % EVERY_PERSON == EVERY_PERSON - 1
    return np.stack(small)[~held_out], np.stack(small)[held_out]


def resized(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures [n, h, w] at another size, by Pillow's bicubic."""
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in pictures]
    )


def trunk() -> MobileNetV1:
    """The network of the distance."""
    network = MobileNetV1(0.75)
    with np.load(needed(NETWORK)) as stored:
        network.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files}, strict=False)
    return network.eval().requires_grad_(False)


def raw_maps(network: MobileNetV1, x: Tensor) -> list[Tensor]:
    """The feature maps at each of `LAYERS`, of pictures [n, 3, h, w] from -1 to 1."""
    found = []
    for name, layer in network.named_children():
        x = layer(x)
        if name in LAYERS:
            found.append(x)
        if name == LAYERS[-1]:
            break
    return found


def maps(network: MobileNetV1, pictures: np.ndarray) -> list[Tensor]:
    """The normalised feature vectors of each pixel at each of `LAYERS`, of grey pictures [n, h, w]."""
    x = (torch.from_numpy(pictures).float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)
    return [F.normalize(found, dim=1) for found in raw_maps(network, x)]


def distance(network: MobileNetV1, made: np.ndarray, real: np.ndarray) -> float:
    """Σ over layers of the mean over pixels of the squared distance; the mean over pictures."""
    pairs = zip(maps(network, made), maps(network, real), strict=True)
    return float(sum((a - b).square().sum(1).mean() for a, b in pairs))


def psnr(made: np.ndarray, real: np.ndarray) -> float:
    errors = ((made.astype(float) - real) ** 2).mean((1, 2))
    return float((10 * np.log10(255**2 / errors)).mean())


def write(folder: Path, pictures: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:04d}.png")
    return folder


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cpu-minutes", type=float, default=5.0)
    parser.add_argument("--items", type=int, help="train on so many items instead of for a time, on a busy machine")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--out", help="an empty folder; default a temporary one")
    parser.add_argument("--run", help="a run that is trained already")
    parser.add_argument("fit_options", nargs="*", help="after --: further options of ganlib fit")
    args = parser.parse_args()
    folder = new_folder(args.out)
    note(f"results go to {folder}")
    train, real = faces()
    low = resized(real, SIDE // args.scale)
    run, about = Path(args.run) if args.run else folder / "run", {}
    ganlib = [sys.executable, "-m", "ganlib"]
    if args.run is None:
        data, held_out = write(folder / "train", train), write(folder / "held_out", real)
        budget = ["--items", str(args.items)] if args.items else ["--minutes", str(args.cpu_minutes)]
        fit: list[Any] = [*ganlib, "fit", data, "--validation", held_out, "--recipe", "superres", "--out", run]
        fit += ["--scale", str(args.scale), "--seed", args.seed, "--threads", "1", "--device", "cpu", "--json"]
        done = finish([*fit, *budget, *args.fit_options])
        told = json.loads(done.last_line)
        about = {"items": told["items"], "cpu_seconds": round(done.cpu_seconds, 1), "grid": told["grid"]}
    finish([*ganlib, "predict", run, write(folder / "low", low), "--out", folder / "ours.npz", "--json"])
    with np.load(folder / "ours.npz") as stored:
        ours = stored["images"][..., 0]
    network, plain = trunk(), resized(low, SIDE)
    distances = {name: distance(network, made, real) for name, made in (("ours", ours), ("bicubic", plain))}
    report(
        {
            "distance": round(distances["ours"], 4),
            "distance_of_bicubic": round(distances["bicubic"], 4),
            "ratio": round(distances["ours"] / distances["bicubic"], 4),
            "psnr": round(psnr(ours, real), 2),
            "psnr_of_bicubic": round(psnr(plain, real), 2),
            "num_pictures": len(real),
            **about,
            "scale": args.scale,
            "fit_options": args.fit_options,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
