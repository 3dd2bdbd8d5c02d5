from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.sinks.stream import StreamSink as Section
from pipeline.sinks.stream import StreamSink


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stream": "rtsp://10.0.0.5/live/{source}"}, ""),
        ({"stream": "rtsp://u:p@10.0.0.5:8554/live", "transport": "udp", "source": "gate"}, ""),
        ({"stream": "rtmp://10.0.0.5/app", "key": "k"}, ""),
        ({"stream": "srt://10.0.0.5:9000?streamid=x"}, ""),
        ({"stream": "hls/{source}.m3u8", "width": 640, "preset": "veryfast"}, ""),
        ({"stream": "http://10.0.0.5/x.m3u8"}, "must be rtsp://HOST/PATH"),
        ({"stream": "rtmp://10.0.0.5/{name}"}, "no braces but {source}"),
        ({"stream": "rtmps://10.0.0.5/x"}, "add tls_verify: false"),
        ({"stream": "live.m3u8", "key": "k"}, "leave key out"),
        ({"stream": "live.m3u8", "gop_s": 0.5}, "gop_s of 1 or more"),
        ({"stream": "live.m3u8", "max_fps": 0}, "greater than 0"),
        ({"stream": "live.m3u8", "preset": "placebo"}, "ultrafast"),
    ],
)
def test_section(given: dict[str, Any], words: str) -> None:
    if words:
        with pytest.raises(ValueError, match="(?s)" + words.replace("{", r"\{")):
            Section.model_validate(given)
        return
    sink = StreamSink(**(Section.model_validate(given).options() | {"url": "live.m3u8", "key": None}))
    assert sink.name == ("stream-gate" if "source" in given else "stream")
