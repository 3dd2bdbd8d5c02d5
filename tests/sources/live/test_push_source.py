"""Pushed pictures as a live source: times, places, ends."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.client import Pusher
from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.sources.base import Picture
from pipeline.sources.live import push
from pipeline.sources.live.camera import LiveSource
from pipeline.sources.live.push import PushConnection
from pipeline.transport.push import Pushed, PushHeader

LIMIT_S = 5.0  # never waited for unless something is broken

Image = NDArray[np.uint8]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[PushConnection]:
    made = PushConnection("gate", f"push+ipc://{tmp_path}/cam")
    made.open()
    yield made
    made.close()


@pytest.fixture
def client(connection: PushConnection) -> Iterator[Pusher]:
    with Pusher(connection.address) as made:
        assert made.ready(LIMIT_S)
        yield made


def until(connection: PushConnection, condition: Callable[[], bool]) -> None:
    """Take in what comes, which is no picture, until something else has happened."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        assert connection.poll(0.01) is None


def picture_of(connection: PushConnection) -> Picture:
    picture = connection.poll(LIMIT_S)
    assert picture is not None, "nothing came"
    return picture


def through(connection: PushConnection, client: Pusher, *args: Any, **options: Any) -> Picture:
    """Push one picture and take it in."""
    assert client.ready(LIMIT_S)
    assert client.send(*args, **options)
    return picture_of(connection)


def grey(value: int = 0, width: int = 4, height: int = 2) -> dict[str, Any]:
    picture = np.full((height, width), value, np.uint8)
    return {"picture": picture, "format": "gray8"}


def noise(*shape: int) -> Image:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def test_a_picture(connection: PushConnection, client: Pusher) -> None:
    image = noise(6, 8, 3)
    before_ns, before = time.monotonic_ns(), time.time()
    picture = through(connection, client, image)
    assert (picture.pixel_format, picture.width, picture.height) == ("bgr24", 8, 6)
    assert np.array_equal(picture.planes[0], image)
    assert not picture.planes[0].flags.writeable
    assert (picture.index, picture.epoch, picture.pts_ns, picture.clock) == (0, 0, 0, "arrival")
    assert before_ns <= picture.captured_ns == connection.heard_ns <= time.monotonic_ns()
    assert before <= picture.captured_at <= time.time()
    assert through(connection, client, image).index == 1


def test_pixels_are_not_copied_and_live_as_long_as_the_picture(tmp_path: Path) -> None:
    connection = PushConnection("gate", f"push+ipc://{tmp_path}/cam")
    connection.open()
    with Pusher(connection.address) as client:
        assert client.ready(LIMIT_S)
        pictures = [through(connection, client, np.full((64, 96, 3), fill, np.uint8)) for fill in (1, 2, 3)]
    connection.close()
    assert [set(picture.planes[0].ravel().tolist()) for picture in pictures] == [{1}, {2}, {3}]
    assert isinstance(pictures[0].owner, memoryview)
    assert np.shares_memory(np.frombuffer(pictures[0].owner, np.uint8), pictures[0].planes[0])


# --- what comes between -------------------------------------------------------------------------------


def test_bad_pictures_are_counted_and_told_and_logged_once(
    connection: PushConnection, client: Pusher, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (1, 2):
        assert client.send(b"\xff\xd8\xff nonsense", format="jpeg")
        until(connection, lambda count=count: connection.decode_errors == count)  # type: ignore[misc]
        assert client.ready(LIMIT_S)
        while client.rejected < count:
            client._socket.poll(10)
            client.ready()
    assert connection.heard_ns == 0  # nonsense is as good as silence
    assert "damaged" in client.error
    assert through(connection, client, **grey()).index == 0
    assert [record.getMessage() for record in caplog.records if record.name == push.__name__] == [
        "[gate] the jpeg is damaged: it does not say how large it is (more of this kind is not logged)"
    ]


def test_malformed_messages_are_counted(connection: PushConnection, client: Pusher) -> None:
    client._socket.send_multipart([b"nonsense", b""])
    until(connection, lambda: connection.decode_errors == 1)
    assert through(connection, client, **grey()).index == 0


def test_the_newest_of_many(connection: PushConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = [pushed(number) for number in range(5)]
    answered: list[int | None] = []
    inlet = connection._inlet
    assert inlet is not None
    monkeypatch.setattr(inlet, "receive", lambda _: waiting.pop(0) if waiting else None)
    monkeypatch.setattr(inlet, "answer", lambda item, error="": answered.append(item.header.sequence))
    assert picture_of(connection).planes[0][0, 0, 0] == 4
    assert answered == [0, 1, 2, 3, 4]
    assert (connection.skipped, connection.missed) == (4, 0)


def pushed(number: int, *, sender: bytes = b"a", at_ns: int | None = None, end: bool = False) -> Pushed:
    header = PushHeader("framewire.push/1", None if end else "gray8", 1, 1, sequence=number, end=end)
    return Pushed(header, memoryview(bytes([number])), sender, at_ns or time.monotonic_ns(), plain=False)


def test_numbers_that_were_not_sent_are_missed(connection: PushConnection, client: Pusher) -> None:
    through(connection, client, **grey())
    client._sequence = 4
    through(connection, client, **grey())
    assert connection.missed == 3
    client._sequence = 0  # it counts anew
    through(connection, client, **grey())
    client._sequence = 2**60  # or is out of its mind
    through(connection, client, **grey())
    assert connection.missed == 3


def test_nothing_is_decoded_while_nothing_is_wanted(tmp_path: Path) -> None:
    awake = False
    connection = PushConnection("gate", f"push+ipc://{tmp_path}/cam", awake=lambda: awake)
    connection.open()
    with Pusher(connection.address) as client:
        assert client.ready(LIMIT_S)
        client.send(b"\xff\xd8\xff nonsense", format="jpeg")
        until(connection, lambda: connection.skipped == 1)
        assert connection.heard_ns > 0
        assert connection.decode_errors == 0
        awake = True
        assert through(connection, client, **grey()).index == 0
    connection.close()


def test_what_waited_while_the_process_was_frozen_is_left_out(
    connection: PushConnection, client: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(connection, client, **grey(1))
    assert client.ready(LIMIT_S)
    assert client.send(**grey(2))
    frozen_ns = 30_000_000_000
    monkeypatch.setattr(connection, "_now_ns", lambda: time.monotonic_ns() + frozen_ns)
    until(connection, lambda: connection.skipped == 1)
    assert through(connection, client, **grey(3)).planes[0][0, 0, 0] == 3


# --- time and epochs ----------------------------------------------------------------------------------


def test_times_of_the_sender(connection: PushConnection, client: Pusher) -> None:
    seconds = [1000.0, 1000.04, 1000.02, 1000.5]
    pictures = [
        through(connection, client, **grey(), pts_ns=int(at * 1e9), captured_at=1_700_000_000 + at)
        for at in seconds
    ]
    assert [picture.pts_ns for picture in pictures] == [0, 40_000_000, 40_000_000, 500_000_000]
    assert [picture.captured_at for picture in pictures] == [1_700_000_000 + at for at in seconds]
    assert {picture.clock for picture in pictures} == {"container"}
    assert {picture.epoch for picture in pictures} == {0}


@pytest.mark.parametrize(
    ("given", "epochs"),
    [
        ([0, 5_000, 1_000, 2_000], [0, 0, 1, 1]),  # back by four seconds: a new epoch
        ([None, 0, None, 7], [0, 0, 0, 0]),  # stamped at times
        ([0, 2**61 // 10**6, 2**61 // 10**6 + 5], [0, 1, 1]),  # out of all time
    ],
)
def test_time_never_goes_back(
    connection: PushConnection, client: Pusher, given: list[int | None], epochs: list[int]
) -> None:
    pictures = [
        through(connection, client, **grey(), pts_ns=None if at is None else at * 1_000_000) for at in given
    ]
    times = [picture.pts_ns for picture in pictures]
    assert times == sorted(times)
    assert times[-1] < 2**59
    assert [picture.epoch for picture in pictures] == epochs


def test_a_new_size_is_a_new_epoch(connection: PushConnection, client: Pusher) -> None:
    sizes = [(4, 2), (4, 2), (3, 3), (4, 2)]
    pictures = [through(connection, client, **grey(0, *size)) for size in sizes]
    assert [(picture.width, picture.height) for picture in pictures] == sizes
    assert [picture.epoch for picture in pictures] == [0, 0, 1, 2]


# --- who may push -------------------------------------------------------------------------------------


def test_a_second_program_is_told_that_there_is_one(connection: PushConnection, client: Pusher) -> None:
    through(connection, client, **grey())
    with Pusher(connection.address) as second:
        assert second.ready(LIMIT_S)
        assert second.send(**grey(9))
        until(connection, lambda: second.ready() and second.rejected == 1)
        assert "another program" in second.error
    assert through(connection, client, **grey(1)).epoch == 0
    assert connection.decode_errors == 0


def test_a_program_that_has_gone_silent_gives_its_place_away(
    connection: PushConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    inlet = connection._inlet
    assert inlet is not None
    waiting: list[Pushed] = []
    errors: list[str] = []
    monkeypatch.setattr(inlet, "receive", lambda _: waiting.pop(0) if waiting else None)
    monkeypatch.setattr(inlet, "answer", lambda item, error="": errors.append(error))
    second_ns = 1_000_000_000
    found = []
    for sender, at in ((b"a", 10), (b"b", 11), (b"a", 12), (b"b", 15), (b"a", 16)):
        waiting.append(pushed(1, sender=sender, at_ns=at * second_ns))
        found.append((sender, connection.poll(0)))
    assert [(sender, picture and picture.epoch) for sender, picture in found] == [
        (b"a", 0), (b"b", None), (b"a", 0), (b"b", 1), (b"a", None),
    ]  # fmt: skip
    assert [bool(error) for error in errors] == [False, True, False, False, True]


# --- beginning and end --------------------------------------------------------------------------------


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    connection = PushConnection("gate", "push+tcp://127.0.0.1:*")
    facts = connection.open()
    assert (facts.codec, facts.width, facts.frame_rate, facts.transport) == ("raw", 0, None, "tcp")
    assert connection.address.startswith("tcp://127.0.0.1:")
    assert not connection.address.endswith("*")
    connection.close()
    connection.close()


def test_it_waits_for_ever_until_it_is_interrupted(connection: PushConnection) -> None:
    assert connection.poll(0) is None
    assert connection.bound_s == float("inf")
    found: list[Picture | None] = []
    reading = threading.Thread(target=lambda: found.append(connection.read()))
    reading.start()
    connection.interrupt()
    reading.join(LIMIT_S)
    assert found == [None]


def test_it_is_read_by_a_live_source_and_let_go(tmp_path: Path) -> None:
    states: list[str] = []
    made: list[PushConnection] = []

    def connect() -> PushConnection:
        made.append(PushConnection("gate", f"push+ipc://{tmp_path}/cam"))
        return made[-1]

    source = LiveSource("gate", connect, on_change=lambda change: states.append(change.state))
    source.open()
    found: list[Picture | None] = []
    reading = threading.Thread(target=lambda: found.extend([source.read(), source.read()]))
    reading.start()
    with Pusher(f"ipc://{tmp_path}/cam") as client:
        assert client.ready(LIMIT_S)
        assert client.send(**grey(5))
        deadline = time.monotonic() + LIMIT_S
        while "running" not in states and time.monotonic() < deadline:
            reading.join(0.01)
        source.interrupt()
        reading.join(LIMIT_S)
    assert states == ["connecting", "running"]
    first, second = found
    assert first is not None
    assert first.planes[0][0, 0, 0] == 5
    assert second is None
    assert len(made) == 1
    source.close()


def test_the_end_comes_after_the_last_picture_and_stays(connection: PushConnection, client: Pusher) -> None:
    assert client.ready(LIMIT_S)
    assert client.send(**grey(7))
    heard: list[bool] = []
    saying = threading.Thread(target=lambda: heard.append(client.end(LIMIT_S)))
    saying.start()
    picture = picture_of(connection)
    assert picture.planes[0][0, 0, 0] == 7
    assert connection.read() is None
    assert connection.poll(0) is None
    saying.join(LIMIT_S)
    assert heard == [True]


def test_the_end_is_heard_even_when_the_source_closes_at_once(tmp_path: Path) -> None:
    connection = PushConnection("gate", f"push+ipc://{tmp_path}/cam")
    connection.open()
    with Pusher(connection.address) as client:
        assert client.ready(LIMIT_S)
        heard: list[bool] = []
        saying = threading.Thread(target=lambda: heard.append(client.end(LIMIT_S)))
        saying.start()
        assert connection.read() is None
        connection.close()
        saying.join(LIMIT_S)
    assert heard == [True]


def test_an_address_in_use_is_a_source_error(connection: PushConnection) -> None:
    second = PushConnection("yard", f"push+{connection.address}")
    with pytest.raises(SourceError, match="in use") as raised:
        second.open()
    assert (raised.value.reason, raised.value.source) == ("network", "yard")
    second.close()
    with pytest.raises(SourceLostError, match="not open"):
        second.read()


def test_addresses_that_can_never_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other hosts"):
        PushConnection("gate", "push+tcp://0.0.0.0:5570")
    assert PushConnection("gate", "push+tcp://0.0.0.0:5570", insecure=True).address == "tcp://0.0.0.0:5570"
    path = tmp_path / "film.mp4"
    path.touch()
    with pytest.raises(ConfigError, match="no socket") as raised:
        PushConnection("gate", f"push+ipc://{path}").open()
    assert raised.value.source == "gate"


# --- the guide ----------------------------------------------------------------------------------------


def blocks_of(language: str) -> list[str]:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "push.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", blocks_of("python"), ids=["pusher", "plain-zmq"])
def test_the_programs_of_the_guide(block: str, connection: PushConnection) -> None:
    assert 'tcp://127.0.0.1:5570"' in block
    block = block.replace("tcp://127.0.0.1:5570", connection.address).replace("range(100)", "range(20)")
    program = subprocess.Popen([sys.executable, "-c", block], stdout=subprocess.PIPE, text=True)
    first = picture_of(connection)
    assert (first.width, first.height, first.pixel_format) == (640, 480, "bgr24")
    while program.poll() is None:
        connection.poll(0.05)
    said, _ = program.communicate()
    assert program.returncode == 0
    assert connection.decode_errors == 0
    if "Pusher" in block:
        assert connection.read() is None  # it said that this was the end
    else:
        assert set(said.split()) == {"taken"}  # not one was refused; the first may have met nobody


def test_the_headers_of_the_guide_are_those_that_are_read() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "push.md").read_text("utf-8")
    table = guide.split("### Header")[1].split("A message of one part")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(PushHeader.__struct_fields__)
