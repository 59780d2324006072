"""Counting, cutting and choosing: the parts of a retrieval that need no network."""

from __future__ import annotations

import pytest
from pynetdicom.presentation import build_context

from gateway.network.contexts import VERIFICATION
from gateway.network.retrieve.destination import ChunkReader
from gateway.network.retrieve.negotiation import RecentlyHeld, preferred, supported_contexts
from gateway.network.retrieve.retrieve import batches
from gateway.network.retrieve.sending import message_ids, refragment
from gateway.network.retrieve.suboperations import Planned, Tally
from gateway.vault.index import Scope

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"


@pytest.mark.parametrize(
    ("statuses", "final"),
    [
        ([], 0x0000),
        ([0, 0], 0x0000),
        ([0, 0xB000], 0xB000),
        ([0, 0xA700], 0xB000),
        ([0xB007, 0x0110], 0xB000),
        ([0xC001, 0xA700], 0xA702),
    ],
)
def test_final_status(statuses, final):
    tally = Tally(remaining=len(statuses))
    for number, status in enumerate(statuses):
        tally.count(f"1.{number}", status)
    assert tally.final_status() == final
    assert tally.remaining == 0
    assert tally.completed + tally.failed + tally.warning == len(statuses)
    assert len(tally.failed_uids) == tally.failed


@pytest.mark.parametrize("sizes", [[], [0], [1], [10, 0, 3], [7, 7], [100]])
def test_fragments_hold_every_byte_in_order(sizes):
    data = bytes(range(256))[: sum(sizes)]
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    fragments = list(refragment(chunks, 7))
    assert b"".join(fragments) == data
    assert all(len(fragment) == 7 for fragment in fragments[:-1])


def test_a_chunk_reader_reads_as_a_file_does():
    reader = ChunkReader([b"ab", b"", b"cdef"])
    read = []
    while piece := reader.read(3):
        read.append(piece)
    assert b"".join(read) == b"abcdef"
    assert max(map(len, read)) <= 3
    assert reader.read(3) == b""


def test_message_ids_wrap_and_leave_out_the_request():
    ids = message_ids(65_534)
    assert [next(ids) for _ in range(3)] == [65_535, 1, 2]
    ids = message_ids(3)
    seen = [next(ids) for _ in range(65_535)]
    assert 3 not in seen
    assert min(seen) == 1
    assert max(seen) == 65_535


def test_a_plan_is_cut_at_128_contexts():
    plan = [Planned(f"{n:032x}", f"1.2.{n % 200}", f"1.3.{n}", EXPLICIT) for n in range(600)]
    parts = list(batches(plan))
    assert [len({p.sop_class_uid for p in part}) for part in parts] == [128, 72]
    assert sorted(p.locator for part in parts for p in part) == [p.locator for p in plan]


@pytest.mark.parametrize(
    ("proposed", "held", "first"),
    [
        ([EXPLICIT, BIG, IMPLICIT], [IMPLICIT], IMPLICIT),  # getscu as it is, an archive that sends implicit
        ([EXPLICIT, BIG, IMPLICIT], [IMPLICIT, EXPLICIT], IMPLICIT),  # mostly implicit
        ([EXPLICIT, BIG, IMPLICIT], [RLE, EXPLICIT, IMPLICIT], EXPLICIT),
        ([RLE, EXPLICIT, IMPLICIT], [EXPLICIT, RLE], RLE),  # getscu +xr: a wish
        ([RLE, EXPLICIT, IMPLICIT], [IMPLICIT], IMPLICIT),
        ([JPEG, RLE], [], JPEG),
    ],
)
def test_where_a_peer_names_several_syntaxes_the_vault_decides(proposed, held, first):
    order = preferred(proposed, held)
    assert order[0] == first
    assert sorted(order) == sorted(proposed)


def test_contexts_one_syntax_each_are_all_taken_without_asking_the_vault():
    def never():
        raise AssertionError("asked")

    proposed = [build_context(CT, syntax) for syntax in (RLE, EXPLICIT, "1.2.3.4")]
    proposed += [build_context(STUDY_GET, IMPLICIT), build_context(VERIFICATION), build_context("1.2.3.4.5")]
    supported = {context.abstract_syntax: context for context in supported_contexts(proposed, never)}
    assert set(supported) == {CT, STUDY_GET, VERIFICATION}
    assert set(supported[CT].transfer_syntax) == {RLE, EXPLICIT}
    assert supported[CT].scu_role
    assert supported[CT].scp_role


def test_the_vault_is_asked_once_in_a_while():
    asked = []

    everything, one_study = Scope(), Scope(("1.2.3",))

    def ask(scope):
        asked.append(scope)
        return {CT: [RLE]}

    held = RecentlyHeld(ask, max_age_s=3600)
    assert held(everything) == held(everything) == {CT: [RLE]}
    held(one_study)
    held(one_study)
    assert asked == [everything, one_study]
    always = RecentlyHeld(ask, max_age_s=-1)
    always(everything)
    always(everything)
    assert len(asked) == 4
