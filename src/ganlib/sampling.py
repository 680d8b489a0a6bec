"""Drawing from a generator: the same items for the same seed, however many are asked for at a time."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Batch, Condition, Draws, Pair, Task
from ganlib.errors import UsageError
from ganlib.tiling import piecewise
from ganlib.training.runtime import Runtime, seed_of

CHUNK_ITEMS = 64
"""Latents and labels are drawn this many at a time, each time from a seed of their own."""

SMALL_NUMBERS, SMALL_CHUNK_ITEMS = 64, 512
"""Items of up to so many numbers go through networks so many at once: calls would cost as much as the work."""


def chunk_items(shape: Sequence[int]) -> int:
    """How many items of a shape networks always run on at once: another batch size may round differently."""
    return SMALL_CHUNK_ITEMS if math.prod(shape) <= SMALL_NUMBERS else CHUNK_ITEMS


CHUNK_NUMBERS = 2**18
"""Fewer items at once where they have more than 4,096 numbers each: what is made of large pictures is larger yet."""


def truncated(latent: Float[Tensor, "batch latent"], limit: float) -> Float[Tensor, "batch latent"]:
    """Normal numbers mapped in order to the normal distribution within ±limit (Brock et al. 2018, arXiv:1809.11096).

    A map of the same numbers instead of redrawing: one seed gives the same pictures, more and more typical.
    """
    edge = math.erf(limit / math.sqrt(2))
    share = torch.special.erf(latent.double() / math.sqrt(2)) * edge
    return (torch.special.erfinv(share) * math.sqrt(2)).clamp(-limit, limit).to(latent.dtype)


def slerp(
    start: Float[Tensor, " latent"], end: Float[Tensor, " latent"], num_steps: int
) -> Float[Tensor, "steps latent"]:
    """Points between two latents along the sphere, where normal latents lie; White 2016, arXiv:1609.04468."""
    share = torch.linspace(0, 1, num_steps, device=start.device)[:, None]
    cosine = torch.dot(start, end) / (start.norm() * end.norm()).clamp(min=1e-12)
    angle = torch.arccos(cosine.clamp(-1, 1))
    if float(angle) < 1e-4:
        return torch.lerp(start[None], end[None], share)
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


def check_numbers(num_items: int, seed: int, truncation: float | None) -> None:
    """Raises :class:`UsageError` for numbers that no sample can be drawn with."""
    if num_items < 1:
        raise UsageError(f"cannot draw {num_items} items; ask for 1 or more")
    if seed < 0:
        raise UsageError(f"seed={seed}; accepted is 0 or more")
    if truncation is not None and not truncation > 0:
        raise UsageError(f"truncation={truncation}; it is in standard deviations and must be over 0, 2 is common")


@dataclass(frozen=True)
class Sampler:
    """A trained generator ready to draw. `label_share` is how often each class is drawn where none is asked for.

    `chunk_items` is that of :func:`chunk_items`, a multiple of :data:`CHUNK_ITEMS`.
    """

    task: Task
    generator: nn.Module
    device: str
    label_share: tuple[float, ...] = ()
    chunk_items: int = CHUNK_ITEMS

    def latents(self, num_items: int, seed: int, truncation: float | None = None) -> Float[Tensor, "items latent"]:
        """The latents of the first `num_items` items of that seed, on the CPU."""
        return self._latents(range(math.ceil(num_items / CHUNK_ITEMS)), seed, truncation)[:num_items]

    def labels(self, num_items: int, seed: int) -> Int[Tensor, " items"]:
        """The classes of the first `num_items` items of that seed, drawn as often as in the training data."""
        return self._labels(range(math.ceil(num_items / CHUNK_ITEMS)), seed)[:num_items]

    def stream(
        self,
        num_items: int,
        *,
        seed: int,
        labels: Int[Tensor, " given"] | None = None,
        truncation: float | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Condition]]:
        """Items and their labels in chunks, on the CPU, in constant memory. Given labels are taken in turn.

        Of a `part` (rank, size) only every `size`-th chunk is drawn, from number `rank` on.
        """
        for first in range(part[0] * self.chunk_items, num_items, part[1] * self.chunk_items):
            end = first + self.chunk_items
            draws = range(first // CHUNK_ITEMS, end // CHUNK_ITEMS)
            condition: Condition = None
            if self.label_share and labels is None:
                condition = self._labels(draws, seed)
            elif self.label_share and labels is not None:
                condition = labels[torch.arange(first, end) % len(labels)]
            items = self._chunk(self._latents(draws, seed, truncation), condition)
            wanted = min(end, num_items) - first
            yield items[:wanted], None if condition is None else condition[:wanted]

    def run(self, latent: Float[Tensor, "batch latent"], condition: Condition) -> Tensor:
        """The generator on any number of latents, in chunks of one size, the last filled up; items on the CPU."""
        made, size = [], self.chunk_items
        for first in range(0, len(latent), size):
            part, known = latent[first : first + size], None
            missing = size - len(part)
            if condition is not None:
                known = condition[first : first + size]
                known = torch.cat([known, known[:1].expand(missing)])
            made.append(self._chunk(torch.cat([part, part[:1].expand(missing, -1)]), known)[: size - missing])
        return torch.cat(made)

    def transformed(self, items: Float[Tensor, "batch *item"], condition: Condition) -> Tensor:
        """What the generator makes of items, in chunks of one size, the last filled up; on the CPU.

        Pictures larger than one call may see go through it in tiles, where it takes any size.
        """
        size, made = max(1, min(CHUNK_ITEMS, CHUNK_NUMBERS // items[0].numel())), []
        for first in range(0, len(items), size):
            rows = torch.arange(first, first + size).clamp(max=len(items) - 1)
            known = {} if condition is None else {"condition": condition[rows]}
            make = functools.partial(self._transformed, known)
            part = piecewise(make, items[rows]) if self.task.any_size else make(items[rows])
            made.append(part[: len(items) - first])
        return torch.cat(made)

    @torch.inference_mode()
    def _transformed(self, known: Batch, items: Tensor) -> Tensor:
        batch = Runtime(self.device).move({"items": items, **known})
        return self.task.transform(self.generator, batch["items"], batch.get("condition")).float().cpu()

    @torch.inference_mode()
    def paired(self, batch: Batch) -> Pair:
        """Real items and what the generator makes of them, where it makes items of items alone."""
        return self.task.pair(self.generator, self.task.draw(self._known(batch), self._draws()))

    def judged(self, batch: Batch) -> tuple[Tensor, Condition]:
        """Real items on the device, and what the discriminator is told of them, the same each time."""
        known = self._known(batch)
        return known["real"], self.task.condition(known, self._draws())

    def _known(self, batch: Batch) -> Batch:
        """The batch on the device, with labels only where they count."""
        known = {name: tensor for name, tensor in batch.items() if name != "label" or self.label_share}
        return Runtime(self.device).move(known)

    def _draws(self) -> Draws:
        return Draws(torch.Generator(self.device).manual_seed(0))

    @torch.inference_mode()
    def _chunk(self, latent: Float[Tensor, "chunk latent"], condition: Condition) -> Tensor:
        known = condition if condition is None else condition.to(self.device)
        return self.task.sample(self.generator, latent.to(self.device), known).float().cpu()

    def _latents(self, draws: range, seed: int, truncation: float | None) -> Tensor:
        # Drawn on the CPU, so that a seed means the same latents on every device.
        rng = torch.Generator()
        drawn = [self.task.latent(CHUNK_ITEMS, Draws(rng.manual_seed(seed_of(seed, "latent", k)))) for k in draws]
        latent = torch.cat(drawn)
        return latent if truncation is None else truncated(latent, truncation)

    def _labels(self, draws: range, seed: int) -> Tensor:
        rng, share = torch.Generator(), torch.tensor(self.label_share)
        return torch.cat(
            [
                torch.multinomial(share, CHUNK_ITEMS, replacement=True, generator=rng.manual_seed(number))
                for number in (seed_of(seed, "label", k) for k in draws)
            ]
        )


@torch.no_grad()
def refresh_statistics(sampler: Sampler, seed: int, num_batches: int = 8) -> None:
    """Measure the batch statistics of an averaged generator anew: those averaged so far belong to no one network.

    Standing statistics, Brock et al. 2018, arXiv:1809.11096, section 4.1; drawn as in training, from a fixed seed.
    """
    norms = [m for m in sampler.generator.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms or not sampler.task.draws:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    latents = sampler.latents(num_batches * CHUNK_ITEMS, seed).chunk(num_batches)
    labels = sampler.labels(num_batches * CHUNK_ITEMS, seed).chunk(num_batches) if sampler.label_share else None
    for number, latent in enumerate(latents):
        condition = labels[number].to(sampler.device) if labels is not None else None
        sampler.task.sample(sampler.generator, latent.to(sampler.device), condition)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
