"""The command ``project``."""

import json
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "find the latent whose picture is most like a given one"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Find the latents whose pictures are most like given ones. Of each picture: NAME.png (it, and the "
        "nearest that the model makes) and NAME.npz (the latent); project.json says how near that is.",
    )
    made.add_argument("run", type=str, help="a run folder or a .gan file")
    made.add_argument("pictures", type=str, help="a picture or a folder of pictures, of any size")
    made.add_argument("--out", type=str, required=True, help="a folder")
    made.add_argument("--label", type=str | None, default=None, help="the class of the pictures; default the best")
    made.add_argument(
        "--space",
        type=Literal["auto", "latent", "style", "styles"],
        default="auto",
        help="where to look; styles (one a stage) come nearer, less like the model's own; auto: style or latent",
    )
    made.add_argument("--steps", type=int, default=300, help="of the search")
    made.add_argument("--random", type=int, default=1000, help="random latents from the best of which it starts")
    made.add_argument("--seed", type=int, default=0, help="of the random latents")
    made.add_argument("--quiet", action="store_true", help="no progress")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.exploring import project_into
    from ganlib.latents.project import Search

    told = project_into(
        options.run,
        options.pictures,
        options.out,
        label=options.label,
        kind=options.space,
        search=Search(options.steps, options.random, options.seed),
        device=options.device,
        progress="none" if options.quiet or options.json else "auto",
    )
    if options.json:
        print(json.dumps(told))
        return
    for each in told["pictures"]:
        print(f"{each['name']}: {_line(each)}")
    print(f"{len(told['pictures'])} pictures in {options.out}")


def _line(each: dict[str, Any]) -> str:
    found, random, mean = each["projection"], each["best_random"], each["mean"]
    of = f"class {each['label']}, " if "label" in each else ""
    psnr = "no difference," if found["psnr"] is None else f"{found['psnr']} dB"
    return (
        f"{of}{psnr} (best random {random['psnr']}, mean {mean['psnr']}), "
        f"features {found['features']:.3f} apart ({random['features']:.3f}, {mean['features']:.3f})"
    )
