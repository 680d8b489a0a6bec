"""The command line: one function for each command. Nothing heavy is imported before a command runs."""

import contextlib
import functools
import inspect
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

from ganlib import __version__, recipes
from ganlib.errors import GanlibError, WriteError

SILENT_SECONDS = 10.0

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
        if "out of memory" in str(error) or isinstance(error, MemoryError):
            _fail(GanlibError(f"out of memory ({error}); pass a smaller --batch_items or --width, or --size"), machine)
        traceback.print_exc()
        print("ganlib: this is a bug; please report the lines above with the command", file=sys.stderr)
        sys.exit(70)


def make_parser(given: Sequence[str]) -> tuple[ArgumentParser, dict[str, Any]]:
    """The parser, with the options of the recipe that the arguments name, and the function of each command."""
    parser = ArgumentParser(allow_abbrev=False, prog="ganlib", description=DESCRIPTION, version=__version__)
    commands = parser.add_subcommands(required=False, dest="command")
    recipe = _recipe_named(given)
    makers = {
        "fit": (
            _fit_parser(recipe),
            functools.partial(run_fit, recipe, given),
            "train a recipe on data, or go on with a run",
        ),
        "prepare": (_prepare_parser(), run_prepare, "make shards of pictures, for data larger than memory"),
        "sample": (_sample_parser(), run_sample, "draw from a trained run into a folder or file"),
        "predict": (_predict_parser(), run_predict, "reconstruct or enlarge pictures with a trained run"),
        "evaluate": (
            _evaluate_parser(),
            run_evaluate,
            "answer five questions about a run, or about the samples of any program",
        ),
        "show": (_show_parser(), run_show, "say where a run is, and draw its pictures"),
        "doctor": (_doctor_parser(), run_doctor, "say what is wrong with a run, and what to change"),
        "recipes": (_recipes_parser(), run_recipes, "list the recipes, with what each is and its paper"),
    }
    for name, (subparser, _, help_line) in makers.items():
        commands.add_subcommand(name, subparser, help=help_line)
    return parser, {name: function for name, (_, function, _) in makers.items()}


def _fit_parser(recipe: str) -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False, description="Train a recipe on data. Run the same command again to go on where it stopped."
    )
    parser.add_argument(
        "data",
        type=str,
        help="'digits', a folder of pictures (sub-folders are classes) or shards, a zip, .npz, .npy, IDX, CIFAR .bin",
    )
    parser.add_argument("--out", type=str, required=True, help="the run folder")
    parser.add_argument(
        "--recipe",
        type=str | None,
        default=None,
        help=f"one of {', '.join(recipes.names())}; default {recipes.DEFAULT}",
    )
    parser.add_argument(
        "--minutes", type=float | None, default=None, help="stop after this time; schedules and networks fit it"
    )
    parser.add_argument("--items", type=int | None, default=None, help="stop when so many items have been seen")
    parser.add_argument("--seed", type=int | None, default=None, help="of weights, order and latents; default 0")
    parser.add_argument(
        "--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96 (height x width)"
    )
    parser.add_argument("--validation", type=str | None, default=None, help="a share to hold out (0.1), or other data")
    parser.add_argument("--unconditional", type=bool, default=False, help="do not use the labels")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--devices",
        type=str | None,
        default=None,
        help="processes that share each batch, one per GPU: a number, or auto for all GPUs; default 1",
    )
    parser.add_argument(
        "--precision", type=Literal["auto", "float32", "bfloat16"], default="auto", help="number format of the networks"
    )
    parser.add_argument("--compile", type=bool, default=False, help="compile the networks")
    parser.add_argument("--threads", type=int | None, default=None, help="processor threads; default all")
    parser.add_argument("--checkpoint_seconds", type=float, default=60.0, help="time between checkpoints")
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output, nothing for people")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--config", action=ActionConfigFile, help="a YAML file of these options")
    parser.add_function_arguments(recipes.find(recipe), as_group=True, fail_untyped=False)
    return parser


def _prepare_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Write pictures, cut and resized, to tars that fit reads piece by piece. Run again to go on.",
    )
    parser.add_argument("source", type=str, help="what fit reads: a folder of pictures, a zip, tars, .npz, ...")
    parser.add_argument("--out", type=str, required=True, help="a new folder for the shards")
    parser.add_argument("--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96")
    parser.add_argument("--split", type=str, default="train", help="the part of a published data set: train or test")
    parser.add_argument("--shard_items", type=int, default=10_000, help="items in one tar")
    return _with_json(parser)


def _sample_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False, description="Draw from a run folder or a .gan file. The same seed gives the same items."
    )
    parser.add_argument("run", type=str, help="a run folder or a .gan file")
    parser.add_argument("-n", "--number", type=int, default=64, help="how many")
    parser.add_argument(
        "--out", type=str, required=True, help="a folder (PNG files), or a file: .npz, .png (a grid), .csv (vectors)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the latents")
    parser.add_argument("--labels", type=str | None, default=None, help="classes by name, taken in turn: 3,7")
    parser.add_argument("--truncation", type=float | None, default=None, help="largest latent in standard deviations")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    return _with_json(parser)


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(allow_abbrev=False, description="Reconstruct pictures, or enlarge them (superres).")
    parser.add_argument("run", type=str, help="a run folder or a .gan file")
    parser.add_argument("pictures", type=str, help="a picture, a folder, an archive or an array of them")
    parser.add_argument("--out", type=str, required=True, help="a folder (PNG files of the same names) or a .npz")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    return _with_json(parser)


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Five questions about samples: good, covered, copied, private, recognisable? Writes a page.",
    )
    parser.add_argument(
        "samples", type=str, help="a run folder or a .gan file, or samples: a folder or .npz of any program"
    )
    parser.add_argument("reals", type=str, help="real items that were not trained on")
    parser.add_argument(
        "--train",
        type=str | None,
        default=None,
        help="the training data; those of a run are looked for where they were",
    )
    parser.add_argument(
        "--features",
        type=str | None,
        default=None,
        help="what is compared: pixels, random, inception, dinov2, a weight file...; default learned from the data",
    )
    parser.add_argument("--number", type=int, default=10_000, help="at most so many samples")
    parser.add_argument("--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random")
    parser.add_argument("--truncation", type=float | None, default=None, help="of a run: as in sample")
    parser.add_argument(
        "--out", type=str | None, default=None, help="the page; default evaluation.html, of a run within it"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


def _show_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False, description="Say where a run is; draw its grid, or the animation of its training."
    )
    parser.add_argument("run", type=str, help="a run folder")
    parser.add_argument("--grid", type=str | None, default=None, help="write the newest sample grid to this .png")
    parser.add_argument("--animation", type=str | None, default=None, help="write the grids over time to this .gif")
    return _with_json(parser)


def _doctor_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False, description="What is wrong with a run, and what to change. Exits with 0 if healthy, else 1."
    )
    parser.add_argument("run", type=str, help="a run folder, also one that is being trained")
    return _with_json(parser)


def _recipes_parser() -> ArgumentParser:
    parser = ArgumentParser(allow_abbrev=False, description="One line for each recipe: name, what it is, paper.")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


def _with_json(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return parser


def run_fit(recipe: str, arguments: Sequence[str], options: Namespace) -> None:
    from ganlib.doors import fit

    if options.devices is not None and _rank() is None:
        from ganlib.launching import launch, num_devices

        if (count := num_devices(options.devices, options.device)) > 1:
            sys.exit(launch(arguments, count))
    given = options.as_dict()
    given.pop("config", None)
    given.pop("devices")
    names = set(inspect.signature(fit).parameters)
    own = {name: given[name] for name in names if name in given}
    recipe_options = {name: value for name, value in given.items() if name not in names}
    result = fit(recipe_function=recipe, recipe_options=recipe_options, **own)
    if _rank():
        return  # the first process speaks
    if options.json:
        print(json.dumps({"done": True, **result}))
    elif not options.quiet:
        print(f"{result['items']:,} items in {result['out']}; newest pictures: {result['grid']}")
        print(result["then"])


def run_prepare(options: Namespace) -> None:
    from ganlib.doors import prepare

    told = prepare(options.source, options.out, options.size, options.split, options.shard_items, options.json)
    if options.json:
        print(json.dumps(told))
        return
    print(f"{told['items']:,} items in {told['out']}; train on them: ganlib fit {told['out']} --out runs/NAME")
    if told["unreadable"]:
        print(
            f"{told['unreadable']:,} could not be read and are left out, the first {told['first_unreadable']}; "
            "all are listed in shards.json"
        )


def run_sample(options: Namespace) -> None:
    from ganlib.doors import sample

    count = sample(
        options.run, options.number, options.out, options.seed, options.labels, options.truncation, options.device
    )
    print(json.dumps({"items": count, "out": options.out}) if options.json else f"{count:,} items in {options.out}")


def run_predict(options: Namespace) -> None:
    from ganlib.doors import predict

    count = predict(options.run, options.pictures, options.out, options.device)
    print(json.dumps({"items": count, "out": options.out}) if options.json else f"{count:,} pictures in {options.out}")


def run_evaluate(options: Namespace) -> None:
    from ganlib.doors import evaluate

    found, page = evaluate(
        options.samples,
        options.reals,
        train=options.train,
        features=options.features,
        number=options.number,
        size=options.size,
        seed=options.seed,
        truncation=options.truncation,
        out=options.out,
        device=options.device,
    )
    print(found.to_json() if options.json else f"{found}\n\nthe page: {page}")


def run_show(options: Namespace) -> None:
    from ganlib.doors import show

    told = show(options.run, options.grid, options.animation)
    if options.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:12} {value}")


def run_doctor(options: Namespace) -> None:
    from ganlib.diagnosis import of_run

    told = of_run(options.run)
    print(told.to_json() if options.json else told)
    sys.exit(0 if told.healthy else 1)


def run_recipes(options: Namespace) -> None:
    told = {name: recipes.find(name)().summary for name in recipes.names()}
    if options.json:
        print(json.dumps(told))
        return
    for name, summary in told.items():
        print(f"{name:8} {summary}{'  [default]' if name == recipes.DEFAULT else ''}")


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


def _rank() -> int | None:
    """Which of several processes this is, where ``torchrun`` or ``--devices`` has started it; else None."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("RANK", "0")) if several else None


@contextlib.contextmanager
def _after_the_first() -> Iterator[None]:
    """Let the first of several processes speak of an error that all have: the others wait, and are ended meanwhile.

    One that is not ended has an error of its own, and says it.
    """
    if not _rank():
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
