"""The application: pages, JSON with OpenAPI, metrics and the two questions of a supervisor, /live and /ready."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from gateway.audit.refusals import Refusals
from gateway.config import Page
from gateway.errors import CapacityError, ConfigError, GatewayError, NotFoundError, UnreachableError
from gateway.web import acting, answers, api, single_sign_on, viewer, views
from gateway.web.guard import Guard
from gateway.web.metrics import CONTENT_TYPE, render
from gateway.web.people import LoginNeededError, NotAllowedError
from gateway.web.sessions import Sessions
from gateway.web.sources import Sources


def create_app(sources: Sources) -> FastAPI:
    """The page over these sources."""
    app = FastAPI(
        title="MIAD Gateway",
        version=sources.version or "0",
        description="What the gateway's flow does. UIDs and internal ids only, and nothing of a patient.",
        docs_url=None,  # its viewers come from the internet
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.sources = sources
    app.state.refusals = Refusals(sources.audit)
    app.state.templates = views.environment()
    page = sources.config.page or Page()
    app.state.sessions = Sessions(page.users, page.session_minutes * 60)
    app.mount("/static", StaticFiles(directory=views.HERE / "static"), name="static")
    for router in (api.router, acting.api, viewer.api, views.router, acting.pages, single_sign_on.pages, viewer.pages):
        app.include_router(router)
    app.add_exception_handler(GatewayError, _told)  # type: ignore[arg-type]  # Starlette's own signature is wider
    app.add_exception_handler(HTTPException, _http_told)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _not_understood)  # type: ignore[arg-type]
    app.add_middleware(Guard, hosts=(page.host, *page.names))
    _add_probes(app, sources)
    return app


def _add_probes(app: FastAPI, sources: Sources) -> None:
    @app.get("/live", tags=["probes"])
    def live() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok"}

    @app.get("/ready", tags=["probes"], responses={503: {"model": answers.Problem}})
    def ready() -> dict[str, str]:
        """The database answers too."""
        sources.looks.ping()
        return {"status": "ok"}

    @app.get("/metrics", tags=["probes"], response_class=Response)
    def metrics() -> Response:
        """For Prometheus."""
        return Response(render(sources), media_type=CONTENT_TYPE)


def _status_code(error: GatewayError) -> int:
    if isinstance(error, CapacityError | UnreachableError) or error.code.startswith("database"):
        return 503
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, LoginNeededError):
        return 401
    if isinstance(error, NotAllowedError):
        return 403
    return 400 if isinstance(error, ConfigError) else 409


def _is_page(request: Request) -> bool:
    path = request.url.path
    return not (path.startswith("/api/") or path in ("/live", "/ready", "/metrics"))


def _answer(request: Request, code: int, problem: answers.Problem) -> Response:
    if _is_page(request):
        return views.render(request, "problem.html", code, code=code, problem=problem)
    return JSONResponse(problem.model_dump(), code)


async def _told(request: Request, error: GatewayError) -> Response:
    if isinstance(error, LoginNeededError) and _is_page(request):
        to = request.url.path if request.method == "GET" else "/"
        return RedirectResponse(f"/login?to={quote(to)}", 303)
    problem = answers.Problem(code=error.code, message=error.message, hint=error.hint)
    return _answer(request, _status_code(error), problem)


async def _http_told(request: Request, error: HTTPException) -> Response:
    problem = answers.Problem(code=f"http-{error.status_code}", message=str(error.detail))
    answer = _answer(request, error.status_code, problem)
    answer.headers.update(error.headers or {})
    return answer


async def _not_understood(request: Request, error: RequestValidationError) -> Response:
    """Which part of the request was wrong; its values are not repeated."""
    where = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
    return _answer(request, 422, answers.Problem(code="bad-request", message=f"not as it has to be: {where}"))
