"""A recipe: a plain typed function of a setting, with its options filled in. Free of torch, for quick ``--help``."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec

from ganlib.errors import UsageError

if TYPE_CHECKING:
    from ganlib.core import Plan, Spec

P = ParamSpec("P")

Labels = Literal["optional", "needed", "unused"]
"""What a recipe does with classes: learn them where there are any; nothing without them; nothing with them."""


@dataclass(frozen=True)
class Setting:
    """What a recipe adapts to: the items, how many there are, the device, and the time that is given."""

    spec: "Spec"
    num_items: int
    device: str  # "cpu", "cuda" or "mps"
    budget_seconds: float | None = None  # of wall time; None where the budget is in items or unlimited
    budget_items: int | None = None
    conditional: bool = False
    size: tuple[int, int] | None = None  # pictures were cut and resized to (height, width); None where they came so

    @property
    def num_classes(self) -> int:
        """How many classes the networks tell apart; 0 for an unconditional recipe."""
        return len(self.spec.classes) if self.conditional else 0


@dataclass(frozen=True)
class Recipe:
    """A recipe function with its options: complete, comparable, and written to JSON as name and options."""

    function: "Callable[..., Plan]"
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels = "optional"

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: what it is, and the paper."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def plan(self, setting: Setting) -> "Plan":
        """The live objects for one training. Raises :class:`UsageError` for a setting the recipe is not made for."""
        if self.labels == "needed" and not setting.conditional:
            raise UsageError(
                f"recipe {self.name} learns classes, and there are no labels: give them, or sub-folders by class, "
                "without --unconditional; or take a recipe that needs none, such as dcgan"
            )
        if self.labels == "unused" and setting.conditional:
            raise UsageError(
                f"recipe {self.name} has no use for labels: leave them out (conditional=False, --unconditional), "
                "or take a recipe that learns classes, such as dcgan"
            )
        return self.function(setting, **self.options)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "options": dict(self.options)}


def recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """Turn ``f(setting, *, option=…) -> Plan`` into ``f(*, option=…) -> Recipe``, same options, same docstring."""
    return _with_options(function, "optional")


def conditional_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that cannot do without labels."""
    return _with_options(function, "needed")


def unconditional_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that has no use for labels: those of the data are left aside, and that is said."""
    return _with_options(function, "unused")


def _with_options(function: "Callable[Concatenate[Setting, P], Plan]", labels: Labels) -> Callable[P, Recipe]:
    signature = inspect.signature(function)
    options = list(signature.parameters.values())[1:]
    if any(option.kind is not inspect.Parameter.KEYWORD_ONLY for option in options):
        raise TypeError(f"the options of recipe {function.__name__} must be keyword-only")

    @functools.wraps(function)
    def with_options(*args: P.args, **kwargs: P.kwargs) -> Recipe:
        bound = visible.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if isinstance(value, int | float) and (
                value < 0 or value != value or (value == 0 and isinstance(value, int))
            ):
                least = "1 or more" if isinstance(value, int) else "0 or more"
                raise UsageError(f"{name}={value} of recipe {function.__name__}: accepted is {least}")
        return Recipe(function, dict(bound.arguments), labels)

    visible = signature.replace(parameters=options, return_annotation=Recipe)
    with_options.__signature__ = visible  # type: ignore[attr-defined]
    return with_options
