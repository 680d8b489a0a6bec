"""What a trained generator makes of latents or of items: arrays, folders and files of pictures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganlib.core import Condition, Spec
from ganlib.data import Data, decode, encode, load, pictures
from ganlib.data.folders import files_below, is_picture, printable
from ganlib.data.images import read_header, read_pixels, reason
from ganlib.data.show import save_npz, save_png
from ganlib.editing import Wish, check_edits, wanted
from ganlib.errors import DataError, GanlibError, MissingError, UsageError
from ganlib.model import Model

Direction = Literal["AtoB", "BtoA"]
"""Of a translation between two sets of pictures: A is the first class."""

AT_ONCE = 64
"""Pictures of one size that are read before the generator sees them."""


def takes_latents(model: Model, given: object) -> bool:
    """Whether what is given are latents: to a generator of latents always, to an autoencoder of pictures if [n, k]."""
    task = model.plan.task
    if not task.transforms:
        return True
    shape = np.shape(given) if isinstance(given, np.ndarray | Tensor) else ()
    return task.draws and model.setting.spec.kind == "image" and len(shape) == 2


def of_latents(model: Model, given: object, condition: Condition) -> np.ndarray:
    """Items of latents [n, latent], each of its class. Raises UsageError and DataError for what is none."""
    if not isinstance(given, np.ndarray | Tensor | list) or np.ndim(given) != 2:
        what = f"an array of shape {np.shape(given)}" if isinstance(given, np.ndarray | Tensor) else repr(given)[:60]
        if not model.plan.task.transforms:
            raise DataError(
                f"recipe {model.recipe.name} makes items of latents, not of items: accepted are latents [items, "
                f"latent], as latents() gives, not {what}; autoencoder, vae, vae_gan, superres, pix2pix, cyclegan, "
                "cut and attributes take pictures"
            )
        raise DataError(f"latents are {what}; accepted is [items, latent], as latents() gives")
    latent = torch.as_tensor(given).detach().to("cpu", torch.float32)
    width = model.sampler.latents(1, 0).shape[1]
    if latent.shape[1] != width:
        raise DataError(
            f"latents have {latent.shape[1]} numbers each; this model takes [items, {width}], as latents() gives"
        )
    if model.label_share:
        if condition is None:
            raise UsageError("this model needs labels: one class, or one for each latent")
        if len(condition) not in (1, len(latent)):
            raise UsageError(f"{len(condition)} labels for {len(latent)} latents; give one class, or one for each")
        condition = condition[torch.arange(len(latent)) % len(condition)]
    return decode(model.setting.spec, model.sampler.run(latent, condition))


def of_items(model: Model, given: Data) -> np.ndarray:
    """What the generator makes of items of the model's own kind and shape, in the owner's form."""
    return _decoded(model.setting.spec, _transformed(model, given))


def target(model: Model, direction: Direction | None, labels: Tensor | None = None) -> int | None:
    """The number of the class that a translation leads to; None for a model that does not translate between two.

    Raises :class:`UsageError` for a direction that the model does not go, and for `labels` where a direction is meant.
    """
    if model.recipe.material == "attributes" and labels is not None:
        raise UsageError("name the class among the attributes: attributes={'class': name}, --attributes class=name")
    if model.recipe.material != "domains":
        if direction is not None:
            raise UsageError(
                f"direction={direction}: recipe {model.recipe.name} does not go both ways between two sets of pictures"
            )
        return None
    if labels is not None:
        raise UsageError(
            f"recipe {model.recipe.name} translates between two sets of pictures: give a direction "
            f"({', '.join(model.plan.task.directions)}), and no label"
        )
    wanted = direction or "AtoB"
    if wanted not in model.plan.task.directions:
        raise UsageError(
            f"direction={wanted}: recipe {model.recipe.name} learns {', '.join(model.plan.task.directions)}"
        )
    return 1 if wanted == "AtoB" else 0


def of_pictures(model: Model, given: object, label: int | None = None, wish: Wish | None = None) -> np.ndarray:
    """What a generator that takes any size makes of pictures of one size, in the owner's form.

    All of one class, or with the attributes of the `wish`.
    """
    lone = isinstance(given, np.ndarray | Tensor) and len(given) == 1  # load wants two, to learn from
    data = load(np.concatenate([np.asarray(given)] * 2) if lone else given)
    data = data.subset(np.arange(1)) if lone else data
    spec = model.given_spec
    if data.spec.kind != "image" or data.spec.shape[0] != spec.shape[0]:
        raise DataError(
            f"{data.source} holds {data.spec.kind}s of shape {data.spec.shape}; this model takes pictures of any size "
            f"with {spec.shape[0]} channels"
        )
    if label is not None:
        data = replace(data, labels=np.full(len(data), label))
    made = _transformed(model, data.of_kind(replace(spec, shape=data.spec.shape)), wish)
    return _decoded(model.setting.spec, made)


def predict_files(model: Model, source: Path, out: Path, label: int | None = None, wish: Wish | None = None) -> int:
    """Write what the generator makes of a picture or a folder of them: PNG files of the same names, or a .npz.

    To a model of classes all pictures are of the class `label`, or each of that of its folder, or of its row in a file.
    To a model of attributes all shall have those of the `wish`.
    Returns how many. Raises :class:`MissingError`, :class:`DataError` and :class:`UsageError` with what is accepted.
    """
    if not model.plan.task.transforms:
        raise UsageError(
            f"recipe {model.recipe.name} makes items of latents, not of pictures: draw some with ganlib sample; "
            "autoencoder, vae, vae_gan, superres, pix2pix, cyclegan, cut and attributes take pictures"
        )
    if model.setting.spec.kind != "image":
        raise UsageError("this model takes vectors, not pictures: pass them to GAN.predict")
    if out.suffix not in ("", ".npz"):
        raise UsageError(f"cannot write pictures to {out}; accepted are a folder (PNG files) and .npz")
    made = _made(model, source, label, wish)
    if out.suffix == ".npz":
        arrays = [array for _, array in made]
        sizes = sorted({array.shape for array in arrays})
        if len(sizes) > 1:
            raise UsageError(f"{out} holds pictures of one size, and these have {len(sizes)}; give a folder")
        save_npz(out, np.stack(arrays))
        return len(arrays)
    count = 0
    for name, array in made:
        save_png(out / name, array)
        count += 1
    return count


def class_numbers(model: Model, labels: object) -> Tensor | None:
    """Classes by name, or else by number, to class numbers. Raises UsageError that lists the classes."""
    if labels is None:
        return None
    classes = model.setting.spec.classes
    if not model.label_share:
        raise UsageError("this model was trained without labels; leave labels out")
    given = labels if isinstance(labels, Sequence | np.ndarray | Tensor) and not isinstance(labels, str) else [labels]
    numbers = []
    for label in given:
        name = str(label.item() if isinstance(label, np.generic | Tensor) else label)
        if name in classes:
            numbers.append(classes.index(name))
        elif name.isdigit() and int(name) < len(classes):
            numbers.append(int(name))
        else:
            raise UsageError(f"no class {name!r}; there are {listed(classes)}")
    if not numbers:
        raise UsageError("labels is empty; give at least one class, or None")
    return torch.tensor(numbers)


def listed(classes: Sequence[str]) -> str:
    """The names of classes, of many the first ones."""
    return f"{', '.join(classes[:20])}{' …' * (len(classes) > 20)}"


_Read = tuple[str, np.ndarray, int | None]
"""A name that ends in .png, pixels with channels first, and the number of the class if the model wants one."""


def _made(model: Model, source: Path, label: int | None, wish: Wish | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name and 8-bit picture of each; those of one size that follow each other go through the generator together."""
    waiting: list[_Read] = []
    for name, pixels, known in _read(model, source, label):
        if waiting and (len(waiting) == AT_ONCE or pixels.shape != waiting[0][1].shape):
            yield from _finished(model, waiting, wish)
            waiting = []
        waiting.append((name, pixels, known))
    yield from _finished(model, waiting, wish)


def _finished(model: Model, waiting: list[_Read], wish: Wish | None) -> Iterator[tuple[str, np.ndarray]]:
    names, given, labels = zip(*waiting, strict=True)
    pixels = np.stack(given)
    items, known = encode(_pixel_spec(pixels), pixels), None if labels[0] is None else torch.tensor(labels)
    made = model.sampler.transformed(items, _condition(model, items, known, wish))
    yield from zip(names, pictures(_pixel_spec(made.numpy()), made), strict=True)


def _read(model: Model, source: Path, label: int | None) -> Iterator[_Read]:
    """All pictures of a folder or file."""
    spec = model.given_spec
    if not source.exists():
        raise MissingError(f"{source} does not exist; give a picture or a folder of pictures")
    if source.is_file() and not is_picture(source.name):
        yield from _unpacked(model, source, label)
        return
    names = [name for name in files_below(source, []) if is_picture(name)] if source.is_dir() else [source.name]
    if not names:
        raise DataError(f"{source} has no pictures; give a picture or a folder of pictures")
    if spec.shape[0] not in (1, 3, 4):
        raise UsageError(f"this model takes items of {spec.shape[0]} channels, which no picture has; use GAN.predict")
    stems = [str(Path(name).with_suffix("")) for name in names]
    counts = Counter(stems)
    paths = [source / name if source.is_dir() else source for name in names]
    folders = [name.rpartition("/")[0].partition("/")[0] for name in names]  # those of the first level
    labels = [_label(model, path, folder, label) for path, folder in zip(paths, folders, strict=True)]
    for name, stem, path, known in zip(names, stems, paths, labels, strict=True):
        yield (stem if counts[stem] == 1 else name) + ".png", _pixels(model, path), known


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
    where = printable(str(path))
    try:
        header = read_header(path)
        pixels = read_pixels(path, spec.shape[0], False, None if any_size else model.setting.size)
    except (OSError, ValueError, SyntaxError, GanlibError) as error:
        raise DataError(f"{where} cannot be read: {reason(error)}; mend it or leave it out") from error
    if spec.shape[0] == 1 and not header.grey:
        raise DataError(f"{where} has colours; this model was trained on grey pictures: convert it")
    if not any_size and pixels.shape != spec.shape:
        raise DataError(
            f"{where} has {pixels.shape[1]} x {pixels.shape[2]} pixels (height x width); this model takes "
            f"{spec.shape[1]} x {spec.shape[2]}"
        )
    return pixels


def _unpacked(model: Model, source: Path, label: int | None) -> Iterator[_Read]:
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
    for number, known in enumerate(labels):
        yield f"{number:06d}.png", data.take(np.array([number]))[0], known


def _pixel_spec(given: np.ndarray) -> Spec:
    """Of pixels in 8 bits, whatever the numbers of the training data were: -1 is black and 1 white for all."""
    return Spec("image", given.shape[1:], (), "uint8", "HWC")


def _condition(model: Model, items: Tensor, labels: Tensor | None, wish: Wish | None) -> Condition:
    """What the generator is told of items: the attributes that they shall have, or their classes if it wants some."""
    if model.recipe.material == "attributes":
        return wanted(model, wish, items)
    if wish:
        check_edits(model)
    if model.label_share and labels is None:
        raise UsageError("this model needs the class of each item: pass labels")
    return labels if model.label_share else None


def _transformed(model: Model, data: Data, wish: Wish | None = None) -> Tensor:
    made = []
    for first in range(0, len(data), AT_ONCE):
        batch = data.batch(np.arange(first, min(first + AT_ONCE, len(data))))
        condition = _condition(model, batch["real"], batch.get("label"), wish)
        made.append(model.sampler.transformed(batch["real"], condition))
    return torch.cat(made)


def _decoded(spec: Spec, made: Tensor) -> np.ndarray:
    return decode(replace(spec, shape=tuple(made.shape[1:])), made)
