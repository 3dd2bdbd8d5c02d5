"""The RTSP server as tests hold it: started, frozen, killed, started again on the same port."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import struct
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import pytest

from tests.servers.certs import Certificate
from tests.servers.streams import Clip, clip, make_folder

__all__ = ["Mount", "RtspServer", "need_rtsp_server"]

PYTHON = "/usr/bin/python3"
PROGRAM = Path(__file__).with_name("rtsp_server.py")
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good"

_RECORD = struct.Struct("<QQ")
_alive: weakref.WeakSet[RtspServer] = weakref.WeakSet()


@functools.cache
def _missing() -> str:
    """What keeps the server from running here, or ""."""
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); "
        "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
        "names = ['appsrc', 'rtpbin', 'rtph264pay', 'rtph265pay', 'rtppcmapay']; "
        "gone = [name for name in names if Gst.ElementFactory.find(name) is None]; "
        "assert not gone, f'GStreamer has no {gone}'"
    )
    try:
        run = subprocess.run(
            [PYTHON, "-I", "-c", check], check=False, capture_output=True, text=True, timeout=30
        )
    except OSError as problem:
        return f"{PYTHON} cannot be run: {problem}"
    return run.stderr.strip().splitlines()[-1] if run.returncode else ""


def need_rtsp_server() -> None:
    """Skip the test, with what to install, where GStreamer's RTSP server is not there."""
    if missing := _missing():
        pytest.skip(
            f"no RTSP server for {PYTHON} ({missing}): scripts/test --services, or apt-get install {PACKAGES}"
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """One camera of the server.

    Attributes:
        clips: What it shows, one after the other and again; the default is 5 s of H.264 at 20 fps.
        fps: Pictures per second it sends; that of the first clip if None.
        limit: Ends after so many pictures of one connection.
        end: How it ends: ``bye`` (RTCP BYE, a regular end of stream) or ``close`` (hangs up
            as well, and may lose the last pictures on the way).
        silent_after: Sends nothing more after so many pictures, but stays connected.
        damage_every: Every n-th picture is damaged; None for none.
        damage: ``flip`` changes bytes in the middle of its data, ``truncate`` leaves half of it out.
        audio: Whether silence (A-law) comes with it.
        rtcp_interval_s: Least time between sender reports; the first comes after about half of it.
        clock_offset_s: How far the camera's own clock is ahead of this host's.
        clock_drift_ppm: How much faster it runs.
    """

    clips: Sequence[Clip] = field(default_factory=lambda: (clip(),))
    fps: float | None = None
    limit: int | None = None
    end: Literal["bye", "close"] = "bye"
    silent_after: int | None = None
    damage_every: int | None = None
    damage: Literal["flip", "truncate"] = "flip"
    audio: bool = False
    rtcp_interval_s: float = 0.5
    clock_offset_s: float = 0.0
    clock_drift_ppm: float = 0.0

    @property
    def numbers(self) -> list[int]:
        """Numbers of its pictures in the order in which they are shown."""
        return [number for one in self.clips for number in range(one.first, one.first + one.frames)]


class RtspServer:
    """GStreamer's RTSP server in a process of its own, on loopback; a context manager.

    All connections to a mount see the same pictures. When the last one leaves, the mount stands still; the
    next one begins at the next keyframe. After `kill` or `stop`, `start` serves on the same port and goes on
    with the next number.

    Args:
        mounts: Cameras by name; one called ``cam`` by default.
        auth: ``basic`` or ``digest``; None lets everybody in.
        user: Who may watch.
        password: With which password.
        tls: Certificate of an ``rtsps`` server; None for plain RTSP.
    """

    def __init__(
        self,
        mounts: Mapping[str, Mount] | None = None,
        *,
        auth: Literal["basic", "digest"] | None = None,
        user: str = "viewer",
        password: str = "s3cret",
        tls: Certificate | None = None,
    ) -> None:
        need_rtsp_server()
        self.mounts = dict(mounts or {"cam": Mount()})
        self.user, self.password = (user, password) if auth else ("", "")
        self.port = 0
        self.tls = tls
        self.events: list[dict[str, Any]] = []
        self._auth = {"scheme": auth, "user": user, "password": password} if auth else None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._news = threading.Condition()
        self._logs = {name: Path(tempfile.mkstemp(dir=make_folder())[1]) for name in self.mounts}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def url(self, mount: str = "cam", user: str | None = None, password: str | None = None) -> str:
        """Address of a mount, with the right account unless another is given; ``user=""`` for none."""
        user, password = self.user if user is None else user, self.password if password is None else password
        account = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        return f"{'rtsps' if self.tls else 'rtsp'}://{account}127.0.0.1:{self.port}/{mount}"

    def start(self) -> None:
        """Start the process and wait until it listens; on the port it had before, if any."""
        assert self._process is None, "the server runs already"
        tls = {"cert": str(self.tls.cert), "key": str(self.tls.key)} if self.tls else None
        settings = {"port": self.port, "auth": self._auth, "tls": tls, "mounts": self._settings()}
        seen = len(self.events)
        self._process = subprocess.Popen(
            [PYTHON, "-I", "-B", str(PROGRAM), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        _alive.add(self)
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()
        self.port = self.wait_for("ready", after=seen)["port"]

    def stop(self) -> None:
        """Let the server end by itself: it says goodbye to nobody, but closes its sockets."""
        if self._process is not None:
            self.thaw()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._end(lambda process: process.wait(10))

    def kill(self) -> None:
        """SIGKILL, harmless when it does not run; the machine it stands for lost its power."""
        if self._process is not None:
            self._end(lambda process: process.kill())

    def restart(self) -> None:
        """Kill and start again."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing comes."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`; pictures go on with the next number, later by as long as it was frozen."""
        os.kill(self.pid, signal.SIGCONT)

    def tell(self, mount: str = "cam", **orders: Any) -> None:
        """Change a mount while it runs, and wait until that is in force.

        Args:
            mount: Name of the mount.
            orders: Any of `Mount`'s ``limit``, ``end``, ``silent_after`` (None to speak again),
                ``damage_every``, ``damage``; ``close=True`` hangs up on all who watch it.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        seen = len(self.events)
        self._process.stdin.write(json.dumps({"mount": f"/{mount}", **orders}) + "\n")
        self._process.stdin.flush()
        self.wait_for("obeyed", after=seen)

    def wait_for(self, event: str, *, after: int = 0, timeout_s: float = 15.0) -> dict[str, Any]:
        """The first event of a kind behind position ``after`` of ``events``.

        Kinds: ``ready``, ``connected`` and ``closed`` (with ``clients`` now), ``playing``, ``silent`` and
        ``ended`` (with ``mount``), ``obeyed``, ``gone`` (the process has ended).
        """
        with self._news:
            found: list[dict[str, Any]] = []

            def there() -> bool:
                found[:] = [one for one in self.events[after:] if one["event"] in {event, "gone"}]
                return bool(found)

            assert self._news.wait_for(there, timeout_s), (
                f"no {event!r} in {timeout_s} s: {self.events[after:]}"
            )
        assert found[0]["event"] == event, f"the server ended before {event!r}"
        return found[0]

    def sent(self, mount: str = "cam") -> list[tuple[int, int]]:
        """All pictures sent so far: number, and monotonic time in ns at which the server gave it away."""
        numbers = self.mounts[mount].numbers
        data = self._logs[mount].read_bytes()
        whole = len(data) // _RECORD.size * _RECORD.size
        return [(numbers[at], time_ns) for at, time_ns in _RECORD.iter_unpack(data[:whole])]

    def _settings(self) -> list[dict[str, Any]]:
        made = []
        for name, mount in self.mounts.items():
            faults = ("limit", "end", "silent_after", "damage_every", "damage")
            plain = ("audio", "rtcp_interval_s", "clock_offset_s", "clock_drift_ppm")
            past = self._logs[name].stat().st_size // _RECORD.size
            made.append({
                "path": f"/{name}",
                "codec": mount.clips[0].codec,
                "fps": mount.fps or mount.clips[0].fps,
                "files": [str(one.path) for one in mount.clips],
                "at": (mount.numbers.index(self.sent(name)[-1][0]) + 1) % len(mount.numbers) if past else 0,
                "log": str(self._logs[name]),
                "faults": {key: getattr(mount, key) for key in faults},
                **{key: getattr(mount, key) for key in plain},
            })  # fmt: skip
        return made

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self.events.append({"event": "gone"})
            self._news.notify_all()

    def _end(self, how: Callable[[subprocess.Popen[str]], object]) -> None:
        process, self._process = self._process, None
        assert process is not None
        try:
            how(process)
        finally:
            process.kill()
            process.wait()
            assert self._reader is not None
            self._reader.join()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            _alive.discard(self)


@atexit.register
def _kill_all() -> None:
    for server in list(_alive):
        server.kill()
