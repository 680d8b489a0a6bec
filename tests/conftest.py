"""What all tests share: one thread each, and the real data where they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from other_libraries import make_torchvision_import

torch.set_num_threads(1)
make_torchvision_import()  # before any test imports torchmetrics

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA}; this test reads them from there")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encoders that tests learn go to a folder of theirs, not to the user's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GANLIB_HOME", str(tmp_path_factory.mktemp("home")))
        yield
