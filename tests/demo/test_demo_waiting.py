"""How long the demo waits for the gateway's queue: as long as something comes further."""

from __future__ import annotations

import importlib
import io
import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from gateway.demo.processes import Programs
from gateway.demo.run import STALLED_S, Demo
from gateway.demo.site import Ports, Site

run = importlib.import_module("gateway.demo.run")  # the package gives this name to the function


def waited(states: Iterable[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The last state of the only image, and what was told; each look at the clock takes a sixth of its patience."""
    screen, clock, given = Console(file=io.StringIO(), width=200), itertools.count(0, STALLED_S / 6), iter(states)
    monkeypatch.setattr(
        run, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None, time=time.time)
    )
    one = SimpleNamespace(received_at=1.0, sop_instance_uid="1.2.3")
    monkeypatch.setattr(run, "list_instances", lambda *_, **__: [SimpleNamespace(**vars(one), state=next(given))])
    demo = object.__new__(Demo)
    demo._images, demo._messages, demo._programs = [None], screen, Programs()  # type: ignore[list-item]
    demo._site = Site(folder, Ports(*range(20_001, 20_007)))
    entries = demo._wait_for_delivery(None, 0.0)  # type: ignore[arg-type]
    return entries["1.2.3"].state, screen.file.getvalue()  # type: ignore[attr-defined]


def test_a_slow_machine_is_waited_for_as_long_as_a_step_is_done(tmp_path: Path, monkeypatch) -> None:
    states = [state for state in ("received", "sealed", "marked", "delivered") for _ in range(4)]
    state, told = waited(states, tmp_path, monkeypatch)
    assert state == "delivered" and "further" not in told


def test_what_does_not_come_further_ends_the_wait_and_is_told(tmp_path: Path, monkeypatch) -> None:
    state, told = waited(itertools.repeat("sealed"), tmp_path, monkeypatch)
    assert state == "sealed" and "gateway.log" in told and "nothing has come further" in told
