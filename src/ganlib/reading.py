"""The data of a training as its recipe wants them, and the part that is held out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ganlib import model
from ganlib.data import Data, load, load_attributes, load_domains, load_pairs
from ganlib.errors import DataError, UsageError
from ganlib.recipe import Material, Recipe
from ganlib.training.run import Run

MAX_VALIDATION = 5000
SPLIT_SEED = 0


def reader(
    data: object, labels: object, size: tuple[int, int] | int | None, asked: Recipe | None, folder: Path | None
) -> Callable[[], Data]:
    """What reads the data as the recipe wants them: asked for, or else that of the run in the folder."""

    def read() -> Data:
        recipe = asked
        if recipe is None and folder is not None and (folder / "recipe.json").is_file():
            recipe = model.from_json(Run.read(folder).read_facts("recipe.json"), str(folder))[0]
        return read_as("items" if recipe is None else recipe.material, data, labels, size)

    return read


def read_as(material: Material, data: object, labels: object, size: tuple[int, int] | int | None) -> Data:
    """The data as single items, as pairs, as two sets, or with their attributes, which all others do without."""
    match material:
        case "pairs" if labels is not None:
            raise UsageError("pairs have no use for labels: leave them out")
        case "pairs":
            found = load_pairs(data, size=size)
        case "domains":
            found = load_domains(data, labels, size=size)
        case "attributes":
            return load_attributes(data, labels, size=size)
        case _:
            found = load(data, labels, size=size)
    return replace(found, attributes=None, spec=replace(found.spec, attributes=()))


def label_shares(data: Data) -> tuple[float, ...]:
    """How often each class occurs; empty without labels."""
    if data.labels is None:
        return ()
    counts = np.bincount(data.labels, minlength=len(data.spec.classes))
    return tuple((counts / counts.sum()).tolist())


def split(
    data: Data, validation: object, size: tuple[int, int] | None, material: Material = "items"
) -> tuple[Data, Data | None]:
    """Training and validation data: a tenth is held out unless told otherwise, nothing of less than 50 items.

    The same items for every seed of a training, so that seeds can be compared. Of two sets nothing is held out where a
    share of either would be less than two items, which have no spread. Raises :class:`DataError` for such validation.
    """
    if validation is not None and not isinstance(validation, int | float):
        own_size = None if isinstance(validation, Data) else size
        held_out = read_as(material, validation, None, own_size)
        if material != "domains":  # of two sets the first is the first, whatever they are called
            held_out = held_out.of_classes(data.spec.classes)
        held_out = held_out.of_kind(data.spec)
        if material == "domains" and not _of_each(held_out):
            raise DataError(f"{held_out.source} is to validate two sets of pictures; give at least 2 of each")
        return data, held_out
    if validation is None:
        share = 0.1 if len(data) >= 50 else 0.0
    else:
        share = float(validation)
        if not 0 <= share < 1:
            raise UsageError(f"validation={share}; accepted are a share from 0 to below 1, or data")
    count = min(MAX_VALIDATION, round(share * len(data)))
    if count < 2:
        return data, None
    train, held_out = data.split(count, SPLIT_SEED)
    return (train, held_out) if material != "domains" or _of_each(held_out) else (data, None)


def _of_each(data: Data, least: int = 2) -> bool:
    """Whether there are so many items of each class."""
    return data.labels is not None and bool((np.bincount(data.labels, minlength=len(data.spec.classes)) >= least).all())
