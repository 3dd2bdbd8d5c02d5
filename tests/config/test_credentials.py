from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load, redact
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://user:s3cret@10.0.0.7/stream1", "rtsp://user:***@10.0.0.7/stream1"),
        ("rtsp://user:p@ss@host/s", "rtsp://user:***@host/s"),
        ("rtsp://user:a/b@host/s", "rtsp://user:***@host/s"),
        ("rtsp://user:a?b#c@host/s", "rtsp://user:***@host/s"),
        ("https://abc123@host/x", "https://***@host/x"),
        ("rtsp://:only@host", "rtsp://:***@host"),
        ("http://h/v?token=abc&size=5", "http://h/v?token=***&size=5"),
        ("http://h/v?size=5&access_token=abc", "http://h/v?size=5&access_token=***"),
        ("http://h/v?API_KEY=abc", "http://h/v?API_KEY=***"),
        ("http://h/v?X-Amz-Signature=abc&x=1", "http://h/v?X-Amz-Signature=***&x=1"),
        ("http://h/v?pwd=abc", "http://h/v?pwd=***"),
        ("see rtsp://a:b@c and rtsp://d:e@f.", "see rtsp://a:***@c and rtsp://d:***@f."),
        # Nothing to hide.
        ("rtsp://10.0.0.7:554/stream1", "rtsp://10.0.0.7:554/stream1"),
        ("http://host:8080/x@y", "http://host:8080/x@y"),
        ("http://h/v?keyframes=1&monkey=2", "http://h/v?keyframes=1&monkey=2"),
        ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5556"),
        ("videos/a:b@c.mp4", "videos/a:b@c.mp4"),
        ("", ""),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "content",
    [
        "sources: {front door: 'rtsp://u:s3cret@h/s'}\n",
        "sources: {a: {url: 'rtsp://u:s3cret@h/s', fps: 1}}\n",
        "sources: ['rtsp://u:s3cret@h/s']\n",
        "sources: {'rtsp://u:s3cret@h/s': a}\n",
        "sources: {a: {'rtsp://u:s3cret@h/s': a}}\n",
        "sources: 'rtsp://u:s3cret@h/s'\n",
        "rtsp://u:s3cret@h/s\n",
        "publish: ['rtsp://u:s3cret@h/s']\n",
        "publish: [{zmq: 'tcp://u:s3cret@h:1'}]\n",
        "publish: [{'rtsp://u:s3cret@h/s': 1}]\n",
        "preprocess: 'rtsp://u:s3cret@h/s'\n",
        "model: {classes: 'rtsp://u:s3cret@h/s'}\n",
        "sources: {a: rtsp://u:s3cret@h/s\n",
        "sources:\n  a: rtsp://u:s3cret@h/s\n b: c\n",
        "sources: {a: 'rtsp://u:s3cret@h/${'}\n",
        "sources: {a: 'rtsp://u:s3cret@h/${NOT_SET}'}\n",
        "run: {realtime: '${SECRET}'}\n",
        "model: {device: '${SECRET}', name: 5}\n",
        "stages: {infer: {address: '${SECRET}'}}\n",
    ],
)
def test_no_error_shows_a_password(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, environ={"SECRET": "s3cret"})
    assert "s3cret" not in str(caught.value)
