"""Starting the processes of one training on this machine, by torch's own launcher, and again when one is killed."""

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ganlib.errors import LostError, UsageError
from ganlib.progress import say

_STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
RESTARTS = 3
LASTING_SECONDS = 600.0
"""Processes that ran so long before one was killed do not count among the restarts."""


def num_devices(asked: str, device: str) -> int:
    """``auto`` is all GPUs of this machine, or one process where there are none. Raises UsageError for other words."""
    there = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if asked == "auto":
        return max(there, 1)
    if not asked.isdigit() or int(asked) < 1:
        raise UsageError(f"--devices {asked}: accepted are auto and whole numbers from 1")
    most = there or os.cpu_count() or 1
    if int(asked) > most:
        kind = "GPUs" if there else "processor cores"
        raise UsageError(f"--devices {asked}: this machine has {most} {kind}; accepted are 1 to {most}, or auto")
    return int(asked)


def launch(arguments: Sequence[str], num_processes: int) -> int:
    """Run ``ganlib`` with these arguments in so many processes; returns the status to exit with.

    A process that is killed ends the others; all begin again from the last checkpoint, up to `RESTARTS` times.
    """
    logging.disable(logging.CRITICAL)  # the processes speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")  # for the checkpoint of a training that is stopped
    # What is ignored stays so: SIGHUP under nohup, which the launcher would take up again.
    there = [signal.Signals[name] for name in _STOPPING if name in signal.Signals.__members__]
    heeded = [each.name for each in there if signal.getsignal(each) is not signal.SIG_IGN]
    restarts = 0
    while True:
        began = time.monotonic()
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            signals_to_handle=",".join(heeded),
            max_restarts=0,  # its own would begin again after any error, a wrong path too
        )
        try:
            elastic_launch(config, sys.executable)("-m", "ganlib", *arguments)
            return 0
        except SignalException as error:
            return 128 + error.sigval
        except ChildFailedError as error:
            failures = [failure for failure in error.failures.values() if isinstance(failure, ProcessFailure)]
        restarts = 0 if time.monotonic() - began > LASTING_SECONDS else restarts
        killed = next((each for each in failures if each.exitcode < 0 and each.exitcode != -signal.SIGTERM), None)
        status = status_of(failures)
        if killed is None or restarts == RESTARTS or status not in (LostError.exit_status, 128 - killed.exitcode):
            return status
        restarts += 1
        name = signal.Signals(-killed.exitcode).name
        say(f"process {killed.local_rank} was ended by {name}; beginning again from the last checkpoint", "lines")


def status_of(failures: Sequence[ProcessFailure]) -> int:
    """What the first process with an error of its own ended with, else the signal that ended one, as a shell says it.

    The launcher ends the other processes by SIGTERM, and some end because they have lost one.
    """
    codes = [failure.exitcode for failure in sorted(failures, key=lambda each: each.local_rank)]
    own = [code for code in codes if code > 0 and code != LostError.exit_status]
    killed = [128 - code for code in codes if code < 0 and code != -signal.SIGTERM]
    return next(iter([*own, *killed]), LostError.exit_status)
