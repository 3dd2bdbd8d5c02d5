"""The pusher: what it sends, what it refuses, and that it never waits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.client import Pusher, pusher
from pipeline.errors import ConfigError
from pipeline.transport import push
from pipeline.transport.push import WINDOW, Pushed, PushInlet

LIMIT_S = 5.0  # never waited for unless something is broken
GREY = np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.fixture(params=["ipc", "tcp"])
def inlet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PushInlet]:
    made = PushInlet(f"ipc://{tmp_path}/cam" if request.param == "ipc" else "tcp://127.0.0.1:*")
    yield made
    made.close()


@pytest.fixture
def client(inlet: PushInlet) -> Iterator[Pusher]:
    with Pusher(f"push+{inlet.address}") as made:
        assert made.ready(LIMIT_S)
        yield made


def received(inlet: PushInlet) -> Pushed:
    pushed = inlet.receive(LIMIT_S)
    assert pushed is not None
    return pushed


def answered(client: Pusher) -> None:
    """Wait until all that was sent is answered."""
    deadline = time.monotonic() + LIMIT_S
    while client._open and time.monotonic() < deadline:
        client._socket.poll(10)
        client.ready()
    assert not client._open


def test_client_and_source_speak_of_the_same() -> None:
    assert pusher._SCHEMA == push.SCHEMA
    assert pusher._MAX_BYTES == push.MAX_PICTURE_BYTES
    assert pusher.PushFormat == push.PushFormat


@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (np.full((2, 3, 3), 7, np.uint8), {}, ("bgr24", 3, 2, bytes([7] * 18))),
        (np.full((2, 3, 3), 7, np.uint8), {"format": "rgb24"}, ("rgb24", 3, 2, bytes([7] * 18))),
        (GREY, {"format": "gray8"}, ("gray8", 3, 2, bytes(range(6)))),
        (GREY.T, {"format": "gray8"}, ("gray8", 2, 3, bytes([0, 3, 1, 4, 2, 5]))),
        (np.zeros((3, 4), np.uint8), {"format": "i420"}, ("i420", 4, 2, bytes(12))),
        (np.zeros((6, 2), np.uint8), {"format": "nv12"}, ("nv12", 2, 4, bytes(12))),
        (bytes(9 + 8), {"format": "i420", "width": 3, "height": 3}, ("i420", 3, 3, bytes(17))),
        (bytearray(6), {"format": "gray8", "width": 3, "height": 2}, ("gray8", 3, 2, bytes(6))),
        (memoryview(b"\xff\xd8"), {"format": "jpeg"}, ("jpeg", None, None, b"\xff\xd8")),
        (np.array([[1], [2]], np.uint8), {"format": "png"}, ("png", None, None, b"\1\2")),
    ],
)
def test_what_arrives(
    inlet: PushInlet, client: Pusher, picture: Any, options: Any, expected: tuple[str, int, int, bytes]
) -> None:
    assert client.send(picture, **options)
    pushed = received(inlet)
    header = pushed.header
    assert (header.format, header.width, header.height, bytes(pushed.pixels)) == expected
    assert (header.sequence, header.pts_ns, header.captured_at) == (0, None, None)


def test_times_and_numbers_arrive(inlet: PushInlet, client: Pusher) -> None:
    at = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    stamps: tuple[datetime | float, ...] = (at, at.timestamp())
    for number, stamp in enumerate(stamps):
        assert client.ready(LIMIT_S)
        client.send(GREY, format="gray8", pts_ns=40 * number, captured_at=stamp)
        pushed = received(inlet)
        inlet.answer(pushed)
        assert (pushed.header.sequence, pushed.header.pts_ns) == (number, 40 * number)
        assert pushed.header.utc() == at.timestamp()


def test_what_was_sent_is_the_senders_again(inlet: PushInlet, client: Pusher) -> None:
    picture = np.full((1080, 1920), 1, np.uint8)
    assert client.send(picture, format="gray8")
    picture[:] = 2
    assert set(bytes(received(inlet).pixels)) == {1}


def test_with_nobody_there_nothing_is_taken_and_nothing_waits(tmp_path: Path) -> None:
    start = time.monotonic()
    with Pusher(f"ipc://{tmp_path}/nobody") as alone:
        assert not any(alone.send(GREY, format="gray8") for _ in range(100))
        assert (alone.sent, alone.missed) == (0, 100)
        assert not alone.ready(0.01)
        assert not alone.end(0.01)
    assert time.monotonic() - start < LIMIT_S


def test_no_more_is_sent_than_the_window_until_it_is_answered(inlet: PushInlet, client: Pusher) -> None:
    assert client.send(GREY, format="gray8")
    first = received(inlet)
    inlet.answer(first)
    assert client.ready(LIMIT_S)  # the answer has told the window
    taken = [client.send(GREY, format="gray8") for _ in range(10)]
    assert taken == [True] * WINDOW + [False] * (10 - WINDOW)
    assert (client.sent, client.missed) == (1 + WINDOW, 10 - WINDOW)
    waiting = [received(inlet), received(inlet)]
    assert inlet.receive(0) is None
    for pushed in waiting:
        inlet.answer(pushed)
    assert client.ready(LIMIT_S)
    assert client.send(GREY, format="gray8")
    assert received(inlet).header.sequence == 11  # those that were missed are counted


def test_a_pipeline_that_comes_back_is_pushed_to_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pusher, "_ASK_S", 0.02)
    address = f"ipc://{tmp_path}/cam"
    with Pusher(address) as client:
        inlet = PushInlet(address)
        assert client.ready(LIMIT_S)
        assert client.send(GREY, format="gray8")
        received(inlet)
        inlet.close()  # it dies with a message unanswered
        inlet = PushInlet(address)
        deadline = time.monotonic() + LIMIT_S
        pushed = None
        while pushed is None and time.monotonic() < deadline:
            client.send(GREY, format="gray8")
            pushed = inlet.receive(0.02)  # answers the pusher's question, too
        assert pushed is not None
        inlet.answer(pushed)
        assert client.ready(LIMIT_S)
        inlet.close()


def test_an_answer_to_an_older_question_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, inlet: PushInlet, client: Pusher
) -> None:
    monkeypatch.setattr(pusher, "_ASK_S", 0.0)
    assert client.send(GREY, format="gray8")
    pushed = received(inlet)
    answers = []
    monkeypatch.setattr(PushInlet, "_tell", lambda _, *given: answers.append(given))
    assert not client.send(GREY, format="gray8")  # asks, 1
    assert not client.send(GREY, format="gray8")  # asks, 2
    monkeypatch.undo()
    monkeypatch.setattr(pusher, "_ASK_S", 1000.0)
    inlet._tell(pushed.sender, False, 1)
    assert not client.ready(0.05)
    inlet._tell(pushed.sender, False, 2)
    assert client.ready(LIMIT_S)


def test_the_pipelines_complaint_is_told_once_and_kept(
    inlet: PushInlet, client: Pusher, caplog: pytest.LogCaptureFixture
) -> None:
    for error in ("too dark", "too dark", ""):
        assert client.ready(LIMIT_S)
        assert client.send(GREY, format="gray8")
        inlet.answer(received(inlet), error)
        answered(client)
        assert client.error == error
    assert client.rejected == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the pipeline does not take the pictures: too dark"
    ]


def test_garbage_for_an_answer_is_passed_over(inlet: PushInlet, client: Pusher) -> None:
    assert client.send(GREY, format="gray8")
    pushed = received(inlet)
    for body in (b"", b"\xff", b"{}", msgspec.msgpack.encode({"schema": "framewire.push/2", "window": 9})):
        inlet._socket.send_multipart([pushed.sender, body])
    inlet._socket.send_multipart(
        [pushed.sender, msgspec.msgpack.encode({"schema": push.SCHEMA, "window": -5})]
    )
    assert client.ready(LIMIT_S)
    assert client.error == ""


def test_the_end_is_said_and_heard(inlet: PushInlet, client: Pusher) -> None:
    assert not client.end(0.01)  # nobody has taken it in so far
    pushed = received(inlet)
    assert pushed.header.end
    inlet.answer(pushed)
    assert client.ready(LIMIT_S)


@pytest.mark.parametrize(
    ("picture", "options", "words"),
    [
        (np.zeros((2, 3), np.float32), {"format": "gray8"}, "float32"),
        (np.zeros((2, 3), np.uint8), {}, r"shape \(2, 3\) is no bgr24"),
        (np.zeros((2, 3, 4), np.uint8), {}, "no bgr24"),
        (np.zeros((2, 3, 3), np.uint8), {"format": "gray8"}, "no gray8"),
        (np.zeros((0, 3, 3), np.uint8), {}, "no pixels"),
        (np.zeros(4, np.uint8), {"format": "gray8"}, "no gray8"),
        (np.zeros((4, 4), np.uint8), {"format": "i420"}, "no i420"),
        (np.zeros((6, 3), np.uint8), {"format": "nv12"}, "no nv12"),
        (b"ab", {"format": "gray8"}, "width is None"),
        (b"ab", {"format": "gray8", "width": 3, "height": 1}, "2 bytes are no gray8 picture of 3x1"),
        (b"ab", {"format": "gray8", "width": 0, "height": 1}, "width is 0"),
        (bytes(12), {"format": "i420", "width": 3, "height": 2}, "no i420"),
        (b"", {"format": "jpeg"}, "0 bytes"),
        (b"ab", {"format": "rgba", "width": 1, "height": 1}, "no format 'rgba'"),
        (GREY, {"format": "gray8", "captured_at": datetime(2026, 1, 1)}, "no time zone"),
    ],
)
def test_what_is_no_picture_is_refused_before_it_is_sent(
    client: Pusher, picture: Any, options: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        client.send(picture, **options)
    assert client.sent == client.missed == 0


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:5570", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "udp://127.0.0.1:5570", "ipc://"],
)
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot push to"):
        Pusher(address)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="no password") as raised:
        Pusher("tcp://me:s3cret@127.0.0.1:5570")
    assert "s3cret" not in str(raised.value)


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    client = Pusher(f"ipc://{tmp_path}/nobody")
    client.close()
    client.close()


def test_it_loads_nothing_heavy() -> None:
    code = "import pipeline.client.pusher, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"cv2", "onnxruntime", "av", "pydantic", "supervision", "scipy"} & set(loaded)
