"""The processes that train one model together: who is who, and what they tell each other.

Every process runs the same program on its own rows of each batch. Gradients are averaged by torch's
DistributedDataParallel (Li et al. 2020, arXiv:2006.15704) while they are computed; what remains, decisions above all,
goes through a :class:`Team`. A team of one is the default, and then nothing here costs anything.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ganlib.core import Grows
from ganlib.errors import GanlibError, LostError, UsageError


@final
@dataclass(frozen=True)
class Team:
    """One of `size` processes. All of them call each method in the same order, or wait for each other for ever."""

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether one process does it all."""
        return self.size == 1

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """The largest of each number over all processes: a flag that one has raised counts for all."""
        if self.alone:
            return numbers
        return tuple(self._all_reduced(torch.tensor(numbers, dtype=torch.float64), dist.ReduceOp.MAX).tolist())

    def mean(self, numbers: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each scalar over all processes, on its device; one that is not finite makes the mean so."""
        if self.alone or not numbers:
            return list(numbers)
        return list((self.sum(torch.stack([number.detach().float() for number in numbers])) / self.size).unbind())

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes, on their devices."""
        return tensor if self.alone else self._all_reduced(tensor.clone(), dist.ReduceOp.SUM)

    def rows(self, own: Tensor) -> Tensor:
        """The rows of all processes, as many from each: the first of each, the second of each, and so on."""
        return own if self.alone else torch.stack(self._all_gathered(own.contiguous()), 1).flatten(0, 1)

    def first(self, value: Any) -> Any:
        """What the first process passed, to all of them: numbers, words, lists and dictionaries, as JSON."""
        return value if self.alone else self.all(value if self.rank == 0 else None)[0]

    def all(self, value: Any) -> list[Any]:
        """What each process passed, in the order of their ranks, as JSON."""
        if self.alone:
            return [value]
        written = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        (length,) = self.largest(len(written))
        padded = torch.full((int(length),), ord(" "), dtype=torch.uint8)
        padded[: len(written)] = written
        return [json.loads(bytes(each.tolist())) for each in self._all_gathered(padded)]

    def tensors_of_first(self, groups: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """The first process's tensors by group and name, on the CPU of all. The others may pass nothing."""
        if self.alone:
            return groups
        shapes = {
            group: {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in part.items()}
            for group, part in groups.items()
        }
        told, found = self.first(shapes), {}
        for group, part in told.items():
            found[group] = {}
            for name, (kind, shape) in part.items():
                tensor = (
                    groups[group][name].detach().to("cpu", copy=True).contiguous()
                    if self.rank == 0
                    else torch.empty(shape, dtype=_DTYPES[kind])
                )
                dist.broadcast(tensor.view(-1).view(torch.uint8), 0)  # not every kind of number can be sent as such
                found[group][name] = tensor
        return found

    def dealt(self, rows: Tensor, num_rows: int, chunk_rows: int) -> Tensor:
        """All rows in order, where this process has every `size`-th chunk of them from its rank on; on the CPU."""
        if self.alone:
            return rows
        width = self.largest(rows.shape[-1] if rows.numel() else 0)[0]
        most = -(-num_rows // (chunk_rows * self.size)) * chunk_rows
        padded = torch.zeros(most, int(width), dtype=torch.float64)
        if len(rows):  # a process with no chunk does not know the width
            padded[: len(rows)] = rows.double()
        parts = [part.split(chunk_rows) for part in self._all_gathered(padded)]
        return torch.cat([chunk for row in zip(*parts, strict=True) for chunk in row])[:num_rows]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as its own training calls it: its gradients are the mean over all processes."""
        if self.alone or not any(weight.requires_grad for weight in module.parameters()):
            return module
        # Of a network that grows some weights reach no loss yet.
        growing = any(isinstance(each, Grows) for each in module.modules())
        wrapped = DistributedDataParallel(module, find_unused_parameters=growing)
        # Set here, since the name of the argument differs between versions of torch. The buffers agree without: what
        # they hold is computed from the joined batch, or from the weights.
        wrapped.broadcast_buffers = False
        return wrapped

    def _all_reduced(self, tensor: Tensor, operation: Any) -> Tensor:
        dist.all_reduce(tensor, operation)
        return tensor

    def _all_gathered(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return parts


_SENT = (
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
)
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _SENT}


def unsynchronised(module: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Within it gradients only add up, for all micro-batches of an update but the last."""
    if enabled and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


def told_apart() -> bool:
    """Whether a launcher such as ``torchrun`` has started this process as one of several."""
    return dist.is_available() and (dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1)


def own_device(device: str) -> str:
    """The device of one of several processes among those of its machine: ``cuda`` becomes ``cuda:1`` for the second.

    Raises :class:`UsageError` for a device that several processes cannot have.
    """
    kind, _, number = device.partition(":")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if kind == "cpu" or not told_apart():
        return device
    if kind != "cuda" or number:
        raise UsageError(f"device {device!r} cannot be shared by several processes; accepted are cpu and cuda")
    if place >= count:
        raise UsageError(f"process {place + 1} of this machine has no GPU, there are {count}; start as many processes")
    return f"cuda:{place}"


def join(device: str) -> Team:
    """Become one of the processes that a launcher has started; call it once the device is known.

    A process group that exists already is used; it must carry tensors of the CPU too (``cpu:gloo,cuda:nccl``).
    """
    if not told_apart():
        return Team()
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # Decisions travel as tensors of the CPU, so that no step waits for the GPU because of them.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    # Of a weight with one input channel the order in memory is ambiguous; the copy that it costs is nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return Team(dist.get_rank(), dist.get_world_size())


def leave() -> int:
    """End the process group, where there is one; returns the rank that this process had. NCCL warns without."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0
    rank = dist.get_rank()
    dist.destroy_process_group()
    return rank


@contextlib.contextmanager
def lost_ones(team: Team) -> Iterator[None]:
    """Raises :class:`LostError` where another process has gone, which torch tells in several ways."""
    try:
        yield
    except RuntimeError as error:
        if team.alone or isinstance(error, GanlibError) or not _of_the_network(error):
            raise
        cause = str(error).strip().partition("\n")[0]
        raise LostError(
            f"another process of this training has ended or cannot be reached ({cause}); unless that is the cause, run "
            "the same command again: it goes on from the last checkpoint of its run folder"
        ) from error


def _of_the_network(error: RuntimeError) -> bool:
    words = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "Timed out waiting")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
