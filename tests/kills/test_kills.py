"""Five kills between real peers, as the full campaign does fifty: `python -m tests.benchmarks.kill`."""

from __future__ import annotations

import pytest

from tests.kills.archive import acknowledged_files
from tests.kills.campaign import campaign


def test_storescu_is_believed_only_when_it_was_answered_with_success():
    output = """I: Sending file: /a
I: Received Store Response (Success)
I: Sending file: /b
I: Received Store Response (Refused: OutOfResources)
I: Sending file: /c
E: Store SCU Failed: 0006:020e DUL Peer aborted Association
"""
    assert acknowledged_files(output) == {"/a"}


@pytest.mark.peers
@pytest.mark.timeout(280)
def test_nothing_is_lost_unmarked_or_double_after_five_kills(tmp_path):
    outcome = campaign(tmp_path, kills=5, sends=1, instances=24, seed=5)
    assert outcome.problems == []
    assert outcome.acknowledged == 24
    assert (outcome.kills, outcome.missed) == (5, [])
