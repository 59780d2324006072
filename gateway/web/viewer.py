"""The viewer: an instance before and after its mark. The worker makes the pictures; nothing is stored.

Pixels may hold what somebody burned into them, so it takes an operator's login, and each picture has a line in the
worker's audit before it is shown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from gateway.errors import GatewayError, NotFoundError
from gateway.web import answers, reading, views
from gateway.web.people import LoginNeededError, NotAllowedError, Person, person_of
from gateway.web.sources import Sources, Viewer

SIDE = 1600  # longest side of a picture on the page; the JSON gives all of it
LABELS = {
    "both": "Before and after",
    "before": "Before",
    "after": "After",
    "difference": "Difference",
    "zones": "Zones",
}
TELLS = {
    "before": "As it was received",
    "after": "The marked copy",
    "difference": "Copy minus original",
    "zones": "Zones of the image",
}

Id = Annotated[str, Path(pattern="^[0-9a-f]{3,32}$", description="an instance id, or its first letters")]
Frame = Annotated[int, Query(ge=1, lt=1 << 31)]
Number = Annotated[float | None, Query(ge=-1e9, le=1e9, allow_inf_nan=False)]
Width = Annotated[float | None, Query(gt=0, le=1e9, allow_inf_nan=False)]

pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
api = APIRouter(prefix="/api/v1", responses=answers.REFUSALS | answers.OF_PICTURES)


@dataclass(frozen=True)
class Shown:
    """One picture on the page."""

    title: str
    source: str  # data: URL
    facts: Mapping[str, Any]


@pages.get("/instances/{instance_id}/view")
def view(
    request: Request,
    instance_id: Id,
    view: Literal["both", "before", "after", "difference", "zones"] = "both",
    frame: str = "1",
    center: str = "",
    width: str = "",
) -> HTMLResponse:
    """Pictures of one instance, with frame, window and view to choose."""
    person, viewer = _allowed(request)
    one = reading.instance(_sources(request), instance_id)
    wanted = ("before", "after") if view == "both" else (view,)
    if view == "both" and not (one.is_received_here and one.is_copy_here):
        wanted = ("before",) if one.is_received_here else ("after",)
    pictures: list[Shown] = []
    problem: GatewayError | None = None
    try:
        number, window = _whole(frame), _window(_number(center), _number(width))
        if one.is_received_here or one.is_copy_here:
            for name in wanted:
                facts, png = viewer.picture(person.session.proof, _wish(one.id, name, number, window, SIDE))
                source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
                pictures.append(Shown(TELLS[name], source, facts))
    except GatewayError as error:
        problem = error
    return views.render(
        request,
        "view.html",
        200 if problem is None else 409,
        is_settled=True,  # each picture has a line in the audit: none is made again by itself
        one=one,
        view=view,
        labels=LABELS,
        chosen={"frame": frame, "center": center, "width": width},
        pictures=pictures,
        problem=problem,
    )


@api.get(
    "/instances/{instance_id}/picture",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The picture."}},
)
def get_picture(
    request: Request,
    instance_id: Id,
    view: Literal["before", "after", "difference", "zones"] = "after",
    frame: Frame = 1,
    center: Number = None,
    width: Width = None,
) -> Response:
    """One frame as PNG: as received, as marked, their difference, or the zones; an operator's, and audited."""
    person, viewer = _allowed(request)
    one = reading.instance(_sources(request), instance_id)
    _, png = viewer.picture(person.session.proof, _wish(one.id, view, frame, _window(center, width), None))
    return Response(png, media_type="image/png")


def _sources(request: Request) -> Sources:
    return request.app.state.sources


def _allowed(request: Request) -> tuple[Person, Viewer]:
    """Who asks and whom to ask; what the page knows of it. The worker looks anew."""
    viewer = _sources(request).viewer
    if viewer is None:
        raise NotFoundError("viewer-off", "the viewer is switched off", "viewer = true in [page] switches it on")
    person = person_of(request)
    if person is None:
        raise LoginNeededError("login-needed", "to see pictures takes a login", "log in first")
    if person.role != "operator":
        raise NotAllowedError("not-an-operator", f"{person.session.user} may not see pictures", "an operator may")
    return person, viewer


def _wish(instance_id: str, view: str, frame: int, window: list[float] | None, side: int | None) -> dict[str, Any]:
    return {"instance": instance_id, "view": view, "frame": frame, "window": window, "side": side}


def _window(center: float | None, width: float | None) -> list[float] | None:
    if width is None:
        if center is not None:
            raise GatewayError("no-window", "a window has a center and a width", "give both, or none")
        return None
    if width <= 0:
        raise GatewayError("bad-request", "the width of a window is over 0")
    return [center or 0.0, width]


def _number(written: str) -> float | None:
    """A number of a form's field; GatewayError for what is none."""
    text = written.strip().replace(",", ".")
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not abs(found) <= 1e9:
        raise GatewayError("bad-request", "center and width are numbers, such as 40 and 400")
    return found


def _whole(written: str) -> int:
    if not (written.isascii() and written.isdigit() and 0 < len(written) < 10 and int(written) > 0):
        raise GatewayError("bad-request", "frames are counted from 1")
    return int(written)
