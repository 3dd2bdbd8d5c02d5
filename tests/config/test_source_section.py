from __future__ import annotations

import inspect
import json
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config import Motion, Source, from_mapping, load
from pipeline.errors import ConfigError
from pipeline.sources.admission import Admission
from pipeline.sources.file import FileSource
from pipeline.sources.live.address import TRANSPORTS
from pipeline.sources.live.decoders import DEVICES
from pipeline.sources.live.push import PushConnection
from pipeline.sources.live.stream import StreamConnection
from pipeline.vision.motion import MotionGate


def source(given: Any) -> Source:
    return from_mapping({"sources": {"a": given}}, "test").sources["a"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.mp4", "a.mp4"),
        (0, "0"),
        ({"url": 2}, "2"),
        ("rtsp://u:p%40ss@h/s", "rtsp://u:p%40ss@h/s"),
        ({"url": "rtsp://h:554/s?x=1", "username": "u"}, "rtsp://u@h:554/s?x=1"),
        ({"url": "rtsp://h/s", "username": "u", "password": "p"}, "rtsp://u:p@h/s"),
        ({"url": "rtsp://u@h/s", "password": "p"}, "rtsp://u:p@h/s"),
        ({"url": "rtsp://u%2Fv@h/s@x", "password": "p"}, "rtsp://u%2Fv:p@h/s@x"),
        (
            {"url": "rtsp://[2001:db8::7]:554/s", "username": "d\\u", "password": "a b/@:?#[%]"},
            "rtsp://d%5Cu:a%20b%2F%40%3A%3F%23%5B%25%5D@[2001:db8::7]:554/s",
        ),
        ({"url": "HTTPS://h", "username": "ü", "password": "€"}, "HTTPS://%C3%BC:%E2%82%AC@h"),
    ],
)
def test_address(given: Any, expected: str) -> None:
    assert source(given).address() == expected


@given(st.text(string.printable, min_size=1).filter(str.strip), st.text(min_size=1, max_size=20))
def test_any_login_gets_through(username: str, password: str) -> None:
    password = password.encode("utf-8", "ignore").decode() or "x"
    given = {"url": "rtsp://10.0.0.7:554/s", "username": username, "password": password}
    parts = urlsplit(source(given).address())
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (username, password)
    assert (parts.hostname, parts.port, parts.path) == ("10.0.0.7", 554, "/s")


def test_a_password_file(tmp_path: Path) -> None:
    path = tmp_path / "gate"
    path.write_text("s3 cret/\n")
    path.chmod(0o600)
    gate = source({"url": "rtsp://u@h/s", "password_file": str(path)})
    assert gate.address() == "rtsp://u:s3%20cret%2F@h/s"
    assert gate.cautions() == ()
    path.chmod(0o644)
    (caution,) = gate.cautions()
    assert f"chmod 600 {path}" in caution
    assert "s3" not in caution


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "there is no password file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: path.write_text("\n"), "is empty"),
        (lambda path: path.write_text("s3cret\nmore\n"), "is longer than one line"),
        (lambda path: path.write_text("s3cret" * 1000), "is longer than one line"),
        (lambda path: path.write_bytes(b"\xff\xfes3cret"), "is not text"),
    ],
)
def test_a_password_file_that_is_none(
    prepare: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate"
    prepare(path)
    gate = source({"url": "rtsp://u@h/s", "password_file": str(path)})
    with pytest.raises(ConfigError, match=message) as caught:
        gate.address()
    assert str(path) in caught.value.message
    assert "only line" in caught.value.hint
    assert "s3cret" not in str(caught.value)
    assert all("s3cret" not in caution for caution in gate.cautions())


STREAM = {
    "decode": "auto", "threads": 1, "connect_timeout_s": 10.0, "read_timeout_s": 5.0, "max_fps": None,
    "max_age_s": 1.0, "options": {},
}  # fmt: skip
TLS = {"tls_verify": True, "tls_ca": None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rtsp://h/s", {**STREAM, "transport": "tcp"}),
        ("rtsps://h/s", {**STREAM, **TLS, "transport": "tcp"}),
        ("https://h/s", {**STREAM, **TLS}),
        ("udp://h:1", STREAM),
        ("0", STREAM),
        ("a.mp4", {}),
        ("synthetic:", {}),
        ("synthetic://?frames=0", {}),
        ({"url": "a.mp4", "threads": 2, "max_fps": 5, "motion": True}, {"threads": 2}),
        (
            {"url": "rtsp://h/s", "transport": "udp", "max_fps": 5, "options": {"a": True, "b": 3}},
            {**STREAM, "transport": "udp", "max_fps": 5.0, "options": {"a": "1", "b": "3"}},
        ),
        ({"url": "push+tcp://0.0.0.0:5570", "insecure": True, "max_fps": 5}, {"insecure": True}),
        ("push+tcp://127.0.0.1:5570", {}),
    ],
)
def test_options(given: Any, expected: dict[str, Any]) -> None:
    assert source(given).options() == expected


def test_certificates_are_looked_for_when_a_run_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    gate = source({"url": "rtsps://h/s", "tls_ca": str(path)})
    with pytest.raises(ConfigError, match=r"there is no file .*ca\.pem") as caught:
        gate.options()
    assert "PEM" in caught.value.hint
    path.touch()
    assert gate.options()["tls_ca"] == str(path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.mp4", {}),
        ({"url": "a.mp4", "max_fps": 5}, {"max_fps": 5.0}),
        ({"url": "a.mp4", "realtime": True}, {"max_age_s": 1.0}),
        ("rtsp://h/s", {"max_age_s": 1.0}),
        ("push+ipc:///run/x", {"max_age_s": 1.0}),
        ({"url": 0, "motion": False, "max_age_s": 3}, {"max_age_s": 3.0}),
        (
            {
                "url": "rtsp://h/s",
                "motion": {"recheck_s": 5},
                "schedule": "sat 10:00-12:00",
                "timezone": "UTC",
            },
            {
                "max_age_s": 1.0,
                "motion": {"threshold": 16.0, "min_area": 0.001, "hold_s": 3.0, "recheck_s": 5.0},
                "schedule": [((5,), 600, 720)],
                "timezone": "UTC",
            },
        ),
    ],
)
def test_admission(given: Any, expected: dict[str, Any]) -> None:
    found = source(given).admission()
    assert found == expected
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found)) == json.loads(json.dumps(found))


@pytest.mark.parametrize(
    ("given", "adapter", "others"),
    [
        ({"url": "rtsps://h/s"}, StreamConnection, set()),
        ({"url": "0"}, StreamConnection, {"transport", "tls_verify", "tls_ca"}),
        (
            {"url": "push+tcp://127.0.0.1:1", "read_timeout_s": 1, "max_age_s": 1, "insecure": False},
            PushConnection,
            set(),
        ),
        ({"url": "a.mp4", "threads": 1}, FileSource, {"stream"}),
    ],
)
def test_each_argument_of_an_adapter_has_its_key(
    given: dict[str, Any], adapter: type, others: set[str]
) -> None:
    theirs = set(inspect.signature(adapter).parameters) - {"name", "url", "pixels", "awake", "recorder"}
    assert set(source(given).options()) == theirs - others


def test_the_words_are_those_of_the_adapters() -> None:
    transports = Source.model_fields["transport"].annotation
    assert set(transports.__args__) == set(TRANSPORTS)  # type: ignore[union-attr]
    decoders = set(Source.model_fields["decode"].annotation.__args__)  # type: ignore[union-attr]
    assert {"auto", "cpu", *DEVICES} <= decoders
    gate, motion = inspect.signature(MotionGate).parameters, Motion()
    assert {name: parameter.default for name, parameter in gate.items()} == motion.model_dump(
        exclude={"recheck_s"}
    )
    assert (
        inspect.signature(Admission).parameters.keys()
        >= source({"url": "rtsp://h", "max_fps": 1}).admission().keys()
    )


SECRET = """
sources:
  gate: {url: "rtsp://h/s?token=t0ken", username: viewer, password: s3cret,
         options: {headers: "x: s3cret", a: b}}
  yard: "rtsp://viewer:s3cret@h/s"
  lane: {url: "srt://h:1?passphrase=s3cret", options: {passphrase: s3cret}}
"""


def test_nothing_that_shows_a_config_shows_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(SECRET)
    config = load(path)
    gate = config.sources["gate"]
    shown = [
        repr(config),
        str(config),
        repr(gate),
        f"{gate}",
        str(config.model_dump()),
        config.model_dump_json(),
    ]
    shown += [str(config.sources), repr(gate.password), str(gate.model_dump(mode="json", by_alias=True))]
    for command in (["validate", str(path)], ["validate", str(path), "--json"], ["graph", "-c", str(path)]):
        assert main(command) == 0
        captured = capsys.readouterr()
        shown += [captured.out, captured.err]
    for text in shown:
        assert "s3cret" not in text
        assert "t0ken" not in text
    assert "viewer" in shown[0], "but what is no secret is there"
    assert gate.address() == "rtsp://viewer:s3cret@h/s?token=t0ken"
    assert gate.options()["options"] == {"headers": "x: s3cret", "a": "b"}


def test_what_is_shown_is_what_means_something() -> None:
    assert source("a.mp4").model_dump() == {"url": "a.mp4", "threads": 1, "moving": False}
    assert set(source("push+ipc:///x").model_dump()) == {"url", "max_age_s", "insecure", "moving"}
    assert repr(source({"url": "rtsp://h", "max_fps": 5})) == "Source(url='rtsp://h', max_fps=5.0)"


def test_a_change_of_a_secret_is_a_change() -> None:
    given = {"url": "rtsp://h/s", "username": "u", "password": "one"}
    assert source(given) == source(dict(given))
    assert source(given) != source({**given, "password": "two"})


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        (None, None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_metrics(listen: str | None, address: tuple[str, int] | None) -> None:
    given = {} if listen is None else {"metrics": {"listen": listen}}
    assert from_mapping(given, "test").metrics.address() == address


def test_metrics_for_others() -> None:
    metrics = from_mapping({"metrics": {"listen": "0.0.0.0:9464", "insecure": True}}, "test").metrics
    assert metrics.address() == ("0.0.0.0", 9464)


def test_the_docs_have_each_key_with_its_default() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "cameras.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip(" `"): cells[2].strip(" `")
        for line in text.splitlines()
        if len(cells := line.split("|")) > 4
    }
    for model in (Source, Motion):
        for name, field in model.model_fields.items():
            shown = rows[field.alias or name]
            if isinstance(field.default, bool | int | float | str):
                assert shown == (
                    str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
                )


def test_the_docs_are_valid_configs() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "cameras.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        data = yaml.safe_load(block.replace("…", "h/s"))
        from_mapping(data if "sources" in data else {"sources": data}, "docs/cameras.md")
