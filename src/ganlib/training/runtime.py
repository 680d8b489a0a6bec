"""Where and how a training computes: device, number format, compilation, randomness."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ganlib.core import Batch, Draws
from ganlib.errors import UsageError
from ganlib.training.team import Team


def choose_device(device: str) -> str:
    """``auto`` is CUDA where there is one, else Apple's MPS, else the CPU. Raises UsageError for what is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind, _, index = device.partition(":")
    if kind == "cuda" and there["cuda"] and index and index not in map(str, range(torch.cuda.device_count())):
        last = torch.cuda.device_count() - 1
        raise UsageError(f"device {device!r} is not on this machine; it has cuda:0 to cuda:{last}")
    if not there.get(kind, False):
        names = ", ".join(name for name, present in there.items() if present)
        raise UsageError(f"device {device!r} is not on this machine; it has {names} (or pass auto)")
    return device


Precision = Literal["auto", "float32", "bfloat16"]


def choose_precision(precision: Precision, device: str) -> Literal["float32", "bfloat16"]:
    """``auto`` is bfloat16 where the hardware multiplies it faster than float32: CUDA, and processors made for it."""
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bfloat16"
    # Processors without such instructions emulate bfloat16, slowly. Older versions of torch cannot tell.
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device == "cpu" and has_instructions() else "float32"


def seed_of(seed: int, purpose: str, position: int) -> int:
    """A 63-bit seed that is a function of its arguments alone, so that resuming needs no saved generator."""
    key = f"{seed}/{purpose}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Runtime:
    """Device, number format and compilation of one training. Give ``device`` as :func:`choose_device` returned it."""

    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compiled: bool = False
    team: Team = field(default_factory=Team)

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, four-dimensional weights channels-last: convolutions then need no reordering."""
        return module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def move(self, batch: Batch) -> Batch:
        """The batch on the device, pictures channels-last."""
        return {name: self._move(tensor) for name, tensor in batch.items()}

    def _move(self, tensor: Tensor) -> Tensor:
        # Elsewhere than on CUDA a copy that does not wait may read memory that is used again already.
        tensor = tensor.to(self.device, non_blocking=self.device.startswith("cuda"))
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def compile(self, module: nn.Module) -> Callable[..., Any]:
        """The compiled form of a module where asked for; the module itself keeps its names and stays usable."""
        return torch.compile(module) if self.compiled else module

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """bfloat16 where asked for. Weights, optimiser and penalties stay in float32."""
        return torch.autocast(
            self.device.split(":")[0], torch.bfloat16, enabled=enabled and self.precision == "bfloat16"
        )

    @contextlib.contextmanager
    def exact(self, enabled: bool = True) -> Iterator[None]:
        """float32 in full, not TF32, whose ten bits are too few for second derivatives and differences of logits."""
        if not enabled:
            yield
            return
        with _without_tf32(torch.backends.cuda.matmul), _without_tf32(torch.backends.cudnn):
            yield

    @contextlib.contextmanager
    def randomness(self, seed: int, items_seen: int) -> Iterator[Draws]:
        """The draws of this step. The global generator, which dropout draws from, is seeded too and then put back.

        Draws are this process's rows of those of the whole batch; dropout is each process's own.
        """
        number = seed_of(seed, "step/0", items_seen)
        draws = Draws(torch.Generator(self.device).manual_seed(number), self.team.rank, self.team.size)
        number = seed_of(seed, f"step/{self.team.rank}", items_seen)
        # torch.manual_seed would seed every kind of device, and format a stack trace for each that is not in use.
        shared = [torch.default_generator, *default_generators(self.device)]
        states = [generator.get_state() for generator in shared]
        for generator in shared:
            generator.manual_seed(number)
        try:
            yield draws
        finally:
            for generator, state in zip(shared, states, strict=True):
                generator.set_state(state)


@contextlib.contextmanager
def _without_tf32(backend: Any) -> Iterator[None]:
    """Off, and back to what it was. torch refuses the older switch where the user has chosen by the newer one."""
    try:
        switch, name, off, before = backend, "allow_tf32", False, backend.allow_tf32
    except RuntimeError:
        switch, name, off = getattr(backend, "conv", backend), "fp32_precision", "ieee"
        before = switch.fp32_precision
    setattr(switch, name, off)
    try:
        yield
    finally:
        setattr(switch, name, before)


def default_generators(device: str) -> list[torch.Generator]:
    """What layers on this device draw from, besides the generator of the processor."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        torch.cuda.init()
        return [torch.cuda.default_generators[int(index) if index else torch.cuda.current_device()]]
    return [torch.mps._get_default_mps_generator()] if kind == "mps" else []
