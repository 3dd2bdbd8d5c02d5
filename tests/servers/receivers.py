"""Servers that take live streams: RTMP (the ffmpeg command), RTSP (GStreamer), and one that takes nothing."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.servers.certs import Certificate
from tests.servers.handles import PYTHON, need_rtsp_server

__all__ = ["RtmpReceiver", "RtspReceiver", "Stalled", "free_port"]

_PROGRAM = Path(__file__).with_name("rtsp_receiver.py")


def free_port() -> int:
    """A port of loopback that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class _Receiver:
    """A process that writes what it gets to ``file``; a context manager.

    Attributes:
        file: What it has received.
        port: Where it listens, the same after each `start`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Listen, or listen again."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @property
    def received(self) -> int:
        """Bytes that it has written."""
        return self.file.stat().st_size if self.file.exists() else 0


class RtmpReceiver(_Receiver):
    """Takes one RTMP stream, and writes it as MPEG-TS."""

    def __init__(self, file: Path) -> None:
        if shutil.which("ffmpeg") is None:
            pytest.skip("the ffmpeg command is not installed (apt-get install ffmpeg)")
        super().__init__(file)

    @property
    def url(self) -> str:
        """Where to stream to."""
        return f"rtmp://127.0.0.1:{self.port}/live/gate"

    def start(self) -> None:
        """Listen for one publisher."""
        # It would look at 90 s of a stream before it writes, and takes 0 for that default.
        command = (
            "ffmpeg -nostdin -loglevel error -y -fflags nobuffer -probesize 32768 -analyzeduration 1000 "
            f"-listen 1 -f flv -i {self.url} -c copy -flush_packets 1 -f mpegts"
        ).split()
        command.append(str(self.file))
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


class RtspReceiver(_Receiver):
    """Takes RTSP streams (RECORD), and writes them as H.264.

    Args:
        file: Where to.
        login: User name and password that are wanted; None for everybody.
        tls: Certificate of an ``rtsps`` server; None for plain RTSP.
    """

    def __init__(
        self, file: Path, login: tuple[str, str] | None = None, tls: Certificate | None = None
    ) -> None:
        need_rtsp_server()
        super().__init__(file)
        self._login, self._tls = login or ("", ""), tls

    @property
    def url(self) -> str:
        """Where to stream to, without a login."""
        return f"rtsp{'s' if self._tls else ''}://127.0.0.1:{self.port}/live"

    def start(self) -> None:
        """Listen, and return when it does."""
        settings = {
            "port": self.port, "file": str(self.file), "user": self._login[0], "password": self._login[1],
            "cert": str(self._tls.cert) if self._tls else "", "key": str(self._tls.key) if self._tls else "",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [PYTHON, "-I", str(_PROGRAM), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "it does not start"


class Stalled:
    """Accepts connections and never reads or writes; a context manager."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=8)
        self.port: int = self._server.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
