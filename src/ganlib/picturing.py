"""Picture files in, picture files out: what a trained generator makes of those that a user hands over."""

import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from ganlib.core import Spec
from ganlib.data import encode, load, pictures
from ganlib.data.folders import files_below, is_picture, printable
from ganlib.data.images import read_header, read_pixels, reason
from ganlib.data.show import save_npz, save_png
from ganlib.editing import Wish, check_edits
from ganlib.errors import DataError, MissingError, UsageError
from ganlib.fitting import Progress
from ganlib.model import Model
from ganlib.predicting import condition_for, listed
from ganlib.progress import Style, say, shown
from ganlib.stopping import stop_wishes

AT_ONCE, AT_ONCE_NUMBERS = 64, 2**24
"""Pictures of one size, and their numbers together, that are read before the generator sees them."""

LISTED = 5
"""Of pictures that cannot be used, so many are named in a message."""


@dataclass(frozen=True)
class PictureFile:
    """A picture: its name below the folder that was given, and the same without its ending unless two would share it.

    `folder` is that of the first level, empty for a picture that lies in none.
    """

    path: Path
    name: str
    stem: str

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0].partition("/")[0]


def picture_files(source: Path, channels: int) -> tuple[list[PictureFile], list[tuple[str, str]]]:
    """A picture, or all of a folder, for a model of so many channels; and the folders that cannot be listed, with why.

    Raises :class:`MissingError`, :class:`DataError` and :class:`UsageError` where there are none to read.
    """
    if not source.exists():
        raise MissingError(f"{source} does not exist; give a picture or a folder of pictures")
    problems: list[tuple[str, str]] = []
    found = list(files_below(source, problems)) if source.is_dir() else [source.name]
    names = [name for name in found if is_picture(name)]
    if not names:
        raise DataError(f"{source} has no pictures; give a picture (.png, .jpg, ...) or a folder of pictures")
    if channels not in (1, 3, 4):
        raise UsageError(
            f"this model takes items of {channels} channels, which no picture file has; pass arrays to GAN"
        )
    stems = [str(Path(name).with_suffix("")) for name in names]
    counts = Counter(stems)
    files = [
        PictureFile(source / name if source.is_dir() else source, name, stem if counts[stem] == 1 else name)
        for name, stem in zip(names, stems, strict=True)
    ]
    return files, problems


def pixels_of(path: Path, channels: int, size: tuple[int, int] | None) -> UInt8[np.ndarray, "channels height width"]:
    """The pixels of a picture, cut and resized to (height, width) if given. Raises :class:`DataError` with the reason.

    A picture with colours is no grey one, and none is made of it silently.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata, which is not used
            grey = read_header(path).grey
            pixels = read_pixels(path, channels, False, size)
    except Exception as error:  # damaged files make decoders raise nearly anything: SyntaxError, struct.error
        raise DataError(f"cannot be read: {reason(error)}") from error
    if channels == 1 and not grey:
        raise DataError("has colours; this model was trained on grey pictures: convert it")
    return pixels


def told(unusable: Sequence[tuple[str, str]]) -> str:
    """The first few of the pictures that cannot be used, each with its reason."""
    shown = "; ".join(f"{printable(name)}: {why}" for name, why in unusable[:LISTED])
    return shown + ("; ..." if len(unusable) > LISTED else "")


@dataclass(frozen=True)
class Predicted:
    """How many pictures were written, and which were left out and why."""

    items: int
    unreadable: tuple[tuple[str, str], ...] = ()


def predict_files(
    model: Model,
    source: Path,
    out: Path,
    label: int | None = None,
    style: Style = "none",
    wish: Wish | None = None,
) -> Predicted:
    """Write what the generator makes of a picture or a folder of them: PNG files of the same names, or a .npz.

    To a model of classes all pictures are of the class `label`, or each of that of its folder, or of its row in a file;
    to a model of attributes all shall have those of the `wish`. A picture that cannot be read, or does not fit the
    model, is left out. A signal ends the work after the picture in hand; those before it stay. Raises
    :class:`MissingError`, :class:`DataError` (no picture can be used) and :class:`UsageError` with what is accepted.
    """
    _check(model, source, out)
    if wish is not None:
        check_edits(model)
    given = _given(model, source, label)
    unreadable, written, kept = list(given.unreadable), [], []

    def events() -> Iterator[Progress]:
        started = time.monotonic()
        for name, array in _made(model, given, unreadable, wish):
            if out.suffix == ".npz":
                kept.append(array)
            else:
                save_png(out / name, array)
            written.append(name)
            seconds = time.monotonic() - started
            done = len(written) + len(unreadable) - len(given.unreadable)
            yield Progress(done, len(given.names), seconds, len(written) / seconds if seconds > 0 else None)

    with stop_wishes() as stop:
        for _ in shown(events(), style, "predict", "pictures"):
            if stop.signal is not None:
                break
    if stop.signal is not None:
        say(f"stopped by {stop.signal.name}; {0 if kept else len(written):,} pictures are in {out}", style)
        if stop.signal is signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + stop.signal)
    if not written:
        raise DataError(f"none of {len(unreadable):,} pictures in {source} can be used: {told(unreadable)}")
    if kept:
        _save_together(out, kept)
    return Predicted(len(written), tuple((printable(name), why) for name, why in unreadable))


@dataclass(frozen=True)
class _Given:
    """Pictures to be read one by one, of classes where the model wants them."""

    sources: Sequence[str]
    names: Sequence[str]  # what is made of them is called
    labels: Sequence[int | None]
    pixels: Callable[[int], np.ndarray]  # channels first; raises DataError with the reason why there are none
    unreadable: Sequence[tuple[str, str]] = ()


def _check(model: Model, source: Path, out: Path) -> None:
    if not model.plan.task.transforms:
        raise UsageError(
            f"recipe {model.recipe.name} makes items of latents, not of pictures: draw some with ganlib sample; "
            "autoencoder, vae, vae_gan, superres, pix2pix, cyclegan, cut and attributes take pictures"
        )
    if model.setting.spec.kind != "image":
        raise UsageError("this model takes vectors, not pictures: pass them to GAN.predict")
    if out.suffix not in ("", ".npz"):
        raise UsageError(f"cannot write pictures to {out}; accepted are a folder (PNG files) and .npz")
    if out.resolve() in (source.resolve(), source.resolve().parent if source.is_file() else None):
        raise UsageError(f"{out} holds the pictures that are given, which have the same names; give another folder")


def _made(
    model: Model, given: _Given, unreadable: list[tuple[str, str]], wish: Wish | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and 8-bit picture of each; those of one size that follow each other go through the generator together.

    What cannot be used is added to `unreadable`.
    """
    waiting: list[tuple[str, np.ndarray, int | None]] = []
    for number, (name, known) in enumerate(zip(given.names, given.labels, strict=True)):
        try:
            pixels = given.pixels(number)
        except DataError as error:
            unreadable.append((given.sources[number], str(error)))
            continue
        most = min(AT_ONCE, max(1, AT_ONCE_NUMBERS // pixels.size))
        if waiting and (len(waiting) >= most or pixels.shape != waiting[0][1].shape):
            yield from _finished(model, waiting, wish)
            waiting = []
        waiting.append((name, pixels, known))
    if waiting:
        yield from _finished(model, waiting, wish)


def _finished(
    model: Model, waiting: Sequence[tuple[str, np.ndarray, int | None]], wish: Wish | None
) -> Iterator[tuple[str, np.ndarray]]:
    names, given, labels = zip(*waiting, strict=True)
    pixels = np.stack(given)
    items, known = encode(_pixel_spec(pixels), pixels), None if labels[0] is None else torch.tensor(labels)
    made = model.sampler.transformed(items, condition_for(model, items, known, wish))
    yield from zip(names, pictures(_pixel_spec(made.numpy()), made), strict=True)


def _given(model: Model, source: Path, label: int | None) -> _Given:
    """All pictures of a folder or file, none of them read yet."""
    if source.is_file() and not is_picture(source.name):
        return _unpacked(model, source, label)
    files, unlisted = picture_files(source, model.given_spec.shape[0])
    labels = [_label(model, file.path, file.folder, label) for file in files]
    names = [file.stem + ".png" for file in files]
    return _Given([file.name for file in files], names, labels, lambda k: _pixels(model, files[k].path), unlisted)


def _label(model: Model, path: Path, name: str, label: int | None) -> int | None:
    """The class asked for, else that of this name; None if the model knows no classes."""
    classes = model.setting.spec.classes
    if not model.label_share or label is not None or model.recipe.material == "attributes":
        return label
    if printable(name) not in classes:
        found = f"its class is {printable(name)!r}" if name else "it has none"
        raise UsageError(
            f"{printable(str(path))}: this model needs the class of each picture, and {found}; name one for all with "
            f"--label, or give a folder with a folder for each class; there are {listed(classes)}"
        )
    return classes.index(printable(name))


def _pixels(model: Model, path: Path) -> np.ndarray:
    """The pixels of a picture, cut and resized as the training data were where the model has a size."""
    spec, any_size = model.given_spec, model.plan.task.any_size
    pixels = pixels_of(path, spec.shape[0], None if any_size else model.setting.size)
    if not any_size and pixels.shape != spec.shape:
        raise DataError(
            f"has {pixels.shape[1]} x {pixels.shape[2]} pixels (height x width); this model takes "
            f"{spec.shape[1]} x {spec.shape[2]}"
        )
    return pixels


def _unpacked(model: Model, source: Path, label: int | None) -> _Given:
    """The pictures of an archive or array file, by number."""
    spec, data = model.given_spec, load(source)
    fits = data.spec.shape[0] == spec.shape[0] if model.plan.task.any_size else data.spec.shape == spec.shape
    if not fits or data.spec.kind != "image" or data.spec.dtype != "uint8":
        size = "any size" if model.plan.task.any_size else f"{spec.shape[1]} x {spec.shape[2]} pixels"
        raise DataError(
            f"{source} holds {data.spec.dtype} {data.spec.kind}s of shape {data.spec.shape} (channels first); this "
            f"model takes uint8 pictures of {size} with {spec.shape[0]} channels"
        )
    names = [""] * len(data) if data.labels is None else [data.spec.classes[known] for known in data.labels]
    labels = [_label(model, source, name, label) for name in names]
    numbers = [f"{number:06d}" for number in range(len(data))]
    return _Given(numbers, [f"{number}.png" for number in numbers], labels, lambda k: data.take(np.array([k]))[0])


def _save_together(out: Path, arrays: Sequence[np.ndarray]) -> None:
    sizes = sorted({array.shape for array in arrays})
    if len(sizes) > 1:
        raise UsageError(f"{out} holds pictures of one size, and these have {len(sizes)}; give a folder")
    save_npz(out, np.stack(arrays))


def _pixel_spec(given: np.ndarray) -> Spec:
    """Of pixels in 8 bits, whatever the numbers of the training data were: -1 is black and 1 white for all."""
    return Spec("image", given.shape[1:], (), "uint8", "HWC")
