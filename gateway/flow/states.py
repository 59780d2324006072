"""The states that instances and deliveries go through, as the database names them."""

from __future__ import annotations

RECEIVED, SEALED, MARKED, DELIVERED, HELD = "received", "sealed", "marked", "delivered", "held"
DISCARDED = "discarded"  # held, and given up by a person: its original is sealed, or was given up in so many words
FINISHED = (DELIVERED, DISCARDED)  # nothing more is done with them: their received bytes may go
QUEUED, SENT = "queued", "sent"
DUE, ASKED, COMMITTED = "due", "asked", "committed"  # of the commitment of a delivery; "": it is not asked for
NEVER_COMMITTED = "refused"  # the destination commits to no object of this kind
UNCOMMITTED = (DUE, ASKED)
NOT_COMMITTED = "not-committed"  # reason of what is held since a destination reports again and again that it failed
REPORT = "report"  # action of a protection report, which was made here and not received


def to(destination: str) -> str:
    """The topic of wake-ups for what is queued for a destination; those of instances are their states."""
    return f"to:{destination}"
