"""Checks at the moment of delivery: the route, the destination, and that the bytes are the approved ones.

The rows of the database say what waits; they do not say what may go. Between receipt and delivery a destination may
have been taken out of its route, its trust withdrawn, an emergency ended, a file or a row changed by somebody else:

- the route is configured, does not hold everything, and names the destination;
- an original passes only while its route passes it, to destinations that are trusted, and as the bytes received;
- a marked copy is the bytes whose digest stands in the signed vault record;
- a protection report is the bytes whose digest a listed signer has signed for this row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from gateway.config.models import Route
from gateway.database import DeliveryRow, InstanceRow, ReportRow
from gateway.dicom.copy.references import references_syntax
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import HoldError
from gateway.flow.context import StepContext, arrival_of
from gateway.flow.ports import Outgoing
from gateway.flow.states import REPORT
from gateway.flow.verified import verified
from gateway.protect import decide_pass
from gateway.protect.recoding import recoded
from gateway.protect.signed_report import SignedReport
from gateway.vault import VaultRecord

PASS_ENDS = {"pass-expired", "pass-too-long", "destination-not-trusted"}  # codes that say why originals pass no more


class Leaving:
    """Checks deliveries, and gives what is to be sent."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    def outgoing(self, delivery: DeliveryRow, row: InstanceRow) -> Outgoing:
        """What is to be sent for this delivery, if it may leave now.

        Raises
        ------
        HoldError
            ``route-gone``, ``route-holds``, ``destination-not-named``, ``destination-not-trusted``, ``pass-expired``,
            ``pass-too-long``, ``not-a-pass-route``, ``derived-not-fixed``, ``derived-purged``; and ``not-ours``, also
            when the answer is opened.
        """
        route = self._context.route(row)
        if route.action == "hold":
            raise HoldError("route-holds", f"route {route.name} holds everything for a person now")
        if (row.route, delivery.destination) not in self.named(delivery.fallback_of):
            raise HoldError(*not_named(row.route, delivery.destination))
        if row.action == "pass":
            if delivery.fallback_of is not None:  # however the row came to say so
                raise HoldError("destination-not-trusted", "an original goes to no fallback")
            return self._original(row, route)
        if row.action == REPORT:
            return self._report(row)
        return self._copy(row)

    def named(self, *fallback_of: str | None) -> set[tuple[str, str]]:
        """Each (route, destination) that something may be queued for: those that routes name, and their fallbacks.

        fallback_of: one destination alone, whose fallback counts; None: no fallback does.
        """
        found = set()
        for route in self._context.routes.values():
            for name in route.destinations:
                found.add((route.name, name))
                first = self._context.destinations.get(name)
                if first and first.fallback and (not fallback_of or name in fallback_of):
                    found.add((route.name, first.fallback))
        return found

    def _copy(self, row: InstanceRow) -> Outgoing:
        """A marked copy, or an object whose references were mapped."""
        record = self._context.protector.record(row.record or "")
        if record.derived_sha256 is None or row.derived_file != derived_name(record, record.derived_sha256):
            raise HoldError("derived-not-fixed", "the derived file is not the one that the vault record names")
        open_file = self._derived(row, record.derived_sha256)
        syntax = references_syntax(record.transfer_syntax_uid) if row.action == "remap" else EXPLICIT_LITTLE
        return Outgoing(
            sop_class_uid=record.sop_class_uid,
            sop_instance_uid=record.derived_sop_uid,
            transfer_syntax_uid=syntax,
            size=row.derived_size or 0,
            open=open_file,
            in_syntax=lambda wanted: recoded(open_file, syntax, wanted),
            marked=row.action != "remap",
            instance_id=row.id,
        )

    def _original(self, row: InstanceRow, route: Route) -> Outgoing:
        self._check_passes(row, route)
        open_file = verified(self._context.received(row), row.sha256, row.size, "the received file")

        def open_now() -> BinaryIO:
            # Once more: an association may have taken a minute, in which the emergency ended.
            self._check_passes(row, route)
            return open_file()

        return Outgoing(
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            size=row.size,
            open=open_now,
            instance_id=row.id,
        )

    def _report(self, row: InstanceRow) -> Outgoing:
        signed = self._context.protector.check_report(_signed(self._context.store.report_of(row.id)))
        named = (signed.route, signed.instance_id, signed.sop_class_uid, signed.sop_instance_uid)
        if named != (row.route, row.id, row.sop_class_uid, row.sop_instance_uid):
            raise HoldError("not-ours", "the signed report is not that of this row")
        open_file = self._derived(row, signed.sha256)
        return Outgoing(
            sop_class_uid=signed.sop_class_uid,
            sop_instance_uid=signed.sop_instance_uid,
            transfer_syntax_uid=EXPLICIT_LITTLE,
            size=row.derived_size or 0,
            open=open_file,
            in_syntax=lambda wanted: recoded(open_file, EXPLICIT_LITTLE, wanted),
            instance_id=row.id,
        )

    def _derived(self, row: InstanceRow, sha256: str) -> Callable[[], BinaryIO]:
        """What opens the derived file of a row, and checks it."""

        def open_file() -> BinaryIO:
            try:
                return self._context.derived.open(row.derived_file or "")
            except (FileNotFoundError, IsADirectoryError):
                raise HoldError("derived-purged", "the derived file is gone", "release it to make it again") from None

        return verified(open_file, sha256, row.derived_size, "the derived file")

    def _check_passes(self, row: InstanceRow, route: Route) -> None:
        """Whether it may still leave unmarked: between receipt and delivery a pass may end, or be taken back."""
        if route.rules or route.action != "pass":
            header = self._context.protector.read_header(self._context.received(row), row.transfer_syntax_uid)
            decision = self._context.protector.decide(header, route, arrival_of(row))
        else:
            decision = decide_pass(route)
        decision = self._context.passing.checked(decision, route)
        if decision.code in PASS_ENDS:
            raise decision.as_error()
        if decision.action != "pass":
            raise HoldError("not-a-pass-route", f"route {row.route} no longer passes this original", "release it again")


def _signed(row: ReportRow | None) -> SignedReport | None:
    """What is signed of a report; None when nothing is."""
    if row is None or row.document is None or row.signature is None or row.signer is None:
        return None
    return SignedReport(row.document, row.signature, row.signer)


def derived_name(record: VaultRecord, sha256: str) -> str:
    """File name of derived bytes: the record's locator and the digest, nothing from the object."""
    return f"{record.locator}-{sha256[:16]}"


def not_named(route: str, destination: str) -> tuple[str, str, str]:
    """Code, message and hint for a delivery to a destination that its route does not name."""
    message = f"route {route} does not name destination {destination} any more"
    return "destination-not-named", message, "release sends it to those that the route names"
