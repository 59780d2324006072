"""A destination that grants an asynchronous operations window, from the queue to its answers."""

from __future__ import annotations

from sqlalchemy import select

from gateway.audit import AuditLog
from gateway.config.models import Destination
from gateway.database import DeliveryRow, reading
from gateway.network import command as dimse
from gateway.network.egress import Egress
from tests.network.test_egress_window import Partner, answer, lock_step
from tests.support.flow import LEASE_S, ct
from tests.support.network import raw


def test_what_was_answered_is_settled_and_the_rest_is_tried_again_later(make_flow, tmp_path):
    """The partner ends after two answers of four, and stays away; then it is back, and gets what it has not stored."""
    flow = make_flow()
    for number in range(1, 6):
        flow.receive(ct(number))
    flow.seal()
    flow.mark()
    answered: list[str] = []
    away = True

    def talk(partner: Partner, wire: raw.Wire) -> None:
        if not away:
            lock_step(partner, wire)
        elif len(partner.asked) == 1:
            commands = [partner.read(wire)]
            answer(wire, commands[0])
            commands += [partner.read(wire) for _ in range(4)]
            answer(wire, commands[4], commands[2])
            answered.extend(commands[at][dimse.AFFECTED_SOP_INSTANCE_UID] for at in (0, 4, 2))
        if away:
            wire.send(raw.ABORT)

    def states() -> list[str]:
        with reading(flow.engine) as session:
            rows = session.scalars(select(DeliveryRow).where(DeliveryRow.destination == "outside"))
            return sorted(row.state for row in rows)

    partner = Partner(4, talk)
    with raw.scripted_scp(partner) as port:
        where = {"name": "outside", "type": "research", "ae_title": "OUTSIDE", "host": "127.0.0.1", "port": port}
        sender = Egress([Destination(async_operations=4, **where)], AuditLog(tmp_path / "egress.jsonl"))
        try:
            for _ in range(2):
                pairs = flow.store.claim_deliveries("outside", 16, LEASE_S)
                flow.steps.deliver(pairs, sender, flow.retry, at_a_time=4)
                if away:
                    assert states().count("sent") == 3 and len(answered) == 3
                away = False
                with flow.engine.begin() as connection:
                    connection.exec_driver_sql("UPDATE delivery SET next_attempt_at = 0")
        finally:
            sender.close()
    assert states() == ["sent"] * 5
    assert all(partner.stored.count(uid) == 1 for uid in answered) and len(set(partner.stored)) == 5
