from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config import Config, InvalidConfigError, from_mapping, load
from pipeline.errors import ConfigError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_defaults_need_nothing() -> None:
    config = from_mapping({}, "nothing")
    assert config == Config()
    assert (config.model.name, config.model.device, config.preprocess) == ("default", "auto", "fast")
    assert config.sources == {}


def test_a_config_is_frozen() -> None:
    config = from_mapping({"sources": {"a": "a.mp4"}}, "test")
    with pytest.raises(ValidationError, match="frozen"):
        config.model.confidence = 0.1


def test_a_plain_source_is_its_url() -> None:
    short = from_mapping({"sources": {"a": "a.mp4"}}, "test")
    assert short == from_mapping({"sources": {"a": {"url": "a.mp4"}}}, "test")


def test_keys_are_text_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    config = load(write(tmp_path, "sources: {no: a.mp4, 8: b.mp4, null: c.mp4}\n"))
    assert list(config.sources) == ["no", "8", "null"]


def test_merge_keys_are_merged_and_overridden(tmp_path: Path) -> None:
    config = load(write(tmp_path, "run:\n  restart: {<<: {budget: 1, window_s: 5}, window_s: 9}\n"))
    assert (config.run.restart.budget, config.run.restart.window_s) == (1, 9.0)


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("${A}", {"A": "x.mp4"}, "x.mp4"),
        ("a-${A}-${B:-two}", {"A": "one"}, "a-one-two"),
        ("${A:-x}", {"A": "set"}, "set"),
        ("${A:-x}", {"A": ""}, "x"),
        ("v${A:-}", {}, "v"),
        ("$${A} costs 5$", {}, "${A} costs 5$"),
        ("${A}", {"A": "${B}"}, "${B}"),
    ],
)
def test_variables(text: str, environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    config = load(write(tmp_path, f"sources: {{a: '{text}'}}\n"), environ=environ)
    assert config.sources["a"].url == expected


def test_variables_become_numbers_and_switches(tmp_path: Path) -> None:
    text = "model: {confidence: '${C}'}\nstages: {infer: {replicas: '${R}'}}\nrun: {realtime: '${T}'}\n"
    config = load(write(tmp_path, text), environ={"C": "0.25", "R": "3", "T": "true"})
    assert (config.model.confidence, config.replicas("infer"), config.run.realtime) == (0.25, 3, True)


def test_variables_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_TEST_CLIP", "x.mp4")
    assert load(write(tmp_path, "sources: {a: '${FRAMEWIRE_TEST_CLIP}'}\n")).sources["a"].url == "x.mp4"


def test_overrides_merge_mappings_and_replace_the_rest(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "sources: {a: a.mp4}\nmodel: {confidence: 0.1, classes: [car, bus]}\nrun: {annotate: true}\n",
    )
    config = load(path, {"model": {"classes": ["person"]}, "run": {"out": "out"}})
    assert config.model.classes == ("person",)
    assert config.model.confidence == 0.1
    assert config.run.out == "out", "what the file lacked for annotate came from the command line"


def test_a_wrong_override_is_the_command_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {confidence: 0.1}\n")
    with pytest.raises(InvalidConfigError) as caught:
        load(path, {"model": {"confidence": 5}})
    assert caught.value.message == "command line: model.confidence is `5`, but must be at most 1"


def test_errors_come_in_the_order_of_the_file_with_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path, "run: {slots: 0}\n\nmodel:\n  device: gpu\n  confidence: 7\npublish:\n  - {jsnl: a}\n"
    )
    with pytest.raises(InvalidConfigError) as caught:
        load(path)
    error = caught.value
    assert [(p.where.rpartition(":")[2], p.key) for p in error.problems] == [
        ("1", "run.slots"),
        ("4", "model.device"),
        ("5", "model.confidence"),
        ("7", "publish[0]"),
    ]
    assert error.exit_code == 2
    assert error.message.startswith("4 things are wrong in the config:\n")
    assert str(path) in str(error)


def test_many_errors_are_cut() -> None:
    with pytest.raises(InvalidConfigError, match="and 5 more"):
        from_mapping({f"x{index}": 1 for index in range(15)}, "test")


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "is empty", "sources: {camera: video.mp4}"),
        (b"\xef\xbb\xbf# only a comment\n", "is empty", "configs/demo.yaml"),
        (b"\x00\x00\x00 ftypisom", "is not YAML", "save it as plain text"),
        (b"\xff\xd8\xff\xe0", "is not text", "framewire run FILE (without -c)"),
        (b"x" * (2 << 20), "too long", "path of a YAML file"),
        (b"[" * 3000, "nested too deeply", "five levels"),
    ],
    ids=["empty", "comment", "video", "jpeg", "long", "deep"],
)
def test_what_is_no_config(content: bytes, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, content))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "model: {}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "confg.yaml")
    assert "there is no config file" in caught.value.message
    assert "config.yaml" in caught.value.hint
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    assert load(write(tmp_path, b"\xef\xbb\xbfmodel: {name: x}\n")).model.name == "x"
