"""Image quality of torchgan's DCGAN at a number of CPU-seconds, scored by a neutral yardstick.

    python benchmarks/peer_quality.py [--data fashion_mnist] [--marks 120 600] [--step-channels 64] [--out DIR] [--json]

Protocol: torchgan 0.1.0, installed as in peers.py, its DCGANGenerator and DCGANDiscriminator for 32 x 32 with their
defaults but one channel, its Trainer with the minimax losses in their non-saturating form and Adam at 2e-4, 0.5,
0.999, as the Trainer's documentation has them, batch 64. Its example there has a quarter of the width:
`--step-channels 16`. The pictures of 28 x 28 are in memory, with a border of 2 that is cut off again. What the
Trainer does at the end of an epoch (saving; drawing needs torchvision and is left out) counts.

At each mark, in CPU-seconds of the process since the training began, 10,000 samples with the running batch statistics
are written to DIR/SECONDS.npz and scored by ../shared/judge/judge.py as in quality.py, outside of the budget.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from common import SHARED, finish, make_parser, needed, new_folder, note, report
from ganlib.data import load
from packages import importable, install
from peers import LATENT, PEERS

JUDGE = SHARED / "judge" / "judge.py"
NUM_SAMPLES = 10_000
BORDER = (2, 2, 2, 2)


class Over(Exception):
    """The last mark is passed."""


class Marked(DataLoader):
    """A loader that calls `at_mark` when so many CPU-seconds are used, and ends the training after the last."""

    def __init__(self, images: Tensor, marks: Sequence[float]) -> None:
        super().__init__(TensorDataset(images, torch.zeros(len(images))), 64, shuffle=True, drop_last=True)
        self.marks, self.items, self.start = list(marks), 0, 0.0
        self.at_mark: Callable[[float, int], None] = lambda seconds, items: None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.start = self.start or time.process_time()
        for batch in super().__iter__():
            if time.process_time() - self.start >= self.marks[0]:
                before = time.process_time()
                self.at_mark(self.marks.pop(0), self.items)
                self.start += time.process_time() - before
            if not self.marks:
                raise Over
            self.items += len(batch[0])
            yield batch


def images_of(name: str) -> Tensor:
    """The training images with a black border, in -1 to 1."""
    data = load(needed(SHARED / "data" / name))
    return F.pad(data.batch(np.arange(len(data)))["real"], BORDER, value=-1.0)


@torch.no_grad()
def draw(generator: nn.Module) -> np.ndarray:
    """Samples without their border, 8 bits."""
    generator.eval()
    fakes = torch.cat([generator(torch.randn(500, LATENT)) for _ in range(NUM_SAMPLES // 500)])
    generator.train()
    return fakes[:, 0, 2:-2, 2:-2].add(1).mul(127.5).round().clamp(0, 255).byte().numpy()


def train(loader: Marked, step_channels: int, folder: Path) -> None:
    """torchgan's Trainer until the last mark; samples at each mark to `folder`."""
    from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss  # pyright: ignore
    from torchgan.models import DCGANDiscriminator, DCGANGenerator  # pyright: ignore
    from torchgan.trainer import Trainer  # pyright: ignore

    width = {"step_channels": step_channels}
    adam = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.5, 0.999)}}
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        trainer = Trainer(
            {
                "generator": {"name": DCGANGenerator, "args": {"out_channels": 1, **width}, "optimizer": adam},
                "discriminator": {"name": DCGANDiscriminator, "args": {"in_channels": 1, **width}, "optimizer": adam},
            },
            [MinimaxGeneratorLoss(), MinimaxDiscriminatorLoss()],
            device=torch.device("cpu"),
            epochs=10**9,
            checkpoints=f"{scratch}/model/gan",
            recon=f"{scratch}/images",
        )

        def keep(seconds: float, items: int) -> None:
            note(f"{items:,} items after {seconds:g} CPU-seconds")
            np.savez_compressed(folder / f"{seconds:g}.npz", images=draw(trainer.generator), items=items)

        loader.at_mark = keep
        with contextlib.suppress(Over):
            trainer(loader)


def judged(data: str, samples: Path) -> dict[str, Any]:
    """The scores of a file of samples; without the judge only where they lie."""
    with np.load(samples) as stored:
        told: dict[str, Any] = {"samples": str(samples), "items": int(stored["items"])}
    if JUDGE.exists():
        scores = json.loads(finish([sys.executable, JUDGE, data, samples]).last_line)
        told |= {name: scores[name] for name in ("frechet", "precision", "recall", "density", "coverage")}
    return told


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--data", choices=["fashion_mnist", "mnist"], default="fashion_mnist")
    parser.add_argument("--marks", nargs="+", type=float, default=[120.0, 600.0], help="CPU-seconds, rising")
    parser.add_argument("--step-channels", type=int, default=64, help="torchgan's default; its example has 16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", type=Path, help="a folder that keeps the package for the next time")
    parser.add_argument("--out", help="an empty folder for the samples; default a temporary one")
    args = parser.parse_args()
    if sorted(args.marks) != args.marks or args.marks[0] <= 0:
        parser.error("--marks must rise from over 0")
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    folder, peer = new_folder(args.out), PEERS["torchgan"]
    loader = Marked(images_of(args.data), args.marks)
    with tempfile.TemporaryDirectory() as temporary:
        packages = (args.packages or Path(temporary)) / "torchgan"
        install((f"torchgan=={peer.version}",), packages)
        with importable(packages, peer.stubs):
            train(loader, args.step_channels, folder)
    marks = {f"{mark:g}": judged(args.data, folder / f"{mark:g}.npz") for mark in args.marks}
    last = marks[f"{args.marks[-1]:g}"]
    asked = {
        "step_channels": args.step_channels,
        "data": args.data,
        "seed": args.seed,
        "threads": args.threads,
        "torch": torch.__version__,
    }
    report({"frechet": last.get("frechet"), "marks": marks, "peer": f"torchgan {peer.version}", **asked}, args.json)


if __name__ == "__main__":
    main()
