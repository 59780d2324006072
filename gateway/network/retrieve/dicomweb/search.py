"""QIDO-RS: searches answered from the vault's index, inside the caller's scope (PS3.18 10.6)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from gateway.audit import events
from gateway.errors import VaultError
from gateway.network.http import Answered, Exchange
from gateway.network.http.media import accepted
from gateway.network.retrieve.dicomweb.targets import Target
from gateway.network.retrieve.identifiers import MAX_CHARACTERS, MAX_VALUES
from gateway.network.retrieve.session import Access
from gateway.vault.index import Scope

DICOM_JSON = "application/dicom+json"
_JSON = (DICOM_JSON, "application/json", "application/*", "*/*")
MAX_PARAMETERS = 128
MAX_UIDS = 4096  # values of a UID key, as of a C-FIND
MAX_OFFSET = 10_000_000
QUERY_LEVEL, RETRIEVE_URL = 0x00080052, 0x00081190
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_KEYWORD = re.compile(r"[A-Za-z0-9]{1,64}")
_UID = re.compile(r"[0-9.]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,8}")
_TEXT_VRS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT", "US"]
)

# What answers hold unasked (PS3.18 tables 10.6.3-3 to -5), as far as records have it.
_STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "InstanceAvailability", "ModalitiesInStudy", "ReferringPhysicianName",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
)  # fmt: skip
_SERIES = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "NumberOfSeriesRelatedInstances")
_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "InstanceAvailability", "InstanceNumber", "Rows", "Columns", "NumberOfFrames",
)  # fmt: skip
_MORE = ("StudyDescription", "IssuerOfPatientID", "SeriesDate", "SeriesTime", "BodyPartExamined", "SOPClassesInStudy")
_ANSWERED: Mapping[str, tuple[str, ...]] = {"STUDY": _STUDY, "SERIES": _SERIES, "IMAGE": _IMAGE}
_LEVELS = ("STUDY", "SERIES", "IMAGE")


@dataclass
class Search:
    """One search as it was asked."""

    level: str
    keys: Dataset
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    asked: list[str] = field(default_factory=list)  # keywords of what has to match


def serve_search(access: Access, exchange: Exchange, target: Target) -> None:
    """Answer one search.

    More matches than ``max_matches`` are 413 where the caller named no limit: a cut list must not look whole.
    """
    if not any(one.type in _JSON for one in accepted(exchange.header("accept"))):
        raise Answered(406, "searches are answered in application/dicom+json")
    try:
        search = read_search(exchange.query, target)
    except Answered:
        access.audit(events.QUERY, "failure", operation="QIDO-RS", model="STUDY", reason="bad-query")
        raise
    settings = access.services.settings
    most = min(search.limit if search.limit is not None else settings.max_matches, settings.max_matches)
    found, more = _found(access, exchange, search, most)
    too_many = more and search.limit is None
    access.audit(
        events.QUERY,
        "failure" if too_many else "success",
        operation="QIDO-RS",
        model="STUDY",
        level=search.level,
        query_keys=search.asked,
        matches=len(found),
    )
    if too_many:
        raise Answered(
            413, f"more than {settings.max_matches} matches: narrow the search, or give a limit and an offset"
        )
    warnings = []
    if more:
        warnings.append("there are additional results that can be requested")
    if search.fuzzy:
        warnings.append("the fuzzymatching parameter is not supported: only literal matching has been performed")
    if access.services.index.unsupported("STUDY", search.level, search.keys):
        warnings.append("some attributes of the search are not kept here, and were not matched")
    url = target.root(exchange, settings)
    body = json.dumps([_model(answer, search.level, url) for answer in found], allow_nan=False).encode()
    told = [("warning", ", ".join(f'299 {url} "{one}"' for one in warnings))] if warnings else []
    exchange.answer(200, DICOM_JSON, body, told)


def read_search(query: str, target: Target) -> Search:
    """A search out of path and query.

    Raises
    ------
    Answered
        400, with a sentence that repeats no value.
    """
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise Answered(400, "the query cannot be read") from None
    search = Search(target.level, Dataset())
    wanted = set(_keywords(target))
    for name, value in pairs:
        if name == "limit":
            search.limit = _number(name, value)
        elif name == "offset":
            search.offset = _number(name, value)
            if search.offset > MAX_OFFSET:
                raise Answered(400, "offset is too large")
        elif name == "fuzzymatching":
            search.fuzzy = value == "true"
        elif name == "includefield":
            wanted |= set(_included(value, target))
        else:
            _add_key(search, name, value)
    for keyword, uid in (("StudyInstanceUID", target.study), ("SeriesInstanceUID", target.series)):
        if uid:
            if search.keys.get(keyword, uid) != uid:
                raise Answered(400, f"{keyword} of path and query differ")
            setattr(search.keys, keyword, uid)
    for keyword in wanted:
        if keyword not in search.keys:
            setattr(search.keys, keyword, None)
    return search


def _keywords(target: Target) -> Iterator[str]:
    """What is answered unasked: of the levels above too, where the path does not name them."""
    if target.level == "STUDY" or not target.study:
        yield from _STUDY
    if target.level == "SERIES" or (target.level == "IMAGE" and not target.series):
        yield from _SERIES
    if target.level == "IMAGE":
        yield from _IMAGE


def _included(value: str, target: Target) -> Iterator[str]:
    for one in value.split(","):
        if one == "all":
            yield from itertools.chain(
                *(_ANSWERED[level] for level in _LEVELS[: _LEVELS.index(target.level) + 1]), _MORE
            )
        else:
            tag = _tag(one)
            if dictionary_has_tag(tag) and (keyword := _keyword(tag)):
                yield keyword


def _add_key(search: Search, name: str, value: str) -> None:
    tag = _tag(name)
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
    vr = "US" if vr == "US or SS" else vr
    if vr not in _TEXT_VRS or tag >> 16 <= 0x0002:
        raise Answered(400, "an attribute of the query cannot be matched")
    if tag in search.keys:
        raise Answered(400, "an attribute stands in the query twice")
    several = re.split(r"[,\\]", value) if vr == "UI" else value.split("\\")
    if len(several) > (MAX_UIDS if vr == "UI" else MAX_VALUES) or max(map(len, several)) > MAX_CHARACTERS:
        raise Answered(400, "a value of the query is too long")
    if vr == "UI" and value and not all(_UID.fullmatch(one) for one in several):
        raise Answered(400, "a value of the query is no UID")
    if vr == "US" and value and not all(_NUMBER.fullmatch(one) for one in several):
        raise Answered(400, "a value of the query is no number")
    given: list[str] | list[int] | str | None
    given = None if not value else several[0] if len(several) == 1 else several
    try:
        search.keys.add_new(tag, vr, given)
        _ = search.keys[tag].value
    except Exception:  # pydicom has no one error for a value that is none of its VR
        raise Answered(400, "a value of the query does not fit its attribute") from None
    if value:
        search.asked.append(_keyword(tag))


def _tag(name: str) -> int:
    """Tag of an attribute named by keyword or by eight hexadecimal digits."""
    if _TAG.fullmatch(name):
        return int(name, 16)
    tag = tag_for_keyword(name) if _KEYWORD.fullmatch(name) else None
    if tag is None:
        raise Answered(400, "the query names something that is no attribute, or lies in a sequence")
    return tag


def _keyword(tag: int) -> str:
    return keyword_for_tag(tag)


def _number(name: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise Answered(400, f"{name} is no whole number")
    return int(value)


def _found(access: Access, exchange: Exchange, search: Search, most: int) -> tuple[list[Dataset], bool]:
    """The answers from `offset` on, at most so many, and whether there are more."""
    scope = Scope(access.workstation.studies)
    answers = access.services.index.find(
        "STUDY", search.level, search.keys, scope, search.offset + most, lambda: exchange.gone, relational=True
    )
    found: list[Dataset] = []
    try:
        for answer in itertools.islice(answers, search.offset, None):
            found.append(answer)
    except VaultError as error:
        if error.code != "too-many-matches":
            raise
        return found, True
    return found, False


def _model(answer: Dataset, level: str, url: str) -> dict[str, object]:
    """One answer in the DICOM JSON model (PS3.18 F)."""
    uids = [str(answer.StudyInstanceUID)]
    place = f"{url}/studies/{uids[0]}"
    if level != "STUDY":
        place += f"/series/{answer.SeriesInstanceUID}"
    if level == "IMAGE":
        place += f"/instances/{answer.SOPInstanceUID}"
    del answer[QUERY_LEVEL]
    answer.add_new(RETRIEVE_URL, "UR", place)
    return answer.to_json_dict(suppress_invalid_tags=True)
