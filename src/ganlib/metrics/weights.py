"""Tensors out of weight files, without running anything that they hold."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ganlib.errors import DamagedError, DataError, MissingError, UsageError

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")
MAX_BYTES = 2 << 30
"""Far above the largest network here (346 MB); a file that claims more is not one of them."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a file by name, and its text metadata, which only safetensors has."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def check_file(path: Path, suffixes: Collection[str]) -> None:
    """Raise where `path` is no file, has another suffix than those, or is larger than any network here."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: cannot read weights of this kind; accepted are {', '.join(suffixes)}")
    if not path.exists():
        raise MissingError(f"{path} is not there; give the path of a weight file ({', '.join(suffixes)})")
    if not path.is_file():
        raise UsageError(f"{path} is not a file; give the path of a weight file ({', '.join(suffixes)})")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes; accepted are at most {MAX_BYTES:,}")


def read_weights(path: Path, *, known_pickles: Collection[str] = ()) -> Weights:
    """The tensors of a .safetensors, .npz, .pth or .pt file.

    The last two are pickles, which can run code: only content whose SHA-256 is among `known_pickles` is looked into,
    and even that by torch's restricted reader. Raises DamagedError where the content is not what the suffix says,
    DataError for Python objects and unknown pickles, MissingError and UsageError as :func:`check_file`.
    """
    check_file(path, SUFFIXES)
    match path.suffix.lower():
        case ".safetensors":
            return _safetensors(path)
        case ".npz":
            return Weights(_npz(path), {})
        case _:
            return Weights(_known_pickle(path, known_pickles), {})


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill a network made on the meta device, in float32. Each name and shape must fit; counters may be absent.

    DataError where a tensor is missing, extra or of another shape; DamagedError where one is not finite.
    """
    expected = network.state_dict()
    given = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in expected.items():
        # Counts of training batches, which no evaluation reads; exports often leave them out.
        if name.endswith("num_batches_tracked") and name not in given:
            given[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    missing, extra = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what} ({names[0]})" for what, names in (("missing", missing), ("extra", extra)) if names
    ]
    problems += shapes[:1]
    if problems:
        raise DataError(
            f"{where}: the tensors are not those of {type(network).__name__}: {'; '.join(problems)}; "
            "accepted is an unchanged state dict"
        )
    for name, tensor in given.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DamagedError(f"{where}: {name} is not finite; fetch the file again")
    network.load_state_dict(given, assign=True)
    network.eval().requires_grad_(False)


def _safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        return Weights(safetensors.torch.load_file(path), metadata)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{path} is not a safetensors file ({error}); fetch it again") from error


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_BYTES:
            raise DataError(f"{path} unpacks to {unpacked:,} bytes; accepted are at most {MAX_BYTES:,}")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, SyntaxError, MemoryError) as error:
        raise DamagedError(f"{path} is not a whole .npz file ({error}); fetch it again") from error
    except ValueError as error:  # numpy's word for pickled objects, and for headers that are none
        raise DataError(f"{path} is refused ({error}); accepted are plain arrays of numbers") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise DataError(f"{path}: {name} is {kind}; accepted are arrays of numbers")
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}


def _known_pickle(path: Path, known: Collection[str]) -> dict[str, Tensor]:
    content = path.read_bytes()  # what is hashed is what is read, whoever writes to the file meanwhile
    digest = hashlib.sha256(content).hexdigest()
    if digest not in known:
        raise DataError(
            f"{path} is a pickle, which can run code, and its SHA-256 {digest[:12]}... is of no published file known "
            "here; save its state dict with safetensors.torch.save_file and give that file"
        )
    tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
