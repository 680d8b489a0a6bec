"""What the benchmark scripts share: where the data lie, child processes and their cost, how results are printed."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""The folder beside the checkout that holds ``data`` and ``judge``."""


@dataclass(frozen=True)
class Finished:
    """A child process that ended well: the last line of its standard output, and the CPU time of its whole tree."""

    last_line: str
    cpu_seconds: float


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that prints the top of the script as its help, with ``--json``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return parser


def refuse(text: str) -> NoReturn:
    """Say why and end the script with status 2."""
    note(text)
    sys.exit(2)


def needed(path: Path) -> Path:
    """The path; ends the script with status 2 where it is not there."""
    if not path.exists():
        refuse(f"{path} is not there, and this benchmark needs it")
    return path


def new_folder(path: str | None) -> Path:
    """A folder for results: a temporary one for None; ends the script with status 2 where it is not empty."""
    if path is None:
        return Path(tempfile.mkdtemp(prefix="ganlib-benchmark-"))
    folder = Path(path)
    if folder.exists() and any(folder.iterdir()):
        refuse(f"{folder} is not empty; choose another --out: a run in it would be taken up again")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def same_folder(path: str | None) -> Path:
    """A folder whose results an interrupted benchmark goes on with: a temporary one for None."""
    folder = Path(path) if path is not None else Path(tempfile.mkdtemp(prefix="ganlib-benchmark-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def finish(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end; what it says to people goes to standard error. Ends the script where it fails."""
    before = _children_seconds()
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        sys.exit(f"{' '.join(str(word) for word in command)} ended with status {done.returncode}")
    lines = done.stdout.strip().splitlines()
    return Finished(lines[-1] if lines else "", _children_seconds() - before)


def peak_bytes() -> int:
    """The most memory that this process has held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def report(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result as one JSON line, or a line for each of its entries."""
    print(json.dumps(result) if as_json else "\n".join(f"{key:32} {value}" for key, value in result.items()))


def note(text: str) -> None:
    """Say how far a long benchmark is, apart from its result."""
    print(text, file=sys.stderr, flush=True)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
