"""The association of the restore SCP: its requests go to our own services instead of pynetdicom's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.presentation import PresentationContext

from gateway.errors import DeliveryError
from gateway.log import describe_error, get_logger
from gateway.network.callers import Rejection
from gateway.network.retrieve.access import decide
from gateway.network.retrieve.find import serve_find
from gateway.network.retrieve.identifiers import MODELS
from gateway.network.retrieve.receiving import BoundedBuffer, BoundedDimse
from gateway.network.retrieve.retrieve import serve_get, serve_move
from gateway.network.retrieve.sending import is_alive
from gateway.network.retrieve.session import Request, Services, Session
from gateway.network.retrieve.store import serve_store
from gateway.network.upper_layer import GatewayAssociation

UNABLE_TO_PROCESS = 0xC000
OUT_OF_RESOURCES = 0xA700  # the peer may try again
SOP_CLASS_NOT_SUPPORTED = 0x0122

log = get_logger(__name__)


class RestoreAssociation(GatewayAssociation):
    """An association with a caller who may want originals."""

    def __init__(self, ae: ApplicationEntity, mode: str = MODE_ACCEPTOR, *, services: Services) -> None:
        self._services = services
        super().__init__(ae, mode)

    def make_dimse(self) -> DIMSEServiceProvider:
        return BoundedDimse(self, budget=self._services.memory)

    def connection_ended(self) -> None:
        if isinstance(self.dimse, BoundedDimse):
            self.dimse.connection_ended()

    @cached_property
    def session(self) -> Session:
        """What the services work with; only an association that was let in has one."""
        caller = self.known_caller
        entry = decide(self._services.settings.workstations, caller, over_tls=caller.certificate is not None)
        if isinstance(entry, Rejection):
            raise RuntimeError("an association that was refused asks for service")
        return Session(self._services, caller, entry, self)

    def _serve_request(self, message: Any, context_id: int) -> None:
        """Serve one request (called in the association's own thread).

        A verification goes to pynetdicom; a message that has no place here ends the association. Whatever goes wrong
        inside a service is answered with a failure status, and its text stays here: it might quote a data set.
        """
        try:
            if isinstance(message, C_ECHO):
                super()._serve_request(message, context_id)
            else:
                self._serve(message, self._accepted_cx.get(context_id))
        finally:
            if isinstance(self.dimse, BoundedDimse):
                self.dimse.free(message)
            # A long C-MOVE is silent on this association: it must not be taken for an idle one.
            self.dul._idle_timer.restart()

    def _serve(self, message: Any, context: PresentationContext | None) -> None:
        serve = _service_of(message)
        if context is None or serve is None or not message.is_valid_request:
            self.note_flaw("request-out-of-place")
            self.abort(block=False)
            return
        try:
            if _is_starved(message):
                self.session.respond(message, context, OUT_OF_RESOURCES, comment="too many requests at once")
            elif message.AffectedSOPClassUID != context.abstract_syntax:
                self.session.respond(message, context, SOP_CLASS_NOT_SUPPORTED)
            else:
                serve(self.session, message, context)
        except DeliveryError:
            self.abort(block=False)
        except Exception as error:
            log.error("request failed", association_id=self.association_id, error=describe_error(error))
            if is_alive(self):
                self.session.respond(message, context, UNABLE_TO_PROCESS, comment="internal error")
        finally:
            self.dimse.cancel_req.pop(message.MessageID, None)


def _is_starved(request: Request) -> bool:
    """Whether a part of the request was dropped for want of memory: of another request, at another time, it is not."""
    received = request.DataSet if isinstance(request, C_STORE) else request.Identifier
    return isinstance(received, BoundedBuffer) and received.starved


def _service_of(message: object) -> Callable[[Session, Any, PresentationContext], None] | None:
    uid = getattr(message, "AffectedSOPClassUID", None) or ""
    if isinstance(message, C_STORE):
        return serve_store
    model = MODELS.get(uid)
    if model is None:
        return None
    if isinstance(message, C_FIND):
        return serve_find if model.service == "FIND" else None
    if isinstance(message, C_MOVE):
        return serve_move if model.service == "MOVE" else None
    if isinstance(message, C_GET):
        return serve_get if model.service == "GET" else None
    return None
