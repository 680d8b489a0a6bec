"""The command ``evaluate``."""

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "answer five questions about a run, or about the samples of any program"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Five questions about samples: good, covered, copied, private, recognisable? Writes a page.",
    )
    made.add_argument(
        "samples", type=str, help="a run folder or a .gan file, or samples: a folder or .npz of any program"
    )
    made.add_argument("reals", type=str, help="real items that were not trained on")
    made.add_argument(
        "--train",
        type=str | None,
        default=None,
        help="the training data; those of a run are looked for where they were",
    )
    made.add_argument(
        "--features",
        type=str | None,
        default=None,
        help="what is compared: pixels, random, inception, dinov2, a weight file...; default learned from the data",
    )
    made.add_argument("--number", type=int, default=10_000, help="at most so many samples")
    made.add_argument("--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96")
    made.add_argument("--seed", type=int, default=0, help="of all that is drawn at random")
    made.add_argument("--truncation", type=float | None, default=None, help="of a run: as in sample")
    made.add_argument(
        "--out", type=str | None, default=None, help="the page; default evaluation.html, of a run within it"
    )
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="JSON on standard output")
    return made


def run(options: Namespace) -> None:
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
