"""Extractors by name, for the command line and for saved protocols."""

from pathlib import Path

import torch

from ganlib.errors import MissingError, UsageError
from ganlib.metrics.features import FeatureExtractor, Pixels, RandomConvolutions
from ganlib.metrics.fetch import DINOV2_VITB14, DINOV2_VITS14, INCEPTION, cache_folder, fetched
from ganlib.metrics.trained import FILE_SUFFIXES, from_file

NAMES = (
    "pixels",
    "random",
    "inception",
    "inception-clean",
    "inception-logits",
    "dinov2",
    "dinov2-vitb14",
    "mobilenet",
    "resnet20",
    "resnet56",
)
"""What :func:`named` accepts besides a path."""


def named(
    name: str | Path,
    *,
    channels: int = 3,
    side: int | None = None,
    device: torch.device | str = "cpu",
    download: bool = True,
) -> FeatureExtractor:
    """The extractor of a name in :data:`NAMES`, or of the weight file at a path.

    ``inception`` is the FID's with TensorFlow's resize, ``inception-clean`` the same network after an antialiased one,
    ``inception-logits`` what the Inception score takes; ``dinov2`` is ViT-S/14. Their weights are looked for in
    :func:`cache_folder` and downloaded where `download` allows it. ``mobilenet``, ``resnet20`` and ``resnet56`` are
    .npz files that must lie there already. `channels` is that of the pictures, which only ``random`` needs to know;
    `side` is the input size, where a trained network leaves a choice.
    """
    folder = cache_folder()
    match str(name):
        case "pixels":
            return Pixels()
        case "random":
            return RandomConvolutions(channels_in=channels)
        case "inception":
            return from_file(fetched(INCEPTION, folder, download=download), side=side, device=device)
        case "inception-clean":
            return from_file(fetched(INCEPTION, folder, download=download), side=side, resize="clean", device=device)
        case "inception-logits":
            path = fetched(INCEPTION, folder, download=download)
            return from_file(path, layer="logits-unbiased", side=side, device=device)
        case "dinov2":
            return from_file(fetched(DINOV2_VITS14, folder, download=download), side=side, device=device)
        case "dinov2-vitb14":
            return from_file(fetched(DINOV2_VITB14, folder, download=download), side=side, device=device)
        case "mobilenet":
            return from_file(_local(folder, "mobilenet_v1_075_imagenet.npz"), side=side, device=device)
        case "resnet20":
            return from_file(_local(folder, "cifar10_resnet20.npz"), side=side, device=device)
        case "resnet56":
            return from_file(_local(folder, "cifar10_resnet56.npz"), side=side, device=device)
    if Path(name).suffix.lower() not in FILE_SUFFIXES:
        suffixes = ", ".join(FILE_SUFFIXES)
        raise UsageError(f"no features named {name!s}; accepted are {', '.join(NAMES)}, or a file ({suffixes})")
    return from_file(name, side=side, device=device)


def _local(folder: Path, file: str) -> Path:
    path = folder / file
    if not path.is_file():
        raise MissingError(
            f"{path} is not there and is not downloaded; put it there, or give the path of a weight file"
        )
    return path
