"""The folder of one training run.

``run.json`` marks it, ``run.lock`` keeps a second writer out, ``metrics.jsonl`` is the log of what was computed and
``timing.jsonl`` that of how long it took: apart, so that the first is the same bits however often the run was stopped.
``events.jsonl`` says what went wrong and what was done.
JSON has no numbers that are not finite; the logs write them as the strings "nan", "inf" and "-inf".
"""

import json
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, final

from filelock import BaseFileLock, FileLock, Timeout

from ganlib import __version__
from ganlib.errors import BusyError, DamagedError, MissingError, RunError, UsageError, WriteError
from ganlib.files import explained, free_bytes, read_json, write_bytes, write_json
from ganlib.training import checkpoint

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FORMAT = 1
MARKER, LOCK, HOLDER, METRICS, TIMING = "run.json", "run.lock", "run.holder.json", "metrics.jsonl", "timing.jsonl"
EVENTS = "events.jsonl"
SPACE_FACTOR = 3  # the newest checkpoint, the one being written, and the best

Event = Mapping[str, float | int | str | None]
"""One line of ``events.jsonl``: ``items`` seen, the kind of ``event``, and what belongs to it."""

Record = Mapping[str, float | int | None]
"""One line of a log: numbers by name. ``items`` is how many had been seen."""


@final
class Run:
    """A run folder, open for writing by one process at a time, or for reading; see :meth:`open` and :meth:`read`."""

    def __init__(self, folder: Path, lock: BaseFileLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._logs: dict[str, IO[bytes]] = {}
        self._board = _Board(folder / "tensorboard")

    @classmethod
    def open(cls, folder: Path | str, *, create: bool = True) -> "Run":
        """Take a run folder for writing, make it if need be, and clean up after a killed process.

        Raises :class:`BusyError` naming the process that has it, :class:`RunError` for a folder of something else or of
        a newer ganlib, :class:`UsageError` for a file, :class:`WriteError`, and :class:`MissingError` without `create`.
        """
        folder = Path(folder)
        _check(folder, create=create)
        try:
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
        except WriteError as error:
            if isinstance(error.__cause__, FileExistsError | NotADirectoryError):
                raise UsageError(f"{folder} cannot be a run folder: a file is in the way; name a folder") from error
            raise
        lock = _taken_lock(folder)
        try:
            if not (folder / MARKER).exists():
                write_json(folder / MARKER, {"format": FORMAT, "ganlib": __version__})
            started = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(folder / HOLDER, {"pid": os.getpid(), "host": socket.gethostname(), "started": started})
            run = cls(folder, lock)
            for place in (folder, run.checkpoints, run.samples):
                checkpoint.clean(place)
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def read(cls, folder: Path | str) -> "Run":
        """Look into a run without the lock, also while it trains; raises :class:`MissingError`, :class:`RunError`."""
        _check(Path(folder), create=False)
        return cls(Path(folder), None)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the logs and let the next process in; a second call does nothing."""
        self._board.close()
        try:
            with explained(self.folder):
                self._close_logs()
        finally:
            if self._lock is not None and self._lock.is_locked:
                (self.folder / HOLDER).unlink(missing_ok=True)
                self._lock.release()

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        """Where the pictures made during training are."""
        return self.folder / "samples"

    def write_facts(self, name: str, value: Any) -> None:
        """Write a JSON file such as ``recipe.json``, atomically. Raises :class:`WriteError`."""
        self._check_writable()
        write_json(self._fact_path(name), value)

    def read_facts(self, name: str) -> Any:
        """Read a JSON file of the run. Raises :class:`MissingError` and :class:`DamagedError`."""
        path = self._fact_path(name)
        if not path.exists():
            raise MissingError(f"{path} is missing; restore it, or train again in another folder")
        return read_json(path)

    def log(self, record: Record) -> None:
        """Append what was computed to ``metrics.jsonl`` and TensorBoard; no clock times, these go to :meth:`log_time`.

        Raises :class:`WriteError`, and :class:`UsageError` for a record without ``items``.
        """
        if not isinstance(record.get("items"), int):
            raise UsageError(f"a record needs a whole number of 'items'; this one has {dict(record)}")
        self._append(METRICS, record)
        self._board.add(record)

    def log_time(self, record: Record) -> None:
        """Append durations to ``timing.jsonl``, a history that is never shortened. Raises :class:`WriteError`."""
        self._append(TIMING, record)

    def log_event(self, event: Event) -> None:
        """Append what went wrong, or what was done about it, to ``events.jsonl``; no clock times. See :meth:`log`."""
        self._append(EVENTS, event)

    def sync_log(self) -> None:
        """Make the log durable. Called before a checkpoint, no power cut leaves a log that ends short of it."""
        for name, file in self._logs.items():
            with explained(self.folder / name):
                os.fsync(file.fileno())

    def rewind(self, items_seen: int) -> None:
        """Drop the numbers and pictures of after `items_seen`, and a line torn by a crash: a checkpoint is taken up.

        The lines that stay keep their bytes. Raises :class:`DamagedError` for a bad line within, :class:`WriteError`.
        """
        self._board.close()  # the next scalar hides those of the future that is given up
        self._keep_lines(METRICS, lambda _, record: record["items"] <= items_seen)
        for picture in self.samples.glob("*.png"):
            if picture.stem.isdigit() and int(picture.stem) > items_seen:
                picture.unlink()

    def truncate_events(self, num_events: int) -> None:
        """Keep so many events, those that a checkpoint knows of: the others will happen again. See :meth:`rewind`."""
        self._keep_lines(EVENTS, lambda number, _: number < num_events)

    def records(self) -> list[dict[str, float | int | None]]:
        """What was logged, in order, without a last line still being written. Raises :class:`DamagedError`."""
        return self._read_lines(METRICS)

    def times(self) -> list[dict[str, Any]]:
        """The seconds of the budget that were spent when so many items had been seen. See :meth:`log_time`."""
        return self._read_lines(TIMING)

    def events(self) -> list[dict[str, Any]]:
        """What went wrong, in order. Raises :class:`DamagedError`."""
        return self._read_lines(EVENTS)

    def holder(self) -> str | None:
        """Which process trains it now; None where none does, also where one died and left its name."""
        if not (self.folder / HOLDER).exists():
            return None
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                return None
        except (Timeout, OSError, NotImplementedError):
            return _holder(self.folder)

    def check_space(self, bytes_needed: int) -> None:
        """Refuse to start where a few checkpoints of `bytes_needed` would not fit. Raises :class:`WriteError`."""
        free = free_bytes(self.folder)
        if free < SPACE_FACTOR * bytes_needed:
            raise WriteError(
                f"{self.folder} is on a disk with {free} bytes free; training needs {SPACE_FACTOR * bytes_needed} "
                f"({SPACE_FACTOR} checkpoints of {bytes_needed}); free some space or choose another --out"
            )

    def plot(self) -> Path | None:
        """Draw the log into ``losses.png``; None where nothing has been logged. Raises :class:`WriteError`."""
        self._check_writable()
        if not (records := self.records()):
            return None
        from ganlib.training.plot import losses_png  # matplotlib takes a quarter of a second to import

        write_bytes(self.folder / "losses.png", losses_png(records))
        return self.folder / "losses.png"

    def _fact_path(self, name: str) -> Path:
        if Path(name).name != name or not name.endswith(".json") or name in (MARKER, HOLDER):
            raise UsageError(f"{name!r} cannot hold facts; use a plain file name that ends in .json")
        return self.folder / name

    def _check_writable(self) -> None:
        if self._lock is None or not self._lock.is_locked:
            raise UsageError(f"{self.folder} is not open for writing; use Run.open, within its with block")

    def _read_lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [record for _, record in _lines(path, path.read_bytes())] if path.exists() else []

    def _keep_lines(self, name: str, wanted: Callable[[int, dict[str, Any]], bool]) -> None:
        self._check_writable()
        path = self.folder / name
        if not path.exists():
            return
        with explained(path):
            self._close_logs()  # an open handle would go on writing to the file that is replaced
        content = path.read_bytes()
        kept = b"".join(line for n, (line, record) in enumerate(_lines(path, content)) if wanted(n, record))
        if kept != content:
            write_bytes(path, kept)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        self._check_writable()
        path = self.folder / name
        line = json.dumps({key: _writable(value) for key, value in record.items()}, allow_nan=False) + "\n"
        with explained(path):
            if name not in self._logs:
                _drop_torn_line(path)
                self._logs[name] = path.open("ab")
            self._logs[name].write(line.encode())
            self._logs[name].flush()

    def _close_logs(self) -> None:
        while self._logs:
            self._logs.popitem()[1].close()


class _Board:
    """TensorBoard's scalars, where TensorBoard is installed; a trouble there costs a warning and never the training."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._absent = False

    def add(self, record: Record) -> None:
        """Add the scalars of a record; the first makes the writer, whose import takes 0.2 s."""
        items = int(record["items"] or 0)
        try:
            if self._writer is None and not self._absent:
                from torch.utils.tensorboard import SummaryWriter

                # What an earlier process logged from here on, and lost by a crash, is hidden.
                self._writer = SummaryWriter(str(self._folder), purge_step=items)
            if self._writer is not None:
                for key, value in record.items():
                    if key != "items" and value is not None:
                        self._writer.add_scalar(key, value, items)
        except ImportError:
            self._absent = True
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Write out what is pending."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)
        self._writer = None

    def _give_up(self, error: OSError) -> None:
        self._writer, self._absent = None, True
        warnings.warn(f"no more TensorBoard scalars in {self._folder}: {error}; training goes on", stacklevel=4)


def _check(folder: Path, *, create: bool) -> None:
    """Refuse what is not a run folder before anything is written into it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a run needs a folder of its own; choose another --out")
    try:
        held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise WriteError(f"cannot read {folder}: {error.strerror or error}; change its permissions") from error
    if MARKER in held:
        marker = read_json(folder / MARKER)
        if not isinstance(marker, dict) or not isinstance(marker.get("format"), int) or "ganlib" not in marker:
            raise RunError(f"not a ganlib run: {folder / MARKER} was written by something else; choose another --out")
        if marker["format"] > FORMAT:
            writer = marker["ganlib"]
            raise RunError(f"{folder} was written by ganlib {writer}, this is {__version__}; upgrade ganlib to read it")
        return
    # A process killed before it wrote the marker leaves a lock; a file manager leaves its own file.
    foreign = [name for name in held if name not in (LOCK, HOLDER, ".DS_Store") and not name.startswith(".tmp-run.")]
    if foreign:
        some = ", ".join(repr(name) for name in foreign[:3])
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise RunError(f"not a ganlib run: {folder} holds {some}{more}, and no {MARKER}; choose another --out")
    if not create:
        raise MissingError(f"no run at {folder}; name a folder that holds {MARKER}, or train one there first")


def _taken_lock(folder: Path) -> BaseFileLock:
    """The lock of a run folder. The kernel holds it for the process, so that it ends with the process."""
    # Not bound to a thread: whoever closes the run may be another thread than the one that opened it.
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    with explained(folder):
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"{folder} is in use by {_holder(folder)}; wait, stop it, or choose another --out"
            ) from None
        except NotImplementedError as error:
            raise WriteError(f"{folder} is on a disk without locks ({error}); choose another --out") from error
    return lock


def _holder(folder: Path) -> str:
    """Who holds the lock, as far as it can be told: the file is written after the lock is taken."""
    try:
        holder = read_json(folder / HOLDER)
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, DamagedError, KeyError, TypeError):
        return "another process"


def _writable(value: float | int | str | None) -> float | int | str | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _lines(path: Path, content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each whole line of a log, as bytes and as a record."""
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            values = json.loads(line)
            words = path.name == EVENTS  # elsewhere the only words are numbers that are not finite
            record = values if words else {k: float(v) if isinstance(v, str) else v for k, v in values.items()}
            sound = isinstance(record["items"], int)
        except (ValueError, RecursionError, AttributeError, KeyError):
            sound, record = False, {}
        if not sound:
            raise DamagedError(f"{path}, line {number} is not a record ({line[:60]!r}); delete the line, or the file")
        yield line, record


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without an end, which the next one would be glued to."""
    if path.exists():
        content = path.read_bytes()
        whole_bytes = content.rfind(b"\n") + 1
        if whole_bytes < len(content):
            os.truncate(path, whole_bytes)
