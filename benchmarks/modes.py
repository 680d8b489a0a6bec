"""The laboratory of mode collapse: how many modes each recipe finds, as a table and a picture.

    python benchmarks/modes.py [--kinds ring grid digits mnist] [--recipes r3,dcgan,wgan] [--seeds 1]
                               [--cpu-seconds 60] [--out DIR] [--json]

ring, grid: 8 and 25 Gaussians, the protocol of gaussians.py: 20,000 points, 10,000 samples, a sample is good within 3
standard deviations of its nearest centre, a mode is found if it has a good sample.

digits, mnist: three digits in three colour channels, 1,000 modes (Metz et al. 2016, arXiv:1611.02163), in the protocol
of Srivastava et al. 2017, arXiv:1705.07761, and Lin et al. 2018, arXiv:1712.04086: 26,000 samples, each channel named
by a classifier of single digits; a mode is found if any sample is of it; KL(samples || data) over the modes, in nats.
`digits` are the 20,000 embedded stacks of 8 x 8 pixels, `mnist` 128,000 stacks of random training digits of
../shared/data/mnist, 28 x 28 pixels. The classifier is trained here; its accuracy on digits that it did not see is
told, and what 26,000 stacks of such digits score: no generator can be expected to do better.

Each training has `--cpu-seconds` of one thread. What is done in DIR stays; call again to go on or to add recipes. The
table and the picture show the first seed of each; modes.json holds all.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import SHARED, make_parser, needed, note, report, same_folder
from ganlib import GAN
from ganlib.comparison.contenders import contender
from ganlib.comparison.picture import Panel, comparison_png
from ganlib.data import load
from ganlib.data.digits import stacked
from ganlib.data.show import grid, scatter
from ganlib.errors import GanlibError
from ganlib.files import write_bytes, write_json
from ganlib.metrics.classes import stacked_modes
from ganlib.metrics.modes import count_modes
from gaussians import KINDS as GAUSSIANS
from gaussians import NUM_POINTS, NUM_SAMPLES

NUM_STACKS, MNIST_STACKS = 26_000, 128_000


@dataclass(frozen=True)
class Lab:
    """Data, and how samples of them are counted: to figures, and to a picture."""

    data: np.ndarray
    count: Callable[[np.ndarray], dict[str, Any]]
    show: Callable[[np.ndarray], np.ndarray]
    num_samples: int
    about: dict[str, Any]


def gaussian_lab(name: str, seed: int) -> Lab:
    kind = GAUSSIANS[name]
    points, centres = kind.draw(NUM_POINTS, torch.Generator().manual_seed(seed))

    def count(samples: np.ndarray) -> dict[str, Any]:
        found = count_modes(torch.from_numpy(samples), centres, kind.sd)
        return {"modes": found.found, "of": kind.modes, "share_within_3sd": round(found.share_within_3sd, 4)}

    real = points.numpy()
    return Lab(real, count, lambda samples: scatter(samples, real), NUM_SAMPLES, {})


def stacked_lab(name: str) -> Lab:
    if name == "digits":
        singles = load("digits")
        known, unseen = singles.split(300, seed=0)
        stacks = load("stacked_digits").take(np.arange(20_000)).transpose(0, 2, 3, 1)
        shares = np.full(10, 0.1)
    else:
        folder = needed(SHARED / "data" / "mnist")
        known, unseen = load(folder), load(folder, split="test")
        stacks = random_stacks(known.take(np.arange(len(known)))[:, 0], MNIST_STACKS, 0)[0]
        shares = np.bincount(labels_of(known), minlength=10) / len(known)
    network, accuracy = classifier(known, unseen)
    rest = unseen.take(np.arange(len(unseen)))[:, 0]
    real = (
        random_stacks(rest, NUM_STACKS, 1)[0]
        if name == "mnist"
        else stacked(rest, labels_of(unseen), NUM_STACKS, seed=1)
    )

    def count(samples: np.ndarray) -> dict[str, Any]:
        found = stacked_modes(digits_in(network, samples))
        counts = np.array(found.counts, dtype=np.float64)
        told = counts / counts.sum()
        expected = np.einsum("a,b,c->abc", shares, shares, shares).ravel()
        seen = told > 0
        divergence = float((told[seen] * np.log(told[seen] / expected[seen])).sum())
        return {"modes": found.found, "of": 1000, "kl": round(divergence, 4), "kl_uniform": round(found.divergence, 4)}

    about = {"classifier_accuracy": round(accuracy, 4), "real": count(real)}
    return Lab(stacks, count, lambda samples: grid(samples[:64]), NUM_STACKS, about)


def labels_of(data: Any) -> np.ndarray:
    assert data.labels is not None
    return data.labels


def random_stacks(pictures: np.ndarray, num_items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stacks of three random pictures, channels last, and which they are."""
    chosen = np.random.default_rng(seed).integers(0, len(pictures), (num_items, 3))
    return np.ascontiguousarray(pictures[chosen].transpose(0, 2, 3, 1)), chosen


def classifier(known: Any, unseen: Any, num_items: int = 60_000) -> tuple[nn.Module, float]:
    """A small convolutional network for single digits, and its accuracy on those that it did not see."""
    torch.manual_seed(0)
    side = known.spec.shape[-1]
    coarse = -(-side // 4)
    network = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48),
        nn.ReLU(), nn.Conv2d(48, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * coarse * coarse, 10),
    )  # fmt: skip
    pictures, labels = as_input(known.take(np.arange(len(known)))), torch.from_numpy(labels_of(known)).long()
    steps = num_items // 100
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (100,), generator=rng)
        optimiser.zero_grad()
        F.cross_entropy(network(pictures[chosen]), labels[chosen]).backward()
        optimiser.step()
        schedule.step()
    network.eval()
    named = predicted(network, as_input(unseen.take(np.arange(len(unseen)))))
    return network, (named == torch.from_numpy(labels_of(unseen))).double().mean().item()


def as_input(pictures: np.ndarray) -> Tensor:
    """Pictures [n, 1, h, w] in bytes as numbers from -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 127.5 - 1


@torch.no_grad()
def predicted(network: nn.Module, pictures: Tensor) -> Tensor:
    return torch.cat([network(part).argmax(1) for part in pictures.split(500)])


def digits_in(network: nn.Module, samples: np.ndarray) -> Tensor:
    """The digit of each channel of stacks [n, h, w, 3]."""
    parts = [
        as_input(part.transpose(0, 3, 1, 2).reshape(-1, 1, *part.shape[1:3])) for part in np.array_split(samples, 26)
    ]
    return torch.cat([predicted(network, part) for part in parts]).reshape(-1, 3)


def one(lab: Lab, name: str, seed: int, cpu_seconds: float, folder: Path) -> dict[str, Any]:
    """Train a recipe and count; a recipe that fails says why."""
    try:
        gan = GAN(contender(name).recipe, seed=seed, device="cpu")
        gan.fit(lab.data, cpu_seconds=cpu_seconds, run=folder, progress="none")
        samples = gan.sample(lab.num_samples, seed=seed)
    except GanlibError as error:
        return {"error": str(error)}
    write_bytes(folder.with_suffix(".npy"), to_npy(lab.show(samples)))
    told = gan.diagnose()
    items = max(record["items"] for record in gan.history_)
    return {**lab.count(samples), "items": items, "findings": [finding.kind for finding in told.findings]}


def to_npy(picture: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, picture)
    return buffer.getvalue()


def table(results: dict[str, Any]) -> str:
    lines = [
        "| data | recipe | modes | good samples | KL(samples, data) | items | findings |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for kind, told in results.items():
        rows = {"*real data*": told["real"]} if "real" in told else {}
        rows |= {
            f"`{name}`" if not seed else f"`{name}`, seed {seed}": row for (name, seed), row in listed(told).items()
        }
        for name, row in rows.items():
            if "error" in row:
                lines.append(f"| {kind} | {name} | {row['error']} | | | | |")
                continue
            share = f"{row['share_within_3sd']:.1%}" if "share_within_3sd" in row else ""
            kl = f"{row['kl']:.3f}" if "kl" in row else ""
            modes, found = f"{row['modes']} of {row['of']}", ", ".join(row.get("findings", []))
            lines.append(f"| {kind} | {name} | {modes} | {share} | {kl} | {row.get('items', '')} | {found} |")
    return "\n".join(lines) + "\n"


def listed(told: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(name, int(seed)): row for name, rows in told["recipes"].items() for seed, row in rows.items()}


def picture(results: dict[str, Any], out: Path) -> bytes:
    panels = []
    for kind, told in results.items():
        for (name, seed), row in listed(told).items():
            path = out / kind / f"{name.replace(':', '-')}-seed{seed}.npy"
            if seed == 0:
                below = "failed" if "error" in row else f"{row['modes']} of {row['of']} modes"
                below += f", KL {row['kl']:.2f}" if "kl" in row else ""
                panels.append(Panel(f"{kind}: {name}", below, np.load(path) if path.exists() else None))
    return comparison_png(panels, {})


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--kinds", nargs="+", choices=["ring", "grid", "digits", "mnist"], default=["ring", "grid", "digits"]
    )
    parser.add_argument("--recipes", default="r3,gan", help="names with commas between, perhaps r3:width=48")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cpu-seconds", type=float, default=60.0, help="of each training, on one thread")
    parser.add_argument("--out", help="a folder for runs and results; what is done there stays")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = same_folder(args.out)
    path = out / "modes.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for kind in args.kinds:
        told = results.setdefault(kind, {"recipes": {}})
        lab = None
        for name, seed in ((name, seed) for name in args.recipes.split(",") for seed in range(args.seeds)):
            rows = told["recipes"].setdefault(name, {})
            if str(seed) in rows:
                continue
            if lab is None or kind in GAUSSIANS:
                lab = gaussian_lab(kind, seed) if kind in GAUSSIANS else stacked_lab(kind)
                told |= lab.about
                note(f"{kind}: {lab.about}")
            folder = out / kind / f"{name.replace(':', '-')}-seed{seed}"
            rows[str(seed)] = {**one(lab, name, seed, args.cpu_seconds, folder), "cpu_seconds": args.cpu_seconds}
            note(f"{kind} {name} seed {seed}: {rows[str(seed)]}")
            write_json(path, results)
    write_bytes(out / "modes.md", table(results).encode())
    write_bytes(out / "modes.png", picture(results, out))
    report({**results, "table": str(out / "modes.md"), "picture": str(out / "modes.png")}, args.json)


if __name__ == "__main__":
    main()
