"""Between the numbers of the owner and those of the networks: ``x = offset + scale * y``."""

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from ganlib.core import Spec
from ganlib.errors import DataError


def encode(spec: Spec, array: Shaped[np.ndarray, "batch *item"]) -> Float[Tensor, "batch *item"]:
    """y = (x − offset) / scale, for items as they are stored: the owner's numbers, channels first.

    Raises :class:`DataError` where the shape of an item is not that of `spec`.
    """
    if array.shape[1:] != spec.shape:
        raise DataError(
            f"items of shape {array.shape[1:]}, but the spec says {spec.shape}; encode takes channels first"
        )
    if len(spec.offset) == 1 and array.dtype == np.uint8:
        # Torch widens bytes about twice as fast as numpy; the copy keeps the owner's array out of reach.
        real = torch.from_numpy(np.require(array, requirements=["C", "W"])).to(torch.float32)
        return real.sub_(spec.offset[0]).div_(spec.scale[0])
    # Columns with a large mean and a small spread (years, prices) lose their digits in 32 bits before the subtraction.
    wide = np.float64 if spec.kind == "vector" else np.float32
    values = (array.astype(wide) - np.asarray(spec.offset, wide)) / np.asarray(spec.scale, wide)
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def decode(spec: Spec, tensor: Float[Tensor, "batch *item"]) -> Shaped[np.ndarray, "batch *owner"]:
    """x = offset + scale · y, in the owner's dtype and layout; images are clamped to offset ± scale.

    Integers are rounded, and clamped to what their dtype can hold. Raises :class:`DataError` for another item shape.
    """
    _check(spec, tensor)
    values = tensor.detach().to("cpu", torch.float64, copy=True).numpy()
    if spec.kind == "image":
        np.clip(values, -1.0, 1.0, out=values)
    values *= np.asarray(spec.scale)
    values += np.asarray(spec.offset)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # 2**63 − 1 has no double; the next one above would wrap round to the most negative integer.
        highest = np.nextafter(float(limits.max), 0) if dtype.itemsize == 8 else limits.max
        np.rint(values, out=values).clip(limits.min, highest, out=values)
    made = values.astype(dtype)
    if spec.layout == "HWC":
        made = np.moveaxis(made, 1, -1)
    elif spec.layout == "HW":
        made = made[:, 0]
    return np.ascontiguousarray(made)


def pictures(spec: Spec, tensor: Float[Tensor, "batch channels height width"]) -> UInt8[np.ndarray, "batch h w c"]:
    """Items of any image spec as 8-bit pictures, channels last: −1 is 0 and 1 is 255."""
    if spec.kind != "image":
        raise DataError(f"items of kind {spec.kind!r} are not pictures; ganlib.data.show.scatter draws vectors")
    _check(spec, tensor)
    values = tensor.detach().to("cpu", torch.float32).clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return values.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _check(spec: Spec, tensor: Tensor) -> None:
    if tuple(tensor.shape[1:]) != spec.shape:
        raise DataError(f"items of shape {tuple(tensor.shape[1:])}, but the spec says {spec.shape}")
