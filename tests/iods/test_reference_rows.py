"""Every UID in every made object stands in a row of the table of references, and what the row says becomes of it."""

from __future__ import annotations

from gateway.dicom.copy.references import derive_references, references_syntax
from tests.iods.expected import named
from tests.iods.test_policy_rows import RULED
from tests.support.dicom.reference_rows import OUTCOMES, OWN, ROWS, uids
from tests.support.dicom.samples import facts
from tests.support.flow import decoded

PREFIX = {"instance": "2.25.1.", "series": "2.25.2.", "study": "2.25.3.", "kept": ""}


def test_no_two_rows_differ_over_one_place():
    assert all(OUTCOMES[row.key] == row.outcome for row in ROWS)


def test_every_uid_of_every_object_is_in_the_table(made):
    """Of all that may ever go out: a document, a video and the like are blocked whatever a site says."""
    maps = {
        "map_uid": lambda uid: "2.25.1." + uid,
        "map_series": lambda uid: "2.25.2." + uid,
        "map_study": lambda uid: "2.25.3." + uid,
    }
    met, unknown = set(), set()
    for name in {*named("mark"), *named("remap"), *named("hold"), *RULED}:
        one = made[name]
        if name == "spectroscopy":  # no pixel data, and so no copy of any kind
            continue
        given = facts(derived_study_uid=f"2.25.3.{one.ds.StudyInstanceUID}", **maps)
        copy = derive_references(one.data, one.transfer_syntax_uid, given)
        before = [found for found in uids(one.ds) if found[0] not in OWN]
        after = [
            found for found in uids(decoded(copy, references_syntax(one.transfer_syntax_uid))) if found[0] not in OWN
        ]
        unknown |= {key for key, _ in before if key not in OUTCOMES}
        own = {str(one.ds.SOPInstanceUID): "2.25.1001", str(one.ds.SeriesInstanceUID): "2.25.1002"}
        expected = [
            (key, tuple(own.get(uid, PREFIX[OUTCOMES[key]] + uid) for uid in values))
            for key, values in before
            if OUTCOMES.get(key, "removed") != "removed"
        ]
        assert [found for found in after if found[0] in OUTCOMES] == expected, name
        met |= {key for key, values in before if values}
    assert unknown == set()
    assert len(met) > 30
