"""A PostgreSQL server of our own on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.servers.programs import Program

__all__ = ["Postgres"]


def _bin() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    plain = shutil.which("initdb")
    if found:
        return found[-1].parent
    if plain:
        return Path(plain).parent
    pytest.skip("PostgreSQL is not installed: scripts/test --services, or apt-get install postgresql")


class Postgres(Program):
    """The server; its super-user is ``postgres``, with a password where one is given.

    Args:
        folder: Where its files go.
        password: Of ``postgres``, checked with SCRAM; None to let everybody in.
    """

    def __init__(self, folder: Path, password: str | None = None) -> None:
        programs = _bin()
        # It refuses to run as root.
        self._as: list[str] = []
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            self._as = ["runuser", "-u", "postgres", "--"]
            for place in (folder, *folder.parents):
                if place.stat().st_uid == 0 and place != Path("/") and not place.stat().st_mode & 0o001:
                    place.chmod(place.stat().st_mode | 0o011)
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        given = ["-A", "trust"]
        if password is not None:
            secret = folder / "password"
            secret.write_text(password)
            secret.chmod(0o644)
            given = ["-A", "scram-sha-256", "--pwfile", str(secret)]
        subprocess.run(
            [*self._as, programs / "initdb", "-D", data, "-U", "postgres", "-N", "-E", "UTF8", *given],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        super().__init__(
            lambda port: [
                *self._as, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder),
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
            ],
            folder,
            lambda port: subprocess.run(
                [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
            ).returncode == 0,
        )  # fmt: skip
        self._data = data
        self.url = f"postgresql://127.0.0.1:{self.port}/postgres"

    def stop(self, number: int = signal.SIGINT) -> None:
        """Fast shutdown by default; ``runuser`` stands between, so the server is told itself."""
        pid = self._data / "postmaster.pid"
        if pid.exists() and self._process is not None:
            os.kill(int(pid.read_text().split()[0]), number)
            self._process.wait(20)
            if number == signal.SIGKILL:
                pid.unlink(missing_ok=True)
        super().stop(signal.SIGKILL)
