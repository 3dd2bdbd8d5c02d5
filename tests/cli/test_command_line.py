"""The command itself: help, versions, errors, exit codes, and how quick it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.cli import COMMANDS, main
from pipeline.errors import BY_NAME, ConfigError, FramewireError, SourceNotFoundError

ROOT = Path(__file__).resolve().parents[2]


def use(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``framewire validate`` raise."""

    def command() -> None:
        raise error

    monkeypatch.setitem(COMMANDS, "validate", ("pipeline.cli.broken:command", "Broken."))
    fake = type(sys)("pipeline.cli.broken")
    fake.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.cli.broken", fake)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"framewire {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert name in text
        assert summary in text


GROUPS = {
    "models": ("list", "pull", "inspect"),
    "sources": ("probe", "discover", "list", "add", "remove"),
}


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in COMMANDS if name not in GROUPS),
        *(f"{group} {name}" for group, names in GROUPS.items() for name in names),
    ],
)
def test_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"framewire {name}" in text


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\nstart = time.process_time()\nfrom pipeline.cli import main\nmain(['--help'])\n"
        "spent = time.process_time() - start\n"
        "heavy = {'cv2', 'onnxruntime', 'av', 'supervision', 'numpy', 'zmq', 'pydantic'} & set(sys.modules)\n"
        "print(spent, *heavy, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    spent, *heavy = run.stderr.split()
    assert not heavy
    assert float(spent) < 0.5


@pytest.mark.parametrize(
    "argv", [["vlidate"], ["--nonsense"], ["validate", "--nonsense"], ["doctor", "extra"]]
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error" in captured.err


def test_a_misspelt_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctr"]) == 2
    assert "doctor" in capsys.readouterr().err


@pytest.mark.parametrize("name", BY_NAME)
def test_errors_become_words_and_exit_codes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, BY_NAME[name]("it is [bold]broken[/bold]", hint="mend it", source="gate"))
    assert main(["validate"]) == BY_NAME[name].exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: [gate]: it is [bold]broken[/bold]\n  -> mend it\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("no hint"), "error: no hint\n"),
        (SourceNotFoundError("gone", stage="capture"), "error: capture: gone\n"),
        (FramewireError("x" * 300), f"error: {'x' * 300}\n"),
    ],
)
def test_how_errors_are_shown(
    error: FramewireError, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, error)
    main(["validate"])
    assert capsys.readouterr().err == expected


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, KeyboardInterrupt())
    assert main(["validate"]) == 130


def test_a_closed_pipe_is_no_crash() -> None:
    command = f"{sys.executable} -m pipeline validate configs/demo.yaml | head -n 0"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == ""


def test_as_a_module() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pipeline", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == f"framewire {__version__}\n"
