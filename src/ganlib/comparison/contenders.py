"""What is compared: recipes by name and options, fitted to the data."""

import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jsonargparse import ArgumentParser  # pyright: ignore[reportPrivateImportUsage]

from ganlib import recipes
from ganlib.errors import UsageError
from ganlib.recipe import Recipe, Setting

USUAL = ("r3", "gan", "dcgan", "wgan_gp", "sngan", "stylegan2", "vae")
"""What is compared where nobody says what, as far as it accepts the data."""


@dataclass(frozen=True)
class Contender:
    """A recipe as it was asked for; `refusal` is why it cannot take the data, where it cannot."""

    name: str  # dcgan, or dcgan:width=32:latent=64
    recipe: Recipe
    labels: bool = False
    refusal: str = ""

    def folder(self, seed: int) -> str:
        return f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '-', self.name)}-seed{seed}"

    def arguments(self) -> list[str]:
        """The recipe and its options for ``ganlib fit``."""
        recipe, *options = self.name.split(":")
        return ["--recipe", recipe, *(f"--{option}" for option in options)]


def contenders(names: Sequence[str] | None, setting: Setting) -> list[Contender]:
    """Those named, in their order; :data:`USUAL` ones that accept the data for None.

    A recipe that cannot use the labels of the data is trained without them. Raises :class:`UsageError` for an unknown
    recipe or option, and for one named twice.
    """
    if names is None:
        known = [fitted(contender(name), setting) for name in USUAL if name in recipes.names()]
        return [each for each in known if not each.refusal]
    if not names or len({*names}) < len(names):
        raise UsageError(f"recipes {', '.join(names) or 'none'}: give each once, with commas between")
    return [fitted(each, setting) for each in [contender(name) for name in names]]


def contender(name: str) -> Contender:
    """A recipe by its name, perhaps with options: ``dcgan:width=32:latent=64``. Raises :class:`UsageError`."""
    recipe, *options = name.split(":")
    function = recipes.find(recipe)
    if any("=" not in option for option in options):
        raise UsageError(f"{name}: options of a recipe are written NAME:option=value:option=value")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(function, fail_untyped=False)
    try:
        given = parser.parse_args([f"--{option}" for option in options])
    except ArgumentError as error:
        raise UsageError(f"{name}: {' '.join(str(error).split())}; see ganlib fit --recipe {recipe} --help") from error
    return Contender(name, function(**given.as_dict()))


def fitted(given: Contender, setting: Setting) -> Contender:
    """The same, with labels if the setting has them and the recipe can use them, or with its refusal."""
    refusals = []
    for labels in (True, False) if setting.conditional else (False,):
        try:
            if not given.recipe.plan(replace(setting, conditional=labels)).task.draws:
                raise UsageError(
                    f"recipe {given.recipe.name} makes pictures of pictures, and compare judges drawn ones"
                )
            return replace(given, labels=labels)
        except UsageError as error:
            refusals.append(str(error))
    return replace(given, refusal=refusals[0])
