from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.messages import Detections
from pipeline.sinks import pushing
from pipeline.sinks.base import Follower, Publication, Resume
from pipeline.sinks.stream import StreamSink
from pipeline.sinks.targets import parse_target
from tests.servers.certs import certificate
from tests.servers.receivers import RtmpReceiver, RtspReceiver, Stalled, free_port
from tests.sinks.builders import MS, SPEC, make_header, make_item

NONE = Detections.empty()
BOX = Detections([[64, 48, 192, 144]], [0.9], [2], [7])
RED, GREEN = (0, 0, 200), (0, 200, 0)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(pushing, "_LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(pushing, "_HELLO_S", 0.1)


def halves(size: tuple[int, int] = (256, 192)) -> NDArray[np.uint8]:
    """Red on the left, green on the right, BGR."""
    picture = np.empty((size[1], size[0], 3), np.uint8)
    picture[:, : size[0] // 2], picture[:, size[0] // 2 :] = RED, GREEN
    return picture


def shown(
    at_ns: int,
    *,
    source: str = "gate",
    size: tuple[int, int] = (256, 192),
    found: Detections = NONE,
    picture: NDArray[np.uint8] | None = None,
) -> Publication:
    header = msgspec.structs.replace(make_header(0, source=source, size=size), captured_ns=at_ns)
    return make_item(header, picture=halves(size) if picture is None else picture, detections=found)


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


def send(sink: StreamSink, items: list[Publication]) -> None:
    """Each on its own: the next one is given when the one before has left."""
    for item in items:
        before = sink.stats()["sent"]
        sink.write(item)
        until(lambda before=before: sink.stats()["sent"] == before + 1)  # type: ignore[misc]


def keep_sending(sink: StreamSink, done: Callable[[], bool], seconds: float = 15) -> None:
    """A camera of 30 pictures a second until something has happened; no picture may be in the way."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"it does not happen: {sink.stats()}"
        before = time.monotonic()
        sink.write(shown(time.monotonic_ns()))
        assert time.monotonic() - before < 0.5
        time.sleep(0.03)


def decoded(path: Path) -> list[tuple[float, bool, NDArray[np.uint8]]]:
    """Time in seconds, whether it is a keyframe, and BGR pixels of each frame."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert all(frame.format.name == "yuv420p" for frame in frames)
    return [(frame.time or 0.0, frame.key_frame, np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
            for frame in frames]  # fmt: skip


def received(server: RtmpReceiver | RtspReceiver) -> list[tuple[float, bool, NDArray[np.uint8]]]:
    """What has come so far."""
    try:
        return decoded(server.file)
    except (av.FFmpegError, OSError, IndexError):  # its header is still to be written
        return []


def close(one: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(one.reshape(-1, 3).mean(0) - colour).max() < 12)


def uneven(part: NDArray[np.uint8]) -> float:
    return float(part.std(axis=(0, 1)).max())


@pytest.fixture
def opened() -> Iterator[Callable[..., StreamSink]]:
    """Opens sinks, and closes them within their bound."""
    sinks: list[StreamSink] = []

    def opens(url: str | Path, sources: tuple[str, ...] = ("gate",), **options: Any) -> StreamSink:
        sink = StreamSink(str(url), sources, **options)
        sinks.append(sink)
        assert sink.open(SPEC) == Resume()
        return sink

    yield opens
    for sink in sinks:
        before = time.monotonic()
        sink.close()
        assert time.monotonic() - before < 4.5


def test_hls_has_the_pictures_at_their_times(tmp_path: Path, opened: Callable[..., StreamSink]) -> None:
    (tmp_path / "live-1.m4s").write_bytes(b"of an earlier run")
    (tmp_path / "live-notes.m4s").write_bytes(b"somebody's")
    path = tmp_path / "live.m3u8"
    sink = opened(path, gop_s=0.5, list_size=3)
    assert isinstance(sink, Follower)
    times = [0, 100, 200, 350, 500, 700, 1000, 1100, 1250, 1500, 1900, 2000, 2500]  # of a camera that drops
    send(sink, [shown(5_000 * MS + at * MS, found=BOX if at == 2000 else NONE) for at in times])
    assert sink.stats() == {"sent": 13, "repeated": 0, "replaced": 0, "reconnects": 0, "connected": 1}
    assert sink.close() == [str(path)]
    lines = path.read_text().splitlines()
    segments = [line for line in lines if line.endswith(".m4s")]
    assert len(segments) == 3
    assert sum(line.startswith("#EXT-X-PROGRAM-DATE-TIME:20") for line in lines) == 3
    assert {"#EXT-X-ENDLIST", '#EXT-X-MAP:URI="live-init.mp4"', "#EXT-X-INDEPENDENT-SEGMENTS"} <= set(lines)
    assert {"live-notes.m4s", "live-init.mp4", *segments} <= {p.name for p in tmp_path.iterdir()}
    assert not (tmp_path / "live-1.m4s").exists()
    frames = decoded(path)
    # The first segments are deleted, or about to be: the list has the last three.
    assert [round(at - frames[-1][0], 2) for at, _, _ in frames] == [
        (at - 2500) / 1000 for at in times if at >= 1500
    ]
    assert [key for _, key, _ in frames] == [True, False, True, True]
    for _, _, bgr in frames:
        assert close(bgr[:40, :120], RED)
        assert close(bgr[150:, 200:], GREEN)
    spread = [uneven(bgr[90:100, 60:69]) for _, _, bgr in frames]
    assert [value > 15 for value in spread] == [False, False, True, False]  # the box on its own frame only


@pytest.mark.parametrize("kind", [RtmpReceiver, RtspReceiver])
def test_a_server_gets_the_pictures_and_gets_them_again_after_a_restart(
    kind: type[RtmpReceiver | RtspReceiver],
    tmp_path: Path,
    opened: Callable[..., StreamSink],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pipeline.sinks.pushing")
    with kind(tmp_path / "received") as server:
        sink = opened(server.url, gop_s=0.2, max_fps=30)
        keep_sending(sink, lambda: len(received(server)) > 2)
        first = received(server)
        server.kill()
        keep_sending(sink, lambda: not sink.stats()["connected"])
        server.file.unlink()
        server.start()
        keep_sending(sink, lambda: sink.stats()["reconnects"] >= 1)
        keep_sending(sink, lambda: len(received(server)) > 2)
        for frames in (first, received(server)):
            assert frames
            assert close(frames[-1][2][:, :120], RED)
            assert close(frames[-1][2][:, 136:], GREEN)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("INFO", f"stream gate -> {server.url.partition('/live')[0]}: connected, 256 x 192") in said
    assert not any("/live" in words for _, words in said)
    assert [level for level, _ in said].count("INFO") >= 2
    assert 1 <= [level for level, _ in said].count("WARNING") <= 4


def test_a_login_and_tls_are_used_and_never_shown(
    tmp_path: Path, opened: Callable[..., StreamSink], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RtspReceiver(tmp_path / "received", login=("cam", "p@ss-word"), tls=certificate()) as server:
        url = server.url.replace("://", "://cam:p%40ss-word@")
        refused = opened(url, name="refused")  # The certificate is none that this system trusts.
        keep_sending(refused, lambda: "is not trusted" in caplog.text)
        sink = opened(url, ca_file=str(certificate().cert))
        send(sink, [shown(100 * MS), shown(200 * MS)])
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        pids = [pid for file in children for pid in file.read_text().split()]
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
        assert any(b"_push_child" in line for line in lines)
        assert not any(b"ss-word" in line and b"_push_child" in line for line in lines)
        wrong = opened(url.replace("p%40ss", "q"), tls_verify=False)
        keep_sending(wrong, lambda: "wants another user name" in caplog.text)
    assert "ss-word" not in caplog.text
    assert "ss-word" not in repr(parse_target(url, "gate"))


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_server_that_takes_nothing_is_in_nobodys_way(
    scheme: str, opened: Callable[..., StreamSink], caplog: pytest.LogCaptureFixture
) -> None:
    with Stalled() as server:
        sink = opened(f"{scheme}://127.0.0.1:{server.port}/live/gate", stall_s=0.4)
        # PyAV would hold the interpreter lock meanwhile; `keep_sending` would notice.
        keep_sending(sink, lambda: "the server took nothing for 0.4 s" in caplog.text)
        patient = opened(f"{scheme}://127.0.0.1:{server.port}/live/gate", stall_s=60)
        keep_sending(patient, lambda: patient.stats()["replaced"] > 1)
        before = time.monotonic()
        patient.close()
        assert time.monotonic() - before < 4
    assert sink.stats()["sent"] == 0


def test_nobody_there_is_said_once_and_costs_no_copies(
    opened: Callable[..., StreamSink], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    connect = pushing.Pusher._connect

    def noted(pusher: pushing.Pusher, *picture: int) -> None:
        tried.append(time.monotonic())
        connect(pusher, *picture)

    monkeypatch.setattr(pushing.Pusher, "_connect", noted)
    sink = opened(f"rtmp://127.0.0.1:{free_port()}/live/secret-key")
    keep_sending(sink, lambda: len(tried) == 4)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"stream gate -> {sink._targets['gate'].shown}: nobody listens there (connection refused); "
        "it is tried again for ever, in 0.05 s first"
    ]
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses[1] > 0.1
    assert pauses[2] > 0.2
    until(lambda: sink._pushers["gate"]._retry_at > time.monotonic() + 0.05)
    looked: list[int] = []
    item = shown(time.monotonic_ns())
    sink.write(Publication(item.header, item.frame, (), lambda: looked.append(1), item.result))
    assert not looked


def test_another_size_begins_the_stream_anew(tmp_path: Path, opened: Callable[..., StreamSink]) -> None:
    sink = opened(tmp_path / "live.m3u8", width=200)
    send(sink, [shown(100 * MS), shown(200 * MS), shown(300 * MS, size=(101, 77))])
    assert sink.stats()["reconnects"] == 1
    sink.close()
    (frame,) = decoded(tmp_path / "live.m3u8")
    assert frame[2].shape == (78, 102, 3)
    assert close(frame[2][:, :45], RED)


def test_a_wide_picture_is_scaled_after_drawing(tmp_path: Path, opened: Callable[..., StreamSink]) -> None:
    sink = opened(tmp_path / "live.m3u8", width=128)
    send(sink, [shown(100 * MS, found=BOX)])
    sink.close()
    ((_, _, bgr),) = decoded(tmp_path / "live.m3u8")
    assert bgr.shape == (96, 128, 3)
    assert uneven(bgr[45:50, 29:36]) > 8  # its left edge, at half of 64
    assert uneven(bgr[45:50, 12:25]) < 4


def test_a_lost_camera_is_a_still_picture_that_says_so(
    tmp_path: Path, opened: Callable[..., StreamSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_REPEAT_S", 0.1)
    sink = opened(tmp_path / "live.m3u8")
    send(sink, [shown(time.monotonic_ns())])
    until(lambda: sink.stats()["repeated"] >= 3)
    gone = {"type": "source", "source": "gate", "state": "ended"}
    sink.write(Publication(None, None, (gone,), lambda: None, None))
    until(lambda: sink.stats()["connected"] == 0)
    repeated = sink.stats()["repeated"]
    frames = decoded(tmp_path / "live.m3u8")
    assert len(frames) == 1 + repeated
    assert [float(bgr[-6:, 200:, 1].mean()) < 100 for _, _, bgr in frames] == [False] + [True] * repeated
    assert frames[-1][0] >= 0.3
    assert sink.stats()["sent"] == 1
    send(sink, [shown(time.monotonic_ns())])  # The source was added again.
    assert (sink.stats()["reconnects"], sink.stats()["connected"]) == (1, 1)


def test_its_process_may_be_killed(
    tmp_path: Path, opened: Callable[..., StreamSink], caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(tmp_path / "live.m3u8")
    send(sink, [shown(time.monotonic_ns())])
    link = sink._pushers["gate"]._link
    assert link is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # The run ends it, not a signal for all.
        link._process.send_signal(number)
    send(sink, [shown(time.monotonic_ns() + 100 * MS)])
    assert sink.stats()["reconnects"] == 0
    link.kill()
    keep_sending(sink, lambda: sink.stats()["reconnects"] == 1)
    assert "the process that sends it ended (signal 9)" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_is_no_silence(tmp_path: Path, opened: Callable[..., StreamSink]) -> None:
    sink = opened(tmp_path / "live.m3u8")
    send(sink, [shown(100 * MS)])
    sink.tick()
    sink.write(shown(200 * MS, picture=np.zeros((0, 0, 3), np.uint8), found=BOX))
    until(lambda: sink._pushers["gate"].broken)
    assert sink.stats()["connected"] == 0
    with pytest.raises(SinkError, match="stream of gate has ended"):
        sink.tick()


def test_a_stream_for_each_source(tmp_path: Path, opened: Callable[..., StreamSink]) -> None:
    sink = opened(tmp_path / "{source}" / "live.m3u8", ("gate", "yard"))
    send(sink, [shown(100 * MS), shown(100 * MS, source="yard"), shown(100 * MS, source="later")])
    assert sink.stats()["connected"] == 3
    assert sink.close() == [str(tmp_path / name / "live.m3u8") for name in ("gate", "yard", "later")]
    one = opened(tmp_path / "one.m3u8", ("gate", "yard"), source="yard")
    one.write(shown(100 * MS, source="gate"))
    send(one, [shown(100 * MS, source="yard")])
    assert one.name == "stream-yard"
    assert one.stats()["sent"] == 1


def test_pixels_are_copied_and_lost_frames_passed_over(
    tmp_path: Path, opened: Callable[..., StreamSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path / "live.m3u8")
    item = shown(100 * MS)
    sink.write(Publication(item.header, item.frame, (), lambda: None, item.result))
    picture = halves()
    sink.write(shown(200 * MS, picture=picture))
    picture[:] = 255  # The slot is used again.
    until(lambda: sink.stats()["sent"] == 1)
    sink.close()
    ((_, _, bgr),) = decoded(tmp_path / "live.m3u8")
    assert close(bgr[:, :120], RED)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = StreamSink(str(tmp_path / "file" / "live.m3u8"), ["gate"])
    with pytest.raises(SinkError, match="cannot write"):
        sink.open(SPEC)
    assert sink.close() == []
