"""How long a training lasts: a number of items, or a number of seconds turned into items as the speed becomes known."""

import time
from dataclasses import dataclass, field

RESERVE_SECONDS = 1.0
"""Kept for the last look and the last checkpoint where nothing is known of them yet."""


@dataclass
class Pace:
    """The budget of one call of fit. `used_seconds` are those of earlier calls on the same run."""

    items: int | None = None
    seconds: float | None = None
    used_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    reserve_seconds: float = RESERVE_SECONDS
    training_started: float | None = None
    first_items: int = 0
    idle_seconds: float = 0.0  # spent on looks and checkpoints since training began
    planned_at: float = 0.0

    def spent(self) -> float:
        """Seconds used of the budget, earlier calls included."""
        return self.used_seconds + time.monotonic() - self.started

    def begin(self, items_seen: int) -> None:
        """Training begins now: loading and building count in the budget, but not in the speed."""
        self.training_started, self.first_items = time.monotonic(), items_seen

    def speed(self, items_seen: int) -> float | None:
        """Items per second of training, without looks and checkpoints; None until it is known."""
        if self.training_started is None or items_seen <= self.first_items:
            return None
        seconds = time.monotonic() - self.training_started - self.idle_seconds
        return (items_seen - self.first_items) / seconds if seconds > 0 else None

    def pause(self, seconds: float) -> None:
        """A look or a checkpoint took so long; the last one will too."""
        self.idle_seconds += seconds
        self.reserve_seconds = max(self.reserve_seconds, seconds)

    def total_items(self, items_seen: int, now: int) -> int:
        """How many items the training will have seen at its end, replanned at every hundredth of the time."""
        if self.seconds is None:
            return now
        spent, speed = self.spent(), self.speed(items_seen)
        known = (
            speed is not None
            and self.training_started is not None
            and (time.monotonic() - self.training_started > min(3.0, 0.02 * self.seconds))
        )
        if not known or spent - self.planned_at < 0.01 * self.seconds:
            return now
        assert speed is not None
        self.planned_at = spent
        share_idle = self.idle_seconds / max(time.monotonic() - (self.training_started or 0), 1e-9)
        left = max(self.seconds - spent - self.reserve_seconds, 0.0) * (1 - min(share_idle, 0.5))
        return max(items_seen + int(speed * left), items_seen + 1)

    def over(self) -> bool:
        """True when the time is up but for what the end needs."""
        return self.seconds is not None and self.spent() + self.reserve_seconds >= self.seconds

    def finished(self, items_seen: int, total_items: int) -> bool:
        """True when an earlier call has used the budget already."""
        if self.seconds is None:
            return items_seen >= total_items
        return items_seen > 0 and self.used_seconds >= 0.97 * self.seconds - RESERVE_SECONDS
