"""The association of the restore SCP: its requests go to our own services instead of pynetdicom's."""

from __future__ import annotations

from functools import cached_property

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE

from gateway.errors import DeliveryError
from gateway.log import describe_error, get_logger
from gateway.network.retrieve.access import decide
from gateway.network.retrieve.find import serve_find
from gateway.network.retrieve.identifiers import MODELS
from gateway.network.retrieve.receiving import BoundedDimse
from gateway.network.retrieve.retrieve import serve_get, serve_move
from gateway.network.retrieve.sending import is_alive
from gateway.network.retrieve.session import Services, Session
from gateway.network.retrieve.store import serve_store
from gateway.network.server import Caller, Rejection
from gateway.network.upper_layer import GatewayAssociation

UNABLE_TO_PROCESS = 0xC000
SOP_CLASS_NOT_SUPPORTED = 0x0122

log = get_logger(__name__)


class RestoreAssociation(GatewayAssociation):
    """An association with a caller who may want originals.

    Attributes
    ----------
    caller
        Set by `ScpServer` before `admit` is asked.
    """

    dimse_class = BoundedDimse
    caller: Caller

    def __init__(self, ae: object, mode: str = MODE_ACCEPTOR, *, services: Services) -> None:
        self._services = services
        super().__init__(ae, mode)

    @cached_property
    def session(self) -> Session:
        """What the services work with; only an association that was let in has one."""
        entry = decide(self._services.settings.workstations, self.caller, over_tls=self.caller.certificate is not None)
        if isinstance(entry, Rejection):
            raise RuntimeError("an association that was refused asks for service")
        return Session(self._services, self, self.caller, entry)

    def _serve_request(self, message: object, context_id: int) -> None:
        """Serve one request (called in the association's own thread).

        A verification goes to pynetdicom; a message that has no place here ends the association. Whatever goes wrong
        inside a service is answered with a failure status, and its text stays here: it might quote a data set.
        """
        context = self._accepted_cx.get(context_id)
        serve = _service_of(message)
        if isinstance(message, C_ECHO):
            super()._serve_request(message, context_id)
            return
        if context is None or serve is None or not message.is_valid_request:
            self.abort(block=False)
            return
        self.dimse.cancel_req.clear()
        try:
            if message.AffectedSOPClassUID != context.abstract_syntax:
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
            self.dimse.cancel_req.clear()
            # A long C-MOVE is silent on this association: it must not be taken for an idle one.
            self.dul._idle_timer.restart()


def _service_of(message: object):
    uid = getattr(message, "AffectedSOPClassUID", None)
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
