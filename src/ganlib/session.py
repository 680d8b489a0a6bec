"""What one call of fit works with."""

import signal
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ganlib.core import Plan
from ganlib.data import Data
from ganlib.pace import Pace
from ganlib.sampling import Sampler
from ganlib.stopping import StopWish
from ganlib.training.checkpoint import Checkpoint
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime, seed_of
from ganlib.training.state import State
from ganlib.training.team import Team

CHECKPOINT_SECONDS = 60.0


@dataclass
class Session:
    """What one call of fit works with."""

    plan: Plan
    state: State
    data: Data
    validation: Data | None
    runtime: Runtime
    seed: int
    pace: Pace
    sampler: Sampler
    run: Run | None
    stop: StopWish
    in_folder: bool = False  # there is a run folder; of several processes the first alone has it as `run`
    patient: bool = False  # stop when the validation score no longer improves
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    healthy: Checkpoint | None = None  # the state at the last healthy look, where there is no run folder to hold it
    real_features: Tensor | None = None
    stopped: signal.Signals | None = None  # what the processes have agreed to stop for
    saved_items: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    plotted_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.in_folder = self.in_folder or self.run is not None

    @property
    def team(self) -> Team:
        """The processes that train together."""
        return self.runtime.team

    @property
    def step_items(self) -> int:
        """Items of one step."""
        return self.plan.batch_items * self.plan.discriminator_steps

    @property
    def dice(self) -> int:
        """The seed of order and draws from here on: another after each rollback, a function of the state alone."""
        rollbacks = self.state.rollbacks + self.state.collapses
        return self.seed if rollbacks == 0 else seed_of(self.seed, "rollback", rollbacks)

    def note(self, kind: str, text: str, numbers: dict[str, float | int | str]) -> str:
        """Write an event to the log; returns its text for the user."""
        event = {"items": self.state.items_seen, "event": kind, "text": text, **numbers}
        self.events.append(event)
        if self.run is not None:
            self.run.log_event(event)
        return text
