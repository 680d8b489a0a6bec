"""Read one picture file: which formats, which pixels, which way up."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError

from ganlib.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"})
MAX_PIXELS = 64_000_000

Content: TypeAlias = Path | bytes | Image.Image
"""Where a picture comes from: its file, the bytes of its file, or Pillow's object."""

_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_GREY = frozenset({"1", "L", "LA", "La"})
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before its pixels are read; the size is that after turning it upright."""

    size: tuple[int, int]  # height, width
    grey: bool
    deep: bool  # 16 bits per pixel
    alpha: bool  # it may have transparent pixels


def reason(error: Exception) -> str:
    """Why a picture could not be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture of a kind that is read ({', '.join(FORMATS)}), or its first bytes are damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def fits_png(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a PNG holds an item of this shape, channels first, as it is: 8 bits, or 16 bits of grey."""
    return len(shape) == 3 and (dtype, shape[0]) in [(np.uint8, 1), (np.uint8, 3), (np.uint8, 4), (np.uint16, 1)]


def read_header(content: Content) -> Header:
    """The header of a picture; raises :class:`DataError`, or whatever Pillow raises, where there is none."""
    with _opened(content) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        mode = image.mode
        alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        return Header((height, width), mode in _GREY | _DEEP, mode in _DEEP, alpha)


def read_pixels(
    content: Content, channels: int, deep: bool, size: tuple[int, int] | None
) -> Shaped[np.ndarray, "channels height width"]:
    """The pixels of a picture, upright, as uint8 (uint16 where `deep`), cut and resized to `size` if given.

    Embedded colour profiles are ignored: applying them would need a profile for every file and change most of them
    by less than JPEG does. Raises what :func:`read_header` raises.
    """
    with _opened(content) as image:
        if size is not None and image.format == "JPEG":
            _draft(image, size)
        orientation = _orientation(image)
        image.load()
        if orientation in _TURNS:
            image = image.transpose(_TURNS[orientation])
        pixels = _plain(image, channels, deep, size)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(content: Content) -> Iterator[Image.Image]:
    if isinstance(content, Image.Image):
        image = content.copy()  # the owner's object is neither turned nor closed
    else:
        if content == b"" or (isinstance(content, Path) and content.stat().st_size == 0):
            raise DataError("empty file")
        image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS)
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are read")
        if width * height == 0:
            raise DataError("a picture without pixels")
        if image.mode not in _COLOUR | _GREY | _DEEP:
            raise DataError(f"pixels of mode {image.mode!r}; convert it to 8 or 16 bits")
        yield image


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF pictures upright itself. Where it met no Exif data so far it would read a PNG to its end for
    # some behind the pixels, where nobody writes them.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    return image.getexif().get(0x0112, 1)


def _draft(image: Image.Image, size: tuple[int, int]) -> None:
    """Let the JPEG decoder halve the picture while it stays at least twice as large as needed."""
    width, height = image.size
    share = max(max(size) / width, max(size) / height)  # of either side: the picture may lie on its side
    image.draft(image.mode, (math.ceil(width * share * 2), math.ceil(height * share * 2)))


def _plain(image: Image.Image, channels: int, deep: bool, size: tuple[int, int] | None) -> np.ndarray:
    """The pixels in the wanted number of channels and bits, [height, width] or [height, width, channels]."""
    wanted = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode == wanted and "transparency" not in image.info:
        return np.asarray(fit(image, size))  # each conversion copies, also to the mode that it has
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > 65_535:
            raise DataError(f"pixels from {values.min()} to {values.max()}; at most 16 bits (0 to 65535) are read")
        fitted = fit(Image.fromarray(values.astype(np.float32)), size)
        values = np.rint(np.asarray(fitted)).clip(0, 65_535)
        if deep:
            return values.astype(np.uint16)
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
        size = None
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode in _GREY and not has_alpha:
        image = image.convert("L")
    else:
        image = image.convert("RGBA" if has_alpha else "RGB")
    image = fit(image, size)  # Pillow weighs the colours by the alpha
    return np.asarray(image.convert(wanted))


def fit(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """The middle of the picture in the aspect ratio of `size` (height, width), resized with antialiasing."""
    if size is None or image.size == size[::-1]:
        return image
    height, width = size
    share = min(image.width / width, image.height / height)
    left, top = (image.width - width * share) / 2, (image.height - height * share) / 2
    box = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + width * share, image.width),
        min(top + height * share, image.height),
    )
    return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
