"""Instances that are marked together: what each of them asks for, and what it begins from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import GatewayError, MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile
from gateway.protect.key_slices import (
    KeyTextures,
    SlicePlace,
    Start,
    begin_near,
    mark_frames,
    slice_number,
    uses,
)
from gateway.protect.marking import MarkJob, Opened, requests_of


@dataclass(frozen=True)
class Member:
    """One instance of a batch.

    Attributes
    ----------
    index
        Of its job.
    opened
        Its header and pixels.
    requests
        One for each frame.
    place
        Where it lies in its series; None: it begins from itself, and nothing begins from it.
    start
        What it begins from; None: itself.
    """

    index: int
    opened: Opened
    requests: list[MarkRequest]
    place: SlicePlace | None = None
    start: Start | None = None

    def begun_from(self, result: MarkedImage | GatewayError) -> str:
        """SOP Instance UID of the copy whose texture this slice's mark did begin from, or ""."""
        has_begun = isinstance(result, MarkedImage) and result.has_begun
        return self.start.copy_uid if has_begun and self.start is not None else ""


def member_of(
    index: int,
    job: MarkJob,
    opened: Opened,
    profile: ModalityProfile,
    settings: MarkSettings,
    key: bytes,
    textures: KeyTextures,
) -> Member:
    """What an instance asks for.

    Parameters
    ----------
    key
        The series' mark key.
    textures
        Of the key slices that have committed.
    """
    requests = requests_of(opened, profile, key)
    number = slice_number(opened.header) if uses(settings) else None
    if number is None:
        return Member(index, opened, requests)
    record = job.record
    place = SlicePlace((record.study_uid, record.original_series_uid, profile.name, settings), number)
    start = textures.start_of(place, record)
    return Member(index, opened, [begin_near(one, start) for one in requests], place, start)


def mark_together(
    marker: Marker, members: Sequence[Member], profile: ModalityProfile
) -> list[MarkedImage | GatewayError]:
    """Mark the frames of all members, in order; those of a multi-frame image begin from its key frames."""

    def mark(requests: Sequence[MarkRequest]) -> list[MarkedImage | MarkError]:
        return marker.mark(requests, profile)

    if not uses(marker.settings) or all(len(member.requests) == 1 for member in members):
        return list(mark([request for member in members for request in member.requests]))
    found: list[MarkedImage | GatewayError] = []
    for member in members:
        found += mark_frames(mark, member.requests, range(len(member.requests)), KeyTextures())
    return found
