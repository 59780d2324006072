"""C-FIND: answers from the vault's index, inside the caller's scope (PS3.4 C.4.1)."""

from __future__ import annotations

import time

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import PresentationContext

from gateway.audit import events
from gateway.errors import DicomError, VaultError
from gateway.network.retrieve.identifiers import MODELS, query_level, read_identifier
from gateway.network.retrieve.sending import is_alive, let_peer_speak
from gateway.network.retrieve.session import Session
from gateway.vault.index import Scope

PENDING = 0xFF00
PENDING_UNSUPPORTED_KEYS = 0xFF01
CANCELLED = 0xFE00
OUT_OF_RESOURCES = 0xA700
IDENTIFIER_DOES_NOT_MATCH = 0xA900
ANSWERS_IN_ONE_GO = 16  # then the peer gets a turn to cancel
LOOK_EVERY_S = 0.1  # whether the caller still waits, while nothing matches
MAX_UIDS = 4096  # values of a UID key: each is a parameter of several database queries


def serve_find(session: Session, request: C_FIND, context: PresentationContext) -> None:
    """Answer one C-FIND request: pending answers, then one final status.

    More matches than ``max_matches`` end in 0xA700 after that many answers: a cut list must not look whole.
    """
    model = MODELS[str(request.AffectedSOPClassUID)]
    try:
        identifier = read_identifier(request.Identifier, context.transfer_syntax[0], MAX_UIDS)
        level = query_level(model.root, identifier)
    except DicomError as error:
        session.audit(events.QUERY, "failure", operation="C-FIND", model=model.root, reason=error.code)
        session.respond(request, context, IDENTIFIER_DOES_NOT_MATCH, comment=error.message)
        return
    keys = [element.keyword for element in identifier if element.keyword and not element.is_empty]
    status, matches = _answers(session, request, context, model.root, level, identifier)
    session.audit(
        events.QUERY,
        "failure" if status == OUT_OF_RESOURCES else "success",
        operation="C-FIND",
        model=model.root,
        level=level,
        query_keys=keys,
        matches=matches,
        status=status,
    )
    session.respond(request, context, status, comment="too many matches" if status == OUT_OF_RESOURCES else "")


def _answers(
    session: Session, request: C_FIND, context: PresentationContext, root: str, level: str, identifier: Dataset
) -> tuple[int, int]:
    """Send the pending answers; returns the final status and how many were sent."""
    settings = session.services.settings
    index = session.services.index
    scope = Scope(session.workstation.studies)
    pending = PENDING_UNSUPPORTED_KEYS if index.unsupported(root, level, identifier) else PENDING
    matches = 0
    interest = _Interest(session, request)
    try:
        for answer in index.find(root, level, identifier, scope, settings.max_matches, interest.is_over):
            if matches % ANSWERS_IN_ONE_GO == 0:
                let_peer_speak(session.association)
            if interest.look():
                break
            answer.RetrieveAETitle = settings.ae_title
            session.respond(request, context, pending, identifier=answer)
            matches += 1
    except VaultError as error:
        if error.code != "too-many-matches":
            raise
        return OUT_OF_RESOURCES, matches
    return (CANCELLED if interest.ended else 0x0000), matches


class _Interest:
    """Whether the caller still wants answers: a query that matches little looks at a whole vault, and says nothing."""

    def __init__(self, session: Session, request: C_FIND) -> None:
        self._session = session
        self._request = request
        self._looked = time.monotonic()
        self.ended = False

    def look(self) -> bool:
        """True once the request was cancelled, or the association has ended."""
        self.ended = self.ended or self._session.is_cancelled(self._request) or not is_alive(self._session.association)
        return self.ended

    def is_over(self) -> bool:
        """As `look`, now and then; the rest of the process has its turn meanwhile."""
        if not self.ended and time.monotonic() - self._looked > LOOK_EVERY_S:
            let_peer_speak(self._session.association)
            self.look()
            self._looked = time.monotonic()
        return self.ended
