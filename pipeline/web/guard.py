"""Who may ask, and the log of who did: around the app, before anything of a body is read."""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Sequence
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.web.problems import Problem, problem_response

__all__ = ["AccessLog", "Guard"]

_log = logging.getLogger(__name__)

#: Paths that anybody may see who reaches the server: they hold nothing.
_OPEN = frozenset({"/", "/page.css", "/page.js", "/icon.svg", "/healthz", "/openapi.json"})
_HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::\d*)?")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Refuses requests without the token, for another host, from another site's page, or of two lengths.

    A page of any site can make a browser ask ``127.0.0.1``, and with a name of its own that it lets point
    there even read the answer. So a server for this machine answers to its own names only.

    Args:
        app: What is guarded.
        token: What ``Authorization: Bearer`` has to hold; empty for none.
        hosts: Names under which the server is asked; empty for any.
    """

    def __init__(self, app: ASGIApp, *, token: str = "", hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            problem = self._problem(scope["path"], Headers(scope=scope))
            if problem is not None:
                await problem_response(problem)(scope, receive, _with_headers(send))
                return
            send = _with_headers(send)
        await self._app(scope, receive, send)

    def _problem(self, path: str, headers: Headers) -> Problem | None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # RFC 9112, 6.1: a proxy before this server may have taken the other one for the true length.
            return Problem(400, "the request states its length in two ways", headers={"Connection": "close"})
        host = _without_port(headers.get("host", "")).lower()
        if self._hosts and host not in self._hosts:
            return Problem(
                421, f"this server does not answer to the name {host!r}",
                hint="the operator adds names with --allow-host",
            )  # fmt: skip
        if headers.get("sec-fetch-site") == "cross-site" and path not in _OPEN:
            return Problem(403, "pages of other sites may not ask this server")
        if self._token and path not in _OPEN and not self._knows(headers.get("authorization", "")):
            return Problem(
                401, "the token is missing or wrong",
                hint="send the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="framewire"'},
            )  # fmt: skip
        return None

    def _knows(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        # Compared in constant time: how long it takes tells nothing of how much was right.
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


class AccessLog:
    """One line a request: who, what, how it ended, how long it took. Neither query nor header is in it.

    Args:
        app: What is logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        status, got = 500, 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, counted, noted)
        finally:
            client = scope["client"][0] if scope.get("client") else "-"
            took = 1000 * (time.monotonic() - start)
            # Quoted, for a path may hold line breaks that would forge lines.
            path = quote(scope["path"], safe="/")[:200]
            _log.info("%s %s %s %d, %d bytes in, %.0f ms", client, scope["method"], path, status, got, took)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return sending


def _without_port(host: str) -> str:
    """The name alone; empty where it is no name."""
    found = _HOST.fullmatch(host)
    return found[1] if found else ""
