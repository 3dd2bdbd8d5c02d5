"""A plain reader of streams, so that the servers are tested without the code that they are there to test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer

from tests.servers.streams import read_number

__all__ = ["Seen", "read_numbers", "watch", "watching"]

_RTSP = {"flags": "low_delay", "probesize": "32", "analyzeduration": "0"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One decoded picture: its number (None if unreadable) and its size."""

    number: int | None
    size: tuple[int, int]


@contextlib.contextmanager
def watching(
    url: str, *, transport: str = "tcp", timeout_s: float = 5.0, **options: str
) -> Iterator[InputContainer]:
    """An open stream. A silent one raises `av.error.FFmpegError` after about ``timeout_s``."""
    rtsp = {**_RTSP, "rtsp_transport": transport} if url.startswith("rtsp") else {}
    every = {**rtsp, "timeout": str(int(timeout_s * 1e6)), **options}
    with av.open(url, options=every, timeout=(10.0, timeout_s)) as container:
        yield container


def watch(container: InputContainer) -> Iterator[Seen]:
    """Picture after picture; what cannot be decoded is left out."""
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"
    for packet in container.demux(stream):
        with contextlib.suppress(av.error.InvalidDataError):
            for frame in packet.decode():
                luma = np.asarray(frame.to_ndarray(format="gray"), np.uint8)
                yield Seen(read_number(luma), (frame.width, frame.height))


def read_numbers(
    url: str, count: int, *, transport: str = "tcp", timeout_s: float = 5.0, **options: str
) -> list[int | None]:
    """Numbers of the first pictures, fewer if the stream ends before."""
    with watching(url, transport=transport, timeout_s=timeout_s, **options) as container:
        return [seen.number for seen, _ in zip(watch(container), range(count), strict=False)]
