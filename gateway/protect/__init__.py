"""One instance in, one marked instance and one sealed original out."""

from gateway.protect.large import LargeMarked
from gateway.protect.marking import Marked, MarkJob
from gateway.protect.policy import Decision, decide, decide_pass, policy_digest, traits_of
from gateway.protect.protector import Protector
from gateway.protect.remapping import Remapped
from gateway.protect.rules import Arrival

__all__ = [
    "Arrival",
    "Decision",
    "LargeMarked",
    "MarkJob",
    "Marked",
    "Protector",
    "Remapped",
    "decide",
    "decide_pass",
    "policy_digest",
    "traits_of",
]
