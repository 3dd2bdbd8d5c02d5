from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import from_mapping, name_sources


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["a/b.mp4"], ["b"]),
        (["b.mp4", "x/b.avi", "b"], ["b", "b-2", "b-3"]),
        (["rtsp://user:secret@10.0.0.7/stream1?token=x"], ["stream1"]),
        (["rtsp://user:secret@10.0.0.7"], ["10_0_0_7"]),
        (["synthetic:objects=3"], ["synthetic"]),
        (["rtsp://10.0.0.7/user=viewer_password=secret_channel=1.sdp"], ["10_0_0_7"]),
        (["http://10.0.0.7/video?pwd=se@cret"], ["http"]),
        (["rtsp://user:se?cret@10.0.0.7/stream1"], ["rtsp"]),
        (["srt://10.0.0.7:9000?passphrase=secret"], ["10_0_0_7_9000"]),
        (["rtsp://[2001:db8::7]:554/"], ["2001_db8_7_554"]),
        (["0", "/dev/video1"], ["0", "video1"]),
        (["/data/frames/"], ["frames"]),
        (["front door (1).mp4"], ["front_door_1"]),
        (["."], ["source"]),
        ([], []),
    ],
)
def test_names(urls: list[str], names: list[str]) -> None:
    assert list(name_sources(urls)) == names
    assert list(name_sources(urls).values()) == urls


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(min_size=1).filter(str.strip), max_size=5))
def test_any_name_is_a_valid_one(urls: list[str]) -> None:
    named = name_sources(urls)
    assert list(named.values()) == urls
    assert len(from_mapping({"sources": named}, "test").sources) == len(urls)
