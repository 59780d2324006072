"""What a role runs on one configuration, as something that can be followed by another of its kind."""

from __future__ import annotations

from typing import Protocol


class StartAnew(Exception):
    """A swap broke off half way: this process has to end, and to be started again."""


class Part(Protocol):
    """Built from one configuration, with everything opened that can fail: keys, certificates, ports.

    A reload builds the new one beside the old. Then the old one takes nothing more (`pause`), the new one begins
    (`start`), and the old one ends by itself (`finish`).
    """

    def start(self) -> None:
        """Begin to work."""

    def pause(self) -> None:
        """Take nothing more, and return; what is at hand goes on."""

    def finish(self) -> None:
        """After `pause`: wait until what is at hand has ended by itself, however long that takes, and close."""

    def stop(self) -> None:
        """End in order, within a time; what is not done by then is given back."""

    def discard(self) -> None:
        """Close what was built and never started."""
