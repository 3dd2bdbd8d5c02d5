from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.sinks.stream import StreamSink
from pipeline.sinks.targets import parse_target


def test_targets() -> None:
    target = parse_target("rtmp://[::1]:1936/app/", "a b", key="k/1?x=2")
    assert (target.url, target.shown, target.format) == (
        "rtmp://[::1]:1936/app/k%2F1?x=2", "rtmp://[::1]:1936", "flv",
    )  # fmt: skip
    assert parse_target("rtsp://u:p@cam/{source}", "a b", transport="udp").url == "rtsp://u:p@cam/a%20b"
    hls = parse_target("out/50%/live.m3u8", "gate", gop_s=4)
    assert hls.options["hls_segment_filename"] == "out/50%%/live-%d.m4s"
    assert hls.options["hls_time"] == "3.2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "live.mp4"}, "is no URL and no .m3u8 playlist"),
        ({"url": "ftp://host/x"}, "is no URL that can be streamed to"),
        ({"url": "rtsp://u:hush@/x"}, "is no URL that can be streamed to"),
        ({"url": "rtsp://u:hush@host:port/x"}, "is no URL that can be streamed to"),
        ({"url": "rtmps://host/app/hush"}, "add tls_verify: false"),
        ({"url": "rtmp://h/a", "sources": ("a", "b")}, "which of a, b goes there\n  -> add source: a"),
        ({"url": "rtmp://h/a", "sources": ("gate",), "source": "gaet"}, "no source 'gaet'\n  -> write gate"),
    ],
)
def test_mistakes_are_said_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StreamSink(**options)
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_protocol_that_is_not_there() -> None:
    try:
        target = parse_target("srt://127.0.0.1:9000?passphrase=hush-hush", "gate")
    except ConfigError as error:
        words = str(error)
    else:
        pytest.skip(f"this PyAV speaks srt: {target.shown}")
    assert "cannot speak srt" in words
    assert "hush" not in words
