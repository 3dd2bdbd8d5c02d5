"""One connection of a stream: how it is encoded, and the process that encodes and sends it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sinks._push_child import PICTURE, SETTINGS
from pipeline.sinks.targets import Target

__all__ = ["Encoding", "Link", "LinkLost"]

_PROGRAM = Path(__file__).with_name("_push_child.py")
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures become a stream.

    Attributes:
        encoder: FFmpeg's name of an H.264 encoder.
        max_fps: Most pictures a second.
        bitrate_kbps: Bits a second, in thousands; None for constant quality.
        preset: Of libx264.
        gop_s: Seconds from keyframe to keyframe.
        stall_s: A server that takes nothing for so long is given up.
    """

    encoder: str
    max_fps: float
    bitrate_kbps: int | None
    preset: str
    gop_s: float
    stall_s: float

    def settings(self, target: Target, width: int, height: int) -> dict[str, Any]:
        """What `pipeline.sinks._push_child` wants to know."""
        codec = {"threads": "1"}
        bits = (self.bitrate_kbps or 0) * 1000
        if self.encoder == "libx264":
            # Every keyframe is one that decoding can start at, and none comes but those asked for.
            codec |= {"preset": self.preset, "tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0"}
            codec |= {"maxrate": str(bits), "bufsize": str(bits)} if bits else {"crf": "25"}
        elif not bits:
            bits = round(width * height * self.max_fps / 10)
        return {
            "url": target.url, "format": target.format, "options": target.options, "encoder": self.encoder,
            "codec": codec, "bitrate": bits, "fps": max(1, round(self.max_fps)), "width": width,
            "height": height, "stall_s": self.stall_s,
        }  # fmt: skip


class LinkLost(Exception):  # noqa: N818 - an event, answered by connecting again
    """The server or the process that talks to it is gone; the text says why and holds no address."""


class Link:
    """One connection: the process that holds it. Nothing is connected before `open`.

    Args:
        settings: Those of `Encoding.settings`.

    Attributes:
        size: Width and height of its pictures, pixels.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.size = (settings["width"], settings["height"])
        self._stall_s: float = settings["stall_s"]
        # -P: what lies beside the program has names of libraries.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # more than this user may have; it only takes more turns
                fcntl.fcntl(self._in.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        said = json.dumps(settings).encode()
        self._unsent = SETTINGS.pack(len(said)) + said
        self._heard = b""

    def open(self) -> None:
        """Wait for the connection.

        Raises:
            LinkLost: there is none.
        """
        self._write(self._unsent)
        self._answer()

    def push(self, ticks: int, key: bool, planes: NDArray[np.uint8]) -> None:
        """Send one picture, I420; it has left when this returns.

        Raises:
            LinkLost: it has not.
        """
        self._write(PICTURE.pack(ticks, key))
        self._write(planes.data.cast("B"))
        self._answer()

    def end(self, seconds: float) -> None:
        """Finish the stream within a bound."""
        self._in.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._out.close()
        self._process.wait()

    def kill(self) -> None:
        """End it at once; whoever waits for it gets `LinkLost`."""
        self._process.kill()

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._in.write(view) or 0 :]
        except BrokenPipeError:
            self._answer()  # It says why.
            raise LinkLost(self._obituary()) from None

    def _answer(self) -> None:
        while b"\n" not in self._heard:
            more = self._out.read(4096)
            if not more:
                raise LinkLost(self._obituary())
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        news = json.loads(line)
        if "failed" in news:
            raise LinkLost(str(news["failed"]))

    def _obituary(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGALRM:  # the timer that the process sets for each call
            return f"the server took nothing for {self._stall_s:g} s"
        return f"the process that sends it ended ({f'signal {-code}' if code < 0 else f'code {code}'})"
