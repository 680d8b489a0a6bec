"""What the recipes for pictures share."""

import math
from typing import TYPE_CHECKING, Literal

from ganlib.errors import UsageError
from ganlib.recipe import Setting

if TYPE_CHECKING:
    from ganlib.core import Augmentation

AugmentKind = Literal["auto", "none", "diffaugment", "ada", "apa"]
FEW_ITEMS = 3000
LEAST_SIDE = 24
LONG_ITEMS = 100_000
TARGET = 0.6
MOST = 0.8
RISE_SHARE = 0.1


def images_only(recipe: str, setting: Setting) -> None:
    """Raises :class:`UsageError` for vectors."""
    if setting.spec.kind != "image":
        raise UsageError(f"recipe {recipe} makes images, and these data are {setting.spec.kind}s; take gan or r3")


def two_domains(recipe: str, setting: Setting, batch_items: int) -> None:
    """Raises :class:`UsageError` where the classes are not two sets of pictures, or the batch is odd."""
    if setting.num_classes != 2:
        raise UsageError(
            f"recipe {recipe} learns from two sets of pictures, and these data have {setting.num_classes} classes: "
            "give trainA/ and trainB/, or any two folders"
        )
    if batch_items % 2:
        raise UsageError(
            f"batch_items={batch_items} of recipe {recipe}: accepted are even numbers, half of each set of pictures"
        )


def chosen_augment(kind: AugmentKind, setting: Setting, items_to_come: float) -> AugmentKind:
    """What ``auto`` stands for: DiffAugment for few pictures that are not tiny, in trainings long enough to overfit.

    On 200 faces it was better by far after 160,000 items, and worse after 24,000.
    """
    if kind != "auto":
        return kind
    few = setting.spec.kind == "image" and setting.num_items <= FEW_ITEMS and items_to_come >= LONG_ITEMS
    return "diffaugment" if few and min(setting.spec.shape[1:]) >= LEAST_SIDE else "none"


def augmentation(kind: AugmentKind, setting: Setting, items_to_come: float, *, recipe: str) -> "Augmentation | None":
    """What an option ``augment`` means, see :func:`chosen_augment`.

    ADA starts at 0 and can rise from there to 1 within a tenth of the `items_to_come`, where the paper takes 500,000
    items of many millions. It stops at 0.8: from there on the changes begin to show in what the generator makes, turns
    and mirror images first, which matters where pictures have a right way up. Raises :class:`UsageError` for vectors.
    """
    kind = chosen_augment(kind, setting, items_to_come)
    if kind == "none":
        return None
    if setting.spec.kind != "image":
        raise UsageError(f"augment={kind!r} of recipe {recipe} changes pictures, not a vector; leave it out, or none")
    from ganlib.augment import AdaptivePipeline, DiffAugment
    from ganlib.core import Augmentation, constant

    if kind == "diffaugment":
        return Augmentation(DiffAugment())
    rise = round(RISE_SHARE * items_to_come) if math.isfinite(items_to_come) else 500_000
    augment = AdaptivePipeline() if kind == "ada" else None
    return Augmentation(augment, constant(0.0), TARGET, max(1, min(rise, 500_000)), most=MOST, pseudo=kind == "apa")
