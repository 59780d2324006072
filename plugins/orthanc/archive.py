"""A script for Orthanc's Python plug-in: protect on the way out, restore for authorized users.

Orthanc stays what it is, an archive that sends by C-STORE and a workstation that asks by C-MOVE; it holds no key of the
gateway and opens nothing. This script needs Orthanc and the standard library alone. In Orthanc's configuration:

    "PythonScript": "/usr/lib/miad-gateway/plugins/orthanc/archive.py",
    "AuthenticationEnabled": true,
    "Miad": {
      "Gateway": "gateway",           // of DicomModalities: the gateway's ingress, by the called AE title of a route
      "Restore": "restore",           // of DicomModalities: the restore SCP, with UseDicomTls; "" where nobody restores
      "Workstation": "READING_ROOM",  // the AE title that the gateway's entry for this Orthanc has; its DicomAet
      "RestoreUsers": ["alice"],      // of RegisteredUsers
      "Inside": ["backup"]            // modalities, peers and web servers that may get originals all the same
    }

What it does:

- `POST /miad/protect` with `{"Resources": [Orthanc IDs]}` sends them to the gateway, as a job.
- `POST /miad/restore` with `{"Studies": [Orthanc IDs or Study Instance UIDs]}` fetches originals by C-MOVE to this
  Orthanc itself, for `RestoreUsers` only.
- Sending to anybody else but `Inside` is refused, and so is changing who they are, and Lua over HTTP.
- Two buttons on the study page of Orthanc Explorer.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

LONGEST_BODY = 1 << 20  # bytes of a request to this script
MOST = 10_000  # resources in one request
_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_UID = re.compile(r"[0-9.]{1,64}")
_SENDS = {"store", "store-straight", "stow"}  # what a modality, a peer or a web server is told to do with our objects
_PLACES = (("modalities",), ("peers",), ("dicom-web", "servers"), ("transfers",))
_READS = ("GET", "HEAD")


class Orthanc(Protocol):
    """What is used of the module `orthanc`."""

    def RestApiGet(self, uri: str) -> bytes: ...

    def RestApiPost(self, uri: str, body: bytes) -> bytes: ...

    def LogWarning(self, text: str) -> None: ...


@dataclass(frozen=True)
class Settings:
    """The table "Miad" of Orthanc's configuration; see the top of this module."""

    gateway: str
    restore: str = ""
    workstation: str = ""
    restore_users: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    authenticated: bool = False  # Orthanc asks everybody for name and password

    @classmethod
    def of(cls, configuration: dict[str, Any]) -> Settings:
        """Out of Orthanc's configuration.

        Raises
        ------
        ValueError
            It cannot work so; Orthanc then does not start.
        """
        table = configuration.get("Miad")
        if not isinstance(table, dict):
            raise ValueError('there is no table "Miad" in the configuration')
        unknown = table.keys() - {"Gateway", "Restore", "Workstation", "RestoreUsers", "Inside"}
        if unknown:
            raise ValueError(f"Miad: unknown keys {sorted(unknown)}")
        found = cls(
            gateway=str(table.get("Gateway", "")),
            restore=str(table.get("Restore", "")),
            workstation=str(table.get("Workstation", configuration.get("DicomAet", ""))),
            restore_users=tuple(map(str, table.get("RestoreUsers", ()))),
            inside=tuple(map(str, table.get("Inside", ()))),
            authenticated=configuration.get("AuthenticationEnabled") is True,
        )
        modalities = configuration.get("DicomModalities", {})
        for name in filter(None, (found.gateway or "(Gateway)", found.restore)):
            if name not in modalities:
                raise ValueError(f"Miad: {name} is none of DicomModalities")
        if found.restore and found.restore_users and not found.authenticated:
            raise ValueError("Miad: RestoreUsers need AuthenticationEnabled, or anybody could restore")
        return found


@dataclass(frozen=True)
class Answer:
    """What an HTTP request is answered with; JSON."""

    status: int
    content: dict[str, Any]


class Archive:
    """What the script does, apart from how Orthanc calls it."""

    def __init__(self, settings: Settings, orthanc: Orthanc) -> None:
        self._settings = settings
        self._orthanc = orthanc

    def protect(self, request: dict[str, Any]) -> Answer:
        """Send resources of this archive to the gateway, which marks them and sends them on."""
        given = _body(request)
        resources = _listed(given, "Resources", _ORTHANC_ID)
        if not resources:
            return Answer(400, {"Error": 'give {"Resources": [Orthanc IDs]}'})
        job = self._post(f"/modalities/{self._settings.gateway}/store", {"Resources": resources, "Synchronous": False})
        self._tell("protect", user_of(request), len(resources))
        return Answer(200, {"Job": job.get("ID")})

    def restore(self, request: dict[str, Any]) -> Answer:
        """Fetch the originals of studies from the gateway to this Orthanc, if this user may."""
        settings, user = self._settings, user_of(request)
        if not settings.restore or not settings.authenticated or user not in settings.restore_users:
            self._tell("restore refused", user, 0)
            return Answer(403, {"Error": "this user may not restore"})
        given = _body(request)
        studies = _listed(given, "Studies", re.compile(f"{_ORTHANC_ID.pattern}|{_UID.pattern}"))
        if not studies:
            return Answer(400, {"Error": 'give {"Studies": [Orthanc IDs or Study Instance UIDs]}'})
        try:
            uids = [one if _UID.fullmatch(one) else self._study_uid(one) for one in studies]
        except LookupError:
            return Answer(404, {"Error": "there is no such study here"})
        jobs, missing = [], 0
        for uid in uids:
            query = {"Level": "Study", "Query": {"StudyInstanceUID": uid}}
            found = self._post(f"/modalities/{settings.restore}/query", query)["ID"]
            if not json.loads(self._orthanc.RestApiGet(f"/queries/{found}/answers")):
                missing += 1  # no record, or none for this workstation: the gateway does not tell which
                continue
            wanted = {"TargetAet": settings.workstation, "Synchronous": False}
            jobs.append(self._post(f"/queries/{found}/retrieve", wanted).get("ID"))
        self._tell("restore", user, len(jobs))
        return Answer(200 if jobs else 404, {"Jobs": jobs, "Missing": missing})

    def may_pass(self, method: str, uri: str) -> bool:
        """Whether Orthanc may serve a request: False for what would let originals out past the gateway."""
        if method in _READS:
            return True
        parts = [part for part in unquote(uri.partition("?")[0]).split("/") if part not in ("", ".")]
        if ".." in parts:
            return False
        if parts[:2] == ["tools", "execute-script"]:
            return False
        for place in _PLACES:
            if tuple(parts[: len(place)]) != place:
                continue
            name, what = [*parts[len(place) :], "", ""][:2]
            if place == ("transfers",):
                return name not in ("send", "push")
            if not what or method in ("PUT", "DELETE"):
                return False  # who is behind a name is decided by the configuration
            if what in _SENDS:
                return name in self._settings.inside
        return True

    def _study_uid(self, study: str) -> str:
        try:
            return str(json.loads(self._orthanc.RestApiGet(f"/studies/{study}"))["MainDicomTags"]["StudyInstanceUID"])
        except Exception:  # Orthanc's own exception for what is not there
            raise LookupError from None

    def _post(self, uri: str, content: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._orthanc.RestApiPost(uri, json.dumps(content).encode()))
        return found

    def _tell(self, what: str, user: str, count: int) -> None:
        """To Orthanc's log: who did what, and nothing of a patient."""
        name = user if re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", user) else "(unnamed)"
        self._orthanc.LogWarning(f"miad: {what}: user {name}, {count}")


def user_of(request: dict[str, Any]) -> str:
    """The user of a request, whose password Orthanc has compared already; "" where it names none."""
    kind, _, coded = _header(request, "authorization").partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(coded.strip(), validate=True).decode("utf-8").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _body(request: dict[str, Any]) -> dict[str, Any] | None:
    """The body, which has to say that it is JSON: a form on another site's page cannot (a browser asks us first)."""
    if _header(request, "content-type").partition(";")[0].strip().lower() != "application/json":
        return None
    body = request.get("body") or b""
    if len(body) > LONGEST_BODY:
        return None
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _header(request: dict[str, Any], wanted: str) -> str:
    return next((str(value) for name, value in request.get("headers", {}).items() if name.lower() == wanted), "")


def _listed(given: dict[str, Any] | None, name: str, of: re.Pattern[str]) -> list[str]:
    """The identifiers of a request; none where there are none, too many, or anything else among them."""
    listed = given.get(name) if given is not None else None
    if not isinstance(listed, list) or len(listed) > MOST:
        return []
    return listed if all(isinstance(one, str) and of.fullmatch(one) for one in listed) else []


BUTTONS = """
$('#study').live('pagebeforeshow', function() {
  $('.miad').remove();
  var ask = function(label, path, name) {
    $('<a class="miad" data-role="button" href="#">').text(label).click(function(event) {
      event.preventDefault();
      if (!window.confirm(label + '?')) { return; }
      var content = {};
      content[name] = [$.mobile.pageData.uuid];
      $.ajax({url: '../miad/' + path, type: 'POST', data: JSON.stringify(content), dataType: 'json',
        contentType: 'application/json',
        success: function() { window.alert(label + ': begun, see the jobs'); },
        error: function(answer) { window.alert(label + ': ' + (answer.status === 403 ? 'not allowed' : 'failed')); }});
    }).insertAfter($('#study-delete').closest('ul')).button();
  };
  ask('Restore originals', 'restore', 'Studies');
  ask('Send protected', 'protect', 'Resources');
});
"""


def install(orthanc: Any) -> None:
    """Register everything with Orthanc; called when Orthanc loads this script."""
    names = ("GET", "POST", "PUT", "DELETE")  # as text in one place of the plug-in, as a number in another
    methods: dict[Any, str] = {getattr(orthanc.HttpMethod, name): name for name in names} | {one: one for one in names}
    archive = Archive(Settings.of(json.loads(orthanc.GetConfiguration())), orthanc)

    def answering(serve: Callable[[dict[str, Any]], Answer]) -> Callable[..., None]:
        def answer(output: Any, uri: str, **request: Any) -> None:
            if methods.get(request.get("method")) != "POST":
                output.SendMethodNotAllowed("POST")
                return
            made = serve(request)
            text = json.dumps(made.content)
            if made.status == 200:
                output.AnswerBuffer(text, "application/json")
            else:
                output.SendHttpStatus(made.status, text, len(text))

        return answer

    orthanc.RegisterRestCallback("/miad/protect", answering(archive.protect))
    orthanc.RegisterRestCallback("/miad/restore", answering(archive.restore))
    orthanc.RegisterIncomingHttpRequestFilter(
        lambda uri, **request: archive.may_pass(methods.get(request.get("method"), "?"), uri)
    )
    orthanc.ExtendOrthancExplorer(BUTTONS)


try:
    import orthanc as _orthanc  # there inside Orthanc only
except ImportError:
    pass
else:
    if hasattr(_orthanc, "RegisterRestCallback"):
        install(_orthanc)
