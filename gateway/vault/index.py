"""What C-FIND answers from and C-MOVE and C-GET select by: the clear-text columns and attributes of the records.

Hierarchical queries of the Patient Root and Study Root models (PS3.4 C.4.1.2.2, C.6). The caller's scope is applied
before anything is matched, so that an answer tells nothing of what lies outside it. An instance is named by study,
series and SOP Instance UID together: where two studies hold different originals under one SOP Instance UID, each is
found in its own. Only the newest generation of an instance is seen, unless it is asked for by the derived UID of an
older one; records whose payload has been purged are not seen. Identifiers are read as pydicom decodes them, by their
own Specific Character Set. Answers always name *original* UIDs, also when the identifier names derived ones.

The index is not signed: whoever releases an original decides by the record (`RecordStore`), its study UID included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from sqlalchemy import ColumnElement, Engine, Row, Select, and_, exists, func, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from gateway.database import VaultRow, has_new_study, has_several, reading
from gateway.errors import VaultError
from gateway.vault import counts
from gateway.vault.attributes import (
    ACCESSION_NUMBER,
    LEVEL_OF,
    LEVELS,
    LONGEST_COLUMN,
    PATIENT_ID,
    SERIES_UID,
    SOP_UID,
    STUDY_DATE,
    STUDY_UID,
    UNIQUE_KEYS,
    key,
    texts,
)
from gateway.vault.matching import Matcher, date_range, has_wildcard, key_values, matcher

Root = Literal["PATIENT", "STUDY"]

CHARACTER_SET = 0x00080005
LEVEL = 0x00080052
RETRIEVE_AE = 0x00080054
AVAILABILITY = 0x00080056
TIMEZONE = 0x00080201
_NOT_KEYS = frozenset((CHARACTER_SET, LEVEL, RETRIEVE_AE, TIMEZONE))
_PAGE = 200  # entities read at a time
_PARAMETERS = 10_000  # values in one statement, named up to three times; PostgreSQL takes 65,535

_ENTITY: dict[str, Any] = {  # what tells the entities of a level apart, and the order of answers
    "PATIENT": VaultRow.patient_id,
    "STUDY": VaultRow.study_uid,
    "SERIES": VaultRow.original_series_uid,
    "IMAGE": VaultRow.locator,
}


@dataclass(frozen=True)
class Scope:
    """The studies that a caller may know of: Study Instance UIDs, or "*" for all."""

    studies: tuple[str, ...] = ("*",)

    def allows(self, study_uid: str) -> bool:
        """Whether the study is in the scope."""
        return "*" in self.studies or study_uid in self.studies


class Index:
    """Finds and selects; never writes. Safe for any number of threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(
        self,
        root: Root,
        level: str,
        query: Dataset,
        scope: Scope,
        limit: int,
        is_over: Callable[[], bool] = lambda: False,
        *,
        relational: bool = False,
    ) -> Iterator[Dataset]:
        """Answer a C-FIND identifier, or a search of QIDO-RS.

        Each answer holds the requested keys of this level and those above (zero length where there is no value or the
        key is not supported), all unique keys down to `level`, and Query/Retrieve Level. Retrieve AE Title is left to
        the caller. Text beyond ASCII is answered in ISO_IR 192. Patients without a Patient ID have no place at PATIENT
        level; their studies are found by Study Root.

        Parameters
        ----------
        level
            "PATIENT", "STUDY", "SERIES" or "IMAGE".
        limit
            Answers given before ``too-many-matches``.
        is_over
            Asked before each entity is looked at, whether it matches or not: True ends the search.
        relational
            Levels above need not be named, and keys of theirs match as well (PS3.4 C.4.1.2.2.2; PS3.18 10.6.1.1).

        Raises
        ------
        VaultError
            ``level-not-in-model`` and ``identifier-incomplete`` (DIMSE 0xA900), before the first answer;
            ``too-many-matches`` (0xA700) after `limit` answers, when there are more.
        """
        _check_level(root, level)
        filters = _visible(scope, _uids(query, SOP_UID) if level == "IMAGE" else ())
        with reading(self._engine) as session:
            filters += _above(session, root, level, query, relational)
            filters += _prefilters(session, root, level, query)
        if level == "PATIENT":
            filters.append(VaultRow.patient_id != "")
        return self._answers(
            root, level, query, scope, filters, limit, is_over, _matchers(root, level, query, relational)
        )

    def select(self, root: Root, level: str, identifier: Dataset, scope: Scope) -> list[str]:
        """The locators that a C-MOVE or C-GET identifier names, by series and order of arrival.

        The unique key of `level` may be a list, those above are single values. An original UID selects its newest
        generation, a derived UID exactly its own. What is out of scope is not there.

        Raises
        ------
        VaultError
            ``level-not-in-model`` and ``identifier-incomplete`` (DIMSE 0xA900).
        """
        _check_level(root, level)
        wanted = _uids(identifier, UNIQUE_KEYS[level])
        if not wanted:
            raise VaultError("identifier-incomplete", f"the identifier lacks the unique key of level {level}")
        order = (VaultRow.study_uid, VaultRow.original_series_uid, VaultRow.created_at, VaultRow.locator)
        found: set[tuple[str, str, float, str]] = set()
        with reading(self._engine) as session:
            above = list(_above(session, root, level, identifier))
            for start in range(0, len(wanted), _PARAMETERS):
                part = wanted[start : start + _PARAMETERS]
                visible = _visible(scope, part if level == "IMAGE" else ())
                rows = session.execute(select(*order).where(*visible, *above, _is_one_of(session, level, part)))
                found.update((study, series, at, locator) for study, series, at, locator in rows)
        return [locator for *_, locator in sorted(found)]

    def transfer_syntaxes(self, scope: Scope = Scope()) -> dict[str, list[str]]:
        """SOP class UID to the transfer syntaxes of the originals held inside a scope, the most frequent first."""
        columns = (VaultRow.sop_class_uid, VaultRow.transfer_syntax_uid)
        counted = (
            select(*columns)
            .where(VaultRow.payload_file.is_not(None), *_inside(scope))
            .group_by(*columns)
            .order_by(VaultRow.sop_class_uid, func.count().desc(), VaultRow.transfer_syntax_uid)
        )
        held: dict[str, list[str]] = {}
        with reading(self._engine) as session:
            for sop_class, syntax in session.execute(counted):
                held.setdefault(sop_class, []).append(syntax)
        return held

    def unsupported(self, root: Root, level: str, query: Dataset) -> bool:
        """Whether the identifier has optional keys that are not supported (pending status 0xFF01, PS3.4 C.4.1.1.4).

        Raises
        ------
        VaultError
            ``level-not-in-model``.
        """
        _check_level(root, level)
        return any(
            not _is_supported(level, int(element.tag))
            for element in query
            if int(element.tag) not in _NOT_KEYS and element.tag.element != 0
        )

    def _answers(
        self,
        root: Root,
        level: str,
        query: Dataset,
        scope: Scope,
        filters: Sequence[ColumnElement[bool]],
        limit: int,
        is_over: Callable[[], bool],
        matchers: Mapping[int, Matcher],
    ) -> Iterator[Dataset]:
        given = 0
        for page in self._pages(level, filters):
            counted = counts.count(self._engine, level, query, page, _visible(scope, ()))
            for row in page:
                if is_over():
                    return
                known = {**row.attributes, **counted.get(row.entity, {})}
                if not all(matches(texts(known, tag)) for tag, matches in matchers.items()):
                    continue
                if given == limit:
                    raise VaultError("too-many-matches", f"more than {limit} matches", "narrow the query")
                given += 1
                yield _answer(root, level, query, row, known)

    def _pages(self, level: str, filters: Sequence[ColumnElement[bool]]) -> Iterator[Sequence[Row[Any]]]:
        """One row per entity (its latest instance stands for it), page by page, no transaction open in between."""
        entity = _ENTITY[level]
        after: str | None = None
        while True:
            onward = [*filters, entity > after] if after is not None else list(filters)
            keys = select(entity).where(*onward).distinct().order_by(entity).limit(_PAGE)
            with reading(self._engine) as session:
                wanted = session.scalars(keys).all()
                page = session.execute(_latest(entity, wanted, filters)).all() if wanted else []
            if page:
                yield page
            if len(wanted) < _PAGE:
                return
            after = wanted[-1]


def _latest(entity: Any, wanted: Sequence[str], filters: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """The latest row of each `wanted` entity among those that pass the filters."""
    latest = func.row_number().over(partition_by=entity, order_by=(VaultRow.created_at.desc(), VaultRow.locator.desc()))
    ranked = (
        select(VaultRow.locator.label("locator"), latest.label("place")).where(*filters, entity.in_(wanted)).subquery()
    )
    return (
        select(
            entity.label("entity"),
            VaultRow.attributes,
            VaultRow.patient_id,
            VaultRow.study_uid,
            VaultRow.original_series_uid,
            VaultRow.original_sop_uid,
        )
        .join(ranked, and_(ranked.c.locator == VaultRow.locator, ranked.c.place == 1))
        .order_by(entity)
    )


def _check_level(root: Root, level: str) -> None:
    if level not in LEVELS or (root == "STUDY" and level == "PATIENT"):
        raise VaultError("level-not-in-model", "the identifier's level does not belong to its information model")


def _visible(scope: Scope, derived: Sequence[str]) -> list[ColumnElement[bool]]:
    """In scope, payload there, newest generation (or named by one of the `derived` UIDs)."""
    newer = aliased(VaultRow)
    newest = ~exists().where(
        newer.original_sop_uid == VaultRow.original_sop_uid,
        newer.study_uid == VaultRow.study_uid,
        newer.original_series_uid == VaultRow.original_series_uid,
        newer.generation > VaultRow.generation,
    )
    conditions: list[ColumnElement[bool]] = [VaultRow.payload_file.is_not(None)]
    conditions.append(or_(newest, VaultRow.derived_sop_uid.in_(derived)) if derived else newest)
    return [*conditions, *_inside(scope)]


def _inside(scope: Scope) -> list[ColumnElement[bool]]:
    """The condition of a scope; none where it is everything."""
    return [] if "*" in scope.studies else [VaultRow.study_uid.in_(scope.studies)]


def _above(
    session: Session, root: Root, level: str, query: Dataset, relational: bool = False
) -> Iterator[ColumnElement[bool]]:
    """The unique keys of the levels above: each must be there with one value (hierarchical, PS3.4 C.4.1.2.2)."""
    first = 0 if root == "PATIENT" else 1
    for above in LEVELS[first : LEVELS.index(level)]:
        values = _uids(query, UNIQUE_KEYS[above])
        if relational:
            if values:
                yield _is_one_of(session, above, values)
            continue
        if len(values) != 1 or (above == "PATIENT" and has_wildcard(values[0])):
            raise VaultError(
                "identifier-incomplete", f"the identifier lacks the unique key of level {above}, or has several"
            )
        yield _is_one_of(session, above, values)


def _any_of(session: Session, *branches: Callable[[Any], ColumnElement[bool]]) -> ColumnElement[bool]:
    """That one of the conditions holds, each found by an index of its own whatever the statistics say.

    Joined by OR, one branch that looks unselective makes the planner read the whole table. Most often records meet one
    branch alone: then that one leads, and rows that arrived together lie together. By their locators, which are random,
    each row would be a page of its own to read.
    """
    led = session.execute(select(*(exists().where(branch(VaultRow)) for branch in branches))).one()
    met = [branch for branch, is_met in zip(branches, led, strict=True) if is_met] or branches[:1]
    if len(met) == 1:
        return met[0](VaultRow)
    found = [select(row.locator).where(branch(row)) for branch in met for row in (aliased(VaultRow),)]
    return VaultRow.locator.in_(union_all(*found))


def _is_one_of(session: Session, level: str, values: Sequence[str]) -> ColumnElement[bool]:
    if level == "PATIENT":
        return VaultRow.patient_id.in_([value[:LONGEST_COLUMN] for value in values])
    if level == "STUDY":
        return _any_of(
            session,
            lambda row: row.study_uid.in_(values),
            lambda row: and_(has_new_study(row.derived_study_uid), row.derived_study_uid.in_(values)),
        )
    if level == "SERIES":
        return _any_of(
            session,
            lambda row: row.original_series_uid.in_(values),
            lambda row: row.derived_series_uid.in_(values),
        )
    return _any_of(session, lambda row: row.original_sop_uid.in_(values), lambda row: row.derived_sop_uid.in_(values))


def _has_one_of(session: Session, name: str, values: Sequence[str]) -> ColumnElement[bool]:
    """The column holds one of the values, or several of which one may be it: the matchers look at those again."""
    return _any_of(
        session,
        lambda row: getattr(row, name).in_([value[:LONGEST_COLUMN] for value in values]),
        lambda row: has_several(getattr(row, name)),
    )


def _prefilters(session: Session, root: Root, level: str, query: Dataset) -> Iterator[ColumnElement[bool]]:
    """What the database can decide by its columns; UIDs entirely, the others again by their matchers."""
    for unique in ("STUDY", "SERIES", "IMAGE"):
        wanted = _uids(query, UNIQUE_KEYS[unique])
        if wanted and unique == level:
            yield _is_one_of(session, level, wanted)
    if level == "PATIENT" or (root, level) == ("STUDY", "STUDY"):
        patients = _uids(query, PATIENT_ID)
        if patients and not any(has_wildcard(one) for one in patients):
            yield _has_one_of(session, "patient_id", patients)
    if level != "STUDY":
        return
    accessions = _uids(query, ACCESSION_NUMBER)
    if accessions and not any(has_wildcard(one) for one in accessions):
        yield _has_one_of(session, "accession_number", accessions)
    dates = _uids(query, STUDY_DATE)
    if len(dates) == 1 and (ends := date_range(dates[0])):
        several = has_several(VaultRow.study_date)
        if ends[0]:
            yield or_(VaultRow.study_date >= ends[0], several)
        if ends[1]:
            yield or_(and_(VaultRow.study_date <= ends[1], VaultRow.study_date != ""), several)


def _matchers(root: Root, level: str, query: Dataset, relational: bool) -> dict[int, Matcher]:
    """Matchers of the keys of this level (of Study Root's STUDY level: the patient's as well, PS3.4 C.6.2.1)."""
    levels = {level, "PATIENT"} if (root, level) == ("STUDY", "STUDY") else {level}
    if relational:
        levels = set(LEVELS[: LEVELS.index(level) + 1])
    found: dict[int, Matcher] = {}
    for element in query:
        tag = int(element.tag)
        if tag in (STUDY_UID, SERIES_UID, SOP_UID):
            continue  # UIDs, original or derived, are decided by the database
        if counts.LEVEL_OF.get(tag) == level or LEVEL_OF.get(tag) in levels:
            test = matcher(element)
            if test is not None:
                found[tag] = test
    return found


def _is_supported(level: str, tag: int) -> bool:
    """Whether an answer at `level` can give the attribute: it is counted there, or stored for it or a level above."""
    its_level = LEVEL_OF.get(tag)
    stored = its_level is not None and LEVELS.index(its_level) <= LEVELS.index(level)
    return stored or counts.LEVEL_OF.get(tag) == level or tag == AVAILABILITY


def _uids(query: Dataset, tag: int) -> list[str]:
    """The values of a key; empty when it is absent or matches everything."""
    return [value for value in (key_values(query[tag]) if tag in query else []) if value != "*"]


def _answer(root: Root, level: str, query: Dataset, row: Row[Any], known: dict[str, Any]) -> Dataset:
    answer = Dataset()
    for element in query:
        tag = int(element.tag)
        if tag in _NOT_KEYS or element.tag.element == 0:
            continue
        entry = known.get(key(tag))
        if tag == AVAILABILITY:
            answer.add_new(tag, "CS", "ONLINE")
        elif entry is not None and entry.get("Value") and _is_supported(level, tag):
            answer.add(DataElement.from_json(Dataset, key(tag), entry["vr"], entry["Value"], "Value"))
        else:
            answer.add_new(tag, dictionary_VR(tag) if dictionary_has_tag(tag) else element.VR, None)
    names = {PATIENT_ID: row.patient_id, STUDY_UID: row.study_uid}
    names |= {SERIES_UID: row.original_series_uid, SOP_UID: row.original_sop_uid}
    first = 0 if root == "PATIENT" else 1
    for above in LEVELS[first : LEVELS.index(level) + 1]:
        tag = UNIQUE_KEYS[above]
        answer.add_new(tag, dictionary_VR(tag), names[tag])
    answer.add_new(LEVEL, "CS", level)
    if not all(_is_ascii(element) for element in answer):
        answer.add_new(CHARACTER_SET, "CS", "ISO_IR 192")
    return answer


def _is_ascii(element: DataElement) -> bool:
    return all(str(value).isascii() for value in (element.value if element.VM > 1 else [element.value]))
