"""The events of the audit trail, each with the codes of the DICOM audit message that it stands for.

Event ID: PS3.16 CID 400, event type: CID 401; the messages themselves: PS3.15 A.5.3. The lines written today are JSON;
the codes are in each line so that sending them as DICOM audit messages later needs no translation table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EventCode:
    """DCM codes of one event: `event_id` from CID 400, `event_type` from CID 401 (empty where there is none)."""

    event_id: str
    event_type: str = ""


SERVICE_START = "service-start"
SERVICE_STOP = "service-stop"
CONFIGURATION_LOADED = "configuration-loaded"
CLINICAL_DESTINATION = (
    "clinical-destination"  # at start: marked copies may go to one, by a sentence in the configuration
)
PLAIN_CONNECTION = "plain-connection"  # an association without TLS that the configuration allows in so many words
NODE_REFUSED = "node-refused"  # before any association: TLS handshake, connection limit
ASSOCIATION_REFUSED = "association-refused"  # A-ASSOCIATE-RJ sent
REQUEST_REFUSED = "request-refused"  # over HTTP: of nobody who is listed, or one too many
ASSOCIATION_OPENED = "association-opened"
ASSOCIATION_CLOSED = "association-closed"  # with the counts of what was done in it
INSTANCE_REFUSED = "instance-refused"  # a C-STORE answered with a failure, or an object aborted half way
STORE_REQUEST = "store-request"  # over HTTP (STOW-RS), with the counts of what was done in it
INSTANCE_NOTED = "instance-noted"  # sealed, and read with notes: its header is not all as the standard says
INSTANCE_MARKED = "instance-marked"
INSTANCE_REMAPPED = "instance-remapped"  # an object that refers to images, now to their marked copies
REPORT_MADE = "protection-report"  # of one study, on its way to the destinations of a route
INSTANCE_HELD = "instance-held"
INSTANCE_RELEASED = "instance-released"
INSTANCE_PASSED = "instance-passed"  # an unmarked original to a trusted destination, by an explicit route
OVERRIDE_STARTED = "emergency-override-started"  # a route passes originals until the time that its break-glass names
OVERRIDE_STOPPED = "emergency-override-stopped"  # that time has come, or the configuration no longer says it
INSTANCE_DISCARDED = (
    "instance-discarded"  # held, and given up by a person; reason: original-sealed, or confirmed in words
)
INSTANCE_DELETED = "instance-deleted"  # purge and retention
CLOCK_NOT_BELIEVED = "clock-not-believed"  # it runs ahead: nothing is purged by age until somebody confirms it
CLOCK_CONFIRMED = "clock-confirmed"
DELIVERY = "delivery"  # one instance to one destination
DELIVERY_FELL_BACK = "delivery-fell-back"  # it goes to the fallback, since its destination takes nothing for long
COMMITMENT_ASKED = "commitment-asked"  # of a destination: storage commitment of what it was sent
COMMITMENT_REPORTED = "commitment-reported"  # by a destination
COMMITMENT_REQUESTED = "commitment-requested"  # by an archive, of us
COMMITMENT_ANSWERED = "commitment-answered"  # to an archive, before it is told; on this word it may delete
QUERY = "query"  # C-FIND, QIDO-RS
RETRIEVE = "retrieve"  # C-GET, C-MOVE, WADO-RS, or a C-STORE that asks for the original
RESTORE_INTENDED = "restore-intended"  # on disk before the first byte of any original that it names can leave
ORIGINAL_RESTORED = "original-restored"
RESTORE_REFUSED = "restore-refused"
RECORD_CHANGED = "record-changed"  # a signed record is not what the restore role saw first
KEYS_MADE = "keys-made"
KEY_USED = "key-used"
BACKUP = "backup"
PAGE_LOGIN = "page-login"  # a person at the page; refused: wrong name or password, or too many tries
PAGE_LOGOUT = "page-logout"  # by a click, or as the session ended
PAGE_USER_CHANGED = "page-user-changed"  # by `miad-gateway page user`
INSTANCE_VIEWED = "instance-viewed"  # on disk before a picture of it goes to a person at the page
ACTION_ASKED = "action-asked"  # at the page; what is done about it is told by the flow
PROBE_SENT = "probe-sent"  # by a person: a labelled synthetic instance, no patient's, goes to a destination
DESTINATION_PAUSED = "destination-paused"  # by a person: nothing is sent there until it is resumed
DESTINATION_RESUMED = "destination-resumed"
DESTINATION_ASKED = "destination-asked"  # by a person, whether it answers (C-ECHO)
NOTICE_SENT = "notice-sent"  # by mail or webhook: counts, reasons and names of ours, nothing of a patient
ACTION_REFUSED = "action-refused"  # by the flow, which checks anew what was asked for

EVENTS: dict[str, EventCode] = {
    SERVICE_START: EventCode("110100", "110120"),
    SERVICE_STOP: EventCode("110100", "110121"),
    CONFIGURATION_LOADED: EventCode("110100", "110131"),
    CLINICAL_DESTINATION: EventCode("110113", "110132"),
    PLAIN_CONNECTION: EventCode("110113", "110126"),
    NODE_REFUSED: EventCode("110113", "110126"),
    ASSOCIATION_REFUSED: EventCode("110113", "110126"),
    REQUEST_REFUSED: EventCode("110113", "110126"),
    ASSOCIATION_OPENED: EventCode("110108"),
    ASSOCIATION_CLOSED: EventCode("110108"),
    INSTANCE_REFUSED: EventCode("110104"),
    STORE_REQUEST: EventCode("110104"),
    INSTANCE_NOTED: EventCode("110103"),
    INSTANCE_MARKED: EventCode("110103"),
    INSTANCE_REMAPPED: EventCode("110103"),
    REPORT_MADE: EventCode("110103"),
    INSTANCE_HELD: EventCode("110103"),
    INSTANCE_RELEASED: EventCode("110113", "110132"),
    INSTANCE_PASSED: EventCode("110113", "110132"),
    OVERRIDE_STARTED: EventCode("110113", "110127"),
    OVERRIDE_STOPPED: EventCode("110113", "110138"),
    INSTANCE_DISCARDED: EventCode("110113", "110132"),
    INSTANCE_DELETED: EventCode("110105"),
    CLOCK_NOT_BELIEVED: EventCode("110113"),
    CLOCK_CONFIRMED: EventCode("110113", "110132"),
    DELIVERY: EventCode("110104"),
    DELIVERY_FELL_BACK: EventCode("110104"),
    COMMITMENT_ASKED: EventCode("110104"),
    COMMITMENT_REPORTED: EventCode("110104"),
    COMMITMENT_REQUESTED: EventCode("110104"),
    COMMITMENT_ANSWERED: EventCode("110104"),
    QUERY: EventCode("110112"),
    RETRIEVE: EventCode("110104"),
    RESTORE_INTENDED: EventCode("110113", "110132"),
    ORIGINAL_RESTORED: EventCode("110113", "110132"),
    RESTORE_REFUSED: EventCode("110113", "110147"),
    RECORD_CHANGED: EventCode("110113"),
    KEYS_MADE: EventCode("110113", "110129"),
    KEY_USED: EventCode("110113", "110129"),
    BACKUP: EventCode("110106"),
    PAGE_LOGIN: EventCode("110114", "110122"),
    PAGE_LOGOUT: EventCode("110114", "110123"),
    PAGE_USER_CHANGED: EventCode("110113", "110137"),
    INSTANCE_VIEWED: EventCode("110103"),
    ACTION_ASKED: EventCode("110113", "110132"),
    PROBE_SENT: EventCode("110104"),
    DESTINATION_PAUSED: EventCode("110113", "110132"),
    DESTINATION_RESUMED: EventCode("110113", "110132"),
    DESTINATION_ASKED: EventCode("110113", "110126"),
    NOTICE_SENT: EventCode("110113"),
    ACTION_REFUSED: EventCode("110113", "110132"),
}
