"""Attributes that pictures shall have, by name and in the owner's numbers, as a trained generator is told them."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ganlib.errors import UsageError
from ganlib.model import Model

Wish = Mapping[str, str | float] | Sequence[float] | np.ndarray
"""Attributes by name; classes as ``{"class": name}``; or numbers for all attributes, in their order."""

CLASS = "class"


def parsed(text: str) -> dict[str, str | float]:
    """``smile=1,age=0.3`` as a dictionary. Raises :class:`UsageError` for what is not of that form."""
    found: dict[str, str | float] = {}
    for part in text.split(","):
        name, sign, value = (word.strip() for word in part.partition("="))
        if not (name and sign and value) or name in found:
            raise UsageError(f"attributes {text!r}: accepted are names and numbers once each, such as smile=1,age=0.3")
        found[name] = value
    return found


def check_edits(model: Model) -> None:
    """Raises :class:`UsageError` for a model that knows nothing of attributes."""
    if model.recipe.material != "attributes":
        raise UsageError(f"recipe {model.recipe.name} knows no attributes; train one with recipe attributes")


def wanted(
    model: Model, wish: Wish | None, items: Float[Tensor, "items channels height width"]
) -> Float[Tensor, "items attributes"]:
    """What the generator is to be told for each of these items: what is not wished for stays as it is read from them.

    Raises :class:`UsageError` for names, values or a number of values that the model does not know.
    """
    check_edits(model)
    if wish is None or len(wish) == 0:
        raise UsageError(f"say which attributes the pictures shall have: {told(model)}")
    named = _named(model, wish)
    classes, known = _classes(model), model.setting.spec.attributes
    own = torch.zeros(len(items), len(classes) + len(known))
    if not {*(each.name for each in known), *([CLASS] if classes else [])} <= {*named}:
        own = read(model, items)
    for place, attribute in enumerate(known):
        if attribute.name in named:
            share = (float(named[attribute.name]) - attribute.low) / (attribute.high - attribute.low)
            own[:, len(classes) + place] = share
    if CLASS in named:
        own[:, : len(classes)] = F.one_hot(torch.tensor(classes.index(str(named[CLASS]))), len(classes)).float()
    return own


@torch.no_grad()
def read(model: Model, items: Float[Tensor, "items channels height width"]) -> Float[Tensor, "items attributes"]:
    """What the discriminator reads: 1 for the likeliest class, attributes from 0 to 1; of other sizes at its own."""
    if model.discriminator is None:
        raise UsageError(
            "this model was saved without its discriminator, which reads what pictures are like: name every attribute "
            f"({told(model)})"
        )
    size, classes = model.setting.spec.shape[1:], len(_classes(model))
    found = []
    for part in items.split(64):
        seen = part if part.shape[2:] == size else F.interpolate(part, size, mode="bilinear", antialias=True)
        nothing = torch.zeros(len(seen), classes + len(model.setting.spec.attributes), device=model.device)
        answer = model.discriminator(seen.to(model.device), nothing).classes.float().cpu()  # read before it is told
        one = [F.one_hot(answer[:, :classes].argmax(1), classes).float()] if classes else []
        found.append(torch.cat([*one, answer[:, classes:].clamp(0, 1)], 1))
    return torch.cat(found)


def way(
    model: Model, item: Float[Tensor, "channels height width"], stops: Sequence[Wish], steps: int
) -> Float[Tensor, "frames attributes"]:
    """From what an item is like by the stops and back, `steps` for each part of the way, in a straight line each.

    What a stop does not name stays as at the stop before it. The last step of each part is the stop itself.
    """
    if steps < 1 or not stops:
        raise UsageError(f"{steps} steps to {len(stops)} stops: ask for 1 or more of each")
    points, names = [read(model, item[None])[0]], {}
    for stop in stops:
        names |= _named(model, stop)
        points.append(wanted(model, names, item[None])[0])
    points.append(points[0])
    share = torch.arange(1, steps + 1)[:, None] / steps
    return torch.cat([start + share * (end - start) for start, end in itertools.pairwise(points)])


def told(model: Model) -> str:
    """The attributes and classes of a model, for people."""
    numbers = [f"{each.name}={each.low:g}..{each.high:g}" for each in model.setting.spec.attributes]
    classes = _classes(model)
    return ", ".join(
        [*numbers, *([f"{CLASS}={'|'.join(classes[:20])}{'|…' * (len(classes) > 20)}"] if classes else [])]
    )


def _classes(model: Model) -> tuple[str, ...]:
    return model.setting.spec.classes if model.label_share else ()


def _named(model: Model, wish: Wish) -> dict[str, str | float]:
    """The wish with every name known, classes as :data:`CLASS` and every number finite."""
    known, classes = {each.name for each in model.setting.spec.attributes}, _classes(model)
    if not isinstance(wish, Mapping):
        numbers = np.asarray(wish, np.float64).ravel().tolist()
        if len(numbers) != len(known):
            raise UsageError(
                f"{len(numbers)} attributes; this model takes {len(known)}, or some by name: {told(model)}"
            )
        wish = dict(zip((each.name for each in model.setting.spec.attributes), numbers, strict=True))
    found: dict[str, str | float] = {}
    for name, value in wish.items():
        if name in known:
            found[name] = _number(name, value)
        elif name == CLASS and str(value) in classes:
            found[CLASS] = str(value)
        elif name in classes and CLASS not in found and _number(name, value) == 1:
            found[CLASS] = name
        else:
            raise UsageError(f"attributes {name}={value}: this model takes {told(model)}")
    return found


def _number(name: str, value: str | float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"attributes {name}={value}: give a number")
    return number
