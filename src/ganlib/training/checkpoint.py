"""Checkpoints: folders that are whole and verified, or refused.

A checkpoint is a folder named after the items seen. It holds one safetensors file per group of tensors, ``facts.json``,
and ``manifest.json`` with the size and SHA-256 of each: safetensors alone loads a flipped bit without a word. The
manifest is sealed by a digest of its own, over everything else in it; a later format must keep ``format``, ``ganlib``
and the seal, so that "newer" and "damaged" can be told apart.

A folder is written under a temporary name, synced, and renamed, so a name without a dot is always whole. ``.tmp-`` is
being written, ``.del-`` is being deleted, ``.old-`` is being replaced and comes back if its replacement never came.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ganlib import __version__
from ganlib.errors import DamagedError, MissingError, RunError, UsageError
from ganlib.files import explained, sync_folder, write_new
from ganlib.training.team import Team

FORMAT = 1
MANIFEST, FACTS, SUFFIX = "manifest.json", "facts.json", ".safetensors"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_LITTER = re.compile(
    r"\.DS_Store|\._.*|\.nfs.*|Thumbs\.db|desktop\.ini"
)  # put there by file managers and network disks
_MAX_MANIFEST_BYTES = 1 << 20

Tensors = dict[str, dict[str, Tensor]]
"""Tensors by group, one file each, and by name."""


class Checkpoint(NamedTuple):
    """What one checkpoint holds, and where it lies."""

    path: Path
    tensors: Tensors
    facts: dict[str, Any]


def name(items_seen: int) -> str:
    """The name of the checkpoint made after `items_seen`, which sorts as text up to 12 digits."""
    if items_seen < 0:
        raise UsageError(f"items_seen is {items_seen}; a checkpoint needs 0 or more")
    return f"{items_seen:012d}"


def listed(root: Path) -> list[Path]:
    """The checkpoints in `root`, whole by their names, by items seen; clocks and dates of files play no part."""
    if not Path(root).is_dir():
        return []
    found = [path for path in Path(root).iterdir() if re.fullmatch(r"[0-9]{12,}", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint that becomes visible only when all of it is on the disk.

    Raises :class:`WriteError` with the bytes needed and free where the disk is full; what was there stays as it was.
    """
    folder = Path(folder)
    for group in tensors:
        if not _PLAIN_NAME.fullmatch(group):
            raise UsageError(f"tensors named {group!r} cannot be a file; use letters, digits, '_', '-' and '.'")
    written_facts = (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode()
    needed_bytes = len(written_facts) + sum(tensor.nbytes for group in tensors.values() for tensor in group.values())
    temporary = folder.with_name(f".tmp-{folder.name}-{secrets.token_hex(4)}")
    with explained(folder, needed_bytes):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            entries = {FACTS: _write(temporary / FACTS, written_facts)}
            for group, members in tensors.items():
                entries[group + SUFFIX] = _write(temporary / (group + SUFFIX), _serialised(members))
            _write(temporary / MANIFEST, _sealed({"format": FORMAT, "ganlib": __version__, "files": entries}))
            sync_folder(temporary)
            _publish(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def load(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors, on the CPU, and the facts of a checkpoint, all verified before the first is used.

    Raises :class:`DamagedError` naming the file, what was expected and what was found; :class:`MissingError` where
    there is no such folder; :class:`RunError` where a newer ganlib wrote it.
    """
    folder = Path(folder)
    contents = {file: _content(folder / file, entry) for file, entry in _expected(folder).items()}
    # The bytes that were verified are the bytes that are parsed: nothing is read twice.
    facts = _parsed_facts(folder / FACTS, contents.pop(FACTS))
    tensors: Tensors = {}
    for file in list(contents):
        try:
            tensors[file.removesuffix(SUFFIX)] = safetensors.torch.load(contents.pop(file))
        except safetensors.SafetensorError as error:
            raise DamagedError(f"{folder / file} is not a safetensors file ({error}); delete {folder}") from error
    return tensors, facts


def newest(root: Path) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest checkpoint that verifies, None where there is none at all, and the damaged ones passed over, with why.

    Raises :class:`DamagedError` that lists all of them where every one is damaged. One of a newer ganlib raises
    :class:`RunError` and is not passed over: falling back from it would throw away what it holds.
    """
    folders = listed(root)
    skipped: list[tuple[Path, str]] = []
    for folder in reversed(folders):
        try:
            return Checkpoint(folder, *load(folder)), skipped
        except (DamagedError, MissingError) as error:
            skipped.append((folder, str(error)))
    if listed(root) != folders:  # read without the lock, while training saved and pruned
        return newest(root)
    if skipped:
        reasons = "; ".join(reason for _, reason in skipped)
        raise DamagedError(f"none of the {len(skipped)} checkpoints in {root} can be used: {reasons}")
    return None, []


def newest_healthy(root: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies and whose facts call it ``healthy``; None where there is none."""
    for folder in reversed(listed(root)):
        with contextlib.suppress(DamagedError, MissingError):
            if _facts(folder).get("healthy") is True:
                return Checkpoint(folder, *load(folder))
    return None


def of_first(found: Checkpoint | None, team: Team) -> Checkpoint | None:
    """What the first process found, to all of them: a checkpoint lies where that process is, and nowhere else."""
    if team.alone:
        return found
    facts = team.first(None if found is None else found.facts)
    tensors = team.tensors_of_first({} if found is None else found.tensors)
    return None if facts is None else Checkpoint(Path() if found is None else found.path, tensors, facts)


def discard_after(root: Path, items_seen: int) -> None:
    """Delete the checkpoints of a future that is given up, the newest first. Raises :class:`WriteError`."""
    for folder in reversed(listed(root)):
        if int(folder.name) > items_seen:
            with explained(folder):
                _discard(folder)


def passed_over(skipped: list[tuple[Path, str]]) -> list[str]:
    """What to tell the user of the damaged ones that :func:`newest` passed over."""
    return [f"{reason}; taking the one before it" for _, reason in skipped]


def prune(root: Path, keep: int = 2) -> None:
    """Delete all but the newest `keep`, the newest ``healthy`` one by its facts, and that of the smallest ``score``.

    Of several with one score the newest is the best.
    A visibly damaged checkpoint counts for nothing, and goes only where a good one stays. Digests of tensors are not
    checked here, which would read every byte again at every save. Raises :class:`WriteError`.
    """
    if keep < 1:
        raise UsageError(f"keep is {keep}; at least 1 checkpoint has to stay")
    folders = listed(root)
    scores: dict[Path, float | None] = {}
    healthy: list[Path] = []
    for folder in folders:
        with contextlib.suppress(DamagedError):
            facts = _facts(folder)
            scores[folder] = facts["score"] if isinstance(facts.get("score"), int | float) else None
            healthy += [folder] if facts.get("healthy") is True else []
    kept = set(list(scores)[-keep:] + healthy[-1:])
    scored = [(score, -int(folder.name), folder) for folder, score in scores.items() if score is not None]
    if scored:
        kept.add(min(scored)[2])
    for folder in folders if kept else []:
        if folder not in kept:
            with explained(folder):
                _discard(folder)


def clean(root: Path) -> None:
    """Remove what a killed process left half written or half deleted; only the holder of the lock may do so."""
    root = Path(root)
    with explained(root):
        for path in sorted(root.iterdir()) if root.is_dir() else []:
            original = path.with_name(path.name.removeprefix(".old-"))
            if path.name.startswith(".old-") and not original.exists():
                os.rename(path, original)
            elif path.name.startswith((".old-", ".tmp-")):
                _discard(path)
            elif path.name.startswith(".del-"):
                _delete(path)


def _serialised(members: Mapping[str, Tensor]) -> bytes:
    """One safetensors file. Tied weights and views become tensors of their own, which the format demands."""
    copies = {
        key: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, tensor in members.items()
    }
    # Not `save_file`: it hides the number of the error when the disk is full, and writes mode 0600.
    return safetensors.torch.save(copies)


def _write(path: Path, content: bytes) -> dict[str, Any]:
    """Write a new file and return its entry in the manifest: the digest of what was meant, not of what arrived."""
    write_new(path, content)
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as bytes, its own digest included."""
    seal = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return (json.dumps({**manifest, "seal": seal}, indent=2) + "\n").encode()


def _publish(temporary: Path, folder: Path) -> None:
    """Give the finished folder its name.

    Where the name is taken by the same content, verified, it stays: the safest write is none. Other content (a run
    resumed with other settings, or a damaged checkpoint) steps aside and comes back if the second rename fails.
    """
    if not os.path.lexists(folder):
        os.rename(temporary, folder)
        sync_folder(folder.parent)
        return
    with contextlib.suppress(DamagedError):
        expected = _expected(folder)
        if (folder / MANIFEST).read_bytes() == (temporary / MANIFEST).read_bytes():
            for file, entry in expected.items():
                _content(folder / file, entry)
            _delete(temporary)
            return
    aside = folder.with_name(f".old-{folder.name}")
    if os.path.lexists(aside):
        _discard(aside)
    os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except BaseException:
        os.rename(aside, folder)
        raise
    sync_folder(folder.parent)
    _discard(aside)


def _discard(path: Path) -> None:
    """Delete a folder so that a crash half-way leaves no part of it under a name that anybody reads."""
    doomed = path.with_name(f".del-{path.name.lstrip('.')}-{secrets.token_hex(4)}")
    os.rename(path, doomed)
    sync_folder(path.parent)
    _delete(doomed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _expected(folder: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file, once it is itself proven sound and the names in the folder agree with it."""
    if not folder.exists():
        raise MissingError(f"no checkpoint at {folder}; name a folder that holds {MANIFEST}")
    path, remedy = folder / MANIFEST, f"restore it or delete {folder}"
    raw = _read(path, limit_bytes=_MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(raw)
        seal = manifest.pop("seal")
        sound = _sealed(manifest) == raw
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        sound, manifest, seal = False, {}, None
    if not sound:
        raise DamagedError(f"{path} is damaged: its seal {str(seal)[:64]!r} does not fit its content; {remedy}")
    if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
        writer = manifest.get("ganlib")
        raise RunError(f"{folder} was written by ganlib {writer}, this is {__version__}; upgrade ganlib to read it")
    files = manifest.get("files")
    if not isinstance(files, dict) or FACTS not in files or not all(map(_is_entry, files, files.values())):
        raise DamagedError(f"{path} lists {files!r}; expected plain names with sha256 and bytes, {FACTS} too; {remedy}")
    try:
        found = {file for file in os.listdir(folder) if not _LITTER.fullmatch(file)} - {MANIFEST}
    except OSError as error:
        raise DamagedError(f"{folder} cannot be read ({error.strerror or error}); {remedy}") from error
    if extra := sorted(found - files.keys()):
        raise DamagedError(f"{folder / extra[0]} does not belong there: expected {sorted(files)}; take it out")
    for file, entry in files.items():
        _check_size(folder / file, entry)
    return files


def _is_entry(file: str, entry: object) -> bool:
    """Whether a line of the manifest is what `save` writes; a name never leaves the folder."""
    if not isinstance(entry, dict) or not (file == FACTS or file.endswith(SUFFIX)):
        return False
    plain = _PLAIN_NAME.fullmatch(file) is not None and file != MANIFEST
    return plain and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)


def _check_size(path: Path, entry: Mapping[str, Any]) -> None:
    try:
        found_bytes = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror or error}); change its permissions") from error
    if found_bytes != entry["bytes"]:
        raise DamagedError(
            f"{path} is damaged: expected a file of {entry['bytes']} bytes, found "
            f"{'no file' if found_bytes is None else f'{found_bytes} bytes'}; restore it or delete {path.parent}"
        )


def _content(path: Path, entry: Mapping[str, Any]) -> bytes:
    """The bytes of a file, proven to be those that were written."""
    content = _read(path, limit_bytes=entry["bytes"])
    found = hashlib.sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise DamagedError(
            f"{path} is damaged: expected SHA-256 {entry['sha256']}, found {found}; restore it or delete {path.parent}"
        )
    return content


def _facts(folder: Path) -> dict[str, Any]:
    """The facts alone, verified; the digests of the tensors are not looked at."""
    return _parsed_facts(folder / FACTS, _content(folder / FACTS, _expected(folder)[FACTS]))


def _parsed_facts(path: Path, content: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not valid JSON ({error}); delete {path.parent}") from error
    if not isinstance(facts, dict):
        raise DamagedError(f"{path} holds a {type(facts).__name__}; expected an object; delete {path.parent}")
    return facts


def _read(path: Path, limit_bytes: int) -> bytes:
    """At most one byte more than `limit_bytes`, so that a swapped file cannot fill the memory."""
    try:
        with open(path, "rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror or error}); delete {path.parent}") from error
