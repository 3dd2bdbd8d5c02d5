"""The HTTP interface: which address does what, and how errors are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline import __version__
from pipeline.errors import ModelError
from pipeline.messages import Task
from pipeline.web import answers
from pipeline.web.bodies import check_picture, read_picture
from pipeline.web.fetching import Hosts, fetch
from pipeline.web.guard import AccessLog, Guard
from pipeline.web.headers import FORMATS
from pipeline.web.problems import Problem, problem_response
from pipeline.web.service import Service

__all__ = ["Limits", "make_app"]

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FETCHES_AT_ONCE = 4

_Confidence = Annotated[float, Query(ge=0, le=1, description="Leave out what scores less.")]
_TopK = Annotated[int, Query(ge=1, le=1000, description="Most classes; for classifiers.")]
_Labels = Annotated[
    str | None, Query(max_length=10_000, description="Only these labels, separated by commas.")
]

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No picture in the request"},
    401: {"description": "The token is missing or wrong"},
    403: {"description": "Not allowed: another site's page, or a host that is not listed"},
    408: {"description": "The body came too slowly"},
    413: {"description": "The file or the picture is too large"},
    415: {"description": "Of a type or format that is not taken"},
    422: {"description": "The picture cannot be decoded, or a parameter is wrong"},
    500: {"description": "The model failed"},
    501: {"description": "There is no model for this"},
    502: {"description": "The picture's host does not give it"},
    503: {"description": "Busy; see Retry-After"},
    504: {"description": "Not in time"},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                    "required": ["image"],
                    "additionalProperties": False,
                }
            },
            **{media: {"schema": {"type": "string", "format": "binary"}} for media in FORMATS.values()},
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"url": {"type": "string", "format": "uri"}},
                    "required": ["url"],
                    "additionalProperties": False,
                }
            },
        },
    }
}


@dataclass(frozen=True)
class Limits:
    """What is taken from whom.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Most pixels of a picture.
        timeout_s: Longest time that a body, or a file from an address, may take to come.
        hosts: Where pictures may be fetched from; see `pipeline.web.fetching.parse_hosts`.
        token: What a client has to know; empty for nothing.
        names: Names under which the server is asked; empty for any.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    timeout_s: float = 30.0
    hosts: Hosts = field(default_factory=dict)
    token: str = ""
    names: Sequence[str] = ()


def make_app(service: Service, limits: Limits) -> ASGIApp:
    """The app.

    Args:
        service: The models, opened; the app does not close them.
        limits: What is taken from whom.
    """
    app = FastAPI(
        title="framewire",
        version=__version__,
        summary="Tags, objects and classes of pictures.",
        docs_url=None,  # these pages of FastAPI load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # it would send clients to the name in their own Host header
    )
    ends = _Endpoints(service, limits)
    # For the description only: `Guard` has refused who does not know it before this is reached.
    known = [Depends(HTTPBearer(auto_error=False))] if limits.token else []
    for path, call, model, text in (
        ("/v1/tag", ends.tag, answers.Tags, "Labels with percents"),
        ("/v1/detect", ends.detect, answers.Detections, "All objects"),
        ("/v1/localize", ends.localize, answers.LocalizedObject, "The one main object"),
        ("/v1/classify", ends.classify, answers.Classes, "Classes of the whole picture"),
    ):
        errors = {
            code: more | {"content": {"application/problem+json": {"schema": _PROBLEM}}}
            for code, more in _ERRORS.items()
        }
        app.add_api_route(
            path, call, methods=["POST"], summary=text, operation_id=call.__name__, response_model=None,
            responses={200: {"model": model, "description": text}, **errors}, openapi_extra=_BODY,
            dependencies=known,
        )  # fmt: skip
    app.add_api_route(
        "/healthz", ends.healthz, methods=["GET"], summary="Whether it is ready", operation_id="health",
        response_model=None, responses={200: {"model": answers.Health, "description": "Ready"}},
    )  # fmt: skip
    # Who watches a service often asks for no more than the head.
    app.add_api_route("/healthz", ends.healthz, methods=["HEAD"], include_in_schema=False)
    app.router.routes += [Route(path, partial(_file, *file)) for path, file in _FILES.items()]
    _tell_errors(app)
    return AccessLog(Guard(app, token=limits.token, hosts=limits.names))


class _Endpoints:
    """What each address does."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._fetching = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="fetch")

    async def tag(
        self, request: Request, confidence: _Confidence = 0.4, top_k: _TopK = 5, classes: _Labels = None
    ) -> Response:
        return await self._answer(request, "tag", confidence=confidence, top_k=top_k, classes=classes)

    async def detect(
        self, request: Request, confidence: _Confidence = 0.4, classes: _Labels = None
    ) -> Response:
        return await self._answer(request, "detect", confidence=confidence, classes=classes)

    async def localize(
        self, request: Request, confidence: _Confidence = 0.4, classes: _Labels = None
    ) -> Response:
        return await self._answer(request, "localize", confidence=confidence, classes=classes)

    async def classify(self, request: Request, top_k: _TopK = 5, classes: _Labels = None) -> Response:
        return await self._answer(request, "classify", top_k=top_k, classes=classes)

    async def healthz(self) -> Response:
        models = {
            kind: {"name": spec.name, "family": spec.family, "provider": spec.provider}
            | {"classes": len(spec.labels)}
            for kind, spec in self._service.specs.items()
        }
        body = {"status": "ok", "version": __version__, "models": models, "requests": self._service.requests}
        return JSONResponse(body)

    async def _answer(self, request: Request, task: Task, **options: Any) -> Response:
        _check_names(request, options)
        text = options["classes"]
        if text is not None:
            options["classes"] = [label.strip() for label in text.split(",") if label.strip()]
            if not options["classes"]:
                raise Problem(422, "classes: names no label", hint="leave it out for all")
        reader = self._service.reader(task, **options)
        with self._service.admitted():
            data = await read_picture(request, self._limits.max_bytes, self._limits.timeout_s, self._fetch)
            check_picture(data, self._limits.max_pixels)
            answer = await self._service.look(data, reader)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def _fetch(self, url: str) -> bytes:
        limits = self._limits
        get = partial(fetch, url, limits.hosts, max_bytes=limits.max_bytes, timeout_s=limits.timeout_s)
        future = self._fetching.submit(get)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), limits.timeout_s)
        except TimeoutError as error:
            raise Problem(504, f"the file did not come within {limits.timeout_s:g} s") from error


_PROBLEM = answers.ProblemDetails.model_json_schema()


def _check_names(request: Request, options: dict[str, Any]) -> None:
    """Refuse a parameter that would silently do nothing, such as ``confidense``, or one given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in options:
            near = get_close_matches(name, options, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(options)}"
            raise Problem(422, f"there is no parameter {name[:50]!r} here", hint=hint)
        if names.count(name) > 1:
            raise Problem(422, f"{name}: given more than once", hint="classes=car,bus names several labels")


async def _file(name: str, media_type: str, request: Request) -> Response:
    content = await asyncio.to_thread((_PAGE / name).read_bytes)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(content, media_type=media_type, headers=headers)


def _tell_errors(app: FastAPI) -> None:
    """Errors of the frameworks, too, are told as problem details."""

    async def of_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(error)

    async def of_framework(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = {
            404: "there is nothing at this address",
            405: "this address does not take that method",
        }.get(error.status_code, str(error.detail))
        allowed = (error.headers or {}).get("Allow", "")
        method = "POST a picture" if allowed == "POST" else f"it takes {allowed}"
        hint = {404: "see /openapi.json", 405: method}.get(error.status_code, "")
        return problem_response(Problem(error.status_code, detail, hint=hint, headers=error.headers))

    async def of_parameter(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return problem_response(Problem(422, f"{first['loc'][-1]}: {first['msg']}"))

    async def of_model(_: Request, error: Exception) -> Response:
        assert isinstance(error, ModelError)
        return problem_response(Problem(500, error.message, hint=error.hint))

    async def of_anything(_: Request, __: Exception) -> Response:
        # What it was is logged, for the operator, not told.
        return problem_response(Problem(500, "an error of the server's own; its log says more"))

    async def of_leaving(_: Request, __: Exception) -> Response:
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody reads it; the log has it

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(RequestValidationError, of_parameter)
    app.add_exception_handler(ModelError, of_model)
    app.add_exception_handler(ClientDisconnect, of_leaving)
    app.add_exception_handler(Exception, of_anything)
