"""Programs that compute the same scores, imported where they are installed."""

import importlib
import importlib.util
import warnings
from types import ModuleType

import pytest
import torch

_declared: list[torch.library.Library] = []


def torch_fidelity(module: str) -> ModuleType:
    """A module of torch-fidelity; the test is skipped where it, or torchvision, which it imports, is not installed."""
    for package in ("torch_fidelity", "torchvision"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; not asked for, since torchvision may bring another torch")
    make_torchvision_import()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch_fidelity.{module}")


def make_torchvision_import() -> None:
    """Where it is installed but was built for another torch: torchvision imports if its operators are declared first.

    torchmetrics needs this too, since it imports torchvision wherever it finds one.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)  # for as long as the process, or the declaration goes
            importlib.import_module("torchvision")
