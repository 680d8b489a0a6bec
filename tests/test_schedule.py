"""A schedule is a function of the share of the run alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganlib.core import Schedule, constant

shares = st.floats(0, 1)
values = st.floats(-1e3, 1e3)
shapes = st.sampled_from(["cosine", "linear"])


@given(values, st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_constant_does_not_move(value: float, items_seen: int, total_items: int):
    assert constant(value)(items_seen, total_items) == value


@given(values, values, shapes)
def test_it_begins_at_start_and_ends_at_end_and_stays_there(start: float, end: float, shape):
    schedule = Schedule(start, end, shape=shape)
    assert schedule(0, 1000) == start
    assert schedule(1000, 1000) == pytest.approx(end, abs=1e-9)
    assert schedule(5000, 1000) == schedule(1000, 1000)


def test_between_it_is_half_a_cosine_or_a_line():
    cosine, line = Schedule(1.0, 3.0), Schedule(1.0, 3.0, shape="linear")
    for share in (0.1, 0.25, 0.5, 0.8):
        seen = int(share * 1000)
        assert line(seen, 1000) == pytest.approx(1 + 2 * share)
        assert cosine(seen, 1000) == pytest.approx(1 + 2 * math.sin(math.pi * share / 2) ** 2)


@given(shapes)
def test_it_moves_only_between_its_shares(shape):
    schedule = Schedule(2.0, 1.0, begin=0.25, until=0.75, shape=shape)
    assert [schedule(seen, 100) for seen in (0, 25, 75, 100)] == pytest.approx([2, 2, 1, 1])
    assert schedule(50, 100) == pytest.approx(1.5)
    assert 1 < schedule(74, 100) < schedule(26, 100) < 2


@given(values, values, shapes, shares, shares, st.integers(0, 1000), st.integers(0, 1000))
def test_it_stays_between_its_ends_and_never_turns_back(start, end, shape, one, other, first, second):
    schedule = Schedule(start, end, begin=min(one, other), until=max(one, other), shape=shape)
    early, late = schedule(min(first, second), 1000), schedule(max(first, second), 1000)
    assert min(start, end) - 1e-9 <= early <= max(start, end) + 1e-9
    assert (late - early) * (end - start) >= -1e-6


@given(values, values, shapes, st.integers(1, 100), st.integers(0, 100))
def test_only_the_share_of_the_run_counts(start, end, shape, times, seen):
    schedule = Schedule(start, end, shape=shape)
    assert schedule(seen, 100) == pytest.approx(schedule(seen * times, 100 * times), rel=1e-9, abs=1e-9)


def test_a_step_at_one_share_and_a_run_without_items_are_defined():
    step = Schedule(0.0, 1.0, begin=0.5, until=0.5)
    assert [step(seen, 100) for seen in (0, 49, 51, 100)] == pytest.approx([0, 0, 1, 1])
    assert Schedule(1.0, 2.0)(0, 0) == 1.0
