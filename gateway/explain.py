"""`miad-gateway explain`: what would become of one file, route by route, and why. Nothing is kept, marked or sent."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydicom.uid import UID

from gateway.config import Config, Route
from gateway.dicom.copy.bulk import in_words
from gateway.dicom.copy.derive import overlays_of
from gateway.dicom.copy.overlay import room_for_words
from gateway.dicom.copy.sift import sift
from gateway.dicom.encoding import notes
from gateway.dicom.encoding.encoded import InstanceHeader, differs_from_meta, read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.dicom.pixels.frames import FrameReader, decoded_bytes
from gateway.dicom.pixels.stored_values import pixels_of
from gateway.errors import DicomError, HoldError
from gateway.mark import load_profiles
from gateway.protect.large import LARGE_BYTES
from gateway.protect.marking import MAX_BYTES
from gateway.protect.policy import Decision, decide, ride_along
from gateway.protect.rules import Arrival

LISTED = 20  # elements that are left out and named


@dataclass(frozen=True)
class Explanation:
    """The way of one file over one route. No patient data in it.

    outcome: ``marked``, ``remapped`` (goes out with its references mapped to marked copies), ``passed`` (unmarked, to
    destinations named trusted; `passes` says for how long), ``held`` (acknowledged, shown to a person), ``blocked``
    (held as well, and never let out by this policy) or ``refused`` (not even received). `code` and `reason` say why it
    does not leave.
    restoration: where the sealed original of what is marked or remapped lies (``escrow``, ``carried``, ``both``).
    rides_along, left_out: what becomes of private elements on this route, and which elements of the file do not go with
    its copy (tags, sizes and reasons; the first of them).
    study_uid: whether the copy gets the Study Instance UID of its original (``keep``) or one of its own (``new``).
    notes: what is irregular in the file, and what the gateway makes of it (`gateway.dicom.encoding.notes`).
    """

    file: Path
    outcome: Literal["marked", "remapped", "passed", "held", "blocked", "refused"]
    code: str = ""
    reason: str = ""
    route: str = ""
    called_ae: str = ""
    destinations: tuple[str, ...] = ()
    profile: str = ""
    tier: str = ""
    restoration: str = ""
    study_uid: str = ""
    passes: str = ""
    sop_class: str = ""
    transfer_syntax: str = ""
    modality: str = ""
    photometric: str = ""
    rows: int = 0
    columns: int = 0
    frames: int = 0
    bits_stored: int = 0
    rides_along: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def explain(config: Config, file: Path, called_ae: str | None = None) -> list[Explanation]:
    """One explanation for each route, or for the one that `called_ae` chooses.

    A file that would be marked is decoded to be sure of it; whether its picture leaves room for a mark, and whether its
    pixels are found elsewhere in it, is seen only when it is marked.
    """
    routes = [route for route in config.routes if called_ae in (None, route.called_ae)]
    if not routes:
        known = ", ".join(route.called_ae for route in config.routes) or "none"
        reason = f"no route has the called AE title {called_ae}; known: {known}" if called_ae else "there is no route"
        return [Explanation(file, "refused", "no-route", reason)]
    try:
        header, transfer_syntax, noted = _read(file)
    except DicomError as error:
        return [Explanation(file, "refused", error.code, str(error))]
    base = Explanation(
        file,
        "marked",
        sop_class=UID(header.sop_class_uid).name,
        transfer_syntax=UID(transfer_syntax).name,
        modality=header.modality,
        photometric=header.photometric,
        rows=header.rows,
        columns=header.columns,
        frames=header.frames if header.has_pixel_data else 0,
        bits_stored=header.bits_stored,
        notes=notes.sentences(noted),
    )
    profiles = load_profiles()
    arrival = Arrival(received_at=time.time())
    decisions = [decide(header, route, profiles, arrival=arrival) for route in routes]
    found = {action: _look(file, header, transfer_syntax, action) for action in {d.action for d in decisions}}
    return [_on_route(base, header, found[d.action], r, d) for r, d in zip(routes, decisions, strict=True)]


def _read(file: Path) -> tuple[InstanceHeader, str, tuple[str, ...]]:
    """Header, transfer syntax and notes: all that is looked at before an instance is acknowledged."""
    with file.open("rb") as stream:
        meta, offset = split_part10(stream)
        stream.seek(offset)
        header = read_header(stream, meta.transfer_syntax_uid)
    differs = (notes.FILE_META,) if differs_from_meta(header, meta) else ()
    return header, meta.transfer_syntax_uid, (*header.notes, *differs)


@dataclass(frozen=True)
class _Look:
    """What the file turned out to be: why it cannot be done what was decided, or its parts, and the overlays that show
    the picture.
    """

    fault: DicomError | None = None
    parts: Parts | None = None
    overlays: frozenset[int] = frozenset()


def _look(file: Path, header: InstanceHeader, transfer_syntax: str, action: str) -> _Look:
    if action not in ("mark", "remap"):
        return _Look()
    with file.open("rb") as stream:
        _, offset = split_part10(stream)
        size = file.stat().st_size - offset
        is_deflated = syntax_of(transfer_syntax).deflated
        if size > MAX_BYTES and (action != "mark" or is_deflated):
            return _Look(DicomError("too-large", f"more than {MAX_BYTES >> 20} MiB are not worked in memory"))
        try:
            stream.seek(offset)
            if action == "mark" and max(size, decoded_bytes(header)) > LARGE_BYTES and not is_deflated:
                reader = FrameReader(stream, size, transfer_syntax)
                parts, overlays = reader.parts, overlays_of(reader.parts)
                for first, pixels in reader.pieces():
                    overlays.look(pixels, first)
            elif action == "mark":
                parts = split(stream.read(), transfer_syntax)
                overlays = overlays_of(parts)
                overlays.look(pixels_of(parts))
            else:
                return _Look(parts=split(stream.read(), transfer_syntax, without_pixels=True))
        except DicomError as error:
            return _Look(error)
    return _Look(None, parts, frozenset(overlays.showing))


def _on_route(base: Explanation, header: InstanceHeader, look: _Look, route: Route, decision: Decision) -> Explanation:
    here = replace(base, route=route.name, called_ae=route.called_ae)
    if header.has_our_private_block:
        reason = "it carries this gateway's mark already, and is not marked twice"
        return replace(here, outcome="refused", code="already-marked", reason=reason)
    if decision.action == "pass":
        return replace(here, outcome="passed", destinations=route.destinations, passes=_how_it_passes(route))
    if decision.action in ("hold", "block"):
        here = replace(here, code=decision.code, reason=decision.reason)
        return replace(here, outcome="held") if decision.action == "hold" else replace(here, outcome="blocked")
    if look.fault is not None:
        return replace(here, outcome="held", code=look.fault.code, reason=str(look.fault))
    size = max(here.file.stat().st_size, decoded_bytes(header))
    if decision.action == "mark" and size > MAX_BYTES and route.restoration != "escrow":
        reason = f'more than {MAX_BYTES >> 20} MiB are worked in pieces, on a route with restoration = "escrow" only'
        return replace(here, outcome="held", code="too-large", reason=reason)
    here = replace(here, destinations=route.destinations, restoration=route.restoration, study_uid=route.study_uid)
    rules = ride_along(route)
    here = replace(here, rides_along=in_words(rules))
    if look.parts is not None:
        try:
            _, left_out = sift(look.parts, rules, look.overlays)
        except (HoldError, DicomError) as error:
            return replace(here, outcome="held", code=error.code, reason=error.message)
        further = (f"and {len(left_out) - LISTED} more",) if len(left_out) > LISTED else ()
        here = replace(here, left_out=(*map(str, left_out[:LISTED]), *further))
    if decision.profile is None:
        return replace(here, outcome="remapped")
    if route.visible_text:
        try:
            room_for_words(header.dataset, header.rows, header.columns)
        except HoldError as error:
            return replace(here, outcome="held", code=error.code, reason=error.message)
    return replace(here, profile=decision.profile.name, tier=route.mark.tier)


def _how_it_passes(route: Route) -> str:
    if route.break_glass is None:
        return "unmarked, audited, for as long as the configuration says so"
    end = route.break_glass.until.isoformat(sep=" ", timespec="minutes")
    return f"unmarked, audited, in an emergency that ends at {end}, then held: {route.break_glass.reason}"
