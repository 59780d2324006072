"""Killed before or after a call, in one process: fast, where `tests/crash` sends SIGKILL to real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """Nothing in the product catches this, as nothing survives SIGKILL."""


@contextmanager
def killed(monkeypatch, place: object, name: str, when: str, call: int = 1) -> Iterator[None]:
    """The process is killed before or after the `call`-th call of a function."""
    original, calls = getattr(place, name), []

    def dies(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) < call:
            return original(*args, **kwargs)
        if when == "after":
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(place, name, dies)
        with pytest.raises(Killed):
            yield
