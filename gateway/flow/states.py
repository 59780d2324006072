"""The states that instances and deliveries go through, as the database names them."""

from __future__ import annotations

RECEIVED, SEALED, MARKED, DELIVERED, HELD = "received", "sealed", "marked", "delivered", "held"
QUEUED, SENT = "queued", "sent"
REPORT = "report"  # action of a protection report, which was made here and not received
