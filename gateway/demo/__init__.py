"""`miad-gateway demo`: the whole way on one machine, between foreign peers, with what each side sees."""

from __future__ import annotations

from gateway.demo.run import run

__all__ = ["run"]
