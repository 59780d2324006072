"""The protection report of a study: records and figures in, an encoded Comprehensive SR out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import Engine

from gateway import __version__
from gateway.config.models import Site
from gateway.dicom.copy.report import SOP_CLASS, CopyFacts, ReportFacts, build_report
from gateway.dicom.copy.uids import derived_uid
from gateway.keys import SealingKeys
from gateway.protect.signed_report import SignedFacts, SignedReport, sign_report
from gateway.vault import FigureStore, MarkFigures, RecordStore, VaultRecord

_NAMES = ("tier", "mode", "profile", "restoration")  # of a policy, in the order in which they are told


class Reporter:
    """Makes reports for one site. It reads signed records and figures, and opens nothing.

    Parameters
    ----------
    engine
        The database with the vault's records.
    """

    def __init__(self, site: Site, keys: SealingKeys, engine: Engine) -> None:
        self._site = site
        self._records = RecordStore(engine, verifier=keys.verifier, vault_id=site.name)
        self._figures = FigureStore(engine)
        self._derive = partial(derived_uid, keys.uid_key)
        self._signer = keys.signer

    def uids(self, study_uid: str, route: str, number: int) -> tuple[str, str]:
        """Series and SOP Instance UID of the report with this number that a route sends out of a study.

        No original can have them: what they are derived from is no UID.
        """
        name = f"{study_uid}/report/{route}"
        return self._derive("series", name), self._derive("instance", name, number)

    def marked_of_study(self, study_uid: str) -> list[str]:
        """Locators of all marked copies of a study, named by the originals' UID or the copies', whatever the route."""
        return self._figures.marked_of_study(study_uid)

    def sign(self, route: str, instance_id: str, sop_uid: str, data: bytes) -> SignedReport:
        """Sign what the report is that leaves as this instance by this route."""
        facts = SignedFacts(
            vault=self._site.name,
            route=route,
            instance_id=instance_id,
            sop_class_uid=SOP_CLASS,
            sop_instance_uid=sop_uid,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
        )
        return sign_report(facts, self._signer)

    def build(
        self,
        locators: Sequence[str],
        series_uid: str,
        sop_uid: str,
        number: int = 1,
        previous: str = "",
    ) -> bytes:
        """The encoded report (Explicit VR Little Endian) of the copies whose records are at `locators`.

        It is of the study that the last of them is of: a route may have changed what Study Instance UID copies get.

        Parameters
        ----------
        previous
            SOP Instance UID of the report that it replaces, or "".

        Raises
        ------
        NotFoundError, IntegrityError
            A record is gone, or is not what was signed.
        """
        records = [self._records.by_locator(locator) for locator in locators]
        figures = self._figures.of(locators)
        return build_report(
            ReportFacts(
                study_uid=records[-1].copy_study_uid,
                series_uid=series_uid,
                sop_instance_uid=sop_uid,
                number=number,
                copies=[_copy(record, figures.get(record.locator)) for record in records],
                attributes=records[0].attributes,
                manufacturer=self._site.manufacturer,
                software_version=__version__,
                device_serial=self._site.name,
                institution=self._site.institution,
                contact=self._site.contact,
                previous=previous,
            )
        )


def _copy(record: VaultRecord, figures: MarkFigures | None) -> CopyFacts:
    copy = CopyFacts(
        sop_class_uid=record.sop_class_uid,
        sop_instance_uid=record.derived_sop_uid,
        series_uid=record.derived_series_uid,
        study_uid=record.copy_study_uid,
        policy="not kept",
    )
    if figures is None:
        return copy
    told = [*_NAMES, *(name for name in figures.policy if name.endswith(" frames"))]
    chosen = ", ".join(f"{name} {figures.policy[name]}" for name in told if name in figures.policy)
    return replace(
        copy,
        policy=f"route {figures.route}: {chosen}",
        frames=figures.frames,
        psnr=figures.psnr,
        psnr_windows=figures.psnr_windows,
        region_share=figures.region_share,
        stroke_share=figures.stroke_share,
        roi_share=figures.roi_share,
    )
