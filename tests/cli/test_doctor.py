from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.cli import checks, main
from pipeline.cli.checks import CHECKS, Check, cpu_limit, one_package, vector_units
from pipeline.cli.doctor import verdict


def by_name(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


@pytest.fixture(autouse=True)
def _own_runs(run_dir: Path) -> None:
    """No other run is seen."""


def test_json_agrees_with_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is (code == 0)
    names = [check["name"] for check in found["checks"]]
    assert len(set(names)) == len(names)
    wanted = {"python", "cpu", "cores", "memory", "shared memory", "onnxruntime", "devices", "opencv", "pyav",
              "video out", "zeromq", "default model", "sample clip", "limits", "leftovers"}  # fmt: skip
    assert wanted == set(names)
    for check in found["checks"]:
        assert check["text"]
        assert check["verdict"] == "ok" or check["hint"], f"{check['name']} says what to do"


def test_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Check("good", "ok", "fine"), Check("slow", "warn", "[red]so-so[/red]", "do this")]
    monkeypatch.setattr("pipeline.cli.doctor.run_checks", lambda: found)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "[red]so-so[/red]" in text
    assert "-> do this" in text
    assert "A pipeline can run here." in text
    found.append(Check("lack", "fail", "nothing", "install it"))
    assert main(["doctor"]) == 1
    assert "cannot run here yet: lack." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verdicts", "code"), [([], 0), (["ok", "warn"], 0), (["ok", "fail"], 1), (["warn", "fail", "ok"], 1)]
)
def test_verdict(verdicts: list[checks.Verdict], code: int) -> None:
    assert verdict([Check("x", word, "") for word in verdicts]) == code


@pytest.mark.parametrize(
    ("flags", "shown", "exact"),
    [
        ("fpu avx2 avx avx512_vnni", ["avx", "avx2", "avx512_vnni"], True),
        ("avx avx2 avx_vnni", ["avx", "avx2", "avx_vnni"], True),
        ("avx avx2 avx512f", ["avx", "avx2", "avx512f"], False),
        ("asimd asimddp", ["asimd", "asimddp"], True),
        ("", [], False),
    ],
)
def test_vector_units(flags: str, shown: list[str], exact: bool) -> None:
    assert vector_units(flags.split()) == (shown, exact)


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("200000 100000", 2.0), ("", None)]
)
def test_cpu_limit(text: str, cores: float | None) -> None:
    assert cpu_limit(text) == cores


@pytest.mark.parametrize(
    ("installed", "expected", "hint"),
    [
        ({}, "fail", "pip install onnxruntime-gpu"),
        ({"onnxruntime-gpu": "1.31"}, "ok", ""),
        ({"onnxruntime": "1.31"}, "ok", ""),
        (
            {"onnxruntime": "1.30", "onnxruntime-gpu": "1.31"},
            "fail",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        ),
    ],
)
def test_one_package(installed: dict[str, str], expected: str, hint: str) -> None:
    found, text, found_hint = one_package(installed, ("onnxruntime", "onnxruntime-gpu"), "onnxruntime-gpu")
    assert (found, found_hint) == (expected, hint)
    assert all(version in text for version in installed.values())


@pytest.mark.parametrize(
    ("broken", "name", "word"),
    [("cv2", "opencv", "libgl1"), ("av", "pyav", "pip install av"), ("zmq", "zeromq", "pip install pyzmq"),
     ("onnxruntime", "onnxruntime", "pip install onnxruntime")],
)  # fmt: skip
def test_a_broken_library_is_a_finding(
    broken: str, name: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(module: str) -> object:
        if module == broken:
            raise ImportError("libGL.so.1: cannot open shared object file")
        return import_module(module)

    monkeypatch.setattr(checks, "import_module", fake)
    found = by_name(checks.run_checks())[name]
    assert found.verdict == "fail"
    assert word in found.hint


def test_a_small_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAMEWIRE_SHM_DIR", str(tmp_path / "none"))
    found = by_name(checks.run_checks())["shared memory"]
    assert found.verdict == "fail"
    assert "FRAMEWIRE_SHM_DIR" in found.hint


def test_dead_runs_are_named(run_dir: Path) -> None:
    (run_dir / "deadbeef").mkdir(parents=True)
    (run_dir / "deadbeef" / "lock").touch()
    found = by_name(checks.run_checks())["leftovers"]
    assert found.verdict == "warn"
    assert "deadbeef" in found.text


def test_the_checks_are_all_there() -> None:
    assert len(CHECKS) == len(set(CHECKS)) == 13
