"""Images per second of a training step against a textbook PyTorch loop: same networks, batch and loss, in alternation.

    python benchmarks/step.py [--json] [--rounds 9] [--size 64] [--batch 64] [--threads 2]

The textbook loop is the plain DCGAN of the tutorials: two optimisers, no more. Ours makes the same updates (checked
first: the weights after three steps agree), and keeps a moving average of the generator on top. `ratio` is that of the
default precision: bfloat16 where the processor multiplies it natively, float32 elsewhere (`precision` says which);
`ratio_float32` is that of float32 everywhere. Each round times the textbook loop, ours, and ours in float32 in turn.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Objective, OptimiserSettings, Plan, Verdict, constant
from ganlib.losses import NonSaturating
from ganlib.tasks.generate import Generate
from ganlib.training.runtime import Precision, Runtime, choose_precision
from ganlib.training.state import State, create
from ganlib.training.step import step

JUDGE = Path(__file__).resolve().parents[2] / "shared" / "judge" / "textbook.py"


class Textbook:
    """The loop that a person writes from a tutorial."""

    name = "built-in"

    def __init__(self, size: int, channels: int) -> None:
        self.g, self.d = self.networks(size, channels)
        adam = lambda net: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))  # noqa: E731
        self.opt_g, self.opt_d = adam(self.g), adam(self.d)

    @staticmethod
    def networks(size: int, channels: int, width: int = 64) -> tuple[nn.Module, nn.Module]:
        up, down, c, s = [nn.ConvTranspose2d(100, width * size // 8, 4, 1, 0, bias=False)], [], width * size // 8, size
        while c > width:
            up += [nn.BatchNorm2d(c), nn.ReLU(True), nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False)]
            c //= 2
        up += [nn.BatchNorm2d(c), nn.ReLU(True), nn.ConvTranspose2d(c, channels, 4, 2, 1, bias=False), nn.Tanh()]
        down, s = [nn.Conv2d(channels, c, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)], size // 2
        while s > 4:
            down += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2, True)]
            c, s = 2 * c, s // 2
        return nn.Sequential(*up), nn.Sequential(*down, nn.Conv2d(c, 1, 4, 1, 0, bias=False), nn.Flatten(0))

    def step(self, real: Tensor, latent: Tensor) -> None:
        ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
        self.opt_d.zero_grad()
        F.binary_cross_entropy_with_logits(self.d(real), ones).backward()
        fake = self.g(latent)
        F.binary_cross_entropy_with_logits(self.d(fake.detach()), zeros).backward()
        self.opt_d.step()
        self.opt_g.zero_grad()
        F.binary_cross_entropy_with_logits(self.d(fake), ones).backward()
        self.opt_g.step()


class Judge(Textbook):
    """The same loop from the neutral yardstick, where it lies beside the checkout."""

    name = "textbook.py"

    def __init__(self, size: int, channels: int) -> None:
        spec = importlib.util.spec_from_file_location("textbook", JUDGE)
        assert spec is not None and spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.g, self.d, self.opt_g, self.opt_d = self.module.build(size, channels)

    def step(self, real: Tensor, latent: Tensor) -> None:
        self.module.step(self.g, self.d, self.opt_g, self.opt_d, real)


class Up(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, latent: Tensor, condition: None) -> Tensor:
        return self.net(latent[:, :, None, None])


class Down(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, items: Tensor, condition: None) -> Verdict:
        return Verdict((self.net(items),))


def ours(
    size: int, channels: int, batch: int, weights: tuple[dict, dict], precision: Precision = "float32"
) -> tuple[State, Plan, Runtime]:
    """Our step on networks of the same form with the given weights."""
    adam = OptimiserSettings(constant(2e-4), beta1=0.5, beta2=constant(0.999))
    g, d = Textbook.networks(size, channels)
    g.load_state_dict(weights[0])
    d.load_state_dict(weights[1])
    plan = Plan(
        Generate(lambda: Up(g), lambda: Down(d), 100),
        Objective(NonSaturating()),
        generator=adam,
        discriminator=adam,
        batch_items=batch,
        ema_halflife_items=constant(10_000),
        items=10**9,
    )
    runtime = Runtime(precision=choose_precision(precision, "cpu"))
    return create(plan, runtime, 0, 10**9), plan, runtime


def timed(work: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def agreement(size: int, channels: int, batch: int) -> float:
    """The largest difference of a weight after three steps of both, on the same items and latents."""
    torch.manual_seed(1)
    book = Textbook(size, channels)
    state, plan, runtime = ours(size, channels, batch, (book.g.state_dict(), book.d.state_dict()))
    real = torch.rand(batch, channels, size, size) * 2 - 1
    for _ in range(3):
        with runtime.randomness(0, state.items_seen) as draws:
            latent = plan.task.draw({"real": real}, draws)["latent"]
        step(state, plan, runtime.move({"real": real}), runtime, 0)
        book.step(real, latent[:, :, None, None])
    mine = {**state.generator.state_dict(), **state.discriminator.state_dict()}  # type: ignore[union-attr]
    his = {**book.g.state_dict(), **book.d.state_dict()}
    return max(
        float((mine[f"net.{name}"] - value).abs().max()) for name, value in his.items() if value.is_floating_point()
    )


def our_step(state: State, plan: Plan, runtime: Runtime, real: Tensor) -> None:
    step(state, plan, runtime.move({"real": real}), runtime, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    difference = agreement(16, args.channels, 16)
    book = (Judge if JUDGE.exists() else Textbook)(args.size, args.channels)
    weights = (book.g.state_dict(), book.d.state_dict())
    real = torch.rand(args.batch, args.channels, args.size, args.size) * 2 - 1
    latent = torch.randn(args.batch, 100, 1, 1)
    works: dict[str, Callable[[], object]] = {"textbook": lambda: book.step(real, latent)}
    precisions: dict[str, Precision] = {"ours": "auto", "ours_float32": "float32"}
    for name, precision in precisions.items():
        state, plan, runtime = ours(args.size, args.channels, args.batch, weights, precision)
        works[name] = functools.partial(our_step, state, plan, runtime, real)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(args.rounds + 1):
        for name, work in works.items():
            taken = timed(work, 1)
            if number:  # the first round warms up
                seconds[name].append(taken)
    ratios, plain = (
        [a / b for a, b in zip(seconds["textbook"], seconds[name], strict=True)] for name in ("ours", "ours_float32")
    )
    result = {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        "precision": choose_precision("auto", "cpu"),
        "ratio_float32": round(statistics.median(plain), 3),
        "images_per_second": round(args.batch / statistics.median(seconds["ours"]), 1),
        "textbook_images_per_second": round(args.batch / statistics.median(seconds["textbook"]), 1),
        "textbook": book.name,
        "largest_difference_after_3_steps_float32": difference,
        "size": args.size,
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(result) if args.json else "\n".join(f"{key:32} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
