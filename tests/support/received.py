"""What an archive sends to a site, all of it at once, and what became of each instance."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom import Dataset

from gateway.config.models import OPT_IN_STATEMENTS, OptIn
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, syntax_of
from gateway.dicom.pixels.stored_values import decode_pixels, is_lossy
from gateway.keys.keyring import OpeningKeys
from gateway.restore import CopyRestorer
from tests.support.flow import ROUTE, Flow, configuration, decoded, facts_of

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Sent:
    """One instance as the archive sent it, and what became of it."""

    data: bytes
    syntax: str
    state: str  # "delivered", or the code for which it is held
    reason: str
    derived_sop_uid: str
    copy: bytes


def site(state: Path, keys: Path) -> Flow:
    """A site whose copies carry their originals, which lie in the vault too; it gives up quantitative images."""
    opt_in = OptIn(quantitative=OPT_IN_STATEMENTS["quantitative"])
    return Flow(configuration(state, keys, ROUTE.model_copy(update={"restoration": "both", "opt_in": opt_in})))


def outcomes(flow: Flow, archive: Mapping[Key, tuple[bytes, str]]) -> dict[Key, Sent]:
    """Take every (data set, transfer syntax) in, run every step, and see what became of each."""
    ids = {}
    receiver = flow.receiver()
    for key, (data, syntax) in archive.items():
        header = read_header(io.BytesIO(data), syntax)
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = header.sop_class_uid, header.sop_instance_uid
        incoming = receiver.begin(facts_of(ds, syntax))
        incoming.write(data)
        ids[key] = incoming.commit()
    receiver.close()  # rows follow what is acknowledged: all of them are there now
    flow.run()
    sent = {item.instance_id: (item.sop_instance_uid, copy) for _, item, copy in flow.sender.received}
    found = {}
    for key, instance_id in ids.items():
        row = flow.row(instance_id)
        state = row.reason_code if row.state == "held" else row.state
        found[key] = Sent(*archive[key], state, row.reason or "", *sent.get(instance_id, ("", b"")))
    return found


def check_marked_and_restored(flow: Flow, sent: Sent) -> None:
    """The copy is another picture of the same shape and history, and both ways home give the archive's bytes."""
    original, copy = decode_pixels(sent.data, sent.syntax), decode_pixels(sent.copy, EXPLICIT_LITTLE)
    assert copy.frames.shape == original.frames.shape and copy.frames.dtype == original.frames.dtype
    assert not np.array_equal(copy.frames, original.frames)
    assert copy.lossy == is_lossy(read_header(io.BytesIO(sent.data), sent.syntax), syntax_of(sent.syntax))
    read = decoded(sent.copy)
    if copy.shift == 0:  # pydicom does not look at High Bit
        assert np.array_equal(read.pixel_array.reshape(copy.frames.shape), copy.frames)
    assert read.SOPInstanceUID == sent.derived_sop_uid and read.ImageType[0] == "DERIVED"
    assert flow.restored(sent.derived_sop_uid) == sent.data
    restorer = CopyRestorer(OpeningKeys.load(flow.config.keys))
    with restorer.by_copy(io.BytesIO(sent.copy), EXPLICIT_LITTLE) as carried:
        carried.verify()
        assert b"".join(carried.stream()) == sent.data
        assert carried.transfer_syntax_uid == sent.syntax
