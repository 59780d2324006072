"""Many instances that are held for one reason: one row, one click, and a queue that stays readable."""

from __future__ import annotations

import re

from gateway.database import InstanceRow, transaction
from gateway.service.wiring import build_requested
from tests.web.conftest import Shown, log_in


def test_two_hundred_held_for_one_reason_are_one_row_and_one_click(acting: Shown) -> None:
    """The queue names the newest hundred and says that there are more; the release takes all of them."""
    template = acting.flow.row(acting.ids["held"])
    values = {column.name: getattr(template, column.name) for column in InstanceRow.__table__.columns}
    with transaction(acting.flow.engine) as session:
        for number in range(200):
            more = {"id": f"{number:032x}", "sop_instance_uid": f"1.2.3.9.{number}", "record": None}
            session.add(InstanceRow(**{**values, **more}))
    form = log_in(acting)
    page = acting.client.get("/").text
    assert page.count('class="code">route-holds</a>') == 1
    assert "Release 201" in page
    queue = acting.client.get("/queue", params={"state": "held", "reason": "route-holds"}).text
    assert "The newest 100; narrow the filters to see others." in queue
    assert len(queue) < 200_000
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', queue))
    assert fields == {"form": form, "action": "release", "reason": "route-holds", "route": "", "destination": ""}
    assert "Choose a route, a destination or a reason first" in acting.client.get("/queue?state=held").text
    assert acting.client.post("/actions", data=fields).status_code == 303
    build_requested(acting.config, acting.flow.engine, acting.flow.store, acting.flow.context.audit).once()
    (done,) = acting.client.get("/api/v1/requests").json()[:1]
    assert (done["state"], done["done"]) == ("done", 201)
    assert "route-holds" not in acting.client.get("/queue", params={"state": "held"}).text
