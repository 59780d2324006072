"""Which marked copy a reference to an original names: that of the newest bytes that came under its UID."""

from __future__ import annotations

from sqlalchemy import Engine, select

from gateway.database import VaultRow, reading


class CopyNames:
    """Derived SOP Instance UIDs for the references in one copy that is being made.

    An answer once given is given again, so that a copy that is put together more than once is the same each time.

    Parameters
    ----------
    study_uid
        Study Instance UID of the original that refers. Where several studies hold an original under one UID, its own
        counts; else that of the study which came first under it.
    has_new_study
        Whether the copy gets a Study Instance UID of its own: then its references name copies that do as well.

    Notes
    -----
    The archive corrects an instance and sends it again under its UID: what refers to it and is made from then on names
    the copy of the corrected bytes. Where one route or several made more than one copy of these bytes, the first of
    them is named. What went out before the correction keeps naming the earlier copy, as the bytes of a copy are fixed;
    it follows when the archive sends it again with other bytes, or once its derived file was purged and it is made
    anew: then it is a new generation too.
    """

    def __init__(self, engine: Engine, study_uid: str, *, has_new_study: bool) -> None:
        self._engine = engine
        self._study_uid = study_uid
        self._has_new_study = has_new_study
        self._known: dict[str, str | None] = {}

    def newest(self, original_uid: str) -> str | None:
        """SOP Instance UID of the copy to name; None while no original of this UID was sealed."""
        if original_uid not in self._known:
            self._known[original_uid] = self._find(original_uid)
        return self._known[original_uid]

    def _find(self, original_uid: str) -> str | None:
        columns = (VaultRow.study_uid, VaultRow.original_sha256, VaultRow.derived_study_uid, VaultRow.derived_sop_uid)
        wanted = select(*columns).where(VaultRow.original_sop_uid == original_uid).order_by(VaultRow.generation)
        with reading(self._engine) as session:
            rows = session.execute(wanted).all()
        if not rows:
            return None
        studies = {row.study_uid for row in rows}
        study = self._study_uid if self._study_uid in studies else rows[0].study_uid
        found = [row for row in rows if row.study_uid == study and bool(row.derived_study_uid) == self._has_new_study]
        if not found:
            return None
        first = found[-1]
        for row in reversed(found):
            if row.original_sha256 != first.original_sha256:
                break
            first = row
        return str(first.derived_sop_uid)
