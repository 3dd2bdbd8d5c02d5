"""The input for pushed pictures: the protocol, byte by byte, and what strangers may send."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, MessageError, TransportError
from pipeline.transport import push
from pipeline.transport.push import MAX_PICTURE_BYTES, SCHEMA, WINDOW, Pushed, PushInlet, push_address

LIMIT_S = 5.0  # never waited for unless something is broken

ENCODERS: dict[str, Callable[[Any], bytes]] = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}


class Stranger:
    """A client that sends what it likes."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)

    def send(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def answer(self) -> dict[str, Any]:
        assert self.socket.poll(int(LIMIT_S * 1000)), "no answer came"
        parts = self.socket.recv_multipart()
        assert len(parts) == 1
        decode = msgspec.json.decode if parts[0][:1] == b"{" else msgspec.msgpack.decode
        found: dict[str, Any] = decode(parts[0])
        return found

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@pytest.fixture
def inlet(endpoint: str) -> Iterator[PushInlet]:
    made = PushInlet(endpoint)
    yield made
    made.close()


@pytest.fixture
def stranger(inlet: PushInlet) -> Iterator[Stranger]:
    made = Stranger(inlet.address)
    yield made
    made.close()


def header(**more: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "format": "gray8", "width": 2, "height": 1, **more}


def received(inlet: PushInlet) -> Pushed:
    pushed = inlet.receive(LIMIT_S)
    assert pushed is not None
    return pushed


@pytest.mark.parametrize("form", ENCODERS)
def test_a_picture_arrives_and_is_answered_in_the_same_language(
    inlet: PushInlet, stranger: Stranger, form: str
) -> None:
    sent = header(pts_ns=7, captured_at="2026-01-31T09:30:00Z", sequence=3, hello=9, unknown={"a": [1]})
    stranger.send(ENCODERS[form](sent), b"ab")
    before_ns = time.monotonic_ns()
    pushed = received(inlet)
    assert bytes(pushed.pixels) == b"ab"
    assert pushed.pixels.readonly
    assert (pushed.header.format, pushed.header.width, pushed.header.height) == ("gray8", 2, 1)
    assert (pushed.header.pts_ns, pushed.header.sequence) == (7, 3)
    assert pushed.header.utc() == datetime(2026, 1, 31, 9, 30, tzinfo=UTC).timestamp()
    assert before_ns <= pushed.received_ns <= time.monotonic_ns()
    inlet.answer(pushed)
    assert stranger.answer() == {"schema": SCHEMA, "window": WINDOW, "hello": 9}
    inlet.answer(pushed, "too dark")
    assert stranger.answer()["error"] == "too dark"


def test_pixels_outlive_the_next_message_and_the_socket(endpoint: str) -> None:
    inlet = PushInlet(endpoint)
    stranger = Stranger(inlet.address)
    for fill in (b"\x01", b"\x02"):
        stranger.send(msgspec.json.encode(header(width=4096, height=64)), fill * 4096 * 64)
    first, second = received(inlet), received(inlet)
    stranger.close()
    inlet.close()
    assert set(first.pixels) == {1}
    assert set(second.pixels) == {2}


def test_a_question_is_answered_without_being_received(inlet: PushInlet, stranger: Stranger) -> None:
    stranger.send(msgspec.json.encode({"schema": SCHEMA, "hello": 5}))
    stranger.send(msgspec.json.encode(header()), b"ab")
    assert received(inlet).header.format == "gray8"
    assert stranger.answer() == {"schema": SCHEMA, "window": WINDOW, "hello": 5}


def test_the_end(inlet: PushInlet, stranger: Stranger) -> None:
    stranger.send(msgspec.msgpack.encode({"schema": SCHEMA, "end": True}))
    pushed = received(inlet)
    assert pushed.header.end
    assert pushed.pixels.nbytes == 0


def test_silence_is_none(inlet: PushInlet) -> None:
    assert inlet.receive(0) is None


@pytest.mark.parametrize(
    ("stamp", "utc"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000.25, 1_700_000_000.25),
        ("2023-11-14T22:13:20.250Z", 1_700_000_000.25),
        ("2023-11-15T00:13:20.250+02:00", 1_700_000_000.25),
        (datetime.fromtimestamp(1_700_000_000, UTC), 1_700_000_000.0),  # msgpack's own timestamp
        (None, None),
    ],
)
def test_ways_to_write_a_time(inlet: PushInlet, stranger: Stranger, stamp: Any, utc: float | None) -> None:
    stranger.send(msgspec.msgpack.encode(header(captured_at=stamp)), b"ab")
    assert received(inlet).header.utc() == utc


MALFORMED: list[tuple[str, list[bytes], str]] = [
    ("nothing", [b""], "cannot be read"),
    ("no map", [b"\x01"], "cannot be read"),
    ("a JSON list", [b"[]"], "cannot be read"),
    ("half a JSON map", [b'{"schema"'], "cannot be read"),
    ("no schema", [b"{}"], "schema"),
    ("a pickle", [b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."], "cannot be read"),
    ("bad UTF-8", [b'{"schema": "\xff\xfe"}'], "cannot be read"),
    ("nested far too deep", [b"\x82\xa6schema\xa1x\xa1a" + b"\x91" * 3000 + b"\xc0"], "cannot be read"),
    ("a newer version", [msgspec.json.encode({"schema": "framewire.push/2", "format": 7}), b"ab"], "push/2"),
    ("another record", [msgspec.json.encode({"schema": "framewire.frame/1"})], "framewire.frame/1"),
    ("an unknown format", [msgspec.json.encode(header(format="rgba")), b"ab"], "format"),
    ("no format", [msgspec.json.encode({"schema": SCHEMA}), b"ab"], "no format"),
    ("no pixels", [msgspec.json.encode(header())], "no pixels"),
    ("too many parts", [msgspec.json.encode(header()), b"a", b"b"], "3 parts"),
    ("a width of 0", [msgspec.json.encode(header(width=0)), b""], "width"),
    ("a width of 65536", [msgspec.json.encode(header(width=65536)), b""], "width"),
    ("a negative time", [msgspec.json.encode(header(pts_ns=-1)), b"ab"], "pts_ns"),
    ("a time beyond 64 bits", [msgspec.json.encode(header(pts_ns=2**63)), b"ab"], "pts_ns"),
    ("a local time", [msgspec.json.encode(header(captured_at="2026-01-31T09:30:00")), b"ab"], "captured_at"),
    ("no time", [msgspec.msgpack.encode(header(captured_at=float("nan"))), b"ab"], "captured_at"),
    ("for ever", [msgspec.msgpack.encode(header(captured_at=float("inf"))), b"ab"], "captured_at"),
    ("antiquity", [msgspec.json.encode(header(captured_at="0001-01-01T00:00:00+14:00")), b"ab"], "year"),
    ("a long header", [msgspec.json.encode(header(comment="x" * 5000)), b"ab"], "4096"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "words"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_what_is_no_message_is_raised_and_answered(
    inlet: PushInlet, stranger: Stranger, parts: list[bytes], words: str
) -> None:
    stranger.send(*parts)
    with pytest.raises(MessageError, match=words):
        inlet.receive(LIMIT_S)
    assert words in stranger.answer()["error"]
    stranger.send(msgspec.json.encode(header()), b"ab")
    assert received(inlet).header.width == 2


def test_a_picture_beyond_the_limit_is_refused_and_one_far_beyond_never_read(
    inlet: PushInlet, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inlet._socket.maxmsgsize == 2 * MAX_PICTURE_BYTES
    monkeypatch.setattr(push, "MAX_PICTURE_BYTES", 1000)
    stranger.send(msgspec.json.encode(header()), bytes(1001))
    with pytest.raises(MessageError, match="1001 bytes"):
        inlet.receive(LIMIT_S)
    assert "1000 are allowed" in stranger.answer()["error"]


def test_zeromq_hangs_up_on_what_is_too_large_for_it(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_MESSAGE_MAX", 5000)
    inlet = PushInlet(endpoint)
    hostile, friend = Stranger(inlet.address), Stranger(inlet.address)
    hostile.send(msgspec.json.encode(header(width=1)), bytes(6000))
    friend.send(msgspec.json.encode(header()), b"ab")
    assert received(inlet).header.width == 2
    assert inlet.receive(0) is None
    for made in (hostile, friend, inlet):
        made.close()


def test_what_a_stranger_writes_does_not_reach_the_log_raw(inlet: PushInlet, stranger: Stranger) -> None:
    stranger.send(msgspec.json.encode({"schema": "evil\x1b[2J\n" + "x" * 1000}))
    with pytest.raises(MessageError) as raised:
        inlet.receive(LIMIT_S)
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 300


def test_a_sender_that_is_gone_does_no_harm(inlet: PushInlet, stranger: Stranger) -> None:
    passing = Stranger(inlet.address)
    passing.send(msgspec.json.encode(header()), b"ab")
    pushed = received(inlet)
    passing.close()
    for _ in range(100):
        inlet.answer(pushed)
    stranger.send(msgspec.json.encode(header()), b"ab")
    assert received(inlet).sender != pushed.sender


@pytest.fixture(scope="module")
def open_inlet() -> Iterator[PushInlet]:
    made = PushInlet("tcp://127.0.0.1:*")
    yield made
    made.close()


HEADERS = st.dictionaries(
    st.sampled_from([*push.PushHeader.__struct_fields__, "x"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.just(SCHEMA),
).map(lambda fields: {"schema": SCHEMA, **fields})
PACKED = HEADERS.map(lambda fields: msgspec.msgpack.Encoder(enc_hook=str).encode(_in_range(fields)))
PARTS = st.binary(max_size=60) | PACKED | st.just(msgspec.json.encode(header()))


def _in_range(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value % 2**63 if isinstance(value, int) else value for key, value in fields.items()}


@given(st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_message_is_received_or_refused_and_answered(
    open_inlet: PushInlet, sent: list[list[bytes]]
) -> None:
    stranger = Stranger(open_inlet.address)
    for parts in sent:
        stranger.send(*parts)
        refused = False
        while not stranger.socket.poll(0):  # a question is answered inside `receive`
            try:
                pushed = open_inlet.receive(0.01)
            except MessageError:
                refused = True
            else:
                if pushed is not None:
                    open_inlet.answer(pushed)
        assert ("error" in stranger.answer()) is refused
    stranger.close()


@pytest.mark.parametrize(
    ("url", "insecure", "address"),
    [
        ("push+tcp://127.0.0.1:5570", False, "tcp://127.0.0.1:5570"),
        ("push+tcp://localhost:5570", False, "tcp://localhost:5570"),
        ("push+tcp://[::1]:5570", False, "tcp://[::1]:5570"),
        ("push+ipc:///run/cam.sock", False, "ipc:///run/cam.sock"),
        ("push+tcp://0.0.0.0:5570", True, "tcp://0.0.0.0:5570"),
        ("push+tcp://*:5570", True, "tcp://*:5570"),
    ],
)
def test_urls(url: str, insecure: bool, address: str) -> None:
    assert push_address(url, insecure=insecure) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("push+tcp://0.0.0.0:5570", "other hosts"),
        ("push+tcp://10.0.0.7:5570", "other hosts"),
        ("push+tcp://example.org:5570", "other hosts"),
        ("push+tcp://127.0.0.1", "not an address"),
        ("push+tcp://127.0.0.1:99999", "not an address"),
        ("push+udp://127.0.0.1:5570", "not an address"),
        ("push+inproc://cam", "not an address"),
        ("push+ipc://", "not an address"),
    ],
)
def test_urls_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        push_address(url)
    assert "push+tcp://127.0.0.1" in raised.value.hint


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="no password") as raised:
        push_address("push+tcp://me:s3cret@127.0.0.1:5570")
    assert "s3cret" not in str(raised.value)


def test_an_address_in_use(endpoint: str) -> None:
    first = PushInlet(endpoint)
    with pytest.raises(TransportError, match="in use") as raised:
        PushInlet(first.address)
    assert "another port or path" in raised.value.hint
    stranger = Stranger(first.address)  # and the first one is as it was
    stranger.send(msgspec.json.encode(header()), b"ab")
    assert received(first).header.width == 2
    stranger.close()
    first.close()


def test_an_address_that_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"cannot listen at ipc://.*: No such file"):
        PushInlet(f"ipc://{tmp_path}/nowhere/cam.sock")


def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cam.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    inlet = PushInlet(f"ipc://{path}")
    stranger = Stranger(inlet.address)
    stranger.send(msgspec.json.encode(header()), b"ab")
    assert received(inlet).header.width == 2
    stranger.close()
    inlet.close()
    assert not path.exists()


def test_a_file_at_the_path_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "holiday.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="no socket"):
        PushInlet(f"ipc://{path}")
    assert path.read_bytes() == b"precious"


def test_times_are_in_utc_whatever_the_zone() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    raw = msgspec.msgpack.encode(header(captured_at=at + timedelta(seconds=1)))
    assert msgspec.msgpack.decode(raw, type=push.PushHeader).utc() == at.timestamp() + 1
