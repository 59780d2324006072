"""Presentation contexts of the restore SCP (PS3.7 D.3.2), and the transfer syntax taken where a peer names several.

Only one transfer syntax is ever accepted per context, before the peer says what it wants, and originals are never
converted. A peer that wants everything names one syntax per context. For a peer that names several in one context
(DCMTK getscu does), it is one that the vault holds for that SOP class, if there is any: see `preferred`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from pynetdicom.presentation import PresentationContext, build_context

from gateway.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from gateway.network.retrieve.identifiers import MODELS
from gateway.vault.index import Scope

# Of identifiers: explicit first, so that a private key comes with its VR.
MESSAGE_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)

UNCOMPRESSED = frozenset(MESSAGE_SYNTAXES[:3])

HeldSyntaxes = Mapping[str, Sequence[str]]
"""SOP class UID to the transfer syntaxes that the vault holds of it, the most frequent first."""


class RecentlyHeld:
    """What the vault holds inside a scope, asked for at most every `max_age_s` seconds: it counts the whole index.

    Each scope has an answer of its own, so the negotiation tells a workstation nothing of a study that it may not see.
    There are as many scopes as the configuration has workstations.
    """

    def __init__(self, ask: Callable[[Scope], HeldSyntaxes], max_age_s: float = 60.0) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._held: dict[Scope, tuple[float, HeldSyntaxes]] = {}

    def __call__(self, scope: Scope) -> HeldSyntaxes:
        with self._lock:
            asked_at, held = self._held.get(scope, (float("-inf"), {}))
            if time.monotonic() - asked_at > self._max_age_s:
                held = self._ask(scope)
                self._held[scope] = (time.monotonic(), held)
            return held


def supported_contexts(
    proposed: Sequence[PresentationContext], held: Callable[[], HeldSyntaxes]
) -> list[PresentationContext]:
    """What we support of what a peer proposes: verification, our models, and every storage SOP class, both ways.

    A storage context serves a C-GET when the peer takes the SCP role (PS3.7 D.3.3.4), and a C-STORE of a marked copy
    when it does not.

    Parameters
    ----------
    held
        What lies in the caller's scope; asked only when a storage context names more than one transfer syntax.
    """
    named: dict[str, dict[str, None]] = {}
    undecided = set()
    for context in proposed:
        uid = str(context.abstract_syntax)
        proposed_here = dict.fromkeys(map(str, context.transfer_syntax))
        named.setdefault(uid, {}).update(proposed_here)
        if len(proposed_here) > 1:
            undecided.add(uid)
    supported = []
    for uid, syntaxes in named.items():
        if uid == VERIFICATION or uid in MODELS:
            supported.append(build_context(uid, list(MESSAGE_SYNTAXES)))
        elif uid in STORAGE_CLASSES:
            known = [syntax for syntax in syntaxes if syntax in TRANSFER_SYNTAXES]
            if uid in undecided:
                known = preferred(known, held().get(uid, ()))
            if known:
                context = build_context(uid, known)
                context.scu_role = context.scp_role = True
                supported.append(context)
    return supported


def preferred(proposed: Sequence[str], held: Sequence[str]) -> list[str]:
    """The proposed transfer syntaxes, best first.

    Those that the vault holds come before the others, in the peer's order: who names RLE first wants RLE. Among the
    plain syntaxes that order says nothing (every toolkit names its own byte order first), so there it is the vault's.

    Parameters
    ----------
    held
        What the vault holds of the SOP class, the most frequent first.
    """
    first = [syntax for syntax in proposed if syntax in held]
    if first and first[0] in UNCOMPRESSED:
        first.sort(key=lambda syntax: held.index(syntax) if syntax in UNCOMPRESSED else len(held))
    return list(dict.fromkeys([*first, *proposed]))
