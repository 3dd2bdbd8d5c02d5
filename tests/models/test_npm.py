from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.models.npm import pack

SHA = hashlib.sha256(b"tarball\n").hexdigest()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an ``npm`` that runs a shell script first on PATH."""
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")


def test_asks_the_ordinary_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path, monkeypatch, 'echo "$@" > "$5/../asked"; echo tarball > "$5/a-1.0.0.tgz"; echo a-1.0.0.tgz'
    )
    out = tmp_path / "out"
    out.mkdir()
    assert pack("@me/a", "1.0.0", SHA, out) == out / "a-1.0.0.tgz"
    assert (tmp_path / "asked").read_text() == f"pack @me/a@1.0.0 --silent --pack-destination {out}\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no such package >&2; exit 3", "failed with exit code 3"),
        ("exit 0", "wrote no tarball"),
        ("echo missing.tgz", "wrote no tarball"),
        ('echo other > "$5/a.tgz"; echo a.tgz', "another @me/a@1.0.0"),
    ],
)
def test_failures(script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, script)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ModelError, match=message):
        pack("@me/a", "1.0.0", SHA, out)
    assert list(out.iterdir()) == []
