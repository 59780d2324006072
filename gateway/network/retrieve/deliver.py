"""One original on its way to a workstation: verified first, then sent, and audited either way."""

from __future__ import annotations

from gateway.audit import events
from gateway.errors import GatewayError, IntegrityError, TransientError
from gateway.network.retrieve.access import in_scope
from gateway.network.retrieve.session import Session
from gateway.network.retrieve.suboperations import Original, Outlet, Planned, is_warning

CANNOT_RESTORE = 0xC001  # status of a sub-operation that was never sent, or broke off
NO_CONTEXT = 0x0122  # ... for want of a presentation context with this SOP class in this very transfer syntax
NOT_AUTHORISED = 0x0124


def deliver(
    session: Session, outlet: Outlet, planned: Planned, *, operation: str, original: Original | None = None
) -> int:
    """Restore one original and send it, and only if every byte of it is proven right.

    Returns
    -------
    int
        The C-STORE status of the sub-operation; `CANNOT_RESTORE` or `NO_CONTEXT` when nothing was sent.

    Raises
    ------
    DeliveryError
        The association was lost; audited by the caller, who knows what is left to do.
    """
    facts = {
        "operation": operation,
        "locator": planned.locator,
        "sop_instance_uid": planned.sop_instance_uid,
        "sop_class_uid": planned.sop_class_uid,
        "transfer_syntax_uid": planned.transfer_syntax_uid,
    }
    if not outlet.accepts(planned):
        session.audit(events.ORIGINAL_RESTORED, "failure", reason="context-not-accepted", status=NO_CONTEXT, **facts)
        return NO_CONTEXT
    try:
        if original is None:
            original = session.services.restorer.by_locator(planned.locator)
        if not in_scope(session.workstation, original.study_uid):
            session.audit(events.RESTORE_REFUSED, "refused", reason="study-not-in-scope", **facts)
            return NOT_AUTHORISED
        original.verify()
    except GatewayError as error:
        # What cannot be restored for certain is never sent (design, promise 3): a security alert, event 110113.
        session.audit(events.RESTORE_REFUSED, "failure", reason=error.code, status=CANNOT_RESTORE, **facts)
        return CANNOT_RESTORE
    try:
        status = outlet.send(planned, original.stream())
    except IntegrityError as error:
        # The file changed between the two readings. The association was aborted: the receiver has no whole object.
        session.audit(events.RESTORE_REFUSED, "failure", reason=error.code, status=CANNOT_RESTORE, **facts)
        raise TransientError("association-lost", "an original broke off while it was sent") from None
    stored = status == 0x0000 or is_warning(status)
    session.audit(events.ORIGINAL_RESTORED, "success" if stored else "failure", status=status, bit_exact=True, **facts)
    return status
