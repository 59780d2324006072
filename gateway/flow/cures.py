"""What a person can do about a held instance, by the code of its reason."""

from __future__ import annotations

RELEASE = "Release it when the cause is gone: it is decided and marked again, never sent as it is."
SEND_AGAIN = "Let the archive send it again, then discard this one."
MEND_DESTINATION = "Mend the destination (echo it, look at its log and accepted contexts), then release."
ROUTE = "The configuration decides this: change it if that is meant, reload, then release; else leave it held."
OBJECT = "The object itself is at fault: have it corrected where it was made and sent again, then discard this one."
SECURITY = "Do not release it before somebody knows who changed it: this is what an attack looks like. See the audit."
NO_ROOM = "No mark fits this image as its route is set: leave it held, or change tier or without_air, then release."

NO_EXACT_MARK = (
    "No mark in such pixels could be taken back exactly: discard it, or have it converted to plain grey or RGB where it"
    ' was made and sent again. What has to leave as it is needs a route with action = "pass".'
)
NO_PROFILE = (
    "No profile marks this kind of image: discard it, keep such objects from being sent, or install a profile for them"
    " (deploy/docs/extending.md), restart the worker, then release."
)

_CURES: dict[str, str] = {
    "operator": "A person held it: release it when that person says so.",
    "killed-the-worker": "The worker died at it. Look at the log and at the memory; released, it is tried alone.",
    "unexpected": "A fault of the gateway: report its log line. Released, it is tried again.",
    "self-check-failed": "The gateway did not believe its own result. Release it once; if it is held again, report it.",
    "spool-purged": SEND_AGAIN,
    "derived-purged": "Release it: its copy is made again.",
    "derived-not-fixed": "Release it: its copy is made again.",
    "payload-missing": "The sealed original is gone: restore the vault from its backup, then release.",
    "pixels-outside": "Its picture also stands outside the pixel data: private_bulk or the sender has to change.",
    "not-committed": "Ask the destination's people why it does not commit to it; released, the copy is sent again.",
    "already-marked": "It is a marked copy that came back: discard it, and find out why the archive sends copies.",
    "no-profile": NO_PROFILE,
    **dict.fromkeys(
        ("palette-colour", "modality-lut", "float-pixels", "one-bit-pixels", "thirty-two-bit-pixels"), NO_EXACT_MARK
    ),
    **dict.fromkeys(
        ("route-gone", "route-holds", "rule-holds", "rule-does-not-fit", "blocked-by-rule", "blocked-by-policy",
         "not-a-pass-route", "pass-expired", "pass-too-long", "destination-not-named", "destination-not-trusted",
         "decision-changed", "mammography", "for-processing", "quantitative", "signed", "private-bulk",
         "no-surrogate", "no-generator"),
        ROUTE,
    ),
    **dict.fromkeys(
        ("context-refused", "association-rejected", "service-refused", "service-unavailable",
         "unknown-destination", "unusable-pdu-length", "unexpected-answer",
         "certificate-refused", "tls-failed", "unreachable", "connection-lost", "no-answer"),
        MEND_DESTINATION,
    ),
    **dict.fromkeys(
        ("not-ours", "digest-differs", "spool-changed", "derived-changed", "record-columns-differ", "signature-wrong",
         "signer-unknown", "tampered", "token-and-record-differ"),
        SECURITY,
    ),
    **dict.fromkeys(
        ("no-free-area", "no-words", "no-room-for-words", "no-air", "image-too-small", "image-empty", "over-budget",
         "text-too-wide", "no-overlay-allowed", "no-free-overlay"),
        NO_ROOM,
    ),
    **dict.fromkeys(
        ("undecodable-pixels", "undecodable-header", "truncated", "no-pixels", "bad-sequence", "nested-too-deep",
         "not-dicom", "unsupported-bits", "pixel-data-too-short", "too-many-values", "too-many-elements",
         "pixels-too-large", "decoders-disagree", "unsupported-transfer-syntax", "unsupported-photometric",
         "missing-uid", "uid-mismatch", "sop-class-mismatch", "header-too-large", "codec-killed", "unexpected-pixels",
         "missing-functional-groups", "instance-too-large"),
        OBJECT,
    ),
}  # fmt: skip


def cure_of(reason_code: str | None) -> str:
    """What to do about instances that are held for this reason; `RELEASE` where nothing else is known of it."""
    code = reason_code or ""
    return _CURES.get(code) or (MEND_DESTINATION if code.startswith("status-") else RELEASE)
