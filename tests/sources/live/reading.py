"""A connection in a test: opened, read, and closed in no time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.errors import SourceError, SourceLostError
from pipeline.sources.base import Picture
from pipeline.sources.live.stream import StreamConnection
from tests.servers.streams import read_number

__all__ = ["SECRET", "follow_on", "lost", "numbers", "reading", "refused", "take", "wait_until"]

SECRET = "p:@/w"


@contextmanager
def reading(url: str, **options: Any) -> Iterator[StreamConnection]:
    wanted = {"decode": "cpu", "connect_timeout_s": 2.0, "read_timeout_s": 0.5, **options}
    connection = StreamConnection("gate", url, **wanted)
    try:
        connection.open()
        yield connection
    finally:
        started = time.monotonic()
        connection.close()
        assert time.monotonic() - started < 0.3


def take(connection: StreamConnection, count: int) -> list[Picture]:
    pictures = [picture for picture in (connection.read() for _ in range(count)) if picture is not None]
    assert len(pictures) == count
    return pictures


def numbers(pictures: list[Picture]) -> list[int | None]:
    return [read_number(picture.planes[0]) for picture in pictures]


def follow_on(seen: list[int | None], count: int = 100) -> bool:
    return all(a is not None and b == (a + 1) % count for a, b in itertools.pairwise(seen))


def lost(connection: StreamConnection, within_s: float) -> SourceLostError:
    """Read until it is lost; fails when that is not noticed in time."""
    started = time.monotonic()
    try:
        for picture in iter(connection.read, None):
            assert picture.captured_ns / 1e9 - started < within_s
    except SourceLostError as error:
        assert time.monotonic() - started < within_s
        return error
    raise AssertionError("it ended, but was not lost")


def refused(url: str, within_s: float = 1.0, **options: Any) -> SourceError:
    started = time.monotonic()
    with pytest.raises(SourceError) as caught, reading(url, **options):
        pass
    assert time.monotonic() - started < within_s
    # Neither it nor what a traceback would show with it tells a secret.
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def wait_until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
