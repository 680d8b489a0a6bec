"""What is compared when samples are scored: an extractor turns items into rows of numbers.

A score means nothing without the extractor that it was computed with, so each has a name and a digest.
Round images with :func:`quantise` first, the real ones too: a picture is stored in 8 bits, and an extractor that sees
values outside [-1, 1] or between the levels scores what nobody will look at. ``evaluate`` rounds both sides.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ganlib.errors import DataError, UsageError


def quantise(items: Float[Tensor, "*item"]) -> Float[Tensor, "*item"]:
    """Images in [-1, 1] rounded to the 256 levels of 8 bits, values outside clipped; NaN stays NaN."""
    return ((items * 127.5 + 127.5).round().clamp(0, 255) - 127.5) / 127.5


class FeatureExtractor(ABC):
    """A fixed function from items to rows of features; equal digests mean equal features."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name that goes with every number."""

    @abstractmethod
    def digest(self) -> str:
        """The SHA-256 of the weights, or of the definition where there are none."""

    @abstractmethod
    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        """The features of a batch, images [batch, channels, height, width] in [-1, 1]. DataError for another shape."""


@final
class Pixels(FeatureExtractor):
    """The values themselves, of images averaged down to at most `side` × `side`; None keeps their size."""

    def __init__(self, side: int | None = 32) -> None:
        if side is not None and side < 1:
            raise UsageError(f"side={side}: accepted is a whole number of at least 1, or None to keep the size")
        self.side = side

    @property
    def name(self) -> str:
        return "pixels" if self.side is None else f"pixels-{self.side}"

    def digest(self) -> str:
        return sha256_of(f"{self.name}, exact area average, version 1".encode())

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        _check_images(items, min_side=1)
        return (items if self.side is None else area_mean(items, self.side)).flatten(1)


@final
class RandomConvolutions(FeatureExtractor):
    """The mean and deviation per channel at each depth of a random convolutional network: texture without training.

    Needs no download and favours no data set; blind to what an object is. Random networks judge images unlike any in
    ImageNet better than trained ones do: Naeem et al. 2020, arXiv:2002.09797. `width` channels at `depth` depths give
    ``2 · width · depth`` features. Compare scores only for one seed and one width.
    """

    def __init__(self, *, seed: int = 0, channels_in: int = 3, width: int = 32, depth: int = 4) -> None:
        if min(channels_in, width, depth) < 1:
            raise UsageError(f"channels_in={channels_in}, width={width}, depth={depth}: all must be at least 1")
        self.seed, self.channels_in, self.width, self.depth = seed, channels_in, width, depth
        rng = torch.Generator().manual_seed(seed)
        self.weights = tuple(
            _random_filters(width, channels_in if level == 0 else width, rng) for level in range(depth)
        )

    @property
    def name(self) -> str:
        return f"random-convolutions-{self.width}x{self.depth}-seed{self.seed}"

    def digest(self) -> str:
        parts = [f"random convolutions, replicate, leaky 0.2, average pooling, version 1, {self.name}".encode()]
        return sha256_of(*parts, *(_bytes(weight) for weight in self.weights))

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        _check_images(items, min_side=4)
        if items.shape[1] != self.channels_in:
            raise DataError(f"images with {items.shape[1]} channels; {self.name} was made for {self.channels_in}")
        pooled = []
        for maps in self.maps(items):
            deviation, mean = torch.std_mean(maps, dim=(2, 3), correction=0)
            pooled += [mean, deviation]
        return torch.cat(pooled, 1)

    def maps(self, items: Float[Tensor, "batch channels h w"]) -> list[Tensor]:
        """The feature maps at each depth, of which the features are mean and deviation; differentiable."""
        maps, found = items, []
        for weight in self.weights:
            maps = F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), weight.to(maps))
            maps = F.leaky_relu(maps, 0.2)
            found.append(maps)
            # Small images run out of depth, not of features: the last maps are then single pixels.
            maps = F.avg_pool2d(maps, 2, ceil_mode=True) if max(maps.shape[2:]) > 1 else maps
        return found


@final
class ModuleFeatures(FeatureExtractor):
    """The flattened output of a module, which is switched to evaluation mode at each call and stays there.

    The digest covers the tensors of its state dict, not its code: let `name` say which architecture it is.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self._name = module, name

    @property
    def name(self) -> str:
        return self._name

    def digest(self) -> str:
        parts = [self.name.encode()]
        for key, value in sorted(self.module.state_dict().items()):
            if isinstance(value, Tensor):
                parts += [f"{key} {value.dtype} {tuple(value.shape)}".encode(), _bytes(value)]
        return sha256_of(*parts)

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        first = next(self.module.parameters(), items)
        with torch.no_grad():
            output = self.module.eval()(items.to(first.device))
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(items):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise DataError(f"{self.name} returned {shape}; accepted is one tensor (batch, ...): wrap the module")
        return output.flatten(1)


@final
class VectorFeatures(FeatureExtractor):
    """The columns of vectors as they are; standardise them first, or the widest column decides."""

    @property
    def name(self) -> str:
        return "columns"

    def digest(self) -> str:
        return sha256_of(b"columns as they are, version 1")

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        if items.ndim != 2:
            raise DataError(f"vectors of shape {tuple(items.shape)}; accepted is (batch, columns)")
        return items


def features(extractor: FeatureExtractor, batches: Iterable[Tensor], *, batch_items: int = 64) -> Float[Tensor, "n d"]:
    """The features of all items in order, in float64 on the CPU.

    Items are dealt anew into batches of `batch_items`, so that how the caller cut them changes no bit of the result.
    DataError where there are none.
    """
    if batch_items < 1:
        raise UsageError(f"batch_items={batch_items}: accepted is at least 1")
    with torch.inference_mode():
        rows = [extractor(batch).to("cpu", torch.float64) for batch in _redealt(batches, batch_items)]
        if not rows:
            raise DataError("no items to extract features from; give at least one batch")
        joined = torch.cat(rows)
    return joined.clone()  # outside the inference mode, for a tensor that autograd accepts


def _redealt(batches: Iterable[Tensor], batch_items: int) -> Iterator[Tensor]:
    """The same items in batches of one size; the last may be smaller."""
    rest: Tensor | None = None
    for batch in batches:
        rest = batch if rest is None else torch.cat([rest, batch])
        while len(rest) >= batch_items:
            yield rest[:batch_items]
            rest = rest[batch_items:]
    if rest is not None and len(rest):
        yield rest


def _check_images(items: Tensor, *, min_side: int) -> None:
    if items.ndim != 4 or min(items.shape[2:]) < min_side:
        raise DataError(
            f"items of shape {tuple(items.shape)}; accepted are images (batch, channels, height, width) "
            f"of at least {min_side} x {min_side}"
        )


def area_mean(
    items: Float[Tensor, "batch channels height width"], max_side: int
) -> Float[Tensor, "batch channels rows columns"]:
    """Images averaged down so that neither side is over `max_side`: a box filter, exact for any sizes."""
    height, width = (min(size, max_side) for size in items.shape[2:])
    if (height, width) == tuple(items.shape[2:]):
        return items
    rows, columns = _area_weights(items.shape[2], height), _area_weights(items.shape[3], width)
    return rows.to(items) @ items @ columns.to(items).T


def _area_weights(size_in: int, size_out: int) -> Float[Tensor, "size_out size_in"]:
    """The share of each input pixel in each output pixel."""
    edges = torch.arange(size_out + 1, dtype=torch.float64) * size_in / size_out
    pixels = torch.arange(size_in, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0) * size_out / size_in


def _random_filters(
    channels_out: int, channels_in: int, rng: torch.Generator
) -> Float[Tensor, "channels_out channels_in 3 3"]:
    """Uniform weights that keep the scale of their input through a leaky ReLU.

    Made from whole numbers: those are the same on every machine, bits of normal draws are not, and the digest says so.
    """
    bound = math.sqrt(3 * 2 / (1 + 0.2**2) / (9 * channels_in))
    steps = torch.randint(-1024, 1025, (channels_out, channels_in, 3, 3), generator=rng)
    return steps.float() * (bound / 1024)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def sha256_of(*parts: bytes) -> str:
    """Each part with its length, so that no two lists of parts run together to the same bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
