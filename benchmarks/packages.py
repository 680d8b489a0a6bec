"""Packages of others for the time of a benchmark: installed into a folder, with empty modules for what they lack."""

import abc
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path


class Anything(abc.ABCMeta):
    """A class that has every attribute: another such class."""

    def __getattr__(cls, name: str) -> "Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (Absent,), {})


class Absent(metaclass=Anything):
    """Stands for anything of a module that is not installed: it can be called and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __getattr__(self, name: str) -> Anything:
        return getattr(type(self), name)


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds empty modules for the names given, and for all below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if not any(name == stub or name.startswith(f"{stub}.") for stub in self.names):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


class Stub(types.ModuleType):
    def __getattr__(self, name: str) -> Anything:
        return getattr(Absent, name)


def install(packages: Sequence[str], folder: Path) -> None:
    """Put packages without their dependencies into a folder. Raises RuntimeError with the last error of pip."""
    if folder.exists() and any(folder.iterdir()):
        return
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(folder)]
    done = subprocess.run([*command, *packages], capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if "Error: " in line or line.startswith("ERROR: ")]
        raise RuntimeError(f"pip: {said[-1] if said else 'failed'}")


@contextlib.contextmanager
def importable(folder: Path, stubs: Sequence[str]) -> Iterator[None]:
    """The folder on the path of imports, and stubs for what is missing."""
    absent = [name for name in stubs if importlib.util.find_spec(name) is None]
    # Where TensorBoard is missing, torch's own door to it is there and raises.
    finder = Stubs([*absent, *(["torch.utils.tensorboard"] if "tensorboard" in absent else [])])
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, Stub)]:
            del sys.modules[name]
