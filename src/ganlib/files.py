"""Files that are either whole or absent: temporary name, fsync, rename."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ganlib.errors import DamagedError, GanlibError, WriteError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def free_bytes(path: Path) -> int:
    """Free space of the disk that holds `path`, or would hold it."""
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _advice(error: OSError, path: Path, needed_bytes: int | None) -> str:
    if error.errno in _FULL:
        space = f"it needs {needed_bytes} bytes, " if needed_bytes is not None else ""
        return f"{space}{free_bytes(path)} bytes are free; free some space and run the same command again"
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return "it may not be written; choose another folder or change its permissions"
    return "nothing that was there is lost; mend the cause and run the same command again"


@contextlib.contextmanager
def explained(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` met while writing `path` into a :class:`WriteError` that says what to do."""
    try:
        yield
    except GanlibError:
        raise
    except OSError as error:
        advice = _advice(error, path, needed_bytes)
        raise WriteError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Windows cannot open a folder, and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, and make its content durable; its name is not, until its folder is synced.

    Its mode follows the umask; `tempfile` would make it 0600, and asking for the umask sets it for every thread.
    """
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a reader, or a crash, sees the old file or the new one, never a part.

    Raises :class:`WriteError` with the cause and the remedy; the temporary file does not stay behind.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise WriteError(f"cannot write {path}: it is there and no ordinary file; give another name")
    with replacing(path, len(content)) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, needed_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """A file to write what shall be at `path`: once it is whole and durable it takes that name, else it goes.

    Raises :class:`WriteError` with the cause and the remedy.
    """
    with explained(path, needed_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Non-finite numbers are refused: JSON has none."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises :class:`DamagedError` that names the file and the place where it stops being JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number of 4300 digits
        raise DamagedError(f"{path} is not valid JSON ({error}); restore it or delete the folder it is in") from error


def digest(path: Path) -> str:
    """SHA-256 of the content of `path`, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
