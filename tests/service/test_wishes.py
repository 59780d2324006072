"""The queue of the main thread: what signals and threads put, and a signal at any moment of its waiting."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from gateway.service.wishes import Wish, Wishes


def test_what_was_put_comes_in_turn_and_then_nothing():
    wishes = Wishes()
    wishes.put(Wish("reload", "a"))
    wishes.put(Wish("reload", "b"))
    assert [wishes.get(0.01) for _ in range(3)] == [Wish("reload", "a"), Wish("reload", "b"), None]


def test_whoever_waits_is_woken():
    wishes, began = Wishes(), time.monotonic()
    threading.Timer(0.05, wishes.put, [Wish("stop")]).start()
    assert wishes.get(60) == Wish("stop")
    assert time.monotonic() - began < 30


_LATE_SIGNAL = """
import signal, time
from gateway.service.wishes import Wishes

signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.2))
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(Wishes().get(0.2))
"""


def test_a_signal_that_is_handled_past_the_timeout_does_not_make_it_wait_for_ever():
    done = subprocess.run([sys.executable, "-c", _LATE_SIGNAL], capture_output=True, text=True, timeout=60)
    assert done.stdout == "None\n", done.stderr
