"""Folders and zip archives of pictures: which files, in which order, of which class."""

import collections
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ganlib.data.dataset import Data
from ganlib.data.gather import Gathering, gather
from ganlib.data.images import SUFFIXES
from ganlib.data.store import Options
from ganlib.errors import DataError

MAX_MEMBERS = 1_000_000
MAX_RATIO, RATIO_FROM_BYTES = 100, 10_000_000
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX/)")
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key by which picture 9 comes before picture 10."""
    parts = re.split(r"([0-9]+)", name)
    numbers = (part.lstrip("0") for part in parts)  # compared by length, then digits: a name may have thousands
    return tuple((len(number), number) if i % 2 else (0, parts[i]) for i, number in enumerate(numbers))


def files_below(folder: Path, problems: list[tuple[str, str]]) -> Iterator[str]:
    """Names below `folder`, with "/" between parts, without hidden ones; what cannot be listed goes to `problems`.

    They come in the natural order of the whole names, and no more of them are held than one folder has. Links to files
    are followed, links to folders are not: they can lead in circles and out of the folder.
    """
    waiting = [iter([""])]
    while waiting:
        name = next(waiting[-1], None)
        if name is None:
            waiting.pop()
        elif name and not name.endswith("/"):
            yield name
        else:
            try:
                with os.scandir(folder / name) as entries:
                    # With its "/" a folder sorts among its neighbours as the names within it do.
                    below = [
                        f"{name}{e.name}/" if e.is_dir(follow_symlinks=False) else name + e.name
                        for e in entries
                        if not e.name.startswith(".") and not _leads_on(e)
                    ]
            except OSError as error:
                problems.append((printable(str(error.filename)), error.strerror or str(error)))
                continue
            waiting.append(iter(sorted(below, key=natural)))


def _leads_on(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to a folder, or the one in which macOS keeps what is no picture."""
    return entry.is_dir() and (entry.is_symlink() or entry.name == "__MACOSX")


def printable(name: str) -> str:
    """A file name as text that every terminal and file takes, also where it is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace") if os.name != "nt" else name.encode("utf-8", "replace").decode()


def from_folder(folder: Path, names: Sequence[str], labels: object, options: Options) -> Gathering:
    """The pictures among the files `names` of `folder`; first-level folders are classes if each picture is in one."""
    source = printable(str(folder))
    prefix = split_folder(_pictures_among(names, source), options.split)
    kept = [name for name in _pictures_among(names, source) if name.startswith(prefix)]
    kept = [name for name in kept if not _is_pipe(folder / name)]
    numbers, classes = _classes([name.removeprefix(prefix) for name in kept], labels)
    return Gathering(source, [printable(name) for name in kept], lambda i: folder / kept[i], numbers, classes)


def one_by_one(
    folder: Path, options: Options, problems: list[tuple[str, str]]
) -> tuple[Iterator[tuple[str, Path, int]], tuple[str, ...]]:
    """What :func:`from_folder` finds, name, file and class (-1 without) of each picture, and the classes.

    The folder is walked three times, so that its names are never all in memory. Raises :class:`DataError` where there
    are no pictures.
    """
    source = printable(str(folder))

    def pictures(prefix: str, found: list[tuple[str, str]]) -> Iterator[str]:
        for name in files_below(folder, found):
            if name.startswith(prefix) and is_picture(name) and not _is_pipe(folder / name):
                yield name.removeprefix(prefix)

    tops = _tops(pictures("", []))
    if not tops:
        _pictures_among(files_below(folder, []), source)  # raises, with what there is instead
    prefix = split_folder(tops, options.split)
    tops = _tops(pictures(prefix, []))
    found, classes = _classes(tops, None)
    numbers = dict(zip(tops, found, strict=True)) if isinstance(found, list) else {}
    return (
        (printable(prefix + name), folder / (prefix + name), numbers.get(_top(name), -1))
        for name in pictures(prefix, problems)
    ), classes


def _top(name: str) -> str:
    """The first-level folder of a name, with its "/"; one word for all that are in none."""
    return name.split("/")[0] + "/" if "/" in name else "."


def _tops(names: Iterable[str]) -> list[str]:
    return sorted({_top(name) for name in names})


def _is_pipe(path: Path) -> bool:
    """Reading a pipe may never end. A broken link is none, and is listed as unreadable."""
    return not os.path.isfile(path) and os.path.exists(path)


def is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def from_zip(path: Path, labels: object, options: Options) -> Data:
    """The pictures in a zip archive, by the rules of a folder; nothing is unpacked to disk."""
    with opened_zip(path, labels, options) as pictures:
        return gather(pictures, options)


@contextmanager
def opened_zip(path: Path, labels: object, options: Options) -> Iterator[Gathering]:
    """The pictures in a zip archive while it is open.

    Raises :class:`DataError` for an archive that is damaged, encrypted, or has members that reach outside of it.
    """
    source = printable(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in check_archive(archive, source)}
            names = sorted((name for name in members if not _HIDDEN.search(name)), key=natural)
            kept = _pictures_among(names, source)
            # Most archives hold one folder: its name is that of the data, not of a class.
            prefix = _common_folder(kept)
            prefix += split_folder([name.removeprefix(prefix) for name in kept], options.split)
            kept = [name for name in kept if name.startswith(prefix)]
            numbers, classes = _classes([name.removeprefix(prefix) for name in kept], labels)
            yield Gathering(source, kept, lambda i: archive.read(members[kept[i]]), numbers, classes)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise DataError(
            f"{source} is not a zip archive that can be read ({error}); make or download it again"
        ) from error


def check_archive(archive: zipfile.ZipFile, source: str) -> list[zipfile.ZipInfo]:
    """The files in an archive; raises :class:`DataError` where one is unsafe to read, or all are too large."""
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{source} has {len(members)} members; at most {MAX_MEMBERS} are read: use a folder")
    seen: set[str] = set()
    for info in members:
        problem = _problem(info)
        if info.filename in seen:
            problem = "its name appears twice"
        if problem:
            raise DataError(
                f"{source} holds the member {info.filename!r}: {problem}; make the archive again without it"
            )
        seen.add(info.filename)
    unpacked, packed = sum(info.file_size for info in members), sum(info.compress_size for info in members)
    if unpacked > RATIO_FROM_BYTES and unpacked > MAX_RATIO * packed:
        raise DataError(
            f"{source} unpacks from {packed:,} to {unpacked:,} bytes; at most {MAX_RATIO} times its size is read: "
            "unpack it yourself if you trust it, and pass the folder"
        )
    return members


def _problem(info: zipfile.ZipInfo) -> str:
    name = info.orig_filename
    if "\0" in name or "\\" in name or re.match(r"[A-Za-z]:", name) or name.startswith("/"):
        return "its path is not relative"
    if ".." in PurePosixPath(name).parts:
        return "its path leads out of the archive"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.create_system == 3 and kind not in (0, stat.S_IFREG):
        return "it is a link or device"
    return ""


def _pictures_among(names: Iterable[str], source: str) -> list[str]:
    names = list(names)
    kept = [name for name in names if is_picture(name)]
    if not kept:
        kinds = collections.Counter(PurePosixPath(name).suffix.lower() or "no extension" for name in names)
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "no files"
        raise DataError(
            f"{source} has no pictures, but {found}; "
            f"accepted are {', '.join(sorted(SUFFIXES))}, IDX and CIFAR files, or one .npz of images"
        )
    return kept


def split_folder(names: Sequence[str], split: str) -> str:
    """The folder of the split with its "/", where all first-level folders are splits; else nothing."""
    tops = {name.split("/")[0] for name in names}
    known = {word for words in _SPLITS.values() for word in words}
    if not all("/" in name for name in names) or not {top.lower() for top in tops} <= known:
        if split != "train":
            raise DataError(f"there are no folders named after splits, so split={split!r} means nothing; leave it out")
        return ""
    for word in _SPLITS.get(split, (split,)):
        for top in sorted(tops):
            if top.lower() == word:
                return top + "/"
    raise DataError(f"no pictures for split={split!r}; there are the folders {', '.join(sorted(tops))}")


def _common_folder(names: Sequence[str]) -> str:
    """The folder that all names are in, with its "/", or nothing."""
    shared = list(PurePosixPath(names[0]).parts[:-1])
    for name in names:
        parts = PurePosixPath(name).parts[:-1]
        while list(parts[: len(shared)]) != shared:
            shared.pop()
    return "".join(f"{part}/" for part in shared)


def _classes(names: Sequence[str], labels: object) -> tuple[object, tuple[str, ...]]:
    """The class numbers and names that the folders give, unless `labels` are given."""
    if labels is not None:
        return labels, ()
    tops = [name.split("/")[0] for name in names if "/" in name]
    classes = sorted(set(tops), key=natural)
    if len(tops) < len(names) or len(classes) < 2:
        return None, ()
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[top] for top in tops], tuple(printable(name) for name in classes)
