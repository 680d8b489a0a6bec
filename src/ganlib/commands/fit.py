"""The command ``fit``."""

import inspect
import json
import os
import sys
from collections.abc import Sequence
from typing import Literal

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

from ganlib import recipes, remedies

HELP = "train a recipe on data, or go on with a run"


def parser(recipe: str) -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False, description="Train a recipe on data. Run the same command again to go on where it stopped."
    )
    made.add_argument(
        "data",
        type=str,
        help="'digits', a folder of pictures (sub-folders are classes) or shards, a zip, .npz, .npy, IDX, CIFAR .bin",
    )
    made.add_argument("--out", type=str, required=True, help="the run folder")
    made.add_argument(
        "--recipe",
        type=str | None,
        default=None,
        help=f"one of {', '.join(recipes.names())}; default {recipes.DEFAULT}",
    )
    made.add_argument(
        "--remedies",
        type=str | None,
        default=None,
        help=f"against collapse, such as packing=3,lecam; there are {', '.join(remedies.names())}",
    )
    made.add_argument(
        "--minutes", type=float | None, default=None, help="stop after this time; schedules and networks fit it"
    )
    made.add_argument("--items", type=int | None, default=None, help="stop when so many items have been seen")
    made.add_argument(
        "--cpu-seconds", type=float | None, default=None, help="stop after this time on the processor, of all threads"
    )
    made.add_argument("--seed", type=int | None, default=None, help="of weights, order and latents; default 0")
    made.add_argument(
        "--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96 (height x width)"
    )
    made.add_argument("--validation", type=str | None, default=None, help="a share to hold out (0.1), or other data")
    made.add_argument("--unconditional", type=bool, default=False, help="do not use the labels")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument(
        "--devices",
        type=str | None,
        default=None,
        help="processes that share each batch, one per GPU: a number, or auto for all GPUs; default 1",
    )
    made.add_argument(
        "--precision", type=Literal["auto", "float32", "bfloat16"], default="auto", help="number format of the networks"
    )
    made.add_argument("--compile", type=bool, default=False, help="compile the networks")
    made.add_argument("--threads", type=int | None, default=None, help="processor threads; default all")
    made.add_argument("--checkpoint_seconds", type=float, default=60.0, help="time between checkpoints")
    made.add_argument("--json", action="store_true", help="JSON lines on standard output, nothing for people")
    made.add_argument("--quiet", action="store_true", help="no progress")
    made.add_argument("--config", action=ActionConfigFile, help="a YAML file of these options")
    made.add_function_arguments(recipes.find(recipe), as_group=True, fail_untyped=False)
    return made


def run(recipe: str, arguments: Sequence[str], options: Namespace) -> None:
    from ganlib.doors import fit

    if options.devices is not None and rank() is None:
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
    if rank():
        return  # the first process speaks
    if options.json:
        print(json.dumps({"done": True, **result}))
    elif not options.quiet:
        print(f"{result['items']:,} items in {result['out']}; newest pictures: {result['grid']}")
        print(result["then"])


def rank() -> int | None:
    """Which of several processes this is, where ``torchrun`` or ``--devices`` has started it; else None."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("RANK", "0")) if several else None
