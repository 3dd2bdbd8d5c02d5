"""The folder of keys: who may read it, what a crash leaves, and that changes hold at once."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
import zmq

from pipeline.errors import ConfigError
from pipeline.transport.keyring import Keyring, default_folder


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_server_pair_is_made_once_and_only_for_this_user(keyring: Keyring) -> None:
    before = os.umask(0)
    try:
        public, secret = keyring.server()
    finally:
        os.umask(before)
    assert zmq.curve_public(secret.encode()).decode() == public
    assert Keyring(keyring.folder).server() == (public, secret)
    assert mode(keyring.folder) == 0o700
    assert mode(keyring.folder / "clients") == 0o700
    assert mode(keyring.folder / "server.json") == 0o600
    assert sorted(path.name for path in keyring.folder.iterdir()) == ["clients", "server.json"]


def test_several_that_begin_at_once_agree(keyring: Keyring) -> None:
    found: list[tuple[str, str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(Keyring(keyring.folder).server())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_the_secret_of_a_client_is_in_its_key_file_only(keyring: Keyring, tmp_path: Path) -> None:
    bundle = keyring.new("desk")
    assert zmq.curve_public(bundle.secret.encode()).decode() == bundle.public
    assert bundle.server == keyring.server()[0]
    for path in keyring.folder.rglob("*.json"):
        assert bundle.secret not in path.read_text()
    assert bundle.secret not in repr(bundle)
    (client,) = keyring.clients()
    assert (client.name, client.public) == ("desk", bundle.public)
    assert client.created.endswith("Z")
    path = tmp_path / "desk.key.json"
    bundle.write(path)
    assert mode(path) == 0o600
    assert json.loads(path.read_bytes()) == {
        "schema": "framewire.keys/1", "name": "desk", "public": bundle.public, "secret": bundle.secret,
        "server": bundle.server,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="exists already"):
        bundle.write(path)


def test_a_name_is_given_once_until_it_is_revoked(keyring: Keyring) -> None:
    first = keyring.new("desk")
    with pytest.raises(ConfigError, match="already") as raised:
        keyring.new("desk")
    assert "framewire keys revoke desk" in raised.value.hint
    assert keyring.clients()[0].public == first.public
    keyring.revoke("desk")
    assert keyring.clients() == ()
    with pytest.raises(ConfigError, match="no keys for desk"):
        keyring.revoke("desk")
    # Within one tick of the file system's clock, and perhaps in the same inode.
    assert keyring.new("desk").public == keyring.clients()[0].public != first.public


def test_what_another_process_does_is_seen_at_once(keyring: Keyring) -> None:
    other = Keyring(keyring.folder)
    for name in ("b", "a", "c"):
        other.new(name)
        assert name in [client.name for client in keyring.clients()]
    other.revoke("b")
    assert [client.name for client in keyring.clients()] == ["a", "c"]


def test_files_that_have_not_changed_are_not_read_again(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring.new("desk")
    monkeypatch.setattr("pipeline.transport.keyring._FRESH_NS", -1)
    known = keyring.clients()
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read again"))
    assert keyring.clients() == known


@pytest.mark.parametrize("name", ["", "a" * 65, "a/b", "..", "a b", "a.b", "é", "desk\n", "../desk"])
def test_names_that_are_none(keyring: Keyring, name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a client"):
        keyring.new(name)
    with pytest.raises(ConfigError, match="no name of a client"):
        keyring.revoke(name)
    assert not keyring.folder.exists()


@pytest.mark.parametrize(
    ("inside", "bits", "words", "wanted"),
    [
        ("server.json", 0o640, "can be read by other users", "chmod 600 "),
        ("server.json", 0o604, "can be read by other users", "chmod 600 "),
        (".", 0o770, "can be changed by other users", "chmod 700 "),
        ("clients", 0o702, "can be changed by other users", "chmod 700 "),
    ],
)
def test_what_others_can_read_or_change_is_refused(
    keyring: Keyring, inside: str, bits: int, words: str, wanted: str
) -> None:
    _, secret = keyring.server()
    path = keyring.folder / inside
    path.chmod(bits)
    with pytest.raises(ConfigError, match=words) as raised:
        keyring.server()
    assert raised.value.hint == f"type: {wanted}{path}"
    assert secret not in str(raised.value)
    path.chmod(int(wanted.split()[1], 8))
    assert keyring.server()[1] == secret


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 5000, b'{"schema": "framewire.server/1", "public": "x", "secret": "s3cret"}'],
)
def test_a_server_file_that_is_damaged_is_named_and_not_replaced(keyring: Keyring, content: bytes) -> None:
    keyring.server()
    path = keyring.folder / "server.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"server\.json") as raised:
        keyring.server()
    assert "s3cret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__cause__ is None
    assert path.read_bytes() == content


def test_a_client_file_that_is_damaged_lets_nobody_in(keyring: Keyring) -> None:
    bundle = keyring.new("desk")
    folder = keyring.folder / "clients"
    good = (folder / "desk.json").read_bytes()
    for name, content in {
        "other.json": good,  # says another name
        "half.json": good[:40],
        "key.json": good.replace(b"desk", b"key").replace(bundle.public.encode(), b"short"),
        "deep.json": b"[" * 100_000,
        "a b.json": good.replace(b"desk", b"a b"),
    }.items():
        (folder / name).write_bytes(content)
    (folder / "folder.json").mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / ".desk.json.1234").write_bytes(good)  # left by a process that was killed
    assert [client.name for client in keyring.clients()] == ["desk"]
    assert keyring.damaged() == (
        "a b.json",
        "deep.json",
        "folder.json",
        "half.json",
        "key.json",
        "other.json",
    )


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for act in (
        lambda: Keyring(tmp_path / "file").server(),
        lambda: Keyring(tmp_path / "file" / "keys").new("a"),
    ):
        with pytest.raises(ConfigError, match="cannot make the folder of keys") as raised:
            act()
        assert "--keys FOLDER" in raised.value.hint


def test_nothing_is_made_by_looking(keyring: Keyring) -> None:
    assert keyring.clients() == ()
    with pytest.raises(ConfigError, match="no keys for desk") as raised:
        keyring.revoke("desk")
    assert raised.value.hint == "there are none at all"
    assert not keyring.folder.exists()


def test_the_folder_when_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Keyring().folder == tmp_path / "framewire" / "keys"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".config" / "framewire" / "keys"
    assert Keyring("~/mine").folder == tmp_path / "mine"
