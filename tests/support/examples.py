"""How many examples Hypothesis tries: as many as a test says with --full, a fifth of them in the default run."""

from __future__ import annotations

from hypothesis import settings

SHARE, LEAST = 5, 20
_default_run = False


def examples(count: int) -> settings:
    """`count` examples of a test, each as slow as it is."""
    return settings(max_examples=max(count // SHARE, min(count, LEAST)) if _default_run else count, deadline=None)


def is_default_run() -> bool:
    """Whether tests marked `full` are left out."""
    return _default_run


def in_the_default_run() -> None:
    """Tests that are collected from now on try fewer."""
    global _default_run
    _default_run = True
