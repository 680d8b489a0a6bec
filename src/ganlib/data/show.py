"""Pictures out: files, folders, grids, animations, archives and plots. All files are whole or absent."""

import io
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, Integer, Shaped, UInt8
from PIL import Image

from ganlib.errors import DataError, UsageError
from ganlib.files import explained, replacing, sync_folder, write_bytes

_GRID_PIXELS = 512
_GAP = 2


def save_png(path: Path | str, picture: Shaped[np.ndarray, "height width channels"]) -> None:
    """Write a picture as PNG: uint8 with 1 to 4 channels, or uint16 with 1, which keeps its 16 bits.

    Raises :class:`DataError` for other pictures and :class:`WriteError` where the file cannot be written.
    """
    write_bytes(Path(path), png_bytes(picture))


def save_folder(
    folder: Path | str,
    pictures: Iterable[Shaped[np.ndarray, "height width channels"]],
    labels: Iterable[int] | None = None,
    names: Sequence[str] = (),
) -> int:
    """Write ``000000.png``, ``000001.png``, ..., or ``000000-class.png`` with `labels`; returns how many.

    `names` are those of the classes; characters that a file system may refuse become "_". Raises what
    :func:`save_png` raises.
    """
    folder = Path(folder)
    count = 0
    numbers = None if labels is None else iter(labels)
    for picture in pictures:
        name = f"{count:06d}"
        if numbers is not None:
            label = next(numbers, None)
            if label is None:
                raise DataError(f"there are only {count} labels, but more pictures; give one for each")
            name += "-" + re.sub(r"[^\w.]+", "_", names[label] if names else str(label))[:100]
        _put(folder / f"{name}.png", png_bytes(picture))
        count += 1
    if count:
        with explained(folder):
            sync_folder(folder)
    return count


def grid(
    pictures: UInt8[np.ndarray, "batch height width channels"], columns: int | None = None, scale: int | None = None
) -> UInt8[np.ndarray, "grid_height grid_width shown"]:
    """Pictures side by side, row by row, with lines of 2 pixels between; 1 or 3 channels come out.

    Small pictures are enlarged by the whole number `scale`, by default so that the grid is about 512 pixels wide.
    Alpha lies on a checkerboard; of pictures with more than 4 channels the first 3 are shown.
    """
    count, height, width, channels = pictures.shape
    if count == 0 or 0 in pictures.shape:
        raise DataError(f"a grid of pictures of shape {pictures.shape}; there must be at least one, with pixels")
    columns = int(np.ceil(np.sqrt(count))) if columns is None else columns
    if columns < 1 or (scale is not None and scale < 1):
        raise UsageError(f"columns={columns}, scale={scale}; each must be at least 1")
    enlarged = max(-(-(_GRID_PIXELS - _GAP * (columns + 1)) // (columns * width)), 1) if scale is None else scale
    if channels > 4:
        pictures = pictures[..., :3]
    pictures = pictures.repeat(enlarged, 1).repeat(enlarged, 2)
    if channels in (2, 4):
        pictures = _on_checkerboard(pictures)
    height, width, channels = pictures.shape[1:]
    rows = -(-count // columns)
    sheet = np.full((_GAP + rows * (height + _GAP), _GAP + columns * (width + _GAP), channels), 255, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save_animation(
    path: Path | str, frames: Iterable[UInt8[np.ndarray, "height width channels"]], milliseconds: int = 100
) -> None:
    """Write frames of `milliseconds` each as GIF, APNG or WebP, by the extension (.gif, .png or .apng, .webp).

    Raises :class:`UsageError` for another extension and :class:`DataError` for no frames or frames of several sizes.
    """
    path = Path(path)
    kind = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP"}.get(path.suffix.lower())
    if kind is None or milliseconds < 1:
        raise UsageError(
            f"cannot animate {path} at {milliseconds} ms; accepted are .gif, .png, .apng, .webp and 1 ms up"
        )
    images = [_image(frame) for frame in frames]
    sizes = sorted({image.size for image in images})
    if len(sizes) != 1:
        raise DataError(f"{len(images)} frames of sizes {sizes}; there must be some, all of one size")
    content = io.BytesIO()
    first, rest = images[0], images[1:]
    if kind == "GIF":
        first.save(content, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, disposal=2)
    else:
        first.save(content, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0)
    write_bytes(path, content.getvalue())


def save_npz(
    path: Path | str,
    images: Shaped[np.ndarray, "items ..."] | Iterable[Shaped[np.ndarray, "batch ..."]],
    labels: Int64[np.ndarray, " items"] | None = None,
    num_items: int | None = None,
) -> None:
    """Write ``images`` (and ``labels``) so that ``np.load`` reads them; an iterable of batches takes constant memory.

    `num_items` is how many items the batches hold together. Raises :class:`UsageError` where it is missing,
    :class:`DataError` where the batches or labels do not fit it, and :class:`WriteError` where the disk is full.
    """
    path = Path(path)
    batches = iter([images] if isinstance(images, np.ndarray) else images)
    total = len(images) if isinstance(images, np.ndarray) else num_items
    if total is None:
        raise UsageError("pass num_items= with batches: a file of numpy says at its start how many items it holds")
    if labels is not None and len(labels) != total:
        raise DataError(f"{len(labels)} labels for {total} images; there must be one for each")
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_batches(archive, batches, total)
        if labels is not None:
            with archive.open(_member("labels.npy"), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(labels, np.int64), (1, 0), False)


def scatter(
    points: Float[np.ndarray, "items columns"] | Integer[np.ndarray, "items columns"],
    reference: Shaped[np.ndarray, "others columns"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of the first two columns of `points` (orange) over those of `reference` (grey)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if points.shape[1] < 2:
        raise DataError(f"points have {points.shape[1]} column; a plot of points needs at least 2")
    figure = Figure(figsize=(5.12, 5.12), dpi=100)  # a Figure of its own: pyplot would keep it and pick a window system
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for values, colour in ((reference, "0.7"), (points, "tab:orange")):
        if values is not None:
            axes.scatter(values[:, 0], values[:, 1], s=4, color=colour, linewidths=0)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _image(picture: np.ndarray) -> Image.Image:
    channels = picture.shape[-1]
    if picture.dtype == np.uint16 and channels == 1:
        return Image.fromarray(np.ascontiguousarray(picture[..., 0]))
    if picture.dtype != np.uint8 or channels > 4 or 0 in picture.shape:
        raise DataError(
            f"a picture of shape {picture.shape} and dtype {picture.dtype}; accepted are [height, width, channels] "
            "as uint8 with 1 to 4 channels, or as uint16 with 1"
        )
    return Image.fromarray(np.ascontiguousarray(picture[..., 0] if channels == 1 else picture))


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture [height, width, channels] as the content of a PNG file."""
    content = io.BytesIO()
    _image(picture).save(content, "PNG")
    return content.getvalue()


def _put(path: Path, content: bytes) -> None:
    """Replace a file as a whole, without waiting for the disk: thousands of pictures would take minutes."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _on_checkerboard(pictures: np.ndarray) -> np.ndarray:
    height, width = pictures.shape[1:3]
    rows, columns = np.mgrid[:height, :width] // 8
    board = np.where((rows + columns) % 2 == 0, 255.0, 204.0)[:, :, None]
    alpha = pictures[..., -1:] / 255.0
    return np.rint(pictures[..., :-1] * alpha + board * (1 - alpha)).astype(np.uint8)


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # no clock: the same items make the same bytes
    info.external_attr = 0o644 << 16
    return info


def _write_batches(archive: zipfile.ZipFile, batches: Iterable[np.ndarray], num_items: int) -> None:
    count, first = 0, None
    with archive.open(_member("images.npy"), "w", force_zip64=True) as file:
        for batch in batches:
            if first is None:
                first = batch[:0]
                header = {"descr": first.dtype.str, "fortran_order": False, "shape": (num_items, *first.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            if batch.shape[1:] != first.shape[1:] or batch.dtype != first.dtype:
                raise DataError(
                    f"a batch of {batch.dtype} {batch.shape[1:]} after one of {first.dtype} {first.shape[1:]}; "
                    "all must be alike"
                )
            count += len(batch)
            file.write(np.ascontiguousarray(batch).tobytes())
    if first is None or count != num_items:
        raise DataError(f"the batches hold {count} items, not the {num_items} that were announced")
