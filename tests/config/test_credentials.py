from __future__ import annotations

import base64
import string
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import load, name_sources, redact, redact_url, redacted_argv
from pipeline.config.credentials import is_secret_name
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://user:s3cret@10.0.0.7/stream1", "rtsp://user:***@10.0.0.7/stream1"),
        ("rtsp://user:p@ss@host/s", "rtsp://user:***@host/s"),
        ("rtsp://user:a/b@host/s", "rtsp://user:***@host/s"),
        ("rtsp://user:a?b#c@host/s", "rtsp://user:***@host/s"),
        ("rtsp://user:s3cret@[2001:db8::7]:554/s", "rtsp://user:***@[2001:db8::7]:554/s"),
        ("rtsp://user:p%40ss%2F@host/s", "rtsp://user:***@host/s"),
        ("RTSP://user:s3cret@host", "RTSP://user:***@host"),
        ("https://abc123@host/x", "https://***@host/x"),
        ("rtsp://:only@host", "rtsp://:***@host"),
        ("http://h/v?token=abc&size=5", "http://h/v?token=***&size=5"),
        ("http://h/v?size=5&access_token=abc", "http://h/v?size=5&access_token=***"),
        ("http://h/v?API_KEY=abc", "http://h/v?API_KEY=***"),
        ("http://h/v?X-Amz-Signature=abc&x=1", "http://h/v?X-Amz-Signature=***&x=1"),
        ("http://h/v?pwd=abc", "http://h/v?pwd=***"),
        ("http://10.0.0.7/v.cgi?user=viewer&pwd=p@ss&x=1", "http://10.0.0.7/v.cgi?user=viewer&pwd=***&x=1"),
        ("http://h/v?pwd=a#b;c'd&x=1", "http://h/v?pwd=***&x=1"),
        ("srt://h:9000?passphrase=abc&streamid=read:cam:u:p", "srt://h:9000?passphrase=***&streamid=***"),
        ("rtsp://h/user=viewer_password=abc_channel=1.sdp", "rtsp://h/user=viewer_password=***"),
        ("rtsp://h/user=viewer&password=abc&channel=1", "rtsp://h/user=viewer&password=***&channel=1"),
        ("see rtsp://a:b@c and rtsp://d:e@f.", "see rtsp://a:***@c and rtsp://d:***@f."),
        # As FFmpeg and others say it.
        ("[Errno 111] Connection refused: 'rtsp://u:s3@h:1/s'", "[Errno 111] Connection refused: 'rtsp://u:***@h:1/s'"),
        ("cannot open 'http://h/v?token=abc': refused", "cannot open 'http://h/v?token=***': refused"),
        ("(http://h/v?token=abc)", "(http://h/v?token=***)"),
        ("method DESCRIBE failed: 401 Unauthorized", "method DESCRIBE failed: 401 Unauthorized"),
        ("Authorization: Basic dTpz\r\nAccept: */*", "Authorization: ***\r\nAccept: */*"),
        ('Proxy-Authorization: Digest username="u", response="0a1b"', "Proxy-Authorization: ***"),
        ('{"authorization": "Bearer abc"}', '{"authorization": ***'),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ("Cookie: session=abc; b=c", "Cookie: ***"),
        ("rtsp://u:my s3cret@host/s is gone", "rtsp://u:***@host/s is gone"),
        ("--set password=abc", "--set password=***"),
        # Read either way, the way that hides more is taken.
        ("http://host:8080/x@y", "http://host:***@y"),
        # Nothing to hide.
        ("rtsp://10.0.0.7:554/stream1", "rtsp://10.0.0.7:554/stream1"),
        ("rtsp://[::1]:554/stream1", "rtsp://[::1]:554/stream1"),
        ("http://host/x@y", "http://host/x@y"),
        ("http://h/v?keyframes=1&monkey=2", "http://h/v?keyframes=1&monkey=2"),
        ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5556"),
        ("push+ipc://@framewire", "push+ipc://***@framewire"),
        ("rtsp://10.0.0.7:554 and a@b", "rtsp://10.0.0.7:554 and a@b"),
        ("rtsp://10.0.0.7:554/s and a@b", "rtsp://10.0.0.7:554/s and a@b"),
        ("rtsp://10.0.0.7/s: lost; mail a@b", "rtsp://10.0.0.7/s: lost; mail a@b"),
        ("Address already in use (addr='tcp://127.0.0.1:5556')", "Address already in use (addr='tcp://127.0.0.1:5556')"),
        ("videos/a:b@c.mp4", "videos/a:b@c.mp4"),
        ("key=value", "key=value"),
        ("", ""),
    ],
)  # fmt: skip
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


PASSWORDS = st.text(
    string.ascii_letters + string.digits + "@:/?#%&=+;,.'\"()[]{}<>!*$~^|\\_-ßé", min_size=4, max_size=12
)
QUERIES = st.sampled_from(
    ["pwd", "password", "passwd", "pass", "token", "access_token", "key", "auth", "passphrase", "sig"]
)
HOSTS = st.sampled_from(["QQ", "QQ:55", "[::9]", "[::9]:55", "9.9.9.9"])
TAILS = st.sampled_from(["", "/", "/QQ", "/QQ?QQ=9&XX=9", "?QQ=9"])


def leaks(shown: str, password: str, around: str) -> set[str]:
    """The parts of four characters of a password, quoted or not, that are shown and not there anyway."""
    texts = {password, quote(password, safe="")}
    parts = {text[start : start + 4] for text in texts for start in range(len(text) - 3)}
    return {part for part in parts if part in shown and part not in around}


@given(PASSWORDS, HOSTS, TAILS)
@example("1234/abcd", "QQ", "")
@example("a?key=b@cd", "QQ", "/QQ")
@example("ab://cdef", "QQ", "")
@example("[::9]:55/abcd", "QQ", "/")
@example("@@@@@@", "QQ", "")
def test_no_piece_of_a_password_survives_in_a_url(password: str, host: str, tail: str) -> None:
    around = f"cannot open rtsp://viewer:***@{host}{tail}: 401 Unauthorized rtsp_2 run --out x"
    for written in (password, quote(password, safe="")):
        url = f"rtsp://viewer:{written}@{host}{tail}"
        for shown in (
            redact(url),
            redact_url(url),
            redact(f"cannot open {url}: 401 Unauthorized"),
            " ".join(redacted_argv(["run", url, "--out", "x"])),
            *name_sources([url]),
        ):
            assert not leaks(shown, password, around), shown
        assert redact(url).startswith("rtsp://viewer:***")


@given(PASSWORDS, PASSWORDS)
def test_white_space_in_a_password_is_no_way_out(first: str, second: str) -> None:
    url = f"rtsp://viewer:{first} {second}@QQ/QQ"
    shown = redact_url(url)
    assert not leaks(shown, first, "rtsp://viewer:***@QQ/QQ") | leaks(
        shown, second, "rtsp://viewer:***@QQ/QQ"
    )
    assert redacted_argv(["run", url])[1] == shown


@given(PASSWORDS, QUERIES, HOSTS)
def test_no_piece_survives_in_a_query(password: str, name: str, host: str) -> None:
    plain = password.replace("&", "")  # unquoted, that would be the next parameter
    around = f"cannot open http://{host}/QQ?user=viewer&{name}=***&XX=9, 401"
    for written in {quote(password, safe=""), plain}:
        url = f"http://{host}/QQ?user=viewer&{name}={written}&XX=9"
        for shown in (redact(url), redact_url(url), redact(f"cannot open {url}, 401"), *name_sources([url])):
            assert not leaks(shown, written, around), shown


@given(PASSWORDS)
def test_no_login_header_survives(password: str) -> None:
    basic = base64.b64encode(f"viewer:{password}".encode()).decode()
    for line in (f"Authorization: Basic {basic}", f"headers=authorization: basic {basic}\r\nQQ: 9"):
        assert basic not in redact(line)


@given(st.text(max_size=60))
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text", ["a" * 40_000, "rtsp://a:" * 4_000, "a=" * 20_000, "?key=" * 8_000, "x@" * 20_000]
)
def test_long_texts_take_no_time(text: str) -> None:
    began = time.thread_time()
    redact(text)
    assert time.thread_time() - began < 2.0, "quadratic at least"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["run", "rtsp://u:s3cret@h/s", "--out", "x"], ["run", "rtsp://u:***@h/s", "--out", "x"]),
        (["run", "rtsp://u:${PW}@h/s"], ["run", "rtsp://u:***@h/s"]),
        (["sources", "add", "a", "rtsp://h/s", "--set", "password=s3 cret"],
         ["sources", "add", "a", "rtsp://h/s", "--set", "password=***"]),
        (["--set=url=rtsp://u:s3 cret@h/s"], ["--set=url=rtsp://u:***@h/s"]),
        (["--set", "options={passphrase: s3cret}"], ["--set", "options=***"]),
        (["--token", "s3cret", "--password=s3cret"], ["--token", "***", "--password=***"]),
        (["run", "http://h/v?pwd=s3cret", "-c", "a.yaml"], ["run", "http://h/v?pwd=***", "-c", "a.yaml"]),
        (["run", "street.mp4", "--confidence", "0.5"], ["run", "street.mp4", "--confidence", "0.5"]),
        ([], []),
    ],
)  # fmt: skip
def test_a_process_list_may_show_the_command_line(argv: list[str], expected: list[str]) -> None:
    assert redacted_argv(argv) == expected


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True), ("password_file", True), ("passphrase", True), ("headers", True), ("key", True),
        ("private_key", True), ("rtmp_token", True), ("cookies", True), ("username", False), ("url", False),
        ("rtsp_transport", False), ("keyint", False), ("threads", False), ("monkey", False),
    ],
)  # fmt: skip
def test_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    "content",
    [
        "sources: {front door: 'rtsp://u:s3cret@h/s'}\n",
        "sources: {a: {url: 'rtsp://u:s3cret@h/s', fps: 1}}\n",
        "sources: ['rtsp://u:s3cret@h/s']\n",
        "sources: {'rtsp://u:s3cret@h/s': a}\n",
        "sources: {a: {'rtsp://u:s3cret@h/s': a}}\n",
        "sources: 'rtsp://u:s3cret@h/s'\n",
        "sources: {a: 'rtsp://u:s3cret/@h/s'}\n",
        "sources: {a: 'rtsp://u:s3cret x@h/s'}\n",
        "sources: {a: {url: 'rtsp://u:x s3cret@h/s'}}\n",
        "sources: {a: {url: 'rtsp://h', password: s3cret}}\n",
        "sources: {a: {url: 'rtsp://h', username: u, password: [s3cret]}}\n",
        "sources: {a: {url: 'rtsp://h', username: u, password: {s3cret: s3cret}}}\n",
        "sources: {a: {url: 'rtsp://h', username: [s3cret], password: s3cret}}\n".replace("[s3cret]", "[x]"),
        "sources: {a: {url: 'rtsp://h', options: {passphrase: [s3cret]}}}\n",
        "sources: {a: {url: 'rtsp://h', options: [passphrase=s3cret]}}\n",
        "sources: {a: {url: a.mp4, username: u, password: s3cret, options: {key: s3cret}}}\n",
        "sources: {a: {url: 5.5, password: s3cret}}\n",
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
        "sources: {a: {url: 'rtsp://h', password: '${SECRET}'}}\n",
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
    assert caught.value.__cause__ is None or "s3cret" not in str(caught.value.__cause__)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
