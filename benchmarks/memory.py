"""Peak resident memory of `ganlib prepare` and `ganlib fit` against the number of items.

    python benchmarks/memory.py [--json] [--items 10000 100000] [--repeat 10] [--folder WHERE]

Protocol: for each number a folder of that many PNG files of 32 x 32 x 3 (4,096 noise textures over and over, 1,000 in a
sub-folder, ten classes), made into shards and then trained on from them for 10 steps of the default recipe with small
networks on one thread; 1,000 items are held out at every number. With `--repeat 10` there is one training more, on the
largest shards ten times over, as links: a million items in minutes. Each command is a process of its own; its peak is
what the system says it was (ru_maxrss), which counts no cached files.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from common import make_parser, note, refuse, report

NUM_TEXTURES, NUM_CLASSES, PER_FOLDER = 4096, 10, 1000
FIT = ["--items", "320", "--batch_items", "32", "--network", "compact", "--width", "8", "--threads", "1", "--quiet"]


def textures() -> list[bytes]:
    """The files of random pictures: smooth noise of four sizes."""
    rng, files = np.random.default_rng(0), []
    for number in range(NUM_TEXTURES):
        side = (4, 8, 16, 32)[number % 4]
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        buffer = BytesIO()
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "PNG", compress_level=1)
        files.append(buffer.getvalue())
    return files


def fill(folder: Path, num_items: int, files: list[bytes]) -> None:
    """Write so many pictures."""
    for first in range(0, num_items, PER_FOLDER):
        below = folder / f"class{first // PER_FOLDER % NUM_CLASSES}" / f"{first // PER_FOLDER:06d}"
        below.mkdir(parents=True)
        for number in range(first, min(first + PER_FOLDER, num_items)):
            (below / f"{number:09d}.png").write_bytes(files[number % len(files)])


def peak_megabytes(*arguments: str | Path) -> tuple[float, float]:
    """The peak of one command and the seconds that it took; ends the script where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "ganlib", *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"ganlib {' '.join(map(str, arguments))} ended with status {process.returncode}")
    return round(usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2), 1), time.perf_counter() - start


def repeat(shards: Path, times: int) -> Path:
    """Shards of the same items so many times over; the tars are links."""
    facts, out = json.loads((shards / "shards.json").read_text()), shards.with_name("repeated")
    out.mkdir()
    entries = []
    for turn in range(times):
        for entry in facts["shards"]:
            entries.append({**entry, "name": f"{turn}-{entry['name']}"})
            os.link(shards / entry["name"], out / entries[-1]["name"])
    np.save(out / "index.npy", np.tile(np.load(shards / "index.npy"), (times, 1)))
    facts |= {"shards": entries, "index_sha256": hashlib.sha256((out / "index.npy").read_bytes()).hexdigest()}
    (out / "shards.json").write_text(json.dumps(facts))
    return out


def fitting_peak(shards: Path, num_items: int) -> tuple[float, float]:
    note(f"training on {num_items:,} items")
    return peak_megabytes(
        "fit", shards, "--out", shards.with_name("run" + shards.name), *FIT, "--validation", str(1000 / num_items)
    )


def measure(num_items: int, folder: Path, files: list[bytes]) -> dict[str, float]:
    note(f"{num_items:,} items: writing pictures")
    fill(folder / "pictures", num_items, files)
    note("preparing")
    preparing, seconds = peak_megabytes("prepare", folder / "pictures", "--out", folder / "shards", "--json")
    fitting, fit_seconds = fitting_peak(folder / "shards", num_items)
    return {
        "prepare_megabytes": preparing,
        "fit_megabytes": fitting,
        "prepared_items_per_second": round(num_items / seconds),
        "fit_seconds": round(fit_seconds, 1),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=10, help="train on the largest so many times over, too")
    parser.add_argument("--folder", help="where pictures and shards go for the time; default temporary files")
    args = parser.parse_args()
    if min(args.items) < 100:
        refuse(f"--items {min(args.items)}: at least 100 are needed")
    files, found = textures(), {}
    for num_items in sorted(args.items):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found[str(num_items)] = measure(num_items, Path(folder), files)
            if args.repeat > 1 and num_items == max(args.items):
                peak, _ = fitting_peak(repeat(Path(folder) / "shards", args.repeat), num_items * args.repeat)
                found[str(num_items * args.repeat)] = {"fit_megabytes": peak}
    fits = [each["fit_megabytes"] for each in found.values()]
    prepares = [each["prepare_megabytes"] for each in found.values() if "prepare_megabytes" in each]
    growth = {"prepare_growth": round(prepares[-1] / prepares[0], 3), "fit_growth": round(fits[-1] / fits[0], 3)}
    report(growth | found, args.json)


if __name__ == "__main__":
    main()
