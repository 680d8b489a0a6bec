"""A budget in minutes: kept on a clock that the test turns, with looks and checkpoints of any cost."""

import itertools

import pytest

from ganlib import pace
from ganlib.errors import UsageError
from ganlib.fitting import look_due, num_looks
from ganlib.pace import Pace, pace_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.processor = 50.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.processor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def simulate(clock: Clock, budget: float, *, step: float, look: float, save: float, used: float = 0.0):
    """What fitting.fit does with a pace, in a world where everything takes as long as it is told to."""
    this = Pace(seconds=budget, used_seconds=used, started=clock.now)
    this.begin(0)
    items, total, training, looks = 0, 10**6, 0.0, 0
    while True:
        clock.now += step
        training += step
        items += 32
        total = this.total_items(items, total)
        over = this.over()
        if over or (look_due(items, 32, total) and this.affords_look(items, total / num_looks(total))):
            clock.now += look
            this.look_seconds, this.looked_items = look, items
            this.pause(look)
            clock.now += save
            this.save_seconds = save
            this.pause(save)
            looks += 1
        if over or this.over() or items >= total:
            return this.spent(), training, looks, items, total


@pytest.mark.parametrize("look", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("budget", [30.0, 120.0, 600.0])
def test_the_time_is_kept_and_mostly_spent_training(clock: Clock, budget: float, look: float) -> None:
    spent, training, looks, items, total = simulate(clock, budget, step=0.05, look=look, save=0.5)
    assert spent <= budget + look + 0.5 + 0.1  # at worst the first look was dearer than anybody could know
    assert spent >= 0.9 * budget - look
    assert training >= 0.75 * (budget - 2 * look - 2)
    assert looks >= 1
    assert items >= 0.8 * total, "the schedules did not come to their end"


def test_the_plan_follows_the_speed(clock: Clock) -> None:
    this = Pace(seconds=100.0, started=clock.now)
    this.begin(0)
    clock.now += 10
    this.total_items(100, 7)  # warm-up at ten items a second is forgotten
    clock.now += 10
    assert this.total_items(1100, 7) == pytest.approx(1100 + 100 * (100 - 20 - 1) * 0.97, rel=0.01)


def test_time_spent_before_counts(clock: Clock) -> None:
    spent, training, *_ = simulate(clock, 100.0, step=0.05, look=0.1, save=0.1, used=60.0)
    assert 95 <= spent <= 101 and training <= 41
    assert Pace(seconds=100.0, used_seconds=99.0).finished(10, 20)
    assert not Pace(seconds=100.0, used_seconds=60.0).finished(10, 20)


@pytest.mark.parametrize(("slow", "share"), [(3.0, 0.05), (3.0, 0.1), (0.5, 0.1), (2.0, 0.2)])
def test_a_plan_that_grows_brings_no_look_twice(clock: Clock, slow: float, share: float) -> None:
    """Another program slows the start: the total, and with it the places of looks, move away from where they were."""
    this, items, total, looks = Pace(seconds=120.0, started=clock.now), 0, 10**6, []
    this.begin(0)
    while not this.over() and items < total:
        clock.now += 0.05 * (slow if this.spent() < share * 120 else 1)
        items += 32
        total = this.total_items(items, total)
        between = total / num_looks(total)
        if look_due(items, 32, total) and this.affords_look(items, between):
            assert not looks or items - looks[-1] >= 0.5 * between
            looks.append(items)
            clock.now += 0.1
            this.look_seconds, this.looked_items = 0.1, items
            this.pause(0.1)
    gaps = [(later - earlier) / total * 25 for earlier, later in itertools.pairwise(looks)]
    assert 15 <= len(looks) <= 26 and max(gaps[3:]) < 2


def test_after_a_rollback_looks_come_as_before_it(clock: Clock) -> None:
    this = Pace(seconds=100.0, started=clock.now, looked_items=5000)
    clock.now += 20
    assert this.affords_look(3000, 1000) and not this.affords_look(5400, 1000) and this.affords_look(5500, 1000)


def test_a_budget_in_items_is_never_replanned(clock: Clock) -> None:
    this = Pace(items=500, started=clock.now)
    this.begin(0)
    clock.now += 1000
    assert this.total_items(100, 500) == 500 and not this.over() and this.affords_look(100, 20)
    assert this.finished(500, 500) and not this.finished(499, 500)


def test_looks_are_at_the_same_items_however_the_run_was_stopped() -> None:
    places = [items for items in range(32, 6401, 32) if look_due(items, 32, 6400)]
    assert places == [256 * k for k in range(1, 26)]


def test_a_budget_on_the_processor_does_not_run_while_others_use_the_machine(clock: Clock):
    this = pace_of(None, None, 100.0, "cpu")
    this.begin(0)
    clock.now += 5000.0
    assert this.spent() == 0 and not this.over()
    clock.processor += 10.0
    assert this.spent() == 10 and this.speed(640) == 64
    clock.processor += 90.0
    assert this.over()


@pytest.mark.parametrize(
    ("given", "device", "told"),
    [
        ((10, 1.0, None), "cpu", "items or minutes"),
        ((None, 1.0, 5.0), "cpu", "minutes or cpu_seconds"),
        ((0, None, None), "cpu", "items=0"),
        ((None, float("nan"), None), "cpu", "minutes=nan"),
        ((None, None, -1.0), "cpu", "cpu_seconds=-1"),
        ((None, None, 5.0), "cuda", "not on cuda"),
    ],
)
def test_a_budget_that_is_none_is_refused(given: tuple, device: str, told: str):
    with pytest.raises(UsageError, match=told):
        pace_of(*given, device)
