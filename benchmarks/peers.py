"""Images per second of a training step against other GAN libraries: the same networks, batch and loss, in alternation.

    python benchmarks/peers.py [--json] [--peers torchgan torch-mimicry ...] [--rounds 5] [--size 64] [--batch 64]
        [--threads 1] [--packages DIR]

Protocol: each peer is installed from the package registry, at the version below and without its dependencies, into a
folder of its own (`--packages`; default a temporary one), then runs its own training loop over a loader of ours. The
networks are the DCGAN of the tutorials (`step.py`), the loss is the non-saturating one, the optimiser Adam, on both
sides. Each time the peer asks for a batch, the loader first times one step of ours in the default precision and one
in float32, then hands the batch over and times the peer until it asks again: so all that the peer does in a step of
its default settings counts, and so does all that ours does (checks, moving average, mean terms). `ratio` is the
median over rounds of the peer's seconds over ours, the first two rounds left out; `ratio_cpu` is that of the
processor's time, which holds where other programs share the machine.

What a peer imports but does not need for a step (drawing, data sets, TensorBoard) is replaced by modules that do
nothing where it is not installed: the list stands beside each peer. A peer that does not install, import or run is
reported with its error. What a peer saves or draws at the end of an epoch is not counted.
"""

import argparse
import contextlib
import importlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common import make_parser, note, report
from ganlib.training.loop import train
from ganlib.training.runtime import Precision, choose_precision
from packages import importable, install
from step import Textbook, ours

WARM_ROUNDS = 2
LATENT = 100

Taken = tuple[float, float]
"""Seconds on the clock and seconds of the processor."""


def now() -> Taken:
    return time.perf_counter(), time.process_time()


def since(start: Taken) -> Taken:
    wall, cpu = now()
    return wall - start[0], cpu - start[1]


class Rounds(DataLoader):
    """A loader that times one step of each of ours before it hands a batch over, then the peer until it asks again."""

    def __init__(self, batch: object, batch_size: int, num_rounds: int, steps: dict[str, Callable[[], object]]) -> None:
        super().__init__([None], batch_size)  # type: ignore[arg-type]
        self.batch, self.num_rounds, self.steps = batch, num_rounds, steps
        self.taken: dict[str, list[Taken]] = {name: [] for name in (*steps, "peer")}
        self.start: Taken | None = None

    def __len__(self) -> int:
        return self.num_rounds

    def __iter__(self) -> "Rounds":  # type: ignore[override]
        return self

    def __next__(self) -> object:
        self.finish()
        if len(self.taken["peer"]) == self.num_rounds:
            raise StopIteration
        for name, step in self.steps.items():
            start = now()
            step()
            self.taken[name].append(since(start))
        self.start = now()
        return self.batch

    def next(self) -> object:
        """A look at the first batch, as loaders of an older PyTorch gave it; vegans takes two before it begins."""
        return self.batch

    def finish(self) -> None:
        """Close the last round."""
        if self.start is not None:
            self.taken["peer"].append(since(self.start))
        self.start = None


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))


class Unflatten(nn.Module):
    """The textbook's generator on flat latents."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent[:, :, None, None])


def torchgan(g: nn.Module, d: nn.Module, loader: Rounds, folder: Path) -> None:
    """torchgan.trainer.Trainer with its minimax losses in their non-saturating form, its default."""
    from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss  # pyright: ignore
    from torchgan.models import Discriminator, Generator  # pyright: ignore
    from torchgan.trainer import Trainer  # pyright: ignore

    class G(Generator):
        def __init__(self) -> None:
            super().__init__(LATENT)
            self.net = Unflatten(g)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    class D(Discriminator):
        def __init__(self) -> None:
            super().__init__(3)
            self.net = d

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    optimiser = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.5, 0.999)}}
    Trainer(
        {"generator": {"name": G, "optimizer": optimiser}, "discriminator": {"name": D, "optimizer": optimiser}},
        [MinimaxGeneratorLoss(), MinimaxDiscriminatorLoss()],
        device=torch.device("cpu"),
        epochs=1,
        checkpoints=str(folder / "model" / "gan"),
        recon=str(folder / "images"),
    )(loader)


def torch_mimicry(g: nn.Module, d: nn.Module, loader: Rounds, folder: Path) -> None:
    """torch_mimicry.training.Trainer with the train_step of its base classes and loss_type "ns"."""
    from torch_mimicry.nets.gan.gan import BaseDiscriminator, BaseGenerator  # pyright: ignore
    from torch_mimicry.training import Trainer  # pyright: ignore

    class G(BaseGenerator):
        def __init__(self) -> None:
            super().__init__(nz=LATENT, ngf=64, bottom_width=4, loss_type="ns")
            self.net = Unflatten(g)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    class D(BaseDiscriminator):
        def __init__(self) -> None:
            super().__init__(ndf=64, loss_type="ns")
            self.net = d

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, None]

    loader.batch = (loader.batch, torch.zeros(loader.batch_size or 0, dtype=torch.long))
    generator, discriminator = G(), D()
    Trainer(
        netD=discriminator,
        netG=generator,
        optD=adam(discriminator),
        optG=adam(generator),
        dataloader=loader,
        num_steps=loader.num_rounds,
        log_dir=str(folder),
        device=torch.device("cpu"),
    ).train()


def vegans(g: nn.Module, d: nn.Module, loader: Rounds, folder: Path) -> None:
    """vegans.GAN.VanillaGAN; its loss is of probabilities, so a sigmoid ends the discriminator."""
    from vegans.GAN import VanillaGAN  # pyright: ignore

    assert isinstance(loader.batch, Tensor)
    network = VanillaGAN(
        g,
        nn.Sequential(d, nn.Sigmoid(), nn.Unflatten(0, (-1, 1))),
        x_dim=loader.batch.shape[1:],
        z_dim=(LATENT, 1, 1),
        optim=torch.optim.Adam,
        optim_kwargs={name: {"lr": 2e-4, "betas": (0.5, 0.999)} for name in ("Generator", "Adversary")},
        device="cpu",
        folder=str(folder / "vegans"),
        secure=False,
    )
    network.fit(loader, epochs=1, batch_size=loader.batch_size)


def lightning_bolts(g: nn.Module, d: nn.Module, loader: Rounds, folder: Path) -> None:
    """pl_bolts.models.gans.DCGAN under Lightning's Trainer; its loss is of probabilities too."""
    from pl_bolts.models.gans import DCGAN  # pyright: ignore
    from pytorch_lightning import Trainer  # pyright: ignore

    class Module(DCGAN):
        def _get_generator(self) -> nn.Module:
            return g

        def _get_discriminator(self) -> nn.Module:
            return nn.Sequential(d, nn.Sigmoid())

    loader.batch = (loader.batch, torch.zeros(loader.batch_size or 0, dtype=torch.long))
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=str(folder),
    ).fit(Module(image_channels=3, latent_dim=LATENT), loader)


def import_only(module: str) -> Callable[[nn.Module, nn.Module, Rounds, Path], None]:
    """A peer that is known to stop at its import on a processor; where it does not, that is said too."""

    def drive(g: nn.Module, d: nn.Module, loader: Rounds, folder: Path) -> None:
        importlib.import_module(module)
        raise NotImplementedError("imports, and is not driven here yet")

    return drive


@dataclass(frozen=True)
class Peer:
    """A package, how to train with it, what it imports that a step does not need, and what is installed with it."""

    version: str
    drive: Callable[[nn.Module, nn.Module, Rounds, Path], None]
    stubs: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


PLOTS = ("torchvision", "tensorboard", "matplotlib", "pandas", "requests", "wget")
CUDA_ONLY = ("torchvision", "kornia", "einops")
LIGHTNING = ("pytorch-lightning==1.9.5", "lightning-utilities==0.11.9", "torchmetrics==1.4.3", "setuptools==75.8.0")
PEERS = {
    "torchgan": Peer("0.1.0", torchgan, ("torchvision",)),
    "torch-mimicry": Peer("0.1.16", torch_mimicry, (*PLOTS, "tensorflow", "sklearn", "scipy", "skimage", "torch._six")),
    "vegans": Peer("0.4.0", vegans, PLOTS),
    "lightning-bolts": Peer("0.7.0", lightning_bolts, ("torchvision",), LIGHTNING),
    "lightweight-gan": Peer("1.2.1", import_only("lightweight_gan"), (*CUDA_ONLY, "adabelief_pytorch")),
    "stylegan2-pytorch": Peer(
        "1.9.0",
        import_only("stylegan2_pytorch"),
        (*CUDA_ONLY, "vector_quantize_pytorch", "aim", "fire"),
    ),
    "mmgen": Peer("0.7.3", import_only("mmgen")),
}


def our_steps(args: argparse.Namespace, weights: tuple[dict, dict], real: Tensor) -> dict[str, Callable[[], object]]:
    """One step of our loop in each precision."""
    steps: dict[str, Callable[[], object]] = {}
    precisions: dict[str, Precision] = {"ours": "auto", "ours_float32": "float32"}
    for name, precision in precisions.items():
        state, plan, runtime = ours(args.size, 3, args.batch, weights, precision)
        reports = train(state, plan, itertools.repeat({"real": real}), runtime, 0)
        steps[name] = reports.__next__
    return steps


def against(name: str, peer: Peer, args: argparse.Namespace, packages: Path) -> dict[str, Any]:
    """Ratios to one peer, or the error that it ended with."""
    torch.manual_seed(0)
    book = Textbook(args.size, 3)
    real = torch.rand(args.batch, 3, args.size, args.size) * 2 - 1
    steps = our_steps(args, (book.g.state_dict(), book.d.state_dict()), real)
    loader = Rounds(real, args.batch, args.rounds + WARM_ROUNDS, steps)
    try:
        install((f"{name}=={peer.version}", *peer.extras), packages / name)
        with (
            importable(packages / name, peer.stubs),
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(sys.stderr),
        ):
            peer.drive(book.g, book.d, loader, Path(folder))
            loader.finish()
    except Exception as error:
        words = " ".join(str(error).split())
        return {"version": peer.version, "error": f"{type(error).__name__}: {words[:200]}"}
    return {"version": peer.version, "stubs": list(peer.stubs), **compared(loader.taken, args.batch)}


def compared(taken: dict[str, list[Taken]], batch: int) -> dict[str, Any]:
    """Ratios of the peer's time to ours, by the clock and by the processor's time, and speeds by the clock."""
    rounds = {name: times[WARM_ROUNDS:] for name, times in taken.items()}
    told: dict[str, Any] = {}
    for (name, key), (kind, ending) in itertools.product(
        (("ours", "ratio"), ("ours_float32", "ratio_float32")), enumerate(("", "_cpu"))
    ):
        ratios = [peer[kind] / mine[kind] for peer, mine in zip(rounds["peer"], rounds[name], strict=True)]
        values = (statistics.median(ratios), min(ratios), max(ratios))
        told |= {
            f"{key}{ending}{end}": round(value, 3) for end, value in zip(("", "_low", "_high"), values, strict=True)
        }
    for name, times in rounds.items():
        told[f"{name}_images_per_second"] = round(batch / statistics.median(wall for wall, _ in times), 1)
    return {**told, "rounds": len(rounds["peer"])}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--packages", type=Path, help="a folder that keeps the packages for the next time")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.peers:
            told[name] = against(name, PEERS[name], args, args.packages or Path(temporary))
            note(f"{name}: {told[name]}")
    ratios = [peer["ratio"] for peer in told.values() if "ratio" in peer]
    machine = {"precision": choose_precision("auto", "cpu"), "threads": args.threads, "torch": torch.__version__}
    least = {"ratio": min(ratios, default=None)}  # by the clock
    report({**least, **told, "size": args.size, "batch": args.batch, **machine}, args.json)


if __name__ == "__main__":
    main()
