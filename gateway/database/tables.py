"""The database schema, one page: what the flow, the vault and the restore role remember.

Times are UTC, as seconds since 1970 (float). UIDs are text without padding. The `instance` and `delivery` tables are
the truth about work to do (leases in them make every step safe to repeat); `vault_record` is the truth about originals.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    func,
    literal,
    literal_column,
    text,
)
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column


def _only(where: str, name: str, *columns: str) -> Index:
    """An index of the rows of which this holds; who looks for them has to say so in the same words."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def has_several(column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """That a column of the C-FIND index holds several values: in the words of its own index of those."""
    first = func.substr(column, literal_column("1"), literal_column("1"))
    return first == literal("\\", literal_execute=True)


def has_new_study(column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """That a copy has a study of its own: in the words of the index of those, most have none."""
    return column != literal("", literal_execute=True)


def _there(name: str, column: str) -> Index:
    """An index of the rows that have this at all."""
    where = text(f"{column} IS NOT NULL")
    return Index(name, column, sqlite_where=where, postgresql_where=where)


def _batched(name: str, *columns: str) -> Index:
    """An index of the instances that wait for their mark."""
    where = text("state = 'sealed'")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


def _uncommitted(name: str, *columns: str) -> Index:
    """An index of the deliveries whose commitment is asked for."""
    where = text("commit_state IN ('due', 'asked')")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


def _of(state: str, name: str, *columns: str) -> Index:
    """An index of the rows in these states alone, as a list of SQL words."""
    where = text(f"state IN ({state})")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


class Base(DeclarativeBase):
    """Declarative base of all tables; Alembic compares the database with its metadata."""


class InstanceRow(Base):
    """One C-STORE that was acknowledged with success, and how far it has come.

    state: received -> sealed -> marked -> delivered, or held (then `held_from` is the state it will go on from), and
    held -> discarded, by a person.
    """

    __tablename__ = "instance"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # random; the only name that logs use
    state: Mapped[str] = mapped_column(String(16))
    route: Mapped[str] = mapped_column(String(32))

    # what the association told us
    calling_ae: Mapped[str] = mapped_column(String(16))
    called_ae: Mapped[str] = mapped_column(String(16))
    peer_address: Mapped[str] = mapped_column(String(64))
    association_id: Mapped[str] = mapped_column(String(32))

    # the object as received
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of the data set
    sha256: Mapped[str] = mapped_column(String(64))
    # where the received bytes lie: the name of a file in the spool folder, or SEGMENT@OFFSET; None once purged
    spool_file: Mapped[str | None] = mapped_column(String(128))

    # what became of it
    action: Mapped[str | None] = mapped_column(String(8))  # what the policy decided: mark, remap or pass; report
    record: Mapped[str | None] = mapped_column(String(32))  # locator of its vault record
    batch_key: Mapped[str] = mapped_column(String(64), default="", server_default="")  # what is marked together
    derived_file: Mapped[str | None] = mapped_column(String(128))  # name in the derived folder; None once purged
    derived_size: Mapped[int | None] = mapped_column(BigInteger)  # bytes of the derived data set
    held_from: Mapped[str | None] = mapped_column(String(16))
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)

    # work in progress
    attempts: Mapped[int] = mapped_column(Integer, default=0)  # of this step; counted when it is claimed
    deaths: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # of processes that were at this step
    next_attempt_at: Mapped[float] = mapped_column(Float, default=0.0)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # raised by each claim

    received_at: Mapped[float] = mapped_column(Float)
    sealed_at: Mapped[float | None] = mapped_column(Float)
    marked_at: Mapped[float | None] = mapped_column(Float)
    delivered_at: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (
        Index("instance_work", "state", "deaths", "received_at"),  # in the order of claims
        _batched("instance_batch", "batch_key", "deaths", "received_at"),  # what waits for the mark, kind by kind
        Index("instance_record", "record"),
        Index("instance_sop", "sop_instance_uid"),
        Index("instance_marked", "route", "marked_at"),
        Index("instance_spool", "spool_file"),
        Index("instance_received", "received_at"),  # the newest first
        _of("'delivered', 'discarded'", "instance_final", "route", "state"),  # to be counted
    )


class SegmentRow(Base):
    """One segment of the spool: how far its records have rows. The segment is the truth of what was acknowledged."""

    __tablename__ = "spool_segment"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    rows_until: Mapped[int] = mapped_column(BigInteger)  # byte; what stands behind is replayed when its writer is dead


class DeliveryRow(Base):
    """One instance on its way to one destination. state: queued -> sent, or held."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instance.id"))
    route: Mapped[str] = mapped_column(String(32), default="", server_default="")  # its instance's, to be counted by
    destination: Mapped[str] = mapped_column(String(32))
    fallback_of: Mapped[str | None] = mapped_column(String(32))  # the destination that its route names, where not this
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempts: Mapped[int] = mapped_column(Integer, default=0)  # counted when it is claimed
    deaths: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # of processes that were at it
    failing_since: Mapped[float | None] = mapped_column(Float)  # of failures that end after a time, not a number
    next_attempt_at: Mapped[float] = mapped_column(Float, default=0.0)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # raised by each claim
    dimse_status: Mapped[int | None] = mapped_column(Integer)  # last C-STORE status, e.g. 0xB000: sent with an alert
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[float | None] = mapped_column(Float)

    # storage commitment of what was sent: due -> asked -> committed; "": it is not asked for
    commit_state: Mapped[str] = mapped_column(String(16), default="", server_default="")
    commit_uid: Mapped[str | None] = mapped_column(String(64))  # Transaction UID under which it was asked for last
    commit_at: Mapped[float] = mapped_column(
        Float, default=0.0, server_default="0"
    )  # due at, asked at, or committed at
    commit_tries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # requests
    commit_failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # reported as not committed

    __table_args__ = (
        UniqueConstraint("instance_id", "destination"),
        Index("delivery_work", "destination", "state", "deaths", "id"),
        _uncommitted("delivery_uncommitted", "destination", "commit_state", "commit_at"),
        _there("delivery_commitment", "commit_uid"),
        _of("'sent'", "delivery_sent", "route", "destination", "sent_at"),  # to be counted
    )


class ClaimRow(Base):
    """One claim: the rows that a process took at once, so that their leases are found when they run out.

    The leases themselves, and what has become of them, stand in the rows; no index holds them, so that they change at
    little cost.
    """

    __tablename__ = "claim"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # random
    kind: Mapped[str] = mapped_column(String(64))  # a state of instances, or to:DESTINATION
    owner: Mapped[str] = mapped_column(String(64))
    until: Mapped[float] = mapped_column(Float)  # when its leases run out that were not renewed
    taken: Mapped[list] = mapped_column(JSON)  # ids of the instances, or of the deliveries

    __table_args__ = (Index("claim_until", "kind", "until"),)


class CommitmentRow(Base):
    """One request of an archive for storage commitment. state: asked -> answered, or given-up."""

    __tablename__ = "commitment_request"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # random
    calling_ae: Mapped[str] = mapped_column(String(16))
    transaction_uid: Mapped[str] = mapped_column(String(64))
    asked_at: Mapped[float] = mapped_column(Float)
    instances: Mapped[list] = mapped_column(JSON)  # [[SOP Class UID, SOP Instance UID], ...]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)  # to tell the archive
    next_attempt_at: Mapped[float] = mapped_column(Float, default=0.0)
    answered_at: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (
        UniqueConstraint("calling_ae", "transaction_uid"),
        Index("commitment_request_work", "state", "next_attempt_at"),
    )


class PayloadCheckRow(Base):
    """That the restore role is asked to open an original and compare it, what it found, and whether it is promised."""

    __tablename__ = "payload_check"

    locator: Mapped[str] = mapped_column(String(32), primary_key=True)
    asked_at: Mapped[float] = mapped_column(Float)
    checked_at: Mapped[float | None] = mapped_column(Float)
    result: Mapped[str | None] = mapped_column(String(64))  # "good", or the code of what is wrong
    promised_at: Mapped[float | None] = mapped_column(Float)  # an archive was told that it is committed


class OverrideRow(Base):
    """An emergency pass (break-glass) of one route: when it was audited to begin and to end."""

    __tablename__ = "emergency_override"

    route: Mapped[str] = mapped_column(String(32), primary_key=True)
    until: Mapped[float] = mapped_column(Float, primary_key=True)  # as the configuration says
    started_at: Mapped[float] = mapped_column(Float)
    stopped_at: Mapped[float | None] = mapped_column(Float)


class ClockRow(Base):
    """What this site knows of its own clock. Purging by age stops while `stopped_at` of row 1 is set.

    Row 2 says with `seen_at` alone when the last pass over originals began.
    """

    __tablename__ = "clock"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    seen_at: Mapped[float] = mapped_column(Float)  # the last time that was believed
    stopped_at: Mapped[float | None] = mapped_column(Float)  # the time that was not believed
    reason: Mapped[str | None] = mapped_column(String(64))
    confirmed: Mapped[int] = mapped_column(Integer, default=0)  # counts `clock confirm`


class RequestRow(Base):
    """What a person at the page asked for: the page may only add it, the worker checks it anew and does or refuses it.

    state: asked -> taken -> done or refused. It names one instance, or all that a reason, route and destination have in
    common; or a destination itself, which is to pause, to resume, or to be asked whether it answers.
    """

    __tablename__ = "page_request"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # random
    asked_at: Mapped[float] = mapped_column(Float)
    user_name: Mapped[str] = mapped_column(String(96))
    session_id: Mapped[str] = mapped_column(String(32))  # names the session in the audit; opens nothing
    # ID token of who logged in by the identity provider: the worker believes it and no name; gone when it is settled
    proof: Mapped[str] = mapped_column(Text, default="", server_default="", deferred=True)
    action: Mapped[str] = mapped_column(String(16))  # `gateway.flow.requests.Action`
    instance_id: Mapped[str | None] = mapped_column(String(32))
    reason_code: Mapped[str | None] = mapped_column(String(64))
    route: Mapped[str | None] = mapped_column(String(32))
    destination: Mapped[str | None] = mapped_column(String(32))
    confirmation: Mapped[str] = mapped_column(String(32), default="", server_default="")  # typed; to discard: the id
    state: Mapped[str] = mapped_column(String(16), default="asked", server_default="asked")
    taken_at: Mapped[float | None] = mapped_column(Float)
    done_at: Mapped[float | None] = mapped_column(Float)
    done: Mapped[int | None] = mapped_column(Integer)  # instances that it changed
    result: Mapped[str | None] = mapped_column(String(64))  # code of why it was refused, or did not do all

    __table_args__ = (Index("page_request_work", "state", "asked_at"),)


class PausedRow(Base):
    """A destination that a person has paused: nothing is claimed for it until somebody resumes it."""

    __tablename__ = "paused_destination"

    destination: Mapped[str] = mapped_column(String(32), primary_key=True)
    paused_at: Mapped[float] = mapped_column(Float)


MISLED = "networks misled"
"""Key of a `FiguresRow.policy`: share of the answers of the mark's networks that it changed, mean over frames asked."""


class FiguresRow(Base):
    """Figures of one marked copy, for reports: numbers and names of the configuration, nothing of a patient."""

    __tablename__ = "mark_figures"

    locator: Mapped[str] = mapped_column(String(32), primary_key=True)  # of its vault record
    route: Mapped[str] = mapped_column(String(32))
    policy: Mapped[dict] = mapped_column(JSON)  # tier, mode, profile, restoration
    frames: Mapped[int] = mapped_column(Integer)
    psnr: Mapped[float] = mapped_column(Float)  # dB, primary window, worst frame
    psnr_windows: Mapped[dict] = mapped_column(JSON)  # the same of the other windows, by name
    region_share: Mapped[float] = mapped_column(Float)  # of the pixels, over all frames: where a mark was allowed,
    stroke_share: Mapped[float] = mapped_column(Float)  # covered by lettering,
    roi_share: Mapped[float] = mapped_column(Float)  # in the region of interest, untouched


class ReportRow(Base):
    """One protection report of a study: what it told of, and the `instance` row that brings it out."""

    __tablename__ = "protection_report"

    route: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)  # 1, then one more for each that tells of more
    instance_id: Mapped[str] = mapped_column(String(32))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    copies_sha256: Mapped[str] = mapped_column(String(64))  # of the locators that it tells of, sorted
    last_marked_at: Mapped[float] = mapped_column(Float)  # of all that it tells of; moves on when nothing new came
    # what may leave: signed by the gateway that made it; none in reports of versions that did not sign
    document: Mapped[bytes | None] = mapped_column(LargeBinary)
    signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    signer: Mapped[str | None] = mapped_column(String(64))


class VaultRow(Base):
    """One sealed original: the signed record, and beside it the columns that queries need.

    `document` is the truth (signed by the gateway that made it); every other column repeats part of it for look-ups,
    or holds the attributes that C-FIND answers from (`attributes`, DICOM JSON model, PS3.18 F).
    """

    __tablename__ = "vault_record"

    locator: Mapped[str] = mapped_column(String(32), primary_key=True)  # 128 random bits, hexadecimal
    generation: Mapped[int] = mapped_column(Integer)  # counts different byte strings under one original UID
    original_sop_uid: Mapped[str] = mapped_column(String(64))
    original_series_uid: Mapped[str] = mapped_column(String(64))
    study_uid: Mapped[str] = mapped_column(String(64))
    derived_sop_uid: Mapped[str] = mapped_column(String(64), unique=True)
    derived_series_uid: Mapped[str] = mapped_column(String(64))
    derived_study_uid: Mapped[str] = mapped_column(String(64), default="", server_default="")  # "": the original's
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    original_sha256: Mapped[str] = mapped_column(String(64))
    original_size: Mapped[int] = mapped_column(BigInteger)
    policy: Mapped[str] = mapped_column(String(64))  # digest of the decision that shapes the derived bytes
    derived_sha256: Mapped[str | None] = mapped_column(String(64))  # fixed before the first delivery, never changed
    token: Mapped[bytes] = mapped_column(LargeBinary)  # the key reference that the marked object carries
    document: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    signer: Mapped[str] = mapped_column(String(64))
    payload_file: Mapped[str | None] = mapped_column(String(128))  # None once retention has ended
    created_at: Mapped[float] = mapped_column(Float)

    # the C-FIND index: clear text and minimal (architecture, promise 7)
    patient_id: Mapped[str] = mapped_column(String(512), default="")
    study_date: Mapped[str] = mapped_column(String(8), default="")
    accession_number: Mapped[str] = mapped_column(String(512), default="")
    modality: Mapped[str] = mapped_column(String(16), default="")
    attributes: Mapped[dict] = mapped_column(JSON)

    __table_args__ = (
        UniqueConstraint("original_sop_uid", "generation"),
        Index("vault_same_original", "original_sop_uid", "original_sha256", "policy"),
        Index(  # all that says which instances of a study are there: a row is a page or more
            "vault_study",
            "study_uid",
            "original_series_uid",
            "created_at",
            "locator",
            "original_sop_uid",
            "generation",
            "payload_file",
        ),
        Index("vault_series", "original_series_uid"),
        Index("vault_derived_series", "derived_series_uid"),
        _only("derived_study_uid <> ''", "vault_derived_study", "derived_study_uid"),
        Index("vault_patient", "patient_id"),
        _only("substr(patient_id, 1, 1) = '\\'", "vault_patients", "patient_id"),
        Index("vault_study_date", "study_date"),
        Index("vault_accession", "accession_number"),
        _only("substr(accession_number, 1, 1) = '\\'", "vault_accessions", "accession_number"),
    )
