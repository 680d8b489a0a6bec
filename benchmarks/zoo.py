"""The whole zoo at equal cost: every recipe on one data set, by `ganlib compare`, with a neutral judge beside it.

    python benchmarks/zoo.py [--data fashion_mnist] [--recipes r3,dcgan,...] [--cpu-minutes 10] [--seeds 1]
                             [--threads 1] [--only-missing] [--out DIR] [--json]

Protocol: `ganlib compare ../shared/data/NAME --cpu-seconds 60·M` over all recipes, then 10,000 samples of each first
run, scored by ../shared/judge/judge.py (a Fréchet distance of its own features to the test images; lower is better;
where it knows the data). DIR/zoo.md is a section to paste into RESULTS.md, DIR/zoo.json holds the same figures,
DIR/compare.png is the picture. Call again to go on: finished recipes are neither trained nor judged again;
`--only-missing` leaves out those that have failed too. Recipes are trained one after another: 20 of them at 10 minutes
are hours.
"""

import json
import sys
from pathlib import Path
from typing import Any

from common import SHARED, finish, make_parser, needed, note, report, same_folder
from ganlib import recipes
from ganlib.comparison import Comparison, Entry, compare
from ganlib.comparison.result import from_json
from ganlib.comparison.table import markdown
from ganlib.files import read_json, write_bytes, write_json

JUDGE = SHARED / "judge" / "judge.py"
JUDGED = ("fashion_mnist", "mnist")
NUM_SAMPLES = 10_000


def judge(entry: Entry, data: str, out: Path) -> dict[str, Any]:
    """What the neutral judge says of 10,000 samples."""
    samples = out / f"{entry.folder}.npz"
    draw = ["sample", out / entry.folder, "-n", NUM_SAMPLES, "--out", samples, "--device", "cpu", "--json"]
    finish([sys.executable, "-m", "ganlib", *map(str, draw)])
    told = json.loads(finish([sys.executable, JUDGE, data, samples]).last_line)
    samples.unlink()
    return {name: told.get(name) for name in ("frechet", "precision", "recall", "coverage", "agreement")}


def section(found: Comparison, judged: dict[str, Any], cpu_minutes: float) -> str:
    """Markdown: what the neutral judge says, best first, then the table of `compare`."""
    lines = [f"## The zoo: {cpu_minutes:g} CPU-minutes each", ""]
    if judged:
        lines += [
            "| recipe | verdict | judge's Fréchet ↓ | precision | recall | coverage |",
            "|---|---|---:|---:|---:|---:|",
        ]
        by_name = {entry.name: entry for entry in found.entries if entry.seed == 0}
        for name, told in sorted(judged.items(), key=lambda pair: pair[1]["frechet"]):
            figures = " | ".join(f"{told[key]:.3f}" for key in ("precision", "recall", "coverage"))
            lines.append(f"| `{name}` | {by_name[name].verdict} | {told['frechet']:.2f} | {figures} |")
        lines.append("")
    return "\n".join(lines) + "\n" + markdown(found)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", default="fashion_mnist", help="a folder of ../shared/data")
    parser.add_argument("--recipes", help="names with commas between; default all")
    parser.add_argument("--cpu-minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-missing", action="store_true", help="do not try again what has failed")
    parser.add_argument("--out", help="a folder; what is done there stays")
    args = parser.parse_args()
    source, out = needed(SHARED / "data" / args.data), same_folder(args.out)
    names = recipes.names() if args.recipes is None else args.recipes.split(",")
    before = out / "compare.json"
    if args.only_missing and before.exists():
        tried = from_json(before.read_text(), str(before))
        names = [
            name for name in names if (entry := tried.of(name, args.seeds - 1)) is None or entry.state == "interrupted"
        ]
    budget = 60 * args.cpu_minutes
    if names:
        compare(source, names, out=out, cpu_seconds=budget, seeds=args.seeds, threads=args.threads, device="cpu")
    found = from_json(before.read_text(), str(before))
    path = out / "zoo.json"
    judged: dict[str, Any] = read_json(path)["judged"] if path.exists() else {}
    known = args.data in JUDGED and JUDGE.exists()
    for entry in found.entries if known else ():
        if entry.state == "finished" and entry.seed == 0 and entry.name not in judged:
            judged[entry.name] = judge(entry, args.data, out)
            note(f"{entry.name}: judge's Fréchet {judged[entry.name]['frechet']}")
    write_json(path, {"judged": judged, **json.loads(found.to_json())})
    write_bytes(out / "zoo.md", section(found, judged, args.cpu_minutes).encode())
    report({"recipes": len(found.names()), "judged": judged, "section": str(out / "zoo.md")}, args.json)


if __name__ == "__main__":
    main()
