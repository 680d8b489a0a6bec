"""How long `import ganlib` and `ganlib --help` take, as multiples of a bare start of Python.

    python benchmarks/startup.py [--json] [--rounds 15]

Protocol: three commands in alternation, each in a fresh process, after one round that warms the file cache; the median
wall time of each over that of `python -c pass`. The ratios of CPU time stand beside them, for busy machines.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common import finish, make_parser, report


def commands() -> dict[str, list[str]]:
    """What is timed, by name; the installed command where there is one."""
    script = Path(sys.executable).with_name("ganlib")
    ganlib = [str(script)] if script.exists() else [sys.executable, "-m", "ganlib"]
    return {
        "bare": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import ganlib"],
        "help": [*ganlib, "--help"],
    }


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    start = time.perf_counter()
    cpu_seconds = finish(command).cpu_seconds
    return time.perf_counter() - start, cpu_seconds


def imports_torch() -> bool:
    """Whether the import alone draws in torch, which takes a hundred times as long as all else."""
    code = "import sys, ganlib; sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code]).returncode != 0


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands()}
    for number in range(args.rounds + 1):
        for name, command in commands().items():
            once = timed(command)
            if number:  # the first round reads the files from the disk
                taken[name].append(once)
    wall = {name: statistics.median(seconds for seconds, _ in times) for name, times in taken.items()}
    cpu = {name: statistics.median(seconds for _, seconds in times) for name, times in taken.items()}
    result = {
        "import_ratio": round(wall["import"] / wall["bare"], 2),
        "help_ratio": round(wall["help"] / wall["bare"], 2),
        "import_cpu_ratio": round(cpu["import"] / cpu["bare"], 2),
        "help_cpu_ratio": round(cpu["help"] / cpu["bare"], 2),
        **{f"{name}_seconds": round(seconds, 4) for name, seconds in wall.items()},
        "import_draws_in_torch": imports_torch(),
        "rounds": args.rounds,
        "python": sys.version.split()[0],
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
