"""Ctrl-C and SIGTERM as a wish to stop: the step in hand is finished and the state saved first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopWish:
    """Which signal asked for an end; None while none has."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def stop_wishes() -> Iterator[StopWish]:
    """Note the first SIGINT or SIGTERM instead of dying of it; a second one does what it always does.

    Outside the main thread Python delivers no signals, and nothing is changed.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    watched = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.getsignal(number) for number in watched}

    def note(number: int, frame: FrameType | None) -> None:
        wish.signal = signal.Signals(number)
        for each in watched:
            signal.signal(each, before[each])

    for number in watched:
        signal.signal(number, note)
    try:
        yield wish
    finally:
        for number in watched:
            signal.signal(number, before[number])
