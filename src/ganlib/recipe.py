"""A recipe: a plain typed function of a setting, with its options filled in, and remedies that change what it makes.

Free of torch, for quick ``--help``.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from ganlib.errors import UsageError

if TYPE_CHECKING:
    from ganlib.core import Plan, Spec

P = ParamSpec("P")
R = TypeVar("R", "Recipe", "Remedy")

Labels = Literal["optional", "needed", "unused"]
"""What a recipe does with classes: learn them where there are any; nothing without them; nothing with them."""


Material = Literal["items", "pairs", "domains", "attributes"]
"""What a recipe learns from: single items, pairs of pictures, two sets of pictures that have no partners, or pictures
with attributes."""


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


Make = Callable[[Setting], "Plan"]
"""What makes a plan for a setting: a recipe with its options, and the remedies so far."""


@dataclass(frozen=True)
class Remedy:
    """A function that changes what a recipe makes, with its options; for any recipe that has what it changes."""

    function: "Callable[..., Plan]"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: what it is, and the paper."""
        return _first_line(self.function)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "options": dict(self.options)}


@dataclass(frozen=True)
class Recipe:
    """A recipe function with its options: complete, comparable, and written to JSON as name and options."""

    function: "Callable[..., Plan]"
    options: Mapping[str, Any] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    labels: Labels = "optional"
    learns_from: Material = "items"

    @property
    def material(self) -> Material:
        """What it learns from with these options: single items where it spoils good pictures itself."""
        return self.learns_from if self.options.get("degrade", "none") == "none" else "items"

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: what it is, and the paper."""
        return _first_line(self.function)

    def with_remedies(self, *remedies: Remedy) -> "Recipe":
        """The same with these remedies applied in turn. Raises :class:`UsageError` for one that it has already."""
        names = [remedy.name for remedy in (*self.remedies, *remedies)]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"the remedy {name} is there twice; give each once")
        return replace(self, remedies=(*self.remedies, *remedies))

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
        make: Make = functools.partial(self.function, **self.options)
        for remedy in self.remedies:
            make = functools.partial(remedy.function, make, **remedy.options)
        return make(setting)

    def to_json(self) -> dict[str, Any]:
        told = [remedy.to_json() for remedy in self.remedies]
        return {"name": self.name, "options": dict(self.options)} | ({"remedies": told} if told else {})


def recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """Turn ``f(setting, *, option=…) -> Plan`` into ``f(*, option=…) -> Recipe``, same options, same docstring."""
    return _chosen_by_options(function, functools.partial(Recipe, labels="optional"), "recipe", num_given=1)


def conditional_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that cannot do without labels."""
    return _chosen_by_options(function, functools.partial(Recipe, labels="needed"), "recipe", num_given=1)


def unconditional_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that has no use for labels: those of the data are left aside, and that is said."""
    return _chosen_by_options(function, functools.partial(Recipe, labels="unused"), "recipe", num_given=1)


def paired_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that learns from pairs; one with an option `degrade` makes them of single pictures."""
    made = functools.partial(Recipe, labels="unused", learns_from="pairs")
    return _chosen_by_options(function, made, "recipe", num_given=1)


def domains_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that learns from two sets of pictures: their classes are the sets."""
    made = functools.partial(Recipe, labels="needed", learns_from="domains")
    return _chosen_by_options(function, made, "recipe", num_given=1)


def attributes_recipe(function: "Callable[Concatenate[Setting, P], Plan]") -> Callable[P, Recipe]:
    """The same for a recipe that learns from pictures with attributes: numbers, classes, or both."""
    made = functools.partial(Recipe, labels="optional", learns_from="attributes")
    return _chosen_by_options(function, made, "recipe", num_given=1)


def remedy(function: "Callable[Concatenate[Make, Setting, P], Plan]") -> Callable[P, Remedy]:
    """Turn ``f(make, setting, *, option=…) -> Plan`` into ``f(*, option=…) -> Remedy``, the same way."""
    return _chosen_by_options(function, Remedy, "remedy", num_given=2)


def _chosen_by_options(
    function: "Callable[..., Plan]", make: Callable[..., R], word: str, num_given: int
) -> Callable[..., R]:
    signature = inspect.signature(function)
    options = list(signature.parameters.values())[num_given:]
    if any(option.kind is not inspect.Parameter.KEYWORD_ONLY for option in options):
        raise TypeError(f"the options of {word} {function.__name__} must be keyword-only")

    @functools.wraps(function)
    def with_options(*args: Any, **kwargs: Any) -> R:
        bound = visible.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and (value < 0 or value != value or (value == 0 and isinstance(value, int)))
            ):
                least = "1 or more" if isinstance(value, int) else "0 or more"
                raise UsageError(f"{name}={value} of {word} {function.__name__}: accepted is {least}")
        return make(function, dict(bound.arguments))

    visible = signature.replace(parameters=options, return_annotation={"recipe": Recipe, "remedy": Remedy}[word])
    with_options.__signature__ = visible  # type: ignore[attr-defined]
    return with_options


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]
