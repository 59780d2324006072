"""One original on its way to a workstation: verified first, then sent, and audited either way."""

from __future__ import annotations

from collections.abc import Callable

from gateway.audit import events
from gateway.errors import DeliveryError, DicomError, GatewayError, TransientError
from gateway.flow.statuses import is_stored
from gateway.network.retrieve.access import in_scope
from gateway.network.retrieve.ahead import Ahead
from gateway.network.retrieve.session import Access
from gateway.network.retrieve.suboperations import Intent, Original, Outlet, Planned

CANNOT_RESTORE = 0xC001  # status of a sub-operation that was never sent, or broke off
NO_CONTEXT = 0x0122  # ... for want of a presentation context with this SOP class in this very transfer syntax
NOT_AUTHORISED = 0x0124
ODD_LENGTH = 0xC003  # of a sub-operation that was never sent, since no network carries its bytes as they are


def deliver_planned(access: Access, outlet: Outlet, planned: Planned, ahead: Ahead, intent: Intent) -> int:
    """Take the original that a plan names next, and `deliver` it."""
    try:
        ready = ahead.take()
    except GatewayError as error:
        _refused(access, planned, intent.operation, error)
        return CANNOT_RESTORE
    with ready:
        return deliver(access, outlet, ready.original, intent, ready.verify)


def deliver(
    access: Access, outlet: Outlet, original: Original, intent: Intent, verify: Callable[[], None] | None = None
) -> int:
    """Send one original, and only if every byte of it is proven right and the audit has on disk that it leaves.

    Whatever goes wrong with the audit afterwards ends the request: no further original leaves.

    Parameters
    ----------
    verify
        Waits until another thread has verified it, and raises what `original.verify` raises, which is the default.

    Returns
    -------
    int
        The C-STORE status of the sub-operation; `CANNOT_RESTORE`, `NO_CONTEXT`, `NOT_AUTHORISED` or `ODD_LENGTH` when
        nothing was sent.

    Raises
    ------
    DeliveryError
        The association was lost; audited by the caller, who knows what is left to do.
    DicomError
        The marked copy that the original was to be rebuilt from is not what went out; audited by the caller as well.
    """
    planned, operation = Planned.of(original), intent.operation
    if not intent.covers(planned):
        raise RuntimeError(f"record {planned.locator} is to leave without a line in the audit")
    if not in_scope(access.workstation, original.study_uid):  # by the signed record; the index is not signed
        access.audit(events.RESTORE_REFUSED, "refused", reason="study-not-in-scope", **_facts(planned, operation))
        return NOT_AUTHORISED
    if not outlet.accepts(planned):
        access.audit(
            events.ORIGINAL_RESTORED,
            "failure",
            reason="context-not-accepted",
            status=NO_CONTEXT,
            **_facts(planned, operation),
        )
        return NO_CONTEXT
    if original.size % 2 and not outlet.sends_files:
        # PS3.5 7.1.1: every value has an even length, so no even data set has these bytes, and receivers abort over
        # them. They are kept as they came and given to nobody changed: `miad-gateway restore` writes them to a file.
        access.audit(
            events.ORIGINAL_RESTORED,
            "failure",
            reason="odd-length",
            status=ODD_LENGTH,
            **_facts(planned, operation),
        )
        return ODD_LENGTH
    try:
        (verify or original.verify)()
    except DicomError:
        raise
    except GatewayError as error:
        _refused(access, planned, operation, error)
        return CANNOT_RESTORE
    try:
        status = outlet.send(planned, original.stream())
    except DeliveryError:
        raise
    except GatewayError as error:
        # The payload changed between the two readings. The association was aborted: the receiver has no whole object.
        _refused(access, planned, operation, error)
        raise TransientError("association-lost", "an original broke off while it was sent") from None
    access.note(
        events.ORIGINAL_RESTORED,
        "success" if is_stored(status) else "failure",
        status=status,
        bit_exact=outlet.bit_exact,
        **_facts(planned, operation),
    )
    return status


def _refused(access: Access, planned: Planned, operation: str, error: GatewayError) -> None:
    """What cannot be restored for certain is never sent (architecture, promise 3): a security alert, event 110113."""
    access.audit(
        events.RESTORE_REFUSED,
        "failure",
        reason=error.code,
        status=CANNOT_RESTORE,
        **_facts(planned, operation),
    )


def _facts(planned: Planned, operation: str) -> dict[str, object]:
    return {
        "operation": operation,
        "locator": planned.locator,
        "sop_instance_uid": planned.sop_instance_uid,
        "sop_class_uid": planned.sop_class_uid,
        "transfer_syntax_uid": planned.transfer_syntax_uid,
    }
