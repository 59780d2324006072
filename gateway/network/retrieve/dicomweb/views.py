"""What is made out of an original: metadata, pictures, single values (PS3.18 10.4.1.1.2 to 10.4.1.1.5).

Made in a process that holds no key and opens no file (`gateway.restore.Viewer`); here only bytes come and go. It leaves
under the same policy as the original itself, after the same verification and the same line of intent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

from gateway.errors import CapacityError, DicomError
from gateway.network.http import Answered, Exchange
from gateway.network.http.media import MediaRange, accepted
from gateway.network.http.multipart import MultipartAnswer
from gateway.network.retrieve.dicomweb.originals import look_up, send_all, told
from gateway.network.retrieve.dicomweb.search import DICOM_JSON
from gateway.network.retrieve.dicomweb.targets import Target
from gateway.network.retrieve.session import Access, Viewer
from gateway.network.retrieve.suboperations import Planned

CANNOT_VIEW = 0xC001
OCTETS = "application/octet-stream"
_PICTURES = ("image/jpeg", "image/png")  # the first is the standard's default (PS3.18 table 8.7.4-1)
_WINDOW = re.compile(
    r"(-?[0-9]{1,7}(?:\.[0-9]{1,6})?),([0-9]{1,7}(?:\.[0-9]{1,6})?)(?:,(linear|linear-exact|sigmoid))?"
)
_VIEWPORT = re.compile(r"([0-9]{1,4}),([0-9]{1,4})")
_QUALITY = re.compile(r"[1-9][0-9]?|100")
_MOST_PIXELS = 4096  # of a side of a picture that is asked for

Make = Callable[[Planned, Iterable[bytes]], bytes]


class _ViewOutlet:
    """What `make` makes of each original, put into one answer by `give`."""

    sends_files = True
    bit_exact = False

    def __init__(self, make: Make, give: Callable[[bytes], None]) -> None:
        self._make = make
        self._give = give
        self.failure: DicomError | CapacityError | None = None

    def accepts(self, planned: Planned) -> bool:
        return True

    def may_be_partial(self) -> bool:
        return False

    def send(self, planned: Planned, chunks: Iterable[bytes]) -> int:
        try:
            made = self._make(planned, chunks)
        except (DicomError, CapacityError) as error:
            self.failure = error
            return CANNOT_VIEW
        self._give(made)
        return 0x0000


def serve_view(access: Access, exchange: Exchange, target: Target) -> None:
    """Answer one request for metadata, a picture, or a value."""
    viewer = access.services.viewer
    if viewer is None:
        raise Answered(404, "there is no such resource")
    operation = f"WADO-RS-{target.kind}"
    if target.kind == "metadata":
        make, give, end = _metadata(access, exchange, target, viewer)
    elif target.kind == "rendered":
        make, give, end = _rendered(exchange, target, viewer)
    else:
        make, give, end = _bulk(exchange, target, viewer)
    found = look_up(access, target, operation)
    if found.failed and target.kind == "metadata":
        raise Answered(500, "some of the originals cannot be restored for certain: ask for them one by one")
    outlet = _ViewOutlet(make, give)
    try:
        tally = send_all(access, exchange, outlet, found, operation, target)
    except Answered:
        if isinstance(outlet.failure, CapacityError):
            raise outlet.failure from None
        if outlet.failure is not None:
            text = f"{outlet.failure.message.encode('ascii', 'replace').decode()}: retrieve the instance"
            raise Answered(404 if outlet.failure.code == "no-such-value" else 406, text) from None
        raise
    if not tally.failed:
        end()
    told(access, target, operation, tally)


def _metadata(
    access: Access, exchange: Exchange, target: Target, viewer: Viewer
) -> tuple[Make, Callable[[bytes], None], Callable]:
    if not any(one.type in (DICOM_JSON, "application/json", "application/*", "*/*") for one in _accepted(exchange)):
        raise Answered(406, "metadata are answered in application/dicom+json")
    root = target.root(exchange, access.services.settings)

    def make(planned: Planned, chunks: Iterable[bytes]) -> bytes:
        return viewer.metadata(chunks, planned.transfer_syntax_uid, f"{root}{_path(planned)}/bulkdata")

    def give(made: bytes) -> None:
        if exchange.started:
            exchange.write(b"," + made)
        else:
            exchange.start(200, [("content-type", DICOM_JSON)])
            exchange.write(b"[" + made)

    def end() -> None:
        exchange.write(b"]")
        exchange.end()

    return make, give, end


def _path(planned: Planned) -> str:
    return f"/studies/{planned.study_uid}/series/{planned.series_uid}/instances/{planned.sop_instance_uid}"


def _rendered(exchange: Exchange, target: Target, viewer: Viewer) -> tuple[Make, Callable[[bytes], None], Callable]:
    wish = _wish(exchange, target)

    def make(planned: Planned, chunks: Iterable[bytes]) -> bytes:
        return viewer.rendered(chunks, planned.transfer_syntax_uid, wish)

    return make, lambda made: exchange.answer(200, str(wish["media"]), made), lambda: None


def _wish(exchange: Exchange, target: Target) -> dict[str, object]:
    """What a picture is to be like; what is not known of it is left aside, as PS3.18 8.3.4 has it."""
    media = next((one for one in map(_picture, _accepted(exchange)) if one), None)
    if media is None:
        raise Answered(406, "pictures are answered in image/jpeg or image/png")
    wish: dict[str, object] = {"media": media, "frame": target.frame}
    try:
        parameters = dict(parse_qsl(exchange.query, errors="strict", max_num_fields=32))
    except ValueError:
        raise Answered(400, "the query cannot be read") from None
    if window := parameters.get("window"):
        found = _WINDOW.fullmatch(window.lower())
        if found is None or float(found[2]) <= 0:
            raise Answered(400, "window is centre,width,function")
        wish["window"] = [float(found[1]), float(found[2]), (found[3] or "linear").upper().replace("-", "_")]
    if viewport := parameters.get("viewport"):
        found = _VIEWPORT.fullmatch(viewport)
        if found is None or not all(1 <= int(side) <= _MOST_PIXELS for side in found.groups()):
            raise Answered(400, f"viewport is width,height of at most {_MOST_PIXELS}")
        wish["viewport"] = [int(found[1]), int(found[2])]
    if quality := parameters.get("quality"):
        if not _QUALITY.fullmatch(quality):
            raise Answered(400, "quality is 1 to 100")
        wish["quality"] = int(quality)
    return wish


def _picture(one: MediaRange) -> str:
    if one.type in ("*/*", "image/*"):
        return _PICTURES[0]
    return one.type if one.type in _PICTURES else ""


def _bulk(exchange: Exchange, target: Target, viewer: Viewer) -> tuple[Make, Callable[[bytes], None], Callable]:
    single = None
    for one in _accepted(exchange):
        if one.type in ("*/*", "application/*", OCTETS):
            single = True
        elif one.type == "multipart/*" or (
            one.type == "multipart/related" and one.parameters.get("type", OCTETS).lower() in (OCTETS, "*/*")
        ):
            single = False
        if single is not None:
            break
    if single is None:
        raise Answered(406, "values are answered in application/octet-stream")

    def make(planned: Planned, chunks: Iterable[bytes]) -> bytes:
        return viewer.bulk(chunks, planned.transfer_syntax_uid, target.tag)

    def give(made: bytes) -> None:
        if single:
            exchange.answer(200, OCTETS, made)
            return
        parts = MultipartAnswer(exchange, 200, OCTETS)
        parts.part([("Content-Type", OCTETS)], (made,))
        parts.end()

    return make, give, lambda: None


def _accepted(exchange: Exchange) -> tuple[MediaRange, ...]:
    return accepted(exchange.header("accept"))
