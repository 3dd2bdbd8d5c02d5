"""Who may ask, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from fastapi.responses import PlainTextResponse
from starlette.datastructures import Headers

from pipeline.web.guard import AccessLog, Guard

TOKEN = "0123456789abcdef"


def asked(path: str, *, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    """The answer of an app behind the guard to one request to 127.0.0.1."""
    app = AccessLog(Guard(PlainTextResponse("inside"), **options))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
            return await client.post(f"http://127.0.0.1:8080{path}", headers=raw, content=b"12345")

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer \xfc", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
    ],
)
def test_the_token(given: str | None, status: int) -> None:
    headers = {} if given is None else {"Authorization": given}
    answer = asked("/v1/tag", headers=headers, token=TOKEN)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text


@pytest.mark.parametrize("path", ["/", "/page.js", "/healthz", "/openapi.json"])
def test_what_is_open_to_all(path: str) -> None:
    assert asked(path, token=TOKEN).status_code == 200


@pytest.mark.parametrize("path", ["/v1/tag", "/v1/detect/", "//healthz", "/healthz/../v1/tag", "/other"])
def test_what_is_not(path: str) -> None:
    assert asked(path, token=TOKEN).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8080", 200), ("LOCALHOST", 200), ("[::1]:8080", 200), ("evil.example", 421), ("", 421),
     ("127.0.0.1.evil.example", 421), ("localhost@evil.example", 421), ("localhost:8080.evil.example", 421),
     ("[::1].evil.example", 421), ("[::1]:80:80", 421), ("localhost:", 200)],
)  # fmt: skip
def test_names_of_this_server(host: str, status: int) -> None:
    answer = asked("/healthz", headers={"Host": host}, hosts=["localhost", "127.0.0.1", "[::1]"])
    assert answer.status_code == status
    assert asked("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("path", "site", "status"),
    [
        ("/v1/tag", "cross-site", 403),
        ("/v1/tag", "same-origin", 200),
        ("/v1/tag", "none", 200),
        ("/", "cross-site", 200),
    ],
)
def test_pages_of_other_sites(path: str, site: str, status: int) -> None:
    assert asked(path, headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Transfer-Encoding": "chunked", "Content-Length": "5"}, 400),
        ({"Transfer-Encoding": "chunked"}, 200),
        ({"Content-Length": "5"}, 200),
    ],
)
def test_two_lengths(headers: dict[str, str], status: int) -> None:
    seen = Guard(PlainTextResponse("inside"))._problem("/", Headers(headers))
    assert (200 if seen is None else seen.status) == status
    assert seen is None or seen.headers["Connection"] == "close"


def test_every_answer_forbids_guessing_its_type() -> None:
    for answer in (asked("/"), asked("/v1/tag", token=TOKEN)):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_log_holds_no_secret_and_no_forged_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.web.guard")
    asked(
        "/v1/tag%0d%0aforged?token=hush&classes=car",
        headers={"Authorization": f"Bearer {TOKEN}"},
        token=TOKEN,
    )
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pipeline.web.guard"]
    assert "POST /v1/tag%0D%0Aforged 200" in line
    assert not {"hush", TOKEN} & set(line.split())
    assert "hush" not in line
    assert TOKEN not in line
    assert "\n" not in line
