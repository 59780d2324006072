"""`miad-gateway conformance`: the conformance statement (PS3.2 annex N), made from the code's own tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.options import Overwrite, check_outputs
from gateway.commands.output import show_text

NOT_DECODED = "stored, restored; images in it are held"


def conformance(
    out: Annotated[Path | None, typer.Option("--out", "-o", dir_okay=False, help="Else standard output.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the DICOM conformance statement of this release (PS3.2 annex N), as Markdown."""
    check_outputs({"--out": out}, overwrite=overwrite)
    text = statement()
    if out is None:
        show_text(text.rstrip("\n"))
    else:
        out.write_text(text, "utf-8")


def statement() -> str:
    """The whole document; the same text for the same release and the same libraries."""
    parts = (
        _overview,
        _introduction,
        _model,
        _storage,
        _query,
        _restore_store,
        _commitment,
        _network,
        _attributes,
        _security,
    )
    return "\n".join(line for part in parts for line in part()) + "\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    yield ""


def _name(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name.replace("|", "/")


def _status(number: int) -> str:
    return f"{number:04X}"


def _overview() -> Iterator[str]:
    from gateway import __version__

    yield "# DICOM conformance statement"
    yield ""
    yield f"Product: MIAD Gateway {__version__.rpartition('.')[0]}. Sections are numbered as in the template, PS3.2"
    yield "annex N; those that do not apply are left out. Made by `miad-gateway conformance --out"
    yield "deploy/docs/conformance.md` from the tables that the code works by; a test holds that it is what that"
    yield "command writes."
    yield ""
    yield "## N.1 Overview"
    yield ""
    yield "The gateway takes instances by C-STORE from an archive, seals each original, and sends a *marked copy*"
    yield "on. Its restore SCP gives authorized workstations the original back, byte for byte, in the transfer"
    yield "syntax in which it came. It is no archive, shows nothing, prints nothing and writes no media."
    yield ""
    yield from _table(
        ("network service", "SCU", "SCP"),
        (
            ("Verification", "yes", "yes"),
            ("Storage, all SOP classes of N.5.2", "yes (marked copies; originals)", "yes (ingress; restore)"),
            ("Storage Commitment Push Model", "yes (worker)", "yes (ingress; reports by worker)"),
            ("DICOMweb STOW-RS", "yes (worker, as user agent)", "yes (ingress, as origin server)"),
            ("DICOMweb QIDO-RS, WADO-RS", "no", "yes (restore, as origin server)"),
            ("Query/Retrieve, Patient and Study Root, C-FIND", "no", "yes (restore)"),
            ("Query/Retrieve, Patient and Study Root, C-MOVE", "no", "yes (restore)"),
            ("Query/Retrieve, Patient and Study Root, C-GET", "no", "yes (restore)"),
        ),
    )


def _introduction() -> Iterator[str]:
    yield "## N.3 Introduction"
    yield ""
    yield "For who connects a PACS, a partner's node or a workstation. Read with [intended"
    yield "use](../intended-use.md): marked copies are not for diagnosis. *Original*: the data set as received."
    yield "*Marked copy*: what leaves in its place."
    yield ""


def _model() -> Iterator[str]:
    from gateway.config.models import Ingress, Restore

    yield "## N.4 Implementation model"
    yield ""
    yield "    archive --C-STORE--> INGRESS ... WORKER --C-STORE--> destinations"
    yield "    workstation <--C-FIND, C-MOVE, C-GET, C-STORE--> RESTORE --C-STORE--> the same workstation (C-MOVE)"
    yield ""
    restore = Restore.model_fields["ae_title"].default
    yield from _table(
        ("application entity", "role", "called AE title", "port by default"),
        (
            ("INGRESS", "Storage and Verification SCP", "one for each route", Ingress.model_fields["port"].default),
            ("WORKER", "Storage and Verification SCU", "of each destination", "-"),
            ("RESTORE", "Query/Retrieve, Storage and Verification SCP; Storage SCU", restore, "2762 (TLS)"),
        ),
    )
    yield "Each is a process of its own. Instances of one destination go out one at a time, in the order of their"
    yield "marks; what cannot be delivered is kept and tried again. AE titles, ports and peers stand in"
    yield "gateway.toml."
    yield ""


def _storage() -> Iterator[str]:
    from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES, syntax_of
    from gateway.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
    from gateway.protect.policy_table import HAZARDS, TABLE

    yield "## N.5 Service and interoperability description"
    yield ""
    yield "### N.5.2 Storage"
    yield ""
    yield "INGRESS is a Storage SCP of level 2 (full): every element is kept, private ones too. No element is"
    yield "coerced: the original is the data set as it came. Digital signatures: level 3 (bit preserving) for"
    yield "originals; copies have none. Success (0000) means that the instance is on the disk. Duplicates are"
    yield "taken."
    yield ""
    yield "What becomes of a SOP class by default; rules of a route may hold, block or (never of images) remap"
    yield "more. *marked*: its copy leaves with a mark. *references mapped*: it leaves, and refers to marked"
    yield "copies. *held*: sealed, and never leaves, unless the route opts in, in words that say what it gives up."
    yield "*blocked*: sealed, and never leaves."
    yield ""
    rows = []
    for uid in sorted(STORAGE_CLASSES, key=lambda uid: [int(part) for part in uid.split(".")]):
        row = TABLE.get(uid)
        becomes = (
            "blocked" if row is None else {"mark": "marked", "remap": "references mapped"}.get(row.action, "blocked")
        )
        if row is not None and row.hazards:
            certain = "for-processing" not in row.hazards or len(row.hazards) > 1
            words = ", ".join(HAZARDS[hazard].opt_in or hazard for hazard in row.hazards)
            becomes = f"held; marked by opt-in ({words})" if certain else f"marked; For Processing held ({words})"
        rows.append((_name(uid), f"`{uid}`", becomes))
    yield from _table(("SOP class", "UID", "default"), rows)
    yield "Private and unknown SOP classes are refused in the presentation context (result 3)."
    yield ""
    yield "#### Transfer syntaxes"
    yield ""
    yield "INGRESS accepts each of these, one a context; the proposer's order decides. No byte is changed by"
    yield "receiving."
    yield ""
    rows = []
    for uid in sorted(TRANSFER_SYNTAXES, key=lambda uid: [int(part) for part in uid.split(".")]):
        try:
            syntax = syntax_of(uid)
        except Exception:  # a layout that is not known
            rows.append((_name(uid), f"`{uid}`", "stored, restored; held"))
            continue
        read = not syntax.encapsulated or bool(syntax.codec)
        rows.append((_name(uid), f"`{uid}`", "stored, restored, marked" if read else NOT_DECODED))
    yield from _table(("transfer syntax", "UID", "use"), rows)
    yield "WORKER proposes, for marked copies, what the destination's `transfer_syntaxes` name, in that order:"
    yield ""
    yield from _table(
        ("name", "transfer syntax", "UID"), ((name, _name(uid), f"`{uid}`") for name, uid in LOSSLESS_NAMES.items())
    )
    yield "A copy is never compressed with loss. Originals (RESTORE; routes that pass them) go in the very transfer"
    yield "syntax in which they came, or not at all."
    yield ""


def _query() -> Iterator[str]:
    from pydicom.datadict import keyword_for_tag

    from gateway.network.retrieve.identifiers import LEVELS, MODELS, UNIQUE_KEYS
    from gateway.vault.attributes import LEVEL_OF

    yield "### N.5.3 Query/Retrieve"
    yield ""
    yield from _table(
        ("SOP class", "UID", "service"),
        ((_name(uid), f"`{uid}`", f"C-{model.service}") for uid, model in MODELS.items()),
    )
    yield "Queries are hierarchical; relational queries, extended negotiation, and fuzzy matching are not"
    yield "supported. Matching: single value, list of UID, universal, wild card, range. Person names match without"
    yield "regard to case. Sequence keys match everything. A caller sees what its entry in the configuration"
    unique = ", ".join(f"{UNIQUE_KEYS[level]} ({level})" for level in LEVELS["PATIENT"])
    yield "covers, and nothing tells it of the rest."
    yield f"Unique keys: {unique}."
    yield ""
    yield from _table(
        ("level", "keys that are matched and returned"),
        (
            (level, ", ".join(keyword_for_tag(tag) for tag, of in LEVEL_OF.items() if of == level))
            for level in LEVELS["PATIENT"]
        ),
    )
    yield "Keys that are not in the table come back without a value, and pending answers then carry FF01. An"
    yield "identifier may name the UIDs of originals, and those of marked copies: both lead to the original."
    yield ""


def _restore_store() -> Iterator[str]:
    yield "### N.5.4 Restoring by C-STORE"
    yield ""
    yield "A workstation may send a *marked copy* to RESTORE by C-STORE. The original it stands for comes back to"
    yield "it, by C-STORE to its own configured address; nothing is stored of what it sent. C-GET needs role"
    yield "selection (SCP) for the storage SOP classes. C-MOVE goes to the requesting AE's own configured address"
    yield "alone: other destinations are answered with A801."
    yield ""


def _commitment() -> Iterator[str]:
    from gateway.config.commitment import Commitment
    from gateway.network import commitment_request as answered
    from gateway.network.commitment_sets import INSTANCE, PUSH_MODEL

    yield "### N.5.5 Storage commitment"
    yield ""
    port = Commitment.model_fields["port"].default
    yield f"{_name(PUSH_MODEL)}, `{PUSH_MODEL}`, instance `{INSTANCE}`. As SCU, where a"
    yield "destination is said to be asked: N-ACTION some time after delivery, many instances in one; the report"
    yield f"(N-EVENT-REPORT) is taken on the same association, or at the WORKER's port (by default {port})."
    yield "What is not committed is sent again, then held. As SCP, where a peer of INGRESS is said to get reports:"
    yield "N-ACTION is kept and answered; the report comes later, on an association of our own, after RESTORE has"
    yield "opened each original and every destination has committed to keep its copy, or the route says that it"
    yield "need not."
    yield ""
    yield "N-ACTION, INGRESS answers:"
    yield ""
    yield from _table(
        ("status", "meaning"),
        (
            (_status(answered.SUCCESS), "the request is kept"),
            (_status(answered.PROCESSING_FAILURE), "failure of the gateway"),
            (_status(answered.NO_SUCH_INSTANCE), "not the well-known instance"),
            (_status(answered.INVALID_ARGUMENT), "the request cannot be read; its transaction was of other instances"),
            (_status(answered.NO_SUCH_CLASS), "another SOP class"),
            (_status(answered.NO_SUCH_ACTION), "another action type"),
            (_status(answered.RESOURCE_LIMITATION), "too many requests wait"),
        ),
    )


def _web() -> Iterator[str]:
    yield "### N.5.6 DICOMweb"
    yield ""
    yield "Over mutual TLS alone; a sender or workstation is its certificate. The operations guide"
    yield "([operations](operations.md)) has URLs, answers and limits."
    yield ""
    yield from _table(
        ("resource", "method", "media types", "role"),
        (
            ("`/ROUTE/studies`", "POST (STOW-RS)", "`application/dicom` in `multipart/related`", "ingress"),
            ("studies, series, instances", "GET (QIDO-RS)", "`application/dicom+json`", "restore"),
            ("study, series, instance", "GET (WADO-RS)", "`application/dicom`, one instance or multipart", "restore"),
            ("`metadata`", "GET (WADO-RS)", "`application/dicom+json`", "restore"),
            ("`rendered`", "GET (WADO-RS)", "`image/jpeg`, `image/png`", "restore"),
            ("`bulkdata`", "GET (WADO-RS)", "`application/octet-stream`", "restore"),
            ("a destination's `/studies`", "POST (STOW-RS)", "`application/dicom` in `multipart/related`", "worker"),
        ),
    )
    yield "No original is converted: it leaves in its own transfer syntax, or the answer is 406."
    yield ""


def _network() -> Iterator[str]:
    from gateway.config.models import Destination, Ingress, Restore
    from gateway.network.settings import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

    yield "## N.7 Network details"
    yield ""
    yield from _table(
        ("association", "value"),
        (
            ("Application context", "`1.2.840.10008.3.1.1.1`"),
            ("Implementation class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation version name", IMPLEMENTATION_VERSION_NAME),
            (
                "Asynchronous operations",
                "C-STORE at INGRESS: a window where the peer asks for one; WORKER asks for one where "
                "`async_operations` of the destination is more than 1, and sends one at a time where none is granted; "
                "else none",
            ),
            ("SCP/SCU role selection", "for C-GET; for reports of storage commitment"),
            ("User identity, extended negotiation", "not supported"),
        ),
    )
    keys = (
        "max_pdu", "async_operations", "max_associations", "max_associations_per_ae", "max_connections",
        "max_connections_per_address",
        "idle_timeout_s", "handshake_timeout_s", "connect_timeout_s", "response_timeout_s", "idle_release_s",
        "max_matches",
    )  # fmt: skip
    rows = []
    for key in keys:
        fields = (model.model_fields.get(key) for model in (Ingress, Destination, Restore))
        rows.append((f"`{key}`", *(f"{found.default:g}" if found else "-" for found in fields)))
    yield from _table(("parameter (default)", "INGRESS", "WORKER", "RESTORE"), rows)
    yield from _statuses()


def _statuses() -> Iterator[str]:
    from gateway.flow.statuses import TABLE
    from gateway.network import incoming
    from gateway.network.retrieve import deliver, find, retrieve, session, store

    yield "### N.7.3 Statuses"
    yield ""
    yield "C-STORE, INGRESS answers:"
    yield ""
    own = [(_status(status), code.replace("-", " ")) for code, status in incoming.STATUS_BY_CODE.items()]
    own += [
        (_status(incoming.SUCCESS), "it is on the disk"),
        (_status(incoming.OUT_OF_RESOURCES), "no room, too much waiting, or database away: send it again later"),
        (_status(incoming.CANNOT_UNDERSTAND), "the data set cannot be read"),
        (_status(incoming.PROCESSING_FAILURE), "failure of the gateway"),
    ]
    yield from _table(("status", "meaning"), sorted(own))
    yield "C-STORE, what WORKER and RESTORE make of the answer:"
    yield ""
    rows = []
    for row in TABLE:
        codes = _status(row.first) + ("" if row.first == row.last else f" to {_status(row.last)}")
        rows.append((codes, row.where, row.kind.value))
    yield from _table(("status", "meaning", "taken as"), [*rows, ("all others", "", "not stored: held")])
    yield "C-STORE of a marked copy, RESTORE answers:"
    yield ""
    yield from _table(
        ("status", "meaning"),
        (
            (_status(store.SUCCESS), "the original was delivered to the caller's address"),
            (_status(store.OUT_OF_RESOURCES), "its address is busy or away: try again"),
            (_status(store.DATA_SET_DOES_NOT_MATCH), "UIDs of command and data set differ"),
            (_status(store.CANNOT_UNDERSTAND), "no marked copy, or not of this site"),
            (_status(deliver.CANNOT_RESTORE), "the original cannot be restored for certain"),
            (_status(store.NOT_DELIVERED), "its address refused the original"),
            (_status(deliver.NOT_AUTHORISED), "not authorised"),
        ),
    )
    yield "C-FIND:"
    yield ""
    yield from _table(
        ("status", "meaning"),
        (
            (_status(find.PENDING), "a match"),
            (_status(find.PENDING_UNSUPPORTED_KEYS), "a match; some keys are not supported"),
            ("0000", "complete"),
            (_status(find.CANCELLED), "cancelled"),
            (_status(find.OUT_OF_RESOURCES), "more matches than `max_matches`: the list is cut"),
            (_status(find.IDENTIFIER_DOES_NOT_MATCH), "the identifier breaks a rule; Error Comment says which"),
        ),
    )
    yield "C-MOVE and C-GET:"
    yield ""
    yield from _table(
        ("status", "meaning"),
        (
            (_status(session.PENDING), "sub-operations go on"),
            ("0000", "all were delivered"),
            ("B000", "some failed or were stored with a warning; Failed SOP Instance UID List names the failed"),
            (_status(retrieve.CANCELLED), "cancelled"),
            (_status(retrieve.TOO_MANY_MATCHES), "too many matches"),
            (_status(retrieve.UNABLE_TO_PERFORM), "none was delivered"),
            (_status(retrieve.DESTINATION_UNKNOWN), "C-MOVE: not the caller's own address"),
            (_status(retrieve.IDENTIFIER_DOES_NOT_MATCH), "the identifier breaks a rule"),
        ),
    )


def _attributes() -> Iterator[str]:
    from pydicom.datadict import keyword_for_tag

    from gateway.dicom.copy.derivation import SCHEME, SERIES_SUFFIX, dropped_within
    from gateway.dicom.encoding.private import CREATOR, GROUP

    yield "## N.9 Attributes of marked copies"
    yield ""
    yield "Originals are never changed. In a marked copy:"
    yield ""
    yield from _table(
        ("attribute", "value"),
        (
            ("SOP Instance UID, Series Instance UID", "new; the same for the same original"),
            ("Study Instance UID", 'kept, or new (`study_uid = "new"`)'),
            ("Image Type, Frame Type", "value 1 DERIVED"),
            ("Derivation Description, Derivation Code Sequence", f"what was done; scheme {SCHEME}"),
            ("Contributing Equipment Sequence", "the gateway, as modifying equipment"),
            ("Series Description", f"followed by `{SERIES_SUFFIX.strip()}`"),
            ("Image Comments", "not for diagnosis"),
            ("Source Image Sequence", "the original, where the route says so"),
            ("Pixel Data", "marked; in the same bits, never compressed with loss"),
            ("references to instances, at all levels", "to marked copies, where there are any"),
            ("Digital signatures, group lengths, data set trailing padding", "left out"),
            ("private elements", "at most 1 KiB a value, or as the route says"),
        ),
    )
    names = sorted({keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in dropped_within()})
    yield f"Left out at every level: {', '.join(names)}."
    yield ""
    yield f"Private block, group {GROUP:04X}, creator `{CREATOR}` (PS3.5 7.8):"
    yield ""
    yield from _table(
        ("element", "VR", "content"),
        (
            ("xx01", "US", "version of the block"),
            ("xx02", "OB", "key reference: a sealed token"),
            ("xx03", "LO", "restore service hint; may be empty"),
            ("xx10", "OB", "sealed data key (where copies carry their originals)"),
            ("xx11", "OB", "sealed original (the same)"),
        ),
    )
    yield "Character sets: all of PS3.3 C.12.1.1.2 are read; texts that the gateway adds are ASCII."
    yield ""


def _security() -> Iterator[str]:
    from gateway.audit.events import EVENTS
    from gateway.network.tls import TLS_1_2_CIPHERS

    yield "## N.11 Security"
    yield ""
    yield "Secure transport: TLS 1.2 and 1.3 with certificates on both sides (PS3.15 B.12, BCP 195; no lower"
    yield f"version, no renegotiation, no resumption); ciphers of TLS 1.2: `{TLS_1_2_CIPHERS}`. A certificate is"
    yield "bound to an AE title by its key or its names; revocation lists are honoured. Plain connections need a"
    yield "sentence in the configuration."
    yield ""
    yield "Audit: one JSON line an event, in the terms of PS3.15 A.5; never a patient's name, number or date."
    yield ""
    yield from _table(
        ("event", "EventID (DCM)", "EventTypeCode (DCM)"),
        ((name, code.event_id, getattr(code, "event_type", "") or "-") for name, code in EVENTS.items()),
    )
    yield "Attribute confidentiality profiles: none. A marked copy names its patient as its original does."
