"""Faults that befall a source while pictures come."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.client import Pusher
from scripts._faults import BACK, BACK_S, RUNNING, SOON_S, TOLD_S, Scene, Step, case, login, lost, serving
from tests.e2e.running import free_port
from tests.servers.http import HttpCamera
from tests.servers.proxy import TcpProxy
from tests.servers.streams import clip
from tests.servers.udp_relay import UdpRelay

#: A silence is noticed after two seconds; a connection is given up after ``read_timeout_s``, here 3 s.
_STALLED = Step("stalled", "timeout", "nothing has come for", 3.5)
_SILENT = Step("reconnecting", "timeout", "sent nothing for 3.")
_UNREADABLE = Step("reconnecting", "codec", "sent no picture that could be decoded", within_s=5.0)
_CLOSED = lost("network", "the camera closed the connection")


@case("killed", "SIGKILL; a new one on that port after 3 s", _CLOSED, BACK, lasts_s=3.0)
def killed() -> Iterator[Scene]:
    with serving() as (camera, sent):
        yield Scene(login(camera.url()), camera.kill, camera.start, sent)


@case("it hangs up", "RTSP server closes the connections", _CLOSED, Step("running", within_s=BACK_S))
def hangs_up() -> Iterator[Scene]:
    with serving() as (camera, sent):
        yield Scene(login(camera.url()), lambda: camera.tell(close=True), sent=sent)


@case("it ends the stream", "RTCP BYE; then it goes on", _CLOSED, BACK)
def bye() -> Iterator[Scene]:
    with serving() as (camera, sent):
        source = login(camera.url())
        yield Scene(source, lambda: camera.tell(limit=1), lambda: camera.tell(limit=None), sent)


@case("it hangs", "SIGSTOP for 6 s, then SIGCONT", _STALLED, _SILENT, BACK, lasts_s=6.0, misses=True)
def frozen() -> Iterator[Scene]:
    with serving() as (camera, sent):
        yield Scene(login(camera.url()), camera.freeze, camera.thaw, sent)


@case(
    "it hangs for a moment",
    "SIGSTOP for 2.5 s, then SIGCONT",
    _STALLED, Step("running", within_s=SOON_S, after="cure"),
    lasts_s=2.5,
)  # fmt: skip
def frozen_shortly() -> Iterator[Scene]:
    with serving() as (camera, sent):
        yield Scene(login(camera.url()), camera.freeze, camera.thaw, sent)


@case("silent, still connected", "it sends no more pictures; then it does", _STALLED, _SILENT, BACK)
def silent() -> Iterator[Scene]:
    with serving() as (camera, sent):
        speak, hush = ({"silent_after": n} for n in (None, 0))
        yield Scene(login(camera.url()), lambda: camera.tell(**hush), lambda: camera.tell(**speak), sent)


@case("pictures stop, sound goes on", "the same, with sound", _STALLED, _SILENT, BACK)
def sound_goes_on() -> Iterator[Scene]:
    with serving(audio=True) as (camera, sent):
        speak, hush = ({"silent_after": n} for n in (None, 0))
        yield Scene(login(camera.url()), lambda: camera.tell(**hush), lambda: camera.tell(**speak), sent)


@case("half open", "a proxy stops forwarding for 5 s", _STALLED, _SILENT, BACK, lasts_s=5.0, misses=True)
def half_open() -> Iterator[Scene]:
    with serving() as (camera, sent), TcpProxy(camera.port) as proxy:
        source = login(proxy.url(camera.url()))
        yield Scene(source, proxy.stall, functools.partial(proxy.stall, False), sent)


@case(
    "held up, then all at once",
    "a proxy holds all back for 3 s; `read_timeout_s: 8`",
    _STALLED, Step("running"),
    watch_s=3.0, counted=("late",),
)  # fmt: skip
def burst() -> Iterator[Scene]:
    with serving() as (camera, sent), TcpProxy(camera.port) as proxy:
        source = login(proxy.url(camera.url()), read_timeout_s=8)
        yield Scene(source, lambda: proxy.burst(3.0), sent=sent)


@case(
    "the link is too slow",
    "a proxy passes 20 kB/s, a third of the stream",
    watch_s=15.0, flaps=True, misses=True,
    counted=("late",), late_s=10.0, tells="the way is too slow",
)  # fmt: skip
def slow_link() -> Iterator[Scene]:
    with serving() as (camera, sent), TcpProxy(camera.port) as proxy:
        source = login(proxy.url(camera.url()))
        yield Scene(source, lambda: setattr(proxy, "throttle_bytes_s", 20_000), sent=sent)


@case(
    "bytes go wrong on the way",
    "a proxy flips every 5,000th byte for 6 s",
    lasts_s=6.0, watch_s=12.0, counted=("decode_errors",), flaps=True, misses=True,
)  # fmt: skip
def corrupted() -> Iterator[Scene]:
    with serving() as (camera, sent), TcpProxy(camera.port) as proxy:
        on, off = (functools.partial(setattr, proxy, "corrupt_every", n) for n in (5000, None))
        yield Scene(login(proxy.url(camera.url())), on, off, sent)


@case("UDP, 2 % lost", "a relay loses packets", RUNNING, watch_s=6.0, counted=("decode_errors",))
def udp_loss() -> Iterator[Scene]:
    with serving() as (camera, sent), UdpRelay(camera.port, loss=0.02) as relay:
        yield Scene(login(relay.url(camera.url()), transport="udp"), sent=sent)


@case("UDP, nothing comes any more", "the relay loses all; then none", _STALLED, _SILENT, BACK, misses=True)
def udp_silence() -> Iterator[Scene]:
    with serving() as (camera, sent), UdpRelay(camera.port) as relay:
        source = login(relay.url(camera.url()), transport="udp")
        lose, pass_on = (functools.partial(setattr, relay, "loss", share) for share in (1.0, 0.0))
        yield Scene(source, lose, pass_on, sent)


@case("damaged pictures", "every 7th has wrong bytes", RUNNING, watch_s=5.0, counted=("decode_errors",))
def damaged() -> Iterator[Scene]:
    with serving(damage_every=7) as (camera, sent):
        yield Scene(login(camera.url()), sent=sent)


@case("truncated pictures", "half of every 7th", RUNNING, watch_s=5.0, counted=("decode_errors",))
def truncated() -> Iterator[Scene]:
    with serving(damage_every=7, damage="truncate") as (camera, sent):
        yield Scene(login(camera.url()), sent=sent)


@case("the size changes", "640x360 and 320x240 by turns, every second", RUNNING, watch_s=4.0)
def resized() -> Iterator[Scene]:
    with serving(clips=(clip(frames=20), clip(frames=20, size=(320, 240), first=20))) as (camera, sent):
        yield Scene(login(camera.url()), sent=sent)


@case(
    "MJPEG is cut off",
    "HTTP server resets the connection",
    lost("network", "the connection broke"), Step("running", within_s=BACK_S),
)  # fmt: skip
def mjpeg_cut() -> Iterator[Scene]:
    with HttpCamera() as web:
        yield Scene(login(web.url()), web.cut, sent=lambda: len(web.sent))


@case(
    "a program that pushes stops",
    "its `Pusher` is closed; another one after 4 s",
    _STALLED, Step("running", within_s=SOON_S, after="cure"),
    lasts_s=4.0,
)  # fmt: skip
def push_stops() -> Iterator[Scene]:
    address = f"tcp://127.0.0.1:{free_port(1)}"
    programs = [_Program(address), _Program(address)]
    programs[0].start()
    try:
        yield Scene({"url": f"push+{address}"}, programs[0].end, programs[1].start)
    finally:
        for program in programs:
            program.end()


@case(
    "no picture can be decoded",
    "half of each is missing, from the start; then none is",
    _UNREADABLE, BACK,
    counted=("decode_errors",),
)  # fmt: skip
def undecodable() -> Iterator[Scene]:
    with serving(damage_every=1, damage="truncate") as (camera, sent):
        yield Scene(login(camera.url()), cure=lambda: camera.tell(damage_every=None), sent=sent)


@case("none can be any more", "the same, later", _UNREADABLE, BACK, counted=("decode_errors",))
def undecodable_later() -> Iterator[Scene]:
    with serving() as (camera, sent):
        spoil, mend = ({"damage_every": n, "damage": "truncate"} for n in (1, None))
        yield Scene(login(camera.url()), lambda: camera.tell(**spoil), lambda: camera.tell(**mend), sent)


@case(
    "HLS, 404",
    "HTTP server has neither playlist nor segments; then it has",
    lost("network", "closed the connection", TOLD_S), lost("not_found", "has no stream", 10.0), BACK,
    watch_s=3.0,
)  # fmt: skip
def hls_404() -> Iterator[Scene]:
    with HttpCamera() as web:
        set_status = functools.partial(setattr, web, "status")
        yield Scene(login(web.url("live.m3u8")), lambda: set_status(404), lambda: set_status(None))


@dataclass(slots=True)
class _Program:
    """Somebody's program that pushes 20 pictures a second."""

    address: str
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._push, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _push(self) -> None:
        picture = np.zeros((360, 640, 3), np.uint8)
        with Pusher(self.address) as pusher:
            while not self._over.wait(0.05):
                pusher.send(picture)
