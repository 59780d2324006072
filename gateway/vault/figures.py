"""Figures of marked copies, kept beside their records: what a protection report tells of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Engine, and_, or_, select

from gateway.database import FiguresRow, VaultRow, has_new_study, reading, transaction

_PAGE = 500  # locators in one query


@dataclass(frozen=True)
class MarkFigures:
    """What was done to one image, over all its frames. Numbers and names of the configuration, nothing of a patient.

    Attributes
    ----------
    policy
        What chose the mark: tier, mode, profile, restoration; and what is counted of it (`gateway.database.MISLED`).
    psnr, psnr_windows
        Display PSNR in dB of the worst frame: primary window, and the other windows by name.
    region_share, stroke_share, roi_share
        Share of the pixels (0..1): where a mark was allowed; covered by lettering; in the untouched region of interest.
    """

    route: str
    policy: dict[str, str]
    frames: int
    psnr: float
    psnr_windows: dict[str, float]
    region_share: float
    stroke_share: float
    roi_share: float


class FigureStore:
    """Figures in the database of the vault's records."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def note(self, locator: str, figures: MarkFigures) -> None:
        """Keep the figures of the copy whose record is at `locator`; they replace those of an earlier try."""
        with transaction(self._engine) as session:
            session.merge(FiguresRow(locator=locator, **asdict(figures)))

    def of(self, locators: Iterable[str]) -> dict[str, MarkFigures]:
        """Locator -> figures, of those that have any: copies made before there were figures have none."""
        wanted, found = list(locators), {}
        with reading(self._engine) as session:
            for start in range(0, len(wanted), _PAGE):
                query = select(FiguresRow).where(FiguresRow.locator.in_(wanted[start : start + _PAGE]))
                for row in session.scalars(query):
                    found[row.locator] = MarkFigures(**{f.name: getattr(row, f.name) for f in fields(MarkFigures)})
        return found

    def marked_of_study(self, study_uid: str) -> list[str]:
        """Locators of the marked copies of a study that went out or may have (their bytes are fixed), oldest first.

        `study_uid`: of the originals or of the copies.
        """
        query = (
            select(VaultRow.locator)
            .join(FiguresRow, FiguresRow.locator == VaultRow.locator)
            .where(
                or_(
                    VaultRow.study_uid == study_uid,
                    and_(has_new_study(VaultRow.derived_study_uid), VaultRow.derived_study_uid == study_uid),
                )
            )
            .where(VaultRow.derived_sha256.is_not(None))
            .order_by(VaultRow.created_at, VaultRow.locator)
        )
        with reading(self._engine) as session:
            return list(session.scalars(query))
