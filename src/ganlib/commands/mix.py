"""The command ``mix``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "coarse styles of some pictures with fine ones of others (stylegan2)"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Write a sheet of pictures with the coarse styles of those on the left and the fine ones of those "
        "above. For stylegan2.",
    )
    made.add_argument("run", type=str, help="a run folder or a .gan file")
    made.add_argument("--out", type=str, required=True, help="a .png")
    made.add_argument("--rows", type=int, default=5, help="pictures that lend coarse styles")
    made.add_argument("--columns", type=int, default=6, help="pictures that lend fine styles")
    made.add_argument(
        "--first-fine", type=int | None, default=None, help="the first stage that is fine, from 1; default half-way"
    )
    made.add_argument("--seed", type=int, default=0, help="of the latents")
    made.add_argument("--label", type=str | None, default=None, help="the class of all; default a drawn one")
    made.add_argument("--truncation", type=float | None, default=None, help="largest latent in standard deviations")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.exploring import mix_into

    given = options.as_dict()
    as_json = given.pop("json")
    told = mix_into(given.pop("run"), given.pop("out"), **given)
    print(json.dumps(told) if as_json else f"{told['pictures']} mixed pictures in {told['out']}")
