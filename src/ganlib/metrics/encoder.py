"""An encoder learned from the user's own pictures in seconds, without labels and without other people's weights.

Whitened patches, clustered by spherical k-means, become the filters of one convolution: Coates, Ng & Lee 2011, "An
Analysis of Single-Layer Networks in Unsupervised Feature Learning" (AISTATS), and Coates & Ng 2012, "Learning Feature
Representations with K-means". On CIFAR-10 a linear classifier on it is right more often than one on a contrastive
network that was trained five times as long (``docs/decisions.md``).
"""

import contextlib
import hashlib
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DamagedError, DataError
from ganlib.files import write_bytes
from ganlib.metrics.features import FeatureExtractor, area_mean, sha256_of
from ganlib.metrics.fetch import cache_folder

ARCHITECTURE, VERSION = "ganlib-learned-patches", 1
MAX_SIDE = 64
"""Larger pictures are averaged down to this side first."""
NUM_PATCHES, NUM_FILTERS, NUM_FEATURES = 60_000, 128, 128
KMEANS_ROUNDS = 15
SHRINKAGE = 0.25
"""What a filter's response must exceed, in standard deviations of a whitened patch."""
LEAST_DEVIATION = 0.08
"""Patches flatter than this, in [-1, 1], are not stretched to full contrast."""
COLOUR_SHARE = 0.25
"""The variance of the coarse picture (brightness, colour), as a share of that of the filters' responses."""
MIN_ITEMS = 100


@final
@dataclass(frozen=True, eq=False)
class LearnedPatches(FeatureExtractor):
    """How strongly each filter answers in each quarter of the picture and of its mirror image, and the coarse picture.

    The features are the principal components of these numbers, with the square root of their spread, so that the first
    few do not decide alone. Their mean variance over the pictures that were learned from is 1.
    """

    shape: tuple[int, int, int]  # of the pictures, averaged down: (channels, height, width)
    filters: Float[Tensor, "filters channels patch patch"]
    bias: Float[Tensor, " filters"]
    colour_scale: Float[Tensor, ""]
    mean: Float[Tensor, " raw"]
    components: Float[Tensor, "raw features"]

    @property
    def name(self) -> str:
        return f"learned-patches-{self.components.shape[1]}"

    def digest(self) -> str:
        parts = [f"learned patches, version {VERSION}, {self.shape}".encode()]
        for name, tensor in self._tensors().items():
            parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), tensor.contiguous().numpy().tobytes()]
        return sha256_of(*parts)

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        seen = small(items) if items.ndim == 4 else items
        if tuple(seen.shape[1:]) != self.shape:
            raise DataError(f"items of shape {tuple(items.shape[1:])}; {self.name} was learned on {self.shape}")
        items = seen
        return (self._raw(items.float().cpu()) - self.mean) @ self.components

    def _raw(self, items: Tensor) -> Tensor:
        answers = (self._answers(items) + self._answers(items.flip(3))) / 2
        coarse = F.adaptive_avg_pool2d((items + items.flip(3)) / 2, 4).flatten(1)
        return torch.cat([answers, coarse * self.colour_scale], 1)

    def _answers(self, items: Tensor) -> Float[Tensor, "batch answers"]:
        """The mean of each filter's answer, and of its magnitude, in each quarter."""
        side, stride = self.filters.shape[-1], stride_for(items.shape[-2:])
        mean = F.avg_pool2d(items.mean(1, keepdim=True), side, stride)
        square = F.avg_pool2d(items.square().mean(1, keepdim=True), side, stride)
        deviation = deviation_of((square - mean.square()).clamp(min=0))
        answers = F.conv2d(items, self.filters, stride=stride)
        # The contrast of each patch is normalised after the convolution, which is linear, instead of before it.
        answers.sub_(mean * self.filters.sum((1, 2, 3))[:, None, None]).div_(deviation).add_(self.bias[:, None, None])
        answers = F.softshrink(answers, SHRINKAGE)
        signed, magnitude = F.adaptive_avg_pool2d(answers, 2), F.adaptive_avg_pool2d(answers.abs_(), 2)
        return torch.cat([signed.flatten(1), magnitude.flatten(1)], 1)

    def _tensors(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def to_bytes(self) -> bytes:
        """A safetensors file of it; see :func:`from_bytes`."""
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        about = {"architecture": ARCHITECTURE, "version": str(VERSION)}
        tensors |= {"shape": torch.tensor(self.shape), "digest": _as_tensor(self.digest())}
        return safetensors.torch.save(tensors, about)


def learn(items: Float[Tensor, "n channels height width"], *, seed: int) -> LearnedPatches:
    """Learn filters and components from pictures in [-1, 1], a few thousand of them: seconds on a processor.

    The same pictures, seed and machine give the same bits. DataError for fewer than 100 pictures, sides under 4,
    or values that are not finite.
    """
    if items.ndim != 4 or len(items) < MIN_ITEMS or min(items.shape[2:]) < 4:
        raise DataError(
            f"items of shape {tuple(items.shape)}; an encoder is learned from at least {MIN_ITEMS} pictures "
            "(batch, channels, height, width) of 4 x 4 or more: give more, or other features such as pixels"
        )
    if not items.isfinite().all():
        row = int(items.isfinite().flatten(1).all(1).logical_not().nonzero()[0])
        raise DataError(f"picture {row} has values that are not finite; look at it or leave it out")
    rng = torch.Generator().manual_seed(seed)
    seen = small(items)
    shape = (seen.shape[1], seen.shape[2], seen.shape[3])
    patches = _patches(seen, rng)
    centre = patches.mean(0)
    centred = patches - centre
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    whitening = vectors @ torch.diag((values.clamp(min=0) + 0.1).rsqrt()) @ vectors.T
    directions = _spherical_kmeans(centred @ whitening, min(NUM_FILTERS, len(patches)), rng)
    flat = directions @ whitening
    side = patch_side(seen.shape[-2:])
    filters = flat.reshape(len(flat), shape[0], side, side).contiguous()
    none = torch.zeros(0), torch.zeros(0, 0)
    plain = LearnedPatches(shape, filters, -(flat @ centre), torch.tensor(1.0), *none)
    raw = torch.cat([plain._raw(part) for part in seen.split(250)])
    split = raw.shape[1] - 16 * shape[0]
    answers, coarse = (part.var(0).sum().sqrt() for part in (raw[:, :split], raw[:, split:]))
    scale = math.sqrt(COLOUR_SHARE) * answers / coarse.clamp(min=1e-6)
    raw[:, split:] *= scale
    mean = raw.mean(0)
    spread, axes = torch.linalg.eigh((raw - mean).T @ (raw - mean) / (len(raw) - 1))
    count = min(NUM_FEATURES, len(items) // 4, raw.shape[1])
    spread, axes = spread.flip(0)[:count].clamp(min=1e-9), axes.flip(1)[:, :count]
    components = axes * spread.pow(-0.25)
    components = components / (spread.sqrt().mean()).sqrt()
    return LearnedPatches(shape, filters, plain.bias, scale, mean, components.contiguous())


def learn_cached(
    items: Float[Tensor, "n channels height width"], *, seed: int, folder: Path | None = None
) -> LearnedPatches:
    """The same as :func:`learn`, kept in a cache folder under the SHA-256 of pictures and seed.

    `folder` defaults to ``encoders`` in :func:`ganlib.metrics.fetch.cache_folder`. What cannot be read or written there
    is learned anew: a cache never stops an evaluation.
    """
    content = hashlib.sha256(f"learned patches {VERSION} {seed} {tuple(items.shape)} {torch.__version__}".encode())
    content.update(items.contiguous().numpy().tobytes())
    folder = folder or cache_folder() / "encoders"
    path = folder / f"{content.hexdigest()[:32]}.safetensors"
    try:
        return from_bytes(path.read_bytes(), str(path))
    except (OSError, DamagedError):
        learned = learn(items, seed=seed)
    with contextlib.suppress(OSError):
        write_bytes(path, learned.to_bytes())
    return learned


def from_bytes(content: bytes, where: str) -> LearnedPatches:
    """Read what :meth:`LearnedPatches.to_bytes` wrote. DamagedError for anything else, naming `where`.

    The digest is kept beside the numbers, so that a changed bit and another version are told from what was written.
    """
    try:
        tensors = safetensors.torch.load(content)
        channels, height, width = (int(side) for side in tensors.pop("shape"))
        written = tensors.pop("digest")
        made = LearnedPatches((channels, height, width), **tensors)
        if not written.equal(_as_tensor(made.digest())):
            raise ValueError("its numbers are not those that were written")
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{where} is no encoder of ganlib ({error}); delete it, it is made again") from error
    return made


def _as_tensor(digest: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)


def small(items: Tensor) -> Tensor:
    """Pictures averaged down to at most `MAX_SIDE`."""
    return area_mean(items, MAX_SIDE)


def patch_side(size: tuple[int, ...]) -> int:
    """How many pixels a patch is wide, for pictures of (height, width)."""
    return min(6, min(size) // 2)


def stride_for(size: tuple[int, ...]) -> int:
    """Pixels between patches: about 14 of them along the longer side."""
    return max(1, round(max(size) / 16))


def deviation_of(variance: Tensor) -> Tensor:
    return (variance + LEAST_DEVIATION**2).sqrt()


def _patches(items: Tensor, rng: torch.Generator) -> Float[Tensor, "patches values"]:
    """Patches from everywhere, each with mean 0 and standard deviation 1 (flat ones less)."""
    side = patch_side(items.shape[-2:])
    windows = items.unfold(2, side, 1).unfold(3, side, 1)
    which = [torch.randint(size, (NUM_PATCHES,), generator=rng) for size in (len(items), *windows.shape[2:4])]
    patches = windows[which[0], :, which[1], which[2]].flatten(1)
    return (patches - patches.mean(1, keepdim=True)) / deviation_of(patches.var(1, keepdim=True, correction=0))


def _spherical_kmeans(points: Float[Tensor, "n d"], count: int, rng: torch.Generator) -> Float[Tensor, "count d"]:
    """Unit directions; each moves to the sum of the points that lie along it, either way, weighted by how far."""
    directions = F.normalize(points[torch.randperm(len(points), generator=rng)[:count]], dim=1)
    for _ in range(KMEANS_ROUNDS):
        products = points @ directions.T
        nearest = products.abs().argmax(1)
        length = products.gather(1, nearest[:, None])
        sums = torch.zeros_like(directions).index_add_(0, nearest, length * points)
        directions = F.normalize(sums + 1e-3 * directions, dim=1)
    return directions
