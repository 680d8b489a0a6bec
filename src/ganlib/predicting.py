"""What a trained generator makes of latents or of items that are given as arrays."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganlib.core import Condition, Spec
from ganlib.data import Data, decode, load
from ganlib.editing import Wish, wanted
from ganlib.errors import DataError, UsageError
from ganlib.model import Model

Direction = Literal["AtoB", "BtoA"]
"""Of a translation between two sets of pictures: A is the first class."""

AT_ONCE = 64
"""Items that are encoded before the generator sees them."""


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


def condition_for(model: Model, items: Tensor, labels: Tensor | None, wish: Wish | None) -> Condition:
    """What the generator is told of items: the attributes that they shall have, or their classes if it wants some."""
    if model.recipe.material == "attributes":
        return wanted(model, wish, items)
    if model.label_share and labels is None:
        raise UsageError("this model needs the class of each item: pass labels")
    return labels if model.label_share else None


def _transformed(model: Model, data: Data, wish: Wish | None = None) -> Tensor:
    made = []
    for first in range(0, len(data), AT_ONCE):
        batch = data.batch(np.arange(first, min(first + AT_ONCE, len(data))))
        condition = condition_for(model, batch["real"], batch.get("label"), wish)
        made.append(model.sampler.transformed(batch["real"], condition))
    return torch.cat(made)


def _decoded(spec: Spec, made: Tensor) -> np.ndarray:
    return decode(replace(spec, shape=tuple(made.shape[1:])), made)
