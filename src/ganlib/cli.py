"""The command line: parser, errors and exit statuses. The commands are in ``commands/``, one file each."""

import contextlib
import functools
import io
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

from ganlib import __version__, recipes
from ganlib.commands import (
    animate,
    compare,
    directions,
    doctor,
    evaluate,
    fit,
    interpolate,
    mix,
    predict,
    prepare,
    project,
    sample,
    show,
)
from ganlib.commands import recipes as listing
from ganlib.commands.fit import rank
from ganlib.errors import GanlibError, WriteError, is_of_memory

SILENT_SECONDS = 10.0
COMMANDS = {
    "prepare": prepare,
    "sample": sample,
    "predict": predict,
    "animate": animate,
    "interpolate": interpolate,
    "project": project,
    "directions": directions,
    "mix": mix,
    "evaluate": evaluate,
    "compare": compare,
    "show": show,
    "doctor": doctor,
    "recipes": listing,
}

DESCRIPTION = (
    "Generative adversarial networks that train without tuning. Try: ganlib fit digits --out runs/digits --minutes 2"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0, or the status of :mod:`ganlib.errors`; 129, 130, 143 after a signal; 70 for a bug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    machine = "--json" in given
    try:
        with _after_the_first():
            parser, commands = make_parser(given)
            options = parser.parse_args(given)
        if options.command is None:
            parser.print_help()
            sys.exit(0)
        with _after_the_first():
            commands[options.command](options[options.command])
    except GanlibError as error:
        _fail(error, machine)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _fail(
            WriteError(f"{error.strerror or error}; free some space or mend the cause, and run the command again"),
            False,
        )
    except Exception as error:
        if is_of_memory(error):
            _fail(GanlibError(f"out of memory ({error}); pass a smaller --batch_items or --width, or --size"), machine)
        traceback.print_exc()
        print("ganlib: this is a bug; please report the lines above with the command", file=sys.stderr)
        sys.exit(70)


def make_parser(given: Sequence[str]) -> tuple[ArgumentParser, dict[str, Callable[[Namespace], None]]]:
    """The parser, with the options of the recipe that the arguments name, and the function of each command."""
    parser = ArgumentParser(allow_abbrev=False, prog="ganlib", description=DESCRIPTION, version=__version__)
    subcommands = parser.add_subcommands(required=False, dest="command")
    recipe = _recipe_named(given)
    subcommands.add_subcommand("fit", fit.parser(recipe), help=fit.HELP)
    for name, command in COMMANDS.items():
        subcommands.add_subcommand(name, command.parser(), help=command.HELP)
    runs = {name: command.run for name, command in COMMANDS.items()}
    return parser, {"fit": functools.partial(fit.run, recipe, given), **runs}


def _recipe_named(given: Sequence[str]) -> str:
    """The recipe that ``--recipe``, the file of ``--config``, or the run folder to be taken up again names."""
    if "fit" not in given[:1]:
        return recipes.DEFAULT
    if (name := _value_of("--recipe", given)) is not None:
        return _known(name)
    if (path := _value_of("--config", given)) is not None and Path(path).is_file():
        import yaml

        with contextlib.suppress(yaml.YAMLError, AttributeError):
            return _known(yaml.safe_load(Path(path).read_text()).get("recipe") or recipes.DEFAULT)
    if (out := _value_of("--out", given)) is not None and (Path(out) / "recipe.json").is_file():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return _known(json.loads((Path(out) / "recipe.json").read_text())["recipe"]["name"])
    return recipes.DEFAULT


def _value_of(option: str, given: Sequence[str]) -> str | None:
    for place, word in enumerate(given):
        if word == option and place + 1 < len(given):
            return given[place + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _known(name: str) -> str:
    recipes.find(name)
    return name


@contextlib.contextmanager
def _after_the_first() -> Iterator[None]:
    """Let the first of several processes speak of an error that all have: the others wait, and are ended meanwhile.

    One that is not ended has an error of its own, and says it.
    """
    if not rank():
        yield
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as error:
        if error.code and int(error.code) < 128:
            time.sleep(SILENT_SECONDS)
            sys.stderr.write(said.getvalue())
        raise
    except Exception:
        time.sleep(SILENT_SECONDS)
        raise


def _fail(error: GanlibError, machine: bool) -> None:
    if machine:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
    print(f"ganlib: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
