"""Shows a person one instance before and after its mark, while the spool holds it; told of in the audit first."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sqlalchemy import Engine

from gateway.audit import audited, events
from gateway.database import InstanceRow, reading
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import GatewayError, NotFoundError
from gateway.flow.context import StepContext, arrival_of
from gateway.protect import Decision
from gateway.protect.viewing import Picture, Stored, Wish, picture


class Viewing:
    """Makes pictures of instances for a person who may see them: whether that is so, the caller has found out.

    What the vault holds is not shown: only what waits in the spool, and the copy while it is kept.
    """

    def __init__(self, context: StepContext, engine: Engine) -> None:
        self._context = context
        self._engine = engine

    def picture(self, instance_id: str, wish: Wish, told: Mapping[str, object]) -> Picture:
        """One picture; nothing is stored.

        Parameters
        ----------
        told
            Who asks, for the audit.

        Raises
        ------
        NotFoundError
            ``no-such-instance``, and as `gateway.protect.viewing.picture`.
        CapacityError
            ``audit-full``: without a line in the audit nothing is shown.
        GatewayError
            It cannot be decoded; told of in the audit as well.
        """
        with reading(self._engine) as session:
            row = session.get(InstanceRow, instance_id)
        if row is None:
            raise NotFoundError("no-such-instance", "there is no such instance")
        facts = {"instance_id": row.id, "operation": wish.view, "frame": wish.frame, **told}
        audited(self._context.audit, events.INSTANCE_VIEWED, "success", **facts)
        try:
            pair = (self._received(row), self._copy(row))
            interest = partial(self._context.protector.region_of_interest, route=self._context.route(row))
            return picture(*pair, wish, partial(self._decision, row), interest)
        except FileNotFoundError:
            error: GatewayError = NotFoundError("no-copy", "the copy has gone just now", "look again")
        except GatewayError as known:
            error = known
        audited(self._context.audit, events.INSTANCE_VIEWED, "failure", reason=error.code, **facts)
        raise error

    def _received(self, row: InstanceRow) -> Stored | None:
        if row.spool_file is None:
            return None
        return Stored(self._context.received(row), row.size, row.transfer_syntax_uid)

    def _copy(self, row: InstanceRow) -> Stored | None:
        if row.action != "mark" or row.derived_file is None:
            return None
        return Stored(partial(self._context.derived.open, row.derived_file), row.derived_size or 0, EXPLICIT_LITTLE)

    def _decision(self, row: InstanceRow, header: InstanceHeader) -> Decision:
        return self._context.protector.decide(header, self._context.route(row), arrival_of(row))
