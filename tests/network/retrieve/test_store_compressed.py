"""C-STORE of a marked copy in each lossless syntax to the restore SCP: the original arrives at the workstation."""

from __future__ import annotations

import pytest

from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from gateway.dicom.pixels.compress import recode
from tests.network.retrieve.test_store_carried import COPY, CT, ask, desk, empty
from tests.support.retrieve.samples import received

__all__ = ["desk", "empty"]  # fixtures

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("name", LOSSLESS_NAMES)
def test_the_copy_as_a_destination_received_it_gives_the_original(desk, name):
    scp, folder = desk
    syntax = LOSSLESS_NAMES[name]
    assert ask(scp, recode(COPY, syntax), syntax=syntax).status == 0
    assert received(folder) == {CT.uid: CT.data}
