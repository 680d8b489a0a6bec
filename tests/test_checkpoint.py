"""Checkpoints are whole or refused: under kills, failing calls, flipped bits and full disks."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from ganlib import files
from ganlib.errors import DamagedError, MissingError, RunError, UsageError, WriteError
from ganlib.training import checkpoint

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux; runs in CI there")


def tensors_of(items: int) -> dict[str, dict[str, Tensor]]:
    return {
        "generator": {"weight": torch.full((16, 16), float(items)), "steps": torch.tensor(items)},
        "average": {"weight": torch.full((16, 16), items + 0.5)},
    }


def write(root: Path, items: int, **facts: Any) -> Path:
    checkpoint.save(root / checkpoint.name(items), tensors_of(items), {"items_seen": items, **facts})
    return root / checkpoint.name(items)


def assert_sound(root: Path) -> list[int]:
    """Every visible checkpoint verifies and holds its own numbers; returns their items."""
    found = []
    for folder in checkpoint.listed(root):
        tensors, facts = checkpoint.load(folder)
        items = int(folder.name)
        assert facts["items_seen"] == items
        assert torch.equal(tensors["generator"]["weight"], torch.full((16, 16), float(items)))
        found.append(items)
    return found


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as an attacker or a later ganlib could: with a seal that fits."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["seal"]
    change(manifest)
    manifest["seal"] = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, rng: torch.Generator) -> None:
    shared = torch.randn(4, 6, generator=rng)
    group = {
        "whole": shared,
        "tied": shared,
        "view": shared[1:3],
        "transposed": shared.t(),
        "expanded": torch.ones(1).expand(3, 2),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3, generator=rng).bfloat16(),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "flag": torch.tensor([True, False]),
        "trained": shared.clone().requires_grad_(),
    }
    facts = {"items_seen": 5, "score": 0.1 + 0.2, "classes": ["a", "é"], "nothing": None}
    checkpoint.save(tmp_path / "a", {"all": group, "none": {}}, facts)
    tensors, found = checkpoint.load(tmp_path / "a")
    assert found == facts and set(tensors) == {"all", "none"} and tensors["none"] == {}
    assert set(tensors["all"]) == set(group)
    for key, expected in group.items():
        actual = tensors["all"][key]
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, key
        assert safetensors.torch.save({"x": actual}) == safetensors.torch.save(
            {"x": expected.detach().clone(memory_format=torch.contiguous_format)}
        ), key
    tensors["all"]["whole"].zero_()
    assert torch.equal(tensors["all"]["tied"], shared), "loaded tensors must not share their storage"


def test_names_sort_by_items_and_dates_play_no_part(tmp_path: Path) -> None:
    for age, items in enumerate((10, 9, 2_000_000_000_000, 100)):
        os.utime(write(tmp_path, items), (1e9 - age, 1e9 - age))
    (tmp_path / "notes").mkdir()
    (tmp_path / ".tmp-000000000500-aa").mkdir()
    assert [int(path.name) for path in checkpoint.listed(tmp_path)] == [9, 10, 100, 2_000_000_000_000]
    assert checkpoint.name(9) == "000000000009"
    newest, skipped = checkpoint.newest(tmp_path)
    assert newest is not None and newest.facts["items_seen"] == 2_000_000_000_000 and skipped == []
    assert checkpoint.newest(tmp_path / "absent") == (None, [])
    with pytest.raises(UsageError, match="-1"):
        checkpoint.name(-1)


def test_newest_passes_over_damaged_ones_and_says_so(tmp_path: Path) -> None:
    folders = [write(tmp_path, items) for items in (1, 2, 3)]
    (folders[2] / "manifest.json").unlink()
    content = bytearray((folders[1] / "average.safetensors").read_bytes())
    content[-1] ^= 1
    (folders[1] / "average.safetensors").write_bytes(content)
    newest, skipped = checkpoint.newest(tmp_path)
    assert newest is not None and newest.path == folders[0]
    assert [path for path, _ in skipped] == [folders[2], folders[1]]
    assert "manifest.json" in skipped[0][1] and "average.safetensors" in skipped[1][1]
    (folders[0] / "facts.json").unlink()
    with pytest.raises(DamagedError) as caught:
        checkpoint.newest(tmp_path)
    assert all(str(folder) in str(caught.value) for folder in folders) and "\n" not in str(caught.value)


def test_a_newer_format_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    reseal(folder, lambda manifest: manifest.update(format=2, ganlib="9.1"))
    for read in (lambda: checkpoint.load(folder), lambda: checkpoint.newest(tmp_path)):
        with pytest.raises(RunError, match=r"written by ganlib 9\.1.*upgrade"):
            read()


@pytest.mark.parametrize(
    "file", ["../out.safetensors", "/out.safetensors", "..", "a/b.safetensors", "a\\b.safetensors"]
)
def test_names_in_a_manifest_never_leave_the_folder(tmp_path: Path, file: str) -> None:
    folder = write(tmp_path, 1)
    shutil.copy(folder / "average.safetensors", tmp_path / "out.safetensors")
    entry = json.loads((folder / "manifest.json").read_text())["files"]["average.safetensors"]
    reseal(folder, lambda manifest: manifest["files"].update({file: entry}))
    with pytest.raises(DamagedError, match="plain names"):
        checkpoint.load(folder)
    with pytest.raises(UsageError, match="cannot be a file"):
        checkpoint.save(tmp_path / "x", {file: {}}, {})


def test_what_is_no_checkpoint_gets_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "absent")
    folder = write(tmp_path, 1)
    for change in (
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest["files"].pop("facts.json"),
        lambda manifest: manifest["files"].update({"facts.json": {"sha256": 1, "bytes": "x"}}),
        lambda manifest: manifest.pop("files"),
    ):
        shutil.copytree(folder, tmp_path / "copy")
        reseal(tmp_path / "copy", change)
        with pytest.raises(DamagedError):
            checkpoint.load(tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy")
    (folder / ".DS_Store").touch()
    checkpoint.load(folder)
    content = b"\xff" * 64
    (folder / "average.safetensors").write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": 64}
    reseal(folder, lambda manifest: manifest["files"].update({"average.safetensors": entry}))
    with pytest.raises(DamagedError, match="not a safetensors file"):
        checkpoint.load(folder)


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for items, score in ((1, 3.0), (2, 1.0), (3, 1.0), (4, None), (5, 2.0), (6, 2.0)):
        write(tmp_path, items, score=score)
    checkpoint.prune(tmp_path)
    assert assert_sound(tmp_path) == [3, 5, 6] and leftovers(tmp_path) == []
    checkpoint.prune(tmp_path, keep=1)
    assert assert_sound(tmp_path) == [3, 6]
    (tmp_path / checkpoint.name(6) / "generator.safetensors").unlink()  # counts for nothing: 3 is now the newest
    checkpoint.prune(tmp_path, keep=1)
    assert assert_sound(tmp_path) == [3]
    (tmp_path / checkpoint.name(3) / "generator.safetensors").unlink()
    checkpoint.prune(tmp_path, keep=1)
    assert [int(path.name) for path in checkpoint.listed(tmp_path)] == [3], "the last is left for people to look at"
    with pytest.raises(UsageError):
        checkpoint.prune(tmp_path, keep=0)


def test_saving_the_same_again_touches_nothing_and_other_content_replaces(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, score=1.0)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    write(tmp_path, 1, score=1.0)
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    write(tmp_path, 1, score=2.0)
    assert checkpoint.load(folder)[1]["score"] == 2.0
    content = (folder / "average.safetensors").read_bytes()
    for damage in (b"", content[:-1] + bytes([content[-1] ^ 1])):
        (folder / "average.safetensors").write_bytes(damage)
        write(tmp_path, 1, score=2.0)
        assert (folder / "average.safetensors").read_bytes() == content
    assert assert_sound(tmp_path) == [1] and leftovers(tmp_path) == []


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    for umask, expected in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(umask)
        try:
            folder = write(tmp_path, umask)
            files.write_json(tmp_path / f"{umask}.json", {})
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (*folder.iterdir(), tmp_path / f"{umask}.json")}
        assert len(modes) == 5 and set(modes.values()) == {expected}, modes
        assert folder.stat().st_mode & 0o777 == expected | 0o111 & ~umask


MUTATIONS = ("flip", "zero", "truncate", "append", "delete", "extra", "swap", "older manifest", "mix")


def mutate(folder: Path, other: Path, kind: str, rng: random.Random) -> None:
    file = rng.choice(sorted(folder.iterdir()))
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    if kind == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        end = min(place + rng.choice((1, 16, 512)), len(content))
        content[place:end] = bytes(end - place)
    elif kind == "truncate":
        del content[place:]
    elif kind == "append":
        content += rng.randbytes(rng.choice((1, 100)))
    if kind == "delete":
        file.unlink()
    elif kind == "extra":
        (folder / rng.choice(("other.safetensors", "facts.json.bak", "x", ".hidden"))).write_bytes(bytes(content))
    elif kind == "swap":
        shutil.copy(other / file.name, file)
    elif kind == "older manifest":
        shutil.copy(other / "manifest.json", folder)
    elif kind == "mix":
        shutil.copy(folder / "average.safetensors", folder / "generator.safetensors")
    else:
        file.write_bytes(content)


def test_no_mutation_goes_undetected_or_reaches_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, other, work = write(tmp_path, 2), write(tmp_path, 1), tmp_path / "work"
    sound = {path.name: path.read_bytes() for path in original.iterdir()}
    monkeypatch.setattr(safetensors.torch, "load", lambda content: pytest.fail("parsed before all was verified"))
    rng, tried, kinds = random.Random(0), 0, set()
    while tried < 200:
        kind = MUTATIONS[tried % len(MUTATIONS)]
        shutil.copytree(original, work)
        mutate(work, other, kind, rng)
        if {path.name: path.read_bytes() for path in work.iterdir()} != sound:  # zeroing zeros changes nothing
            tried += 1
            kinds.add(kind)
            with pytest.raises(DamagedError, match=str(work)) as caught:
                checkpoint.load(work)
            assert "\n" not in str(caught.value)
        shutil.rmtree(work)
    assert kinds == set(MUTATIONS)


def test_no_byte_of_a_manifest_can_change_unnoticed(tmp_path: Path) -> None:
    path = write(tmp_path, 1) / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
            checkpoint.load(path.parent)


def test_newest_looks_again_where_training_went_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    load = checkpoint.load

    def overtaken(folder: Path) -> Any:
        if folder.name == checkpoint.name(1):
            write(tmp_path, 2)
            checkpoint.prune(tmp_path, keep=1)
        return load(folder)

    monkeypatch.setattr(checkpoint, "load", overtaken)
    newest, skipped = checkpoint.newest(tmp_path)
    assert newest is not None and newest.facts["items_seen"] == 2 and skipped == []


class Dead(BaseException):
    """Stands for a killed process: nothing that runs afterwards can touch the disk."""


CALLS = ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "open")


class Bomb:
    """Lets the n-th call that changes the disk fail: once with an error, or that one and all after it as if killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, kill: bool) -> None:
        self.count, self.at, self.kill = 0, at, kill
        for name in CALLS[:-1]:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))
        monkeypatch.setattr(files, "open", self._wrapped(open), raising=False)

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.kill and self.count >= self.at:
                raise Dead
            if self.count == self.at:
                raise OSError(errno.EIO, "Input/output error")
            return call(*args, **kwargs)

        return wrapped


def sweep(template: Path, work: Path, action: Callable[[], object], *, kill: bool) -> Iterator[bool]:
    """Run `action` on a fresh copy once for every point at which it can fail; yields whether the failure was seen."""
    for at in range(1, 500):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work)
        with pytest.MonkeyPatch.context() as monkeypatch:
            bomb = Bomb(monkeypatch, at, kill=kill)
            try:
                action()
            except (Dead, WriteError):
                failed = True
            else:
                failed = False
        if bomb.count < at:
            assert at > 3, "the sweep met no call at all"
            return
        yield failed
    pytest.fail("the action never ended")


@pytest.mark.parametrize("kill", [False, True])
def test_every_point_of_failure_leaves_whole_checkpoints(tmp_path: Path, kill: bool) -> None:
    template, work = tmp_path / "template", tmp_path / "work"
    for items in (1, 2):
        write(template, items)

    def action() -> None:
        checkpoint.clean(work)
        write(work, 3, attempt=0)
        write(work, 3, attempt=1)
        checkpoint.prune(work)

    num_failed = 0
    for failed in sweep(template, work, action, kill=kill):
        num_failed += failed
        assert len(assert_sound(work)) >= 2
        checkpoint.clean(work)
        assert leftovers(work) == [] and len(assert_sound(work)) >= 2
        action()
        assert assert_sound(work) == [2, 3] and checkpoint.load(work / checkpoint.name(3))[1]["attempt"] == 1
    assert num_failed >= 30


@pytest.mark.parametrize("kill", [False, True])
def test_replacing_the_only_checkpoint_never_loses_it(tmp_path: Path, kill: bool) -> None:
    template, work = tmp_path / "template", tmp_path / "work"
    write(template, 3, attempt=0)
    seen = set()
    for _ in sweep(template, work, lambda: write(work, 3, attempt=1), kill=kill):
        checkpoint.clean(work)
        assert assert_sound(work) == [3] and leftovers(work) == []
        seen.add(checkpoint.load(work / checkpoint.name(3))[1]["attempt"])
    assert seen == {0, 1}


@pytest.mark.parametrize("kill", [False, True])
def test_cleaning_can_be_interrupted(tmp_path: Path, kill: bool) -> None:
    template, work = tmp_path / "template", tmp_path / "work"
    for items in (1, 2, 3, 4):
        write(template, items)
    os.rename(template / checkpoint.name(2), template / ".tmp-000000000002-aa")
    os.rename(template / checkpoint.name(3), template / ".del-000000000003-bb")
    os.rename(template / checkpoint.name(4), template / ".old-000000000004")
    (template / ".tmp-recipe.json-cc").write_text("{")
    for _ in sweep(template, work, lambda: checkpoint.clean(work), kill=kill):
        assert set(assert_sound(work)) <= {1, 4}
        checkpoint.clean(work)
        assert assert_sound(work) == [1, 4] and leftovers(work) == []


@ON_LINUX
def test_content_is_durable_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        calls.append(("rename", Path(source).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    write(tmp_path, 1)
    content = {("fsync", name) for name in ("generator.safetensors", "average.safetensors", "facts.json")}
    assert set(calls[:3]) == content and calls[3] == ("fsync", "manifest.json")
    assert calls[4][0] == "fsync" and calls[4][1].startswith(".tmp-") and calls[5] == ("rename", calls[4][1])
    assert calls[6:] == [("fsync", tmp_path.name)]


SERVER = """
import os, sys, torch
from pathlib import Path
from ganlib.training import checkpoint
sys.path.insert(0, sys.argv[1])
from test_checkpoint import write
torch.set_num_threads(1)

def live(root):
    checkpoint.clean(root)
    items = int(checkpoint.listed(root)[-1].name)
    while True:
        items += 1
        write(root, items, attempt=0)
        write(root, items, attempt=1)
        checkpoint.prune(root)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(Path(line.strip()))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@ON_LINUX
def test_twenty_kills_leave_no_unreadable_checkpoint(tmp_path: Path) -> None:
    root, rng = tmp_path / "checkpoints", random.Random(0)
    write(root, 1)
    command = [sys.executable, "-W", "ignore", "-c", SERVER, str(Path(__file__).parent)]
    num_interrupted, last = 0, 1
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        for _ in range(20):
            server.stdin.write(f"{root}\n")
            server.stdin.flush()
            child = int(server.stdout.readline())
            time.sleep(0.02 + rng.random() * 0.15)
            os.kill(child, signal.SIGKILL)
            assert server.stdout.readline() == "dead\n"
            num_interrupted += bool(leftovers(root))
            found = assert_sound(root)
            newest, skipped = checkpoint.newest(root)
            assert newest is not None and skipped == [] and int(newest.path.name) == max(found) >= last
            checkpoint.clean(root)
            assert leftovers(root) == [] and assert_sound(root)[-1] >= max(found)
            last = max(found)
        server.stdin.close()
    assert last > 20, "the saves made no headway, so that the kills proved nothing"
    assert num_interrupted >= 5, "too few kills landed within a save to prove anything"


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str) -> Any:
        if Path(path).suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode)

    monkeypatch.setattr(files, "open", full, raising=False)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = sys.platform.startswith("linux") and shutil.which("mount") is not None
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can mount a small disk; the test beside this one fakes it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_full_disk_is_told(root: Path, needed_bytes: int) -> None:
    with pytest.raises(WriteError, match=r"needs \d+ bytes, \d+ bytes are free; free some space") as caught:
        checkpoint.save(root / checkpoint.name(2), {"big": {"weight": torch.zeros(needed_bytes // 4)}}, {})
    told = [int(word) for word in str(caught.value).split() if word.isdigit()]
    assert needed_bytes <= told[0] <= needed_bytes + 1000
    assert "No space left" in str(caught.value) and "\n" not in str(caught.value)
    assert assert_sound(root) == [1] and leftovers(root) == []


def test_a_full_disk_is_told_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    fill(monkeypatch)
    assert_full_disk_is_told(tmp_path, 400_000)


def test_a_really_full_disk_is_told_in_bytes(tiny_disk: Path) -> None:
    write(tiny_disk, 1)
    assert_full_disk_is_told(tiny_disk, 400_000)
    write(tiny_disk, 3)
    assert assert_sound(tiny_disk) == [1, 3]
