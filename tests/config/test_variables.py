from __future__ import annotations

import pytest

from pipeline.config import expand, from_mapping, name_sources
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://u:${PW}@h/s", "rtsp://u:s3cret@h/s"),
        ("${UNSET:-a.mp4}", "a.mp4"),
        ("${EMPTY:-a.mp4}", "a.mp4"),
        ("${UNSET:-}", ""),
        ("$${PW} for 5$", "${PW} for 5$"),
        ("${NESTED}", "${PW}"),
        ("${PW:-x}${PW}", "s3crets3cret"),
        ("$PW", "$PW"),
        ("", ""),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, {"PW": "s3cret", "EMPTY": "", "NESTED": "${PW}"}) == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("${UNSET}", "sources.a needs the environment variable UNSET", "export UNSET="),
        ("${EMPTY}", "sources.a needs the environment variable EMPTY", "export EMPTY="),
        ("rtsp://u:s3cret${", "sources.a has a `${` that is not ${NAME}", "write ${NAME}"),
        ("rtsp://u:s3cret${a b}", "sources.a has a `${` that is not ${NAME}", "write ${NAME}"),
    ],
)
def test_what_cannot_be_expanded(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(text, {"EMPTY": ""}, subject="sources.a")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_a_secret_on_the_command_line_becomes_no_name() -> None:
    named = name_sources(["rtsp://u:${PW}@h/${KEY}"])
    found = {name: expand(url, {"PW": "s3cret", "KEY": "k3y"}) for name, url in named.items()}
    assert found == {"KEY": "rtsp://u:s3cret@h/k3y"}
    assert from_mapping({"sources": found}, "command line").sources["KEY"].address() == found["KEY"]
