"""A series read ahead of its sending while the vault is damaged, and of a requester that goes or stands still."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.audit import events
from gateway.network import command as dimse
from gateway.network.retrieve.ahead import AHEAD
from tests.network.retrieve.conftest import lines_soon, plain
from tests.network.retrieve.test_get_by_hand import begin_get, stored
from tests.network.retrieve.test_receivers_and_requests import cancel
from tests.network.test_ingress import gateway_threads, until
from tests.support.network import raw
from tests.support.retrieve.samples import MANY_STUDY, renamed, samples
from tests.support.retrieve.vaults import Site, build_site

COUNT = 120
WITHIN_S = 30
After = dict[int, Callable[[dict[str, bytes]], None]]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A study of 120 images, some of which a test damages."""
    ct = samples()[0]
    made = [
        renamed(
            ct,
            f"m{number}",
            {ct.uid: ct.uid[:-3] + f"{number + 1:03d}", ct.study: MANY_STUDY, ct.series: ct.series[:-3] + "777"},
        )
        for number in range(COUNT)
    ]
    return build_site(tmp_path_factory.mktemp("many"), made)


def read_all(
    wire: raw.Wire, after: dict[int, Callable[[dict[str, bytes]], None]] | None = None
) -> tuple[dict[str, bytes], dimse.Command]:
    """Answer every sub-operation, and call what is to be done `after` so many: what arrived, and the final response."""
    arrived: dict[str, bytes] = {}
    name, number, got = "", 0, bytearray()
    while True:
        kind, body = wire.read()
        assert kind == 0x04
        for control, value in raw.fragments(body):
            if control & 1:
                command = dimse.decode_command(value)
                if command[dimse.COMMAND_FIELD] == dimse.C_STORE_RQ:
                    name, number = command[dimse.AFFECTED_SOP_INSTANCE_UID], command[dimse.MESSAGE_ID]
                    got = bytearray()
                elif command[dimse.STATUS] != 0xFF00:
                    return arrived, command
                continue
            got += value
            if control & 2 and name:
                assert name not in arrived
                arrived[name], name = bytes(got), ""
                if todo := (after or {}).get(len(arrived)):
                    todo(arrived)
                wire.send(raw.data(3, 3, stored(number)))


def open_payloads(site: Site) -> list[str]:
    """Payloads that this process has open."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(one))
        except OSError:
            continue
    return [name for name in found if name.startswith(str(site.payloads))]


def test_what_is_damaged_or_goes_while_others_leave_fails_alone(start_scp, many, audit):
    """Not a byte of it arrives; all others do, as they were; and the line of intent named every one."""
    flipped, cut, swapped = (many.payload(name) for name in ("m50", "m51", "m71"))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    swapped.write_bytes(many.payload("m72").read_bytes())
    damaged, gone = {"m50", "m51", "m71"}, set[str]()
    names = {sample.uid: name for name, sample in many.samples.items()}

    def lose(arrived: dict[str, bytes]) -> None:
        left = set(names.values()) - damaged - {names[uid] for uid in arrived}
        for name in sorted(left)[:20]:
            many.payload(name).unlink()
            gone.add(name)

    scp = start_scp(plain(), of=many)
    with raw.connected(scp.plain_port) as wire:
        wire.sock.settimeout(WITHIN_S)
        begin_get(wire)
        arrived, final = read_all(wire, {5: lose})
        wire.send(raw.RELEASE_RQ)
    assert arrived == {uid: many.samples[names[uid]].data for uid in arrived}
    locators = {many.records[name].locator: name for name in names.values()}
    refused = {locators[line["locator"]] for line in audit.lines(events.RESTORE_REFUSED)}
    assert {names[uid] for uid in arrived} == set(names.values()) - refused
    assert damaged <= refused <= damaged | gone and len(gone - refused) <= AHEAD  # those had been read
    counts = [final[number] for number in (dimse.STATUS, dimse.COMPLETED, dimse.FAILED)]
    assert counts == [0xB000, COUNT - len(refused), len(refused)]
    intended = [uid for line in audit.lines(events.RESTORE_INTENDED) for uid in line["sop_instance_uid"]]
    assert sorted(intended) == sorted(names)
    assert until(lambda: not open_payloads(many), WITHIN_S)


FEWER = ("cancels", "aborts", "closes", "closes its half")  # in the full suite


@pytest.mark.parametrize(
    "how", ["resets", "stands still", *(pytest.param(how, marks=pytest.mark.full) for how in FEWER)]
)
def test_a_requester_that_ends_in_the_middle_leaves_nothing_behind(start_scp, many, audit, how):
    """No thread and no open file, and the audit tells how far it came."""
    scp = start_scp(plain(), of=many, idle_timeout_s=1)
    with raw.connected(scp.plain_port) as wire:
        wire.sock.settimeout(WITHIN_S)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        begin_get(wire)

        def ends(_: object) -> None:
            if how == "cancels":
                wire.send(raw.data(1, 3, cancel()))
            elif how == "aborts":
                wire.send(raw.ABORT)
            elif how == "closes its half":
                wire.sock.shutdown(socket.SHUT_WR)
            elif how == "resets":
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise InterruptedError

        with pytest.raises(InterruptedError):
            read_all(wire, {7: ends})
        if how in ("closes", "resets"):
            wire.sock.close()
        (line,) = lines_soon(audit, events.RETRIEVE)
        assert 6 <= line["completed"] <= 7 and line["completed"] + line["remaining"] + line["failed"] == COUNT
        assert until(lambda: not open_payloads(many), WITHIN_S)
    assert until(lambda: not gateway_threads(), WITHIN_S)
