"""How long a training lasts: a number of items, or a number of seconds turned into items as the speed becomes known."""

import time
from dataclasses import dataclass

from ganlib.errors import UsageError

LOOK_SHARE = 0.06
"""Looks and checkpoints in between may take this share of a budget in time."""


@dataclass
class Pace:
    """The budget of one call of fit. `used_seconds` are those of earlier calls on the same run.

    With `processor` all seconds are those of this process on the processor, of all its threads together, so that a
    busy machine does not shorten the training.
    """

    items: int | None = None
    seconds: float | None = None
    used_seconds: float = 0.0
    started: float | None = None
    processor: bool = False
    look_seconds: float = 0.5  # what the last look and the last checkpoint took; guesses before the first
    save_seconds: float = 0.5
    measured_from: float | None = None  # the speed is measured from here on
    measured_items: int = 0
    idle_seconds: float = 0.0  # spent on looks and checkpoints since then
    planned_at: float = 0.0
    looked_items: int = 0  # where the last look was

    def __post_init__(self) -> None:
        self.started = self.now() if self.started is None else self.started

    def now(self) -> float:
        """Seconds on the clock that the budget is kept by."""
        return time.process_time() if self.processor else time.monotonic()

    def spent(self) -> float:
        """Seconds used of the budget, earlier calls included."""
        return self.used_seconds + self.now() - (self.started or 0.0)

    def begin(self, items_seen: int) -> None:
        """Measure the speed from now on: loading and building count in the budget, but not in the speed."""
        self.measured_from, self.measured_items, self.idle_seconds = self.now(), items_seen, 0.0

    def speed(self, items_seen: int) -> float | None:
        """Items per second of training, without looks and checkpoints; None until it is known."""
        if self.measured_from is None or items_seen <= self.measured_items:
            return None
        seconds = self.now() - self.measured_from - self.idle_seconds
        return (items_seen - self.measured_items) / seconds if seconds > 0 else None

    def pause(self, seconds: float) -> None:
        """A look or a checkpoint took so long."""
        self.idle_seconds += seconds

    def affords_look(self, items_seen: int, between_items: float) -> bool:
        """False where another look would take more than its share of the time that is given, or come too soon.

        `between_items` lie between looks. Where a plan grows, the place of the last look is reached once more.
        """
        if self.seconds is None:
            return True
        if self.spent() < 0.05 * self.seconds or 0 <= items_seen - self.looked_items < 0.5 * between_items:
            return False  # at first the plan is still a guess
        return self.idle_seconds + self.look_seconds <= LOOK_SHARE * max(self.spent(), 0.3 * self.seconds)

    def total_items(self, items_seen: int, now: int) -> int:
        """How many items the training will have seen at its end, replanned at every hundredth of the time."""
        speed, spent = self.speed(items_seen), self.spent()
        if self.seconds is None or speed is None or self.measured_from is None:
            return now
        known = self.now() - self.measured_from > min(3.0, 0.02 * self.seconds)
        if not known or spent - self.planned_at < 0.01 * self.seconds:
            return now
        if self.planned_at == 0.0:
            self.begin(items_seen)  # the first steps warm up; they say little of the others
        self.planned_at = spent
        left = max(self.seconds - spent - self.reserve(), 0.0)
        return max(items_seen + int(speed * left * (1 - 0.5 * LOOK_SHARE)), items_seen + 1)

    def reserve(self) -> float:
        """Seconds that the end will take: a look and a checkpoint."""
        return self.look_seconds + self.save_seconds

    def over(self) -> bool:
        """True when the time is up but for what the end needs."""
        return self.seconds is not None and self.spent() + self.reserve() >= self.seconds

    def finished(self, items_seen: int, total_items: int) -> bool:
        """True when an earlier call has used the budget already."""
        if self.seconds is None:
            return items_seen >= total_items
        return items_seen > 0 and self.used_seconds >= 0.97 * self.seconds - 1.0


def pace_of(items: int | None, minutes: float | None, cpu_seconds: float | None, device: str) -> Pace:
    """The pace of one budget, or of none. Raises :class:`UsageError` for two, and for one that is no training."""
    given = {"items": items, "minutes": minutes, "cpu_seconds": cpu_seconds}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"give {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}")
    for name, value in given.items():
        if value < 1 if name == "items" else not 0 < value < 1e9:
            raise UsageError(f"{name}={value}: a budget must be over 0")
    if cpu_seconds is not None and device != "cpu":
        raise UsageError(f"cpu_seconds is a budget on the processor, not on {device}; pass device cpu, or minutes")
    seconds = 60 * minutes if minutes is not None else cpu_seconds
    return Pace(items, seconds, processor=cpu_seconds is not None)
