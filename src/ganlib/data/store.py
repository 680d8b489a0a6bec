"""Room for many items: memory where they fit, else a memory-mapped file."""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganlib.errors import DataError, WriteError


@dataclass(frozen=True)
class Options:
    """How the items of any source are read, and where they go."""

    size: tuple[int, int] | None = None  # height, width
    split: str = "train"
    cache: Path | None = None
    memory_bytes: int | None = None


def free_memory_bytes() -> int:
    """Memory that can be had without swapping, also inside a container that is given less than its machine."""
    free = 4 * 2**30  # where the system does not say, as on Windows: what any machine for training has
    with contextlib.suppress(OSError, ValueError, AttributeError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(limit - used, 0))
    return free


def memory_limit(memory_bytes: int | None) -> int:
    """The most that items may take in memory: what was asked for, else half of what is free.

    Processes that train together on this machine read the same items each, and share that half.
    """
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return free_memory_bytes() // 2 // num_processes if memory_bytes is None else memory_bytes


def room(shape: tuple[int, ...], dtype: np.dtype, cache: Path | None, memory_bytes: int | None) -> np.ndarray:
    """An array to fill, in memory, or where it exceeds the limit in a file under `cache` (default: temporary files).

    The file has no name once it is open, where the system allows that: its space is free again when the process ends,
    however it ends. Raises :class:`WriteError` where the disk has not enough space.
    """
    num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if num_bytes <= memory_limit(memory_bytes):
        return np.empty(shape, dtype)
    folder = Path(tempfile.gettempdir()) if cache is None else Path(cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < num_bytes:
            raise WriteError(_no_space(num_bytes, folder))
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="ganlib-", suffix=".npy")
        os.close(descriptor)
        try:
            items = np.lib.format.open_memmap(name, mode="w+", dtype=dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # Without it a disk that fills up later kills the process (SIGBUS) where it writes to the mapping.
                with open(name, "rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                os.unlink(name)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{_no_space(num_bytes, folder)} ({error.strerror or error})") from error
    return items


def _no_space(num_bytes: int, folder: Path) -> str:
    return (
        f"the items take {num_bytes / 2**20:,.0f} MiB, more than memory allows, and {folder} cannot hold them; "
        "pass cache= with a folder on a larger disk, or a smaller size="
    )


def check_loadable(num_bytes: int, name: str) -> None:
    """Refuse what would not fit in memory before it is read; raises :class:`DataError`."""
    if num_bytes > free_memory_bytes():
        raise DataError(
            f"{name} unpacks to {num_bytes / 2**20:,.0f} MiB, more than the free memory; "
            "store it as .npy, which is read from disk piece by piece"
        )
