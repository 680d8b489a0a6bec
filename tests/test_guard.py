"""Values that are not finite: each is caught in its step and named, and no update is made with it."""

import math

import pytest

from injection import PLACES, plant


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_a_value_that_is_not_finite_is_caught_in_its_step_and_named(place: str, seed: int):
    planted = plant(1000 * seed + PLACES.index(place), place)
    assert planted.right, planted
    assert planted.trouble is not None and not math.isfinite(planted.trouble.value)
    lasting = any(word in place for word in ("weight", "buffer", "average"))
    assert planted.trouble.lasting == lasting
