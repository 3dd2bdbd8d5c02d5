"""``framewire serve`` as a process of its own, asked over a real connection."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import httpx
import jsonschema
import pytest

pytest.importorskip("fastapi")

from pipeline.cli import main
from tests.web.test_headers import bomb, encoded
from tests.web.test_service import picture

TOKEN = "0123456789abcdef"
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}


class Server:
    """A running server; its lines are in ``lines``."""

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-W", "error", "-m", "pipeline", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )
        self.lines: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        assert self.process.stdout is not None
        self._thread = threading.Thread(target=self._collect, args=(self.process.stdout,))
        self._thread.start()
        assert self._ready.wait(30), self.lines
        assert self.url, self.lines
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def _collect(self, out: IO[str]) -> None:
        for line in out:
            self.lines.append(line.rstrip())
            if found := re.match(r"listening at (http://\S+/),", line):
                self.url = found[1]
                self._ready.set()
        self._ready.set()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.process.wait(20)
        finally:
            self.process.kill()
            self._thread.join()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.client.close()
        return code


@contextlib.contextmanager
def running(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
    assert not [line for line in server.lines if "Traceback" in line or "Warning" in line], server.lines


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    options = ["--model", "fake", "--classifier", "fake?task=classify", "--max-bytes", "300kB"]
    with running(*options, "--max-pixels", "1M", "--timeout", "2") as found:
        yield found


def schema_of(server: Server, path: str) -> dict[str, Any]:
    """The schema of an answer, as the service itself describes it."""
    document = server.client.get("/openapi.json").json()
    method = "get" if path == "/healthz" else "post"
    content = document["paths"][path][method]["responses"]["200"]["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    return {**schema, "components": document["components"]}


@pytest.mark.parametrize("task", ["detect", "localize", "classify", "tag"])
def test_a_picture_in_every_way(server: Server, task: str) -> None:
    data, path = picture(), f"/v1/{task}"
    form = server.client.post(path, files={"image": ("my picture.png", data, "image/png")})
    raw = server.client.post(path, content=data, headers=PNG)
    pieces = server.client.post(path, content=iter([data[:999], data[999:]]), headers=PNG)
    answers = []
    for answer in (form, raw, pieces):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        jsonschema.validate(body, schema_of(server, path))
        assert set(body.pop("latency_ms")) == {"wait", "decode", "inference"}
        answers.append(body)
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["task"] == task
    assert (answers[0]["width"], answers[0]["height"]) == (640, 384)
    assert "red" in json.dumps(answers[0])


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("/v1/classify?top_k=2", 2),
        ("/v1/classify", 5),
        ("/v1/classify?classes=red,%20blue", 2),
        ("/v1/detect?confidence=1&classes=red", 1),
        ("/v1/detect?classes=blue", 0),
    ],
)
def test_parameters(server: Server, path: str, labels: int) -> None:
    body = server.client.post(path, content=picture(), headers=PNG).json()
    assert len(body.get("classes", body.get("detections"))) == labels


LARGE = bytes(400_000)


@pytest.mark.parametrize(
    ("path", "options", "status", "words"),
    [
        pytest.param("/v1/tag", {"content": b"", "headers": PNG}, 400, "empty", id="empty"),
        pytest.param("/v1/tag", {"files": {"picture": b"x"}}, 400, "'picture'", id="wrong field"),
        pytest.param(
            "/v1/tag", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400,
            "boundary", id="no boundary",
        ),
        pytest.param("/v1/tag", {"json": {"uri": "x"}}, 400, "url", id="wrong JSON"),
        pytest.param("/v1/tag", {"json": {"url": "http://127.0.0.1/"}}, 403, "not fetched", id="URL"),
        pytest.param("/v2/tag", {"content": b"x"}, 404, "openapi", id="no such address"),
        pytest.param("/v1/tag", {"content": LARGE, "headers": PNG}, 413, "300,000", id="too large"),
        pytest.param(
            "/v1/tag", {"content": iter([LARGE[:200_000]] * 2), "headers": PNG}, 413, "300,000",
            id="too large, in pieces",
        ),
        pytest.param("/v1/tag", {"files": {"image": LARGE}}, 413, "300,000", id="too large, in a form"),
        pytest.param(
            "/v1/tag", {"content": bomb(40_000, 40_000), "headers": PNG}, 413, "40000x40000", id="bomb"
        ),
        pytest.param("/v1/tag", {"content": b"x" * 99, "headers": PNG}, 415, "format", id="no picture"),
        pytest.param("/v1/tag", {"data": {"image": "x"}}, 415, "urlencoded", id="wrong type"),
        pytest.param(
            "/v1/tag", {"content": b"x", "headers": PNG | {"Content-Encoding": "gzip"}}, 415, "gzip",
            id="packed",
        ),
        pytest.param(
            "/v1/tag", {"files": {"image": encoded(".jpg", 99, 99)[:-300]}}, 422, "damaged", id="cut short"
        ),
        pytest.param("/v1/tag?confidence=1.5", {"content": b"x"}, 422, "confidence", id="parameter"),
        pytest.param("/v1/tag?confidence=nan", {"content": b"x"}, 422, "confidence", id="no number"),
        pytest.param("/v1/tag?confidense=1", {"content": b"x"}, 422, "did you mean", id="misspelt"),
        pytest.param("/v1/detect?top_k=1", {"content": b"x"}, 422, "top_k", id="not of this task"),
        pytest.param("/v1/tag?top_k=1&top_k=2", {"content": b"x"}, 422, "more than once", id="twice"),
        pytest.param("/v1/tag?classes=%20,", {"content": b"x"}, 422, "names no label", id="labels of blanks"),
        pytest.param("/v1/tag/", {"content": b"x"}, 404, "openapi", id="a slash more"),
        pytest.param("/v1/tag", {"content": b"[" * 9999, "headers": JSON}, 400, "no JSON", id="deep JSON"),
        pytest.param("/v1/tag", {"content": b"{", "headers": JSON}, 400, "Expecting", id="half JSON"),
        pytest.param("/v1/tag", {"content": b" " * 20_000, "headers": JSON}, 413, "16,384", id="long JSON"),
        pytest.param("/v1/tag?classes=rod", {"content": b"x"}, 422, "did you mean red", id="no such label"),
    ],
)  # fmt: skip
def test_refusals(server: Server, path: str, options: dict[str, Any], status: int, words: str) -> None:
    answer = server.client.post(path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert words in problem["detail"] + problem.get("hint", "")


@pytest.mark.parametrize(
    ("method", "path", "allowed", "hint"),
    [("GET", "/v1/tag", "POST", "POST a picture"), ("POST", "/healthz", "GET", "it takes GET")],
)
def test_other_methods(server: Server, method: str, path: str, allowed: str, hint: str) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["hint"] == hint


def test_a_body_that_does_not_come(server: Server) -> None:
    """It is given up; meanwhile and afterwards others are answered."""
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), 20) as slow:
        slow.sendall(f"POST /v1/tag HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\n".encode())
        slow.sendall(b"Content-Length: 999\r\n\r\nx")
        assert server.client.post("/v1/tag", content=picture(), headers=PNG).status_code == 200
        assert b" 408 " in slow.recv(4096)


def test_a_client_that_leaves(server: Server) -> None:
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), 20) as gone:
        gone.sendall(f"POST /v1/tag HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\n".encode())
        gone.sendall(b"Content-Length: 999\r\n\r\nx")
    assert server.client.post("/v1/tag", content=picture(), headers=PNG).status_code == 200


def test_health(server: Server) -> None:
    body = server.client.get("/healthz").json()
    jsonschema.validate(body, schema_of(server, "/healthz"))
    assert body["status"] == "ok"
    assert {kind: one["name"] for kind, one in body["models"].items()} == {
        "detector": "fake",
        "classifier": "fake?task=classify",
    }


def test_the_head_of_health(server: Server) -> None:
    answer = server.client.head("/healthz")
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) > 0
    assert "head" not in server.client.get("/openapi.json").json()["paths"]["/healthz"]


def test_bad_http_over_a_real_connection(server: Server) -> None:
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), 20) as wrong:
        wrong.sendall(b"GARBAGE\r\n\r\n")
        with wrong.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 400 ")  # and it is closed


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    asked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(asked) == {"/icon.svg", "/page.css", "/page.js", "/openapi.json"}
    for path in asked:
        answer = server.client.get(path)
        assert answer.status_code == 200
        assert "//" not in re.sub(r"http://www.w3.org/2000/svg|//.*$", "", answer.text, flags=re.M) or (
            path == "/openapi.json"
        )
    # Every element that the script looks for is there.
    names = set(re.findall(r'get\("([a-z-]+)"\)', server.client.get("/page.js").text))
    assert names <= set(re.findall(r'id="([a-z-]+)"', page.text))
    assert server.client.head("/").status_code == 200


def test_another_name_is_not_answered_to(server: Server) -> None:
    assert server.client.get("/healthz", headers={"Host": "evil.example"}).status_code == 421


def test_busy_then_stopped_in_order(tmp_path: Path) -> None:
    """One is looked at, the next is refused, a stop lets the first end; all of it with a token."""
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    options = ["--model", "fake?ms=2500", "--queue", "0", "--token-file", str(secret)]
    with running(*options) as server:
        client = server.client
        assert client.post("/v1/tag", content=picture(), headers=PNG).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        first: list[httpx.Response] = []

        def ask() -> None:
            first.append(client.post("/v1/tag", content=picture(), headers=PNG))

        thread = threading.Thread(target=ask)
        thread.start()
        while client.get("/healthz").json()["requests"] == 0:
            assert thread.is_alive()
        assert client.post("/v1/tag?token=hush", content=picture(), headers=PNG).status_code == 422
        busy = client.post("/v1/tag?classes=red", content=picture(), headers=PNG)
        assert busy.status_code == 503
        assert busy.headers["Retry-After"] == "1"
        server.process.send_signal(signal.SIGTERM)
        thread.join(10)
        assert first[0].status_code == 200
        assert server.wait() == 0
    log = "\n".join(server.lines)
    assert "POST /v1/tag 503" in log
    assert TOKEN not in log
    assert "hush" not in log


def test_ctrl_c() -> None:
    with running("--model", "fake") as server:
        assert server.client.get("/healthz").status_code == 200
        assert server.stop(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "there is no token"),
        (["--host", "0.0.0.0", "--token-file", "missing"], "cannot be read"),
        (["--token-file", "short"], "16 characters"),
        (["--max-bytes", "many"], "--max-bytes"),
        (["--max-pixels", "0"], "--max-pixels"),
        (["--host", "192.0.2.1", "--insecure"], "cannot listen"),
        (["--allow-url-host", "http://example.com"], "no host"),
        (["--port", "70000"], "65535"),
    ],
)
def test_wrong_usage(
    options: Sequence[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRAMEWIRE_TOKEN", raising=False)
    (tmp_path / "short").write_text("secret")
    assert main(["serve", "--model", "fake", *options]) == 2
    assert words in capsys.readouterr().err


def test_without_its_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pipeline.cli.serve.find_spec", lambda name: None if name == "uvicorn" else 1)
    assert main(["serve"]) == 2
    assert "serve needs what is not installed: uvicorn" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 130])
def test_a_thread_that_never_ends_does_not_keep_the_process(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Exception):  # noqa: N818 - no error
        """In place of the end of this process."""

    def leave(status: int) -> None:
        raise Gone(status)

    monkeypatch.setattr("pipeline.web.server.serve", lambda *_, **__: code)
    monkeypatch.setattr("pipeline.web.service.wait", lambda futures, _: (set(), {"one that goes on"}))
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("logging.shutdown", lambda: None)
    with pytest.raises(Gone, match=str(code)):
        main(["serve", "--model", "fake", "--port", "0"])


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["serve", "--model", "fake", "--port", str(other.getsockname()[1])]) == 2
    assert "--port" in capsys.readouterr().err
