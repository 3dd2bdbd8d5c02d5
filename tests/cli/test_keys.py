"""``framewire keys``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.transport.keyring import Keyring


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "framewire" / "keys"


def test_new_writes_a_key_file_and_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "desk"]) == 0
    path = Path("desk.key.json")
    keys = json.loads(path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (keys["schema"], keys["name"]) == ("framewire.keys/1", "desk")
    said = capsys.readouterr()
    assert said.out == ""
    assert keys["secret"] not in said.err
    assert "framewire listen --keys desk.key.json tcp://" in said.err
    assert f"keys: {folder}" in said.err
    assert [client.public for client in Keyring(folder).clients()] == [keys["public"]]


def test_new_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "desk", "--out", "-", "--keys", "mine"]) == 0
    keys = json.loads(capsys.readouterr().out)
    assert len(keys["secret"]) == 40
    assert [path.name for path in Path().iterdir()] == ["mine"]


def test_new_overwrites_nothing_and_leaves_nothing_behind(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("desk.key.json").write_text("precious")
    assert main(["keys", "new", "desk"]) == 2
    assert "desk.key.json exists already" in capsys.readouterr().err
    assert main(["keys", "new", "desk", "--out", "no/such/folder.json"]) == 2
    assert "cannot write no/such/folder.json" in capsys.readouterr().err
    assert Keyring(folder).clients() == ()
    assert Path("desk.key.json").read_text() == "precious"
    assert main(["keys", "new", "../desk"]) == 2
    assert "no name of a client" in capsys.readouterr().err


def test_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out == f"nobody: no keys in {folder}\n"
    made = [Keyring(folder).new(name) for name in ("wall", "desk")]
    (folder / "clients" / "half.json").write_text("{")
    assert main(["keys", "list"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["client", "desk", "wall"]
    assert "half.json is no key of a client" in said.err
    assert main(["keys", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["public"]) for row in rows] == [
        (one.name, one.public) for one in reversed(made)
    ]
    assert set(rows[0]) == {"name", "created", "public"}


def test_revoke(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Keyring(folder).new("desk")
    assert main(["keys", "revoke", "desk"]) == 0
    assert Keyring(folder).clients() == ()
    assert main(["keys", "revoke", "desk"]) == 2
    assert "there are no keys for desk" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["new", "list", "revoke"])
def test_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", name, "--help"]) == 0
    assert f"framewire keys {name}" in capsys.readouterr().out
