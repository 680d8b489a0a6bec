"""A command in a process of its own, with what it cost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ganlib.comparison.result import Cost
from ganlib.progress import LINE_SECONDS, Style, say
from ganlib.stopping import StopWish

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ended:
    """How a process ended: its status as a shell says it, the last lines that it wrote, and its cost."""

    status: int
    last_line: str
    complaint: str
    cost: Cost


def run_child(
    command: Sequence[str], output: Path, stop: StopWish, *, threads: int | None, title: str, style: Style
) -> Ended:
    """Run a command of ganlib to its end; a signal that asks this process for an end is passed on, and waited for.

    `output` takes the JSON lines that the command writes, its errors go beside it. The process has a session of
    its own: Ctrl-C would reach it twice otherwise, and the second one would kill it.
    """
    began = told = time.monotonic()
    asked, peak = False, 0
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    errors = output.with_suffix(".err")
    with open(output, "wb") as out, open(errors, "wb") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True, env=environment)
        try:
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                peak = max(peak, high_water_bytes(child.pid))
                if stop.signal is not None and not asked:
                    child.send_signal(stop.signal)
                    asked = True
                if time.monotonic() - told > LINE_SECONDS:
                    told = time.monotonic()
                    say(f"{title}  {_progress(_last_line(output))}", style)
                time.sleep(POLL_SECONDS)
        except BaseException:
            child.kill()
            child.wait()
            raise
    code = child.returncode = os.waitstatus_to_exitcode(status)
    # The largest resident size of `wait4` includes this process's own, inherited at the fork: only a last resort.
    inherited = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cost = Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, peak or inherited)
    return Ended(128 - code if code < 0 else code, _last_line(output), _last_line(errors), cost)


def high_water_bytes(pid: int) -> int:
    """The most main memory that a process has held so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 if found else 0


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _progress(line: str) -> str:
    try:
        told = json.loads(line)
        share = min(1.0, told["items"] / told["total_items"])
        return f"{share:4.0%}  {told['items']:,} items"
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        return ""
