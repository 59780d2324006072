"""A series through the flow: key slices first, the others from them, and records say from which."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gateway.config.models import Mark
from gateway.mark import Marker, MarkSettings
from tests.support.flow import ROUTE, Flow, ct
from tests.support.mark.samples import small_pack

SERIES = ROUTE.model_copy(update={"mark": Mark(steps=1)})
MARKER = Marker(MarkSettings(steps=1, device="cpu"), packs=[small_pack()])


@pytest.fixture
def flow(make_flow) -> Flow:
    """A flow whose marks take one step of one small network."""
    return quick(make_flow(SERIES))


def quick(flow: Flow) -> Flow:
    flow.context.protector._markers = {MARKER.settings: MARKER}
    return flow


def received(flow: Flow, numbers: Iterable[int]) -> dict[int, str]:
    """Send these slices, 1 mm thick and apart, in this order, and mark them."""
    ids = {one: flow.receive(ct(one + 1, ImagePositionPatient=[0, 0, float(one)], SliceThickness=1)) for one in numbers}
    flow.seal()
    flow.mark()
    return ids


def record(flow: Flow, instance: str):
    return flow.context.protector.record(flow.row(instance).record)


def begun_from(flow: Flow, ids: dict[int, str]) -> dict[int, int | None]:
    """By slice, the one whose texture its mark began from, as its record says."""
    records = {one: record(flow, instance) for one, instance in ids.items()}
    numbers = {record.derived_sop_uid: one for one, record in records.items()}
    return {one: numbers[record.begun_from] if record.begun_from else None for one, record in records.items()}


def test_slices_begin_from_the_nearest_key_slice_which_their_records_name(flow):
    ids = received(flow, range(10))
    wanted = {0: None, 1: 0, 2: 0, 3: 0, 4: 0, 5: 8, 6: 8, 7: 8, 8: None, 9: 8}
    assert begun_from(flow, ids) == wanted
    flow.deliver()
    assert len(flow.sender.byte_strings()) == 10
    assert record(flow, ids[5]).version == 4


def test_nothing_waits_for_a_key_slice_and_another_stands_in_for_it(flow):
    ids = received(flow, [3])
    ids |= received(flow, [2])
    ids |= received(flow, [0])
    ids |= received(flow, [1])
    assert begun_from(flow, ids) == {3: None, 2: 3, 0: None, 1: 0}


def test_after_a_restart_slices_begin_from_themselves_until_there_is_one_again(flow):
    ids = received(flow, [0, 1])
    other = quick(flow.again())
    ids |= received(other, [2])
    ids |= received(other, [3])
    assert begun_from(other, ids) == {0: None, 1: 0, 2: None, 3: 2}


def test_a_series_that_is_sent_again_after_its_copies_were_purged_is_the_same_copies(flow):
    first = received(flow, range(4))
    flow.deliver()
    uids = {one: record(flow, instance).derived_sop_uid for one, instance in first.items()}
    for name in flow.derived():
        flow.context.derived.delete(name)
    other = quick(flow.again())
    again = received(other, range(4))
    other.deliver()
    assert {one: record(other, instance).derived_sop_uid for one, instance in again.items()} == uids
    assert all(len(digests) == 1 for digests in other.sender.byte_strings().values())


def test_without_what_it_began_from_other_bytes_get_another_uid(flow):
    received(flow, range(2))
    flow.deliver()
    for name in flow.derived():
        flow.context.derived.delete(name)
    other = quick(flow.again())
    again = received(other, [1])
    other.deliver()
    assert record(other, again[1]).generation == 2
    assert record(other, again[1]).begun_from == ""
    assert all(len(digests) == 1 for digests in other.sender.byte_strings().values())
    assert len(other.sender.byte_strings()) == 3


def test_no_key_slices_where_the_site_wants_none(make_flow):
    flow = make_flow(SERIES.model_copy(update={"mark": Mark(steps=1, key_slices=False)}))
    settings = MARKER.settings.model_copy(update={"key_slices": False})
    flow.context.protector._markers = {settings: Marker(settings, packs=[small_pack()])}
    assert set(begun_from(flow, received(flow, range(3))).values()) == {None}
