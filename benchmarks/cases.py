"""Recipes on random items, and their steps, as several benchmarks time them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ganlib.core import Batch, Plan
from ganlib.data import Data, load
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.dcgan import dcgan
from ganlib.recipes.r3 import r3
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create


@dataclass(frozen=True)
class Case:
    """A recipe on images of one shape."""

    recipe: Recipe
    shape: tuple[int, int, int]  # height, width, channels
    num_classes: int
    batch_items: int


CASES = {
    "r3_28": Case(r3(network="compact", batch_items=32), (28, 28, 1), 10, 32),
    "r3_32": Case(r3(network="compact", batch_items=32), (32, 32, 3), 10, 32),
    "dcgan_64": Case(dcgan(batch_items=64), (64, 64, 3), 0, 64),
}


@dataclass(frozen=True)
class Training:
    """A new training of a case."""

    state: State
    plan: Plan
    data: Data
    batches: Iterator[Batch]
    runtime: Runtime


def random_data(case: Case, num_items: int) -> Data:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_items, *case.shape), np.uint8)
    labels = np.arange(num_items) % case.num_classes if case.num_classes else None
    return load(images, labels)


def begin(case: Case, data: Data, runtime: Runtime) -> Training:
    """A new training on these items."""
    setting = Setting(data.spec, len(data), runtime.device.split(":")[0], conditional=case.num_classes > 0)
    plan = case.recipe.plan(setting)
    return Training(create(plan, runtime, 0, 10**9), plan, data, data.batches(case.batch_items, 0, 0), runtime)


def waited(device: str) -> Callable[[], None]:
    """What waits for the device, so that work is counted where it belongs."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None
