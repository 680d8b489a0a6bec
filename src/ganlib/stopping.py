"""Ctrl-C, SIGTERM and a closed terminal as a wish to stop: the step in hand is finished and the state saved first."""

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
    """Note the first SIGINT, SIGTERM or SIGHUP instead of dying of it; a second one does what it always does.

    A terminal that closes sends SIGHUP more than once: all of them are one wish. A signal that is ignored (SIGHUP under
    nohup) stays so. Outside the main thread no signals arrive, and nothing changes.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    hangup = getattr(signal, "SIGHUP", None)
    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    watched = [number for number in wanted if before[number] not in (signal.SIG_IGN, None)]

    def note(number: int, frame: FrameType | None) -> None:
        wish.signal = signal.Signals(number)
        for each in watched:
            signal.signal(each, signal.SIG_IGN if each == number == hangup else before[each])

    for number in watched:
        signal.signal(number, note)
    try:
        yield wish
    finally:
        for number in watched:
            signal.signal(number, before[number])
