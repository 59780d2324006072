"""Attributes of an entity that are counted, not stored (PS3.4 C.3.4): how many related entities, which modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from sqlalchemy import ColumnElement, Engine, Row, distinct, func, select

from gateway.database import VaultRow, reading
from gateway.vault.attributes import key

PATIENT_STUDIES, PATIENT_SERIES, PATIENT_INSTANCES = 0x00201200, 0x00201202, 0x00201204
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = 0x00201206, 0x00201208, 0x00201209
MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY = 0x00080061, 0x00080062

LEVEL_OF = {
    PATIENT_STUDIES: "PATIENT",
    PATIENT_SERIES: "PATIENT",
    PATIENT_INSTANCES: "PATIENT",
    STUDY_SERIES: "STUDY",
    STUDY_INSTANCES: "STUDY",
    MODALITIES_IN_STUDY: "STUDY",
    SOP_CLASSES_IN_STUDY: "STUDY",
    SERIES_INSTANCES: "SERIES",
}
_NUMBERS: dict[int, Any] = {
    PATIENT_STUDIES: func.count(distinct(VaultRow.study_uid)),
    PATIENT_SERIES: func.count(distinct(VaultRow.original_series_uid)),
    PATIENT_INSTANCES: func.count(),
    STUDY_SERIES: func.count(distinct(VaultRow.original_series_uid)),
    STUDY_INSTANCES: func.count(),
    SERIES_INSTANCES: func.count(),
}
_LISTS: dict[int, tuple[str, Any]] = {
    MODALITIES_IN_STUDY: ("CS", VaultRow.modality),
    SOP_CLASSES_IN_STUDY: ("UI", VaultRow.sop_class_uid),
}
_ENTITY: dict[str, Any] = {
    "PATIENT": VaultRow.patient_id,
    "STUDY": VaultRow.study_uid,
    "SERIES": VaultRow.original_series_uid,
}

Counted = dict[str, dict[str, Any]]  # entity -> DICOM JSON model


def count(
    engine: Engine, level: str, query: Dataset, page: Sequence[Row[Any]], visible: Sequence[ColumnElement[bool]]
) -> Counted:
    """Count what `query` asks for at `level`, for the entities of a page, among the `visible` records only."""
    asked = [tag for tag, its_level in LEVEL_OF.items() if its_level == level and tag in query]
    if not asked:
        return {}
    entity = _ENTITY[level]
    here = [*visible, entity.in_([row.entity for row in page])]
    counted: Counted = {}
    with reading(engine) as session:
        numbers = [tag for tag in asked if tag in _NUMBERS]
        if numbers:
            columns = [_NUMBERS[tag].label(key(tag)) for tag in numbers]
            for name, *values in session.execute(select(entity, *columns).where(*here).group_by(entity)):
                model = counted.setdefault(name, {})
                model.update(
                    {key(tag): {"vr": "IS", "Value": [value]} for tag, value in zip(numbers, values, strict=True)}
                )
        for tag in asked:
            if tag in _LISTS:
                vr, column = _LISTS[tag]
                pairs = select(entity, column).where(*here, column != "").distinct().order_by(entity, column)
                for name, value in session.execute(pairs):
                    model = counted.setdefault(name, {})
                    model.setdefault(key(tag), {"vr": vr, "Value": []})["Value"].append(value)
    return counted
