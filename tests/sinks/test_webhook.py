"""Webhooks to a receiver that fails, stalls and lies: only a 2xx counts, nothing hangs, order is kept."""

from __future__ import annotations

import logging
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import from_mapping
from pipeline.errors import ConfigError
from pipeline.messages import ModelSpec
from pipeline.sinks import build_connector
from pipeline.sinks.cloudevents import cloud_event
from pipeline.sinks.connector import Connector, RefusedError, Session, UnreachableError
from pipeline.sinks.webhook import patience, signature
from tests.servers.certs import certificate
from tests.servers.programs import free_port, records
from tests.servers.webhooks import Receiver, dripping, endless, half_an_answer, hang_up, not_http, waiting

SPEC = ModelSpec("default", "0" * 64, "nanodet", ("car",), 416, 416)
SESSION = Session("run", "cafe", SPEC, lambda: ("gate",), lambda _: {})


def connected(receiver: Receiver, **options: Any) -> Connector:
    made = build_connector("webhook", **({"url": receiver.url, "timeout_s": 5.0} | options))
    made.connect(SESSION)
    return made


@pytest.mark.parametrize(
    ("options", "requests", "kind"),
    [
        ({}, 120, "application/cloudevents+json"),
        ({"batch": 50}, 3, "application/cloudevents-batch+json"),
        ({"format": "json"}, 120, "application/json"),
        ({"format": "json", "batch": 100}, 2, "application/json"),
    ],
)
def test_all_arrive_in_order(options: dict[str, Any], requests: int, kind: str) -> None:
    with Receiver() as receiver:
        connector = connected(receiver, **options)
        connector.send(records(0, 120))
        connector.close()
        connector.close()
        assert receiver.sequences() == list(range(120))
        assert len(receiver.requests) == requests
        assert receiver.requests[0]["content-type"].startswith(kind)


def test_a_cloud_event_says_what_the_specification_wants() -> None:
    (record,) = records(7, 1, source="front door", object_id="run-gate-3")
    event = cloud_event(record, "cafe")
    assert event.pop("data") == record
    assert event == {
        "specversion": "1.0",
        "id": "cafe-7",
        "source": "/framewire/front%20door",
        "type": "framewire.update.v1",
        "time": "2026-01-31T09:30:00.250Z",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000007",
        "subject": "run-gate-3",
    }


@pytest.mark.parametrize(("written", "key"), [("plain words", b"plain words"), ("whsec_c2VjcmV0", b"secret")])
def test_signatures_are_checked_by_the_receiver(tmp_path: Path, written: str, key: bytes) -> None:
    (tmp_path / "secret").write_text(written + "\n")
    with Receiver(secret=key) as receiver:
        connector = connected(
            receiver, secret_file=str(tmp_path / "secret"), token="let-me-in", headers={"X-Site": "7"}
        )
        connector.send(records(0, 2))
        connector.close()
        assert receiver.sequences() == [0, 1]
        assert [r["webhook-id"] for r in receiver.requests] == ["cafe-0", "cafe-1"]
        assert receiver.requests[0].items() >= {"authorization": "Bearer let-me-in", "x-site": "7"}.items()
        wrong = connected(receiver, secret="wr0ng-secret")
        with pytest.raises(UnreachableError, match="401") as caught:
            wrong.send(records(2, 1))
        assert "wr0ng" not in caught.value.message
        wrong.close()


def test_the_signature_of_the_standard() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks, spec, and its Python library."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [301, 308])
def test_a_redirect_is_for_an_operator_to_follow(status: int) -> None:
    with Receiver(status) as receiver:
        connector = connected(receiver)
        with pytest.raises(UnreachableError, match=r"elsewhere\.example"):
            connector.send(records(0, 1))
        connector.close()
        assert receiver.got == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 401, 403, 404])
def test_what_may_change_is_tried_again(status: int) -> None:
    with Receiver(204, status) as receiver:
        connector = connected(receiver)
        with pytest.raises(UnreachableError, match=str(status)) as caught:
            connector.send(records(0, 3))
        assert caught.value.done == 1
        connector.send(records(1, 2))
        connector.close()
        assert receiver.sequences() == [0, 1, 2]


@pytest.mark.parametrize("status", [400, 405, 410, 413, 422])
def test_what_will_not_change_is_refused(status: int) -> None:
    with Receiver(204, status) as receiver:
        connector = connected(receiver)
        with pytest.raises(RefusedError, match=str(status)) as caught:
            connector.send(records(0, 3))
        connector.close()
        assert caught.value.done == 1
        assert receiver.sequences() == [0]


def test_of_a_batch_only_the_event_that_is_refused_is() -> None:
    with Receiver(400, 204, 204, 400) as receiver:
        connector = connected(receiver, batch=10)
        with pytest.raises(RefusedError) as caught:
            connector.send(records(0, 10))
        connector.close()
        assert (caught.value.done, receiver.sequences()) == (2, [0, 1])


def test_a_batch_that_is_too_large_is_halved() -> None:
    with Receiver(413, 413) as receiver:
        connector = connected(receiver, batch=8)
        connector.send(records(0, 8))
        connector.close()
        assert receiver.sequences() == list(range(8))
        assert [len(body) for body in receiver.got] == [2, 2, 2, 2]


@pytest.mark.parametrize("lie", [hang_up, half_an_answer, not_http])
def test_what_is_no_whole_answer_is_no_acknowledgement(lie: Any) -> None:
    with Receiver(lie) as receiver:
        connector = connected(receiver)
        with pytest.raises(UnreachableError):
            connector.send(records(0, 1))
        connector.send(records(0, 1))
        connector.close()
        assert receiver.sequences() == [0]


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    with Receiver(endless) as receiver:
        connector = connected(receiver)
        connector.send(records(0, 2))
        connector.close()
        assert receiver.sequences() == [1], "the endless one said 200"


def test_a_server_that_stalls_costs_the_timeout_and_no_more() -> None:
    with Receiver() as receiver:
        receiver.script += [dripping(receiver.over), waiting(receiver.over)]
        connector = connected(receiver, timeout_s=0.4)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(UnreachableError, match=r"in time|[Tt]ime"):
                connector.send(records(0, 1))
            assert time.monotonic() - began < 5
        connector.close()
        receiver.over.set()


def test_nobody_there() -> None:
    connector = build_connector("webhook", url=f"http://127.0.0.1:{free_port()}/", timeout_s=2.0)
    connector.connect(SESSION)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
        connector.send(records(0, 1))
    connector.close()
    assert threading.active_count() < 20


def test_tls_is_checked() -> None:
    mine, other = certificate(), certificate("other.example")
    with Receiver(certificate=mine) as receiver:
        connector = connected(receiver, ca_file=str(mine.cert))
        connector.send(records(0, 1))
        connector.close()
        for ca_file in (None, str(other.cert)):
            stranger = connected(receiver, ca_file=ca_file)
            with pytest.raises(UnreachableError, match=r"(?i)certificate"):
                stranger.send(records(0, 1))
            stranger.close()
        assert receiver.sequences() == [0]
    lost = build_connector("webhook", url=receiver.url, ca_file="/no/such.pem")
    with pytest.raises(UnreachableError, match=r"no/such\.pem"):
        lost.connect(SESSION)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("0", 0), ("30", 30), ("300", 300), ("99999999", 300), ("9" * 400, 0), ("-5", 0), ("1.5", 0), ("", 0),
        ("soon", 0), ("\u0663", 0),
        ("Sat, 31 Jan 2026 09:31:00 GMT", 60), ("Sat, 31 Jan 2026 09:29:00 GMT", 0),
        ("Sat, 31 Jan 2026 09:31:00 -0000", 60), ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
        ("Sat, 99 Jan 2026 09:31:00 GMT", 0),
    ],
)  # fmt: skip
def test_how_long_a_server_may_ask_us_to_wait(asked: str, seconds: float) -> None:
    assert patience(asked, 1769851800.0) == seconds  # 2026-01-31T09:30:00Z


def busy(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(429)
    handler.send_header("retry-after", "1")
    handler.send_header("content-length", "0")
    handler.end_headers()


def test_nothing_is_posted_before_the_server_wants_it() -> None:
    with Receiver(busy) as receiver:
        connector = connected(receiver)
        said, began = set(), time.monotonic()
        while time.monotonic() < began + 20:
            try:
                connector.connect(SESSION)  # as a delivery does
                connector.send(records(0, 1))
                break
            except UnreachableError as error:
                said.add(error.message)
                threading.Event().wait(0.02)
        took = time.monotonic() - began
        connector.close()
        assert took >= 1
        assert (len(receiver.requests), receiver.sequences()) == (2, [0])
        assert len(said) == 1, "one sentence for the log, not one for each attempt"


SECRET = "s3cret-word"


@pytest.mark.parametrize(
    "options",
    [
        {"token": f"{SECRET} "},
        {"token": f"{SECRET}\nsecond line"},
        {"token": f"{SECRET}\u00e9"},
        {"headers": {"X-Api-Key": f"{SECRET} "}},
        {"headers": {"X-Api-Key": f"{SECRET}\u00e9"}},
        {"secret": f"whsec_{SECRET}"},
        {"secret": "whsec_"},
    ],
)
def test_what_cannot_be_sent_is_said_without_saying_it(options: dict[str, Any]) -> None:
    with Receiver() as receiver:
        connector = build_connector("webhook", url=receiver.url, **options)
        for _ in range(2):
            with pytest.raises(UnreachableError, match=r"cannot be (sent|used)") as caught:
                connector.connect(SESSION)
            assert SECRET not in caught.value.message
        connector.close()
        assert receiver.requests == []


@pytest.mark.parametrize("answer", [204, 500, 400, 301, hang_up, not_http])
def test_of_the_url_only_the_host_is_ever_said(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # as the processes of a run have it
    with Receiver(answer) as receiver:
        connector = connected(receiver, url=f"{receiver.url}/{SECRET}?key={SECRET}")
        said = ""
        try:
            connector.send(records(0, 1))
        except (RefusedError, UnreachableError) as error:
            said = error.message
        connector.close()
    assert (said == "") == (answer == 204)
    assert SECRET not in said
    assert SECRET not in caplog.text


def test_the_certificates_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = certificate()
    monkeypatch.setattr("certifi.where", lambda: str(mine.cert))  # the library's own list
    with Receiver(certificate=mine) as receiver:
        connector = connected(receiver)
        with pytest.raises(UnreachableError, match=r"(?i)certificate"):
            connector.send(records(0, 1))
        connector.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://[::1/"])
def test_an_address_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigError, match="webhook"):
        build_connector("webhook", url=url)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"webhook": f"https://me:{SECRET}@hooks.example/"}, "no login"),
        ({"webhook": "https://hooks.example:99999/"}, "1 to 65535"),
        ({"webhook": "https://hooks.example:0/"}, "1 to 65535"),
        ({"headers": {"X-Site": "K\u00f6ln"}}, "ASCII"),
        ({"headers": {"X-Api-Key": f" {SECRET}"}}, "X-Api-Key"),
        ({"headers": {"Authorization": f"Basic {SECRET}"}}, "token:"),
        ({"secret": f"whsec_{SECRET}"}, "base64"),
        ({"secret": "whsec_"}, "base64"),
        ({"token": SECRET, "token_file": "t"}, "keep one"),
    ],
)
def test_what_a_config_cannot_mean(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping({"publish": [{"webhook": "https://hooks.example/"} | entry]}, "test")
    shown = f"{caught.value} {caught.value.hint}"
    assert said in shown
    assert SECRET not in shown
