"""What the JSON answers look like: these models are the OpenAPI. UIDs and internal ids, and nothing of a patient.

Times are seconds since 1970 (UTC).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """What went wrong, in the gateway's own words: a stable code, what and where, and what to do."""

    code: str
    message: str
    hint: str = ""


REFUSALS: dict[int | str, dict] = {
    400: {"model": Problem, "description": "It cannot be read, or means more than one thing."},
    401: {"model": Problem, "description": "One has to log in first."},
    404: {"model": Problem, "description": "There is no such thing."},
    422: {"model": Problem, "description": "A value is not as it has to be."},
    503: {"model": Problem, "description": "The database, or the audit's disk, does not take it now."},
}


OF_PICTURES: dict[int | str, dict] = {
    403: {"model": Problem, "description": "Whoever asks may not."},
    409: {"model": Problem, "description": "It cannot be shown."},
}


class RouteStatus(BaseModel):
    """Instances of one route. `recent` figures are of the last five minutes."""

    route: str
    configured: bool
    total: int
    waiting: int = Field(description="received or sealed, not marked yet")
    marked: int = Field(description="on their way to destinations")
    held: int
    delivered: int
    discarded: int
    oldest_at: float | None = Field(description="when the oldest that is still on its way was received")
    received_recently: int
    marked_recently: int


class DeliveryStatus(BaseModel):
    """Deliveries of one route to one destination."""

    route: str
    destination: str
    configured: bool
    queued: int
    failing: int = Field(description="queued, and tried in vain before")
    held: int
    sent: int
    oldest_at: float | None
    next_attempt_at: float | None
    last_sent_at: float | None
    sent_recently: int
    latency_s: float | None = Field(description="from receipt to delivery, mean of the last five minutes")
    uncommitted: int = Field(description="sent, and not yet committed by the destination, which is asked to")
    opens_at: float | None = Field(description="outside the destination's schedule: when it is sent to again")
    paused_at: float | None = Field(description="when a person paused the destination: nothing is sent there")


class HeldGroup(BaseModel):
    """Held instances of one route with one reason, and what to do about them."""

    route: str
    reason_code: str
    count: int
    oldest_at: float | None
    cure: str


class ListenerStatus(BaseModel):
    """A port that a role listens on, or should."""

    role: str
    address: str
    up: bool


class Status(BaseModel):
    """The flow at a glance."""

    at: float
    version: str
    routes: list[RouteStatus]
    deliveries: list[DeliveryStatus]
    held: list[HeldGroup]
    listeners: list[ListenerStatus]
    worker_seen_at: float | None = Field(description="a worker says each minute that it is there")
    clock_doubt: str | None = Field(description="why nothing is purged by age now")


class QueueLine(BaseModel):
    """One instance of the queue."""

    id: str
    state: str
    route: str
    calling_ae: str
    sop_class_uid: str
    sop_instance_uid: str
    size: int
    received_at: float
    delivered_at: float | None
    attempts: int
    next_attempt_at: float | None
    reason_code: str | None
    reason: str | None
    cure: str | None = Field(description="of held instances: what a person can do")
    deliveries: dict[str, str] = Field(description="destination: state")
    study_uid: str | None = Field(description="null: not sealed yet")


class DeliveryFacts(BaseModel):
    """One instance's way to one destination."""

    destination: str
    fallback_of: str | None = Field(description="the destination that its route names, where this one is its fallback")
    state: str
    attempts: int
    next_attempt_at: float | None
    dimse_status: int | None
    reason_code: str | None
    reason: str | None
    sent_at: float | None
    commit_state: str = Field(description="of storage commitment: due, asked, committed, refused; empty: not asked for")
    commit_uid: str | None = Field(description="Transaction UID under which it was asked for last")
    commit_at: float
    commit_failures: int = Field(description="times that the destination reported it as not committed")


class Instance(BaseModel):
    """Everything that the page knows of one instance."""

    id: str
    state: str
    route: str
    action: str | None
    calling_ae: str
    called_ae: str
    association_id: str
    sop_class_uid: str
    sop_instance_uid: str
    derived_sop_instance_uid: str | None
    study_uid: str | None
    transfer_syntax_uid: str
    size: int
    derived_size: int | None
    record: str | None = Field(description="locator of its vault record")
    is_received_here: bool = Field(description="the spool holds the received bytes")
    is_copy_here: bool = Field(description="its copy is kept here")
    held_from: str | None
    reason_code: str | None
    reason: str | None
    cure: str | None
    attempts: int
    deaths: int
    next_attempt_at: float
    received_at: float
    sealed_at: float | None
    marked_at: float | None
    delivered_at: float | None
    deliveries: list[DeliveryFacts]


class MarkFigures(BaseModel):
    """What is known of a mark; shares are of the pixels, 0 to 1."""

    tier: str
    mode: str
    profile: str
    frames: int
    psnr: float | None = Field(description="dB of the worst frame in its own window; null: nothing was changed")
    region_share: float = Field(description="where a mark was allowed")
    stroke_share: float = Field(description="covered by lettering")
    roi_share: float = Field(description="in the region of interest, untouched")
    misled_share: float | None = Field(
        description="strength: of the answers of the networks that the mark was made against, those that it changed, "
        "0 to 1; null: not asked, as of slices that began from a neighbour's mark"
    )


class StudyLine(BaseModel):
    """One study of the vault, by UIDs alone."""

    study_uid: str
    copies_study_uid: str = Field(description="of its copies, where they have one of their own; else empty")
    originals: int
    copies: int = Field(description="whose bytes are fixed, so that they left or may")
    sealed: int = Field(description="originals whose sealed bytes are kept here")
    first_at: float
    last_at: float = Field(description="when the latest of it was received")
    states: dict[str, int] = Field(description="state: instances that were received of it")


class Studies(BaseModel):
    """One page of studies; `older` or `after` asks for the next one."""

    lines: list[StudyLine]
    older: float | None
    after: str | None


class CopyLine(BaseModel):
    """An original and its copy."""

    original_series_uid: str
    original_sop_uid: str
    derived_sop_uid: str
    generation: int = Field(description="counts different byte strings under one original UID")
    sop_class_uid: str
    transfer_syntax_uid: str
    created_at: float
    is_sealed: bool = Field(description="its sealed original is kept here")
    is_fixed: bool = Field(description="the bytes of its copy are fixed")
    instance_id: str | None = Field(description="the latest instance that was received of it")
    state: str | None
    action: str | None
    figures: MarkFigures | None


class Study(BaseModel):
    """A study with some of its originals and copies; `more`: there are others."""

    study: StudyLine
    lines: list[CopyLine]
    more: bool


class MarkLine(BaseModel):
    """One mark that was made lately."""

    instance_id: str
    route: str
    marked_at: float
    sop_class_uid: str
    figures: MarkFigures


class MarkSummary(BaseModel):
    """The newest marks of one route together."""

    route: str
    marks: int
    psnr_lowest: float | None
    psnr_median: float | None
    region_share: float = Field(description="mean")
    stroke_share: float = Field(description="mean")
    roi_share: float = Field(description="mean")
    misled_share: float | None = Field(description="mean over those that were asked")
    unchanged: int = Field(description="copies in which nothing was changed: blank, or even air")


class Marks(BaseModel):
    """How much of a picture the newest marks take, and how far they can be seen."""

    routes: list[MarkSummary]
    lines: list[MarkLine]


class RestoreLine(BaseModel):
    """Originals given to one caller in one association, or a refusal; as many lines of the audit as `count` says."""

    log: str | None
    event: str | None
    outcome: str | None
    reason: str | None
    association_id: str | None
    calling_ae: str | None
    peer_address: str | None
    operation: str | None
    first: str
    last: str
    count: int
    bit_exact: bool | None
    sop_instance_uid: str | None = Field(description="where there is one alone")


class Restores(BaseModel):
    """The newest restores and refusals, and the roles whose log the page's user may not read."""

    lines: list[RestoreLine]
    more: bool
    closed: list[str]


class DestinationFacts(BaseModel):
    """One destination as it is configured, and what goes to it."""

    name: str
    type: str
    ae_title: str
    host: str
    port: int
    tls: bool
    routes: list[str]
    deliveries: list[DeliveryStatus]


class CertificateFacts(BaseModel):
    """A certificate that the configuration names."""

    where: str
    ends_at: float
    days_left: float


class KeyFacts(BaseModel):
    """A key that the configuration names; its age by the date of its file, where the page's user may see that."""

    name: str
    age_days: float | None


class SettingFacts(BaseModel):
    """One value of the configuration; secrets are masked."""

    path: str
    value: str
    source: Literal["file", "default"]


class AuditLines(BaseModel):
    """The newest lines of the audit, and the roles whose file the page's user may not read."""

    lines: list[dict]
    closed: list[str]
