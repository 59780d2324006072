"""`miad-gateway simulate`: what rules make of many objects, real or made of tags. Headers are read, nothing is sent.

`gateway.explain` looks further into one file: whether its pixels can be decoded, and what its copy would leave out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.uid import UID, generate_uid

from gateway.config import Route, Source
from gateway.config.lines import KeyPath
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import ConfigError, DicomError
from gateway.mark import load_profiles
from gateway.protect import Arrival, Decision, decide
from gateway.protect.rules import asked

OUTCOMES: Mapping[str, Literal["marked", "remapped", "passed", "held", "blocked"]] = {
    "mark": "marked",
    "remap": "remapped",
    "pass": "passed",
    "hold": "held",
    "block": "blocked",
}
_NO_MATCH = {"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"}
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Simulated:
    """What would become of one object on one route. No patient data in it.

    Attributes
    ----------
    object
        As who asked named it.
    outcome
        As of `gateway.explain.Explanation`, from the header alone.
    decided_by
        ``rule 2 (gateway.toml:31)``, the route's action, or the policy table.
    rules
        Of each rule that was looked at whether it fits, and what does not: ``rule 1 no: modality``.
    """

    object: str
    route: str
    called_ae: str
    outcome: Literal["marked", "remapped", "passed", "held", "blocked", "refused"]
    code: str = ""
    reason: str = ""
    decided_by: str = ""
    rules: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    profile: str = ""
    sop_class: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Sample:
    """One object: its name, and what opens it; or the header itself."""

    name: str
    open: Callable[[], BinaryIO] | None = None
    header: InstanceHeader | None = None


def simulate(
    source: Source, samples: Iterable[Sample], arrival: Arrival, called_ae: str | None = None
) -> Iterator[Simulated]:
    """Decide each object on each route, or on the one that `called_ae` chooses.

    Raises
    ------
    ConfigError
        ``no-route``: no route has that called AE title.
    InvalidConfigError
        The configuration cannot be used.
    """
    config, profiles = source.parse(), load_profiles()
    routes = [(index, one) for index, one in enumerate(config.routes) if called_ae in (None, one.called_ae)]
    if not routes:
        known = ", ".join(one.called_ae for one in config.routes) or "none"
        raise ConfigError("no-route", f"no route has the called AE title {called_ae}", f"known: {known}")
    for sample in samples:
        try:
            header = sample.header or _header(sample)
        except (DicomError, OSError) as error:
            code = error.code if isinstance(error, DicomError) else "cannot-read"
            yield Simulated(sample.name, "", "", "refused", code, getattr(error, "message", "") or "it cannot be read")
            continue
        for index, route in routes:
            decision = decide(header, route, profiles, arrival=arrival)
            yield _simulated(source, sample.name, header, index, route, decision, arrival)


def _header(sample: Sample) -> InstanceHeader:
    assert sample.open is not None
    with sample.open() as stream:
        meta, offset = split_part10(stream)
        stream.seek(offset)
        return read_header(stream, meta.transfer_syntax_uid)


def _simulated(
    source: Source, name: str, header: InstanceHeader, index: int, route: Route, decision: Decision, arrival: Arrival
) -> Simulated:
    found = Simulated(name, route.name, route.called_ae, OUTCOMES[decision.action], decision.code, decision.reason)
    found = replace(found, sop_class=UID(header.sop_class_uid).name, modality=header.modality)
    if header.has_our_private_block:
        reason = "it carries this gateway's mark already, and is not marked twice"
        return replace(found, outcome="refused", code="already-marked", reason=reason)
    leaves = decision.action in ("mark", "remap", "pass")
    return replace(
        found,
        decided_by=_decided_by(source, index, route, decision),
        rules=tuple(_looked_at(route, header, arrival)) if route.action != "hold" else (),
        destinations=route.destinations if leaves else (),
        profile=decision.profile.name if decision.profile else "",
    )


def _decided_by(source: Source, index: int, route: Route, decision: Decision) -> str:
    if decision.rule is not None:
        path: KeyPath = ("routes", index, "rules", decision.rule)
        file, line = source.places.place(path) or (source.file, 0)
        return f"rule {decision.rule + 1} ({file.name}:{line})"
    return f"the route: action = {route.action}" if route.action != "mark" else "the policy table"


def _looked_at(route: Route, header: InstanceHeader, arrival: Arrival) -> Iterator[str]:
    for number, rule in enumerate(route.rules, 1):
        missed = [name for name, fitting in asked(rule, header, arrival) if not fitting]
        if not missed:
            yield f"rule {number} fits: {rule.action}"
            return
        yield f"rule {number} no: {', '.join(missed)}"


def made_of(tags: Iterable[str]) -> InstanceHeader:
    r"""A header of tags as people write them: ``Modality=CT``, ``0018,0015=HEAD``, several values joined by ``\``.

    What is not given is that of a CT image of 512 by 512 pixels, with UIDs of its own; an image has pixels.

    Raises
    ------
    ConfigError
        ``bad-tag``.
    """
    ds = _usual()
    for word in tags:
        name, joined, value = word.partition("=")
        tag = _tag_of(name.strip())
        if not joined or tag is None:
            raise ConfigError("bad-tag", f"{word!r} is no tag with its value", "as Modality=CT, or 0018,0015=HEAD")
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "LO"
        vr = vr.split(" or ")[0]
        if vr in _NO_MATCH:
            raise ConfigError("bad-tag", f"{name} holds no text or number", "leave it out")
        try:
            ds.add_new(tag, vr, _value(vr, value))
        except (TypeError, ValueError, OverflowError):
            raise ConfigError("bad-tag", f"{name} cannot be {value!r}", f"its VR is {vr}") from None
    try:
        return replace(read_header(io.BytesIO(_encoded(ds)), EXPLICIT_LITTLE), has_pixel_data="Rows" in ds)
    except (DicomError, ValueError, TypeError, OverflowError) as error:
        raise ConfigError("bad-tag", "no object can have these tags", str(error)[:200]) from None


def _usual() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = CT, "CT"
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid(prefix=None) for _ in range(3))
    ds.PhotometricInterpretation, ds.SamplesPerPixel = "MONOCHROME2", 1
    ds.Rows = ds.Columns = 512
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    return ds


def _tag_of(name: str) -> int | None:
    found = tag_for_keyword(name)
    if found is not None:
        return int(found)
    group, comma, element = name.strip("()").partition(",")
    try:
        tag = int(group, 16) << 16 | int(element, 16) if comma and len(group) == len(element) == 4 else None
    except ValueError:
        return None
    return tag if tag is None or keyword_for_tag(tag) or tag >> 16 & 1 else None


def _value(vr: str, text: str) -> object:
    values: list[object] = list(text.split("\\"))
    if vr in ("US", "SS", "UL", "SL", "UV", "SV"):
        values = [int(str(one)) for one in values]
    elif vr in ("FL", "FD"):
        values = [float(str(one)) for one in values]
    return values[0] if len(values) == 1 else values


def _encoded(ds: Dataset) -> bytes:
    out = io.BytesIO()
    ds.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return out.getvalue()
