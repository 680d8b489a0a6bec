"""Named recipes: plain typed functions, one file each. Free of torch until a recipe is made concrete.

A file ``recipes/NAME.py`` with a function ``NAME`` is a recipe: ``GAN("NAME")``, ``ganlib fit --recipe NAME``,
``from ganlib.recipes.NAME import NAME``. There is nothing to register.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable

from ganlib.errors import UsageError
from ganlib.recipe import Recipe

DEFAULT = "r3"


def names() -> list[str]:
    """All recipes by name: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> Callable[..., Recipe]:
    """The recipe function of that name. Raises :class:`UsageError` with the nearest names where there is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"no recipe named {name!r}{hint} There are: {', '.join(names())}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)
