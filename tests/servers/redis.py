"""A Redis server of our own on loopback, that loses nothing when it is killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.certs import Certificate
from tests.servers.programs import Program, need

__all__ = ["Redis"]


class Redis(Program):
    """The server.

    Args:
        folder: Where its files go.
        options: More of its command line.
        certificate: To speak TLS, and nothing else.
    """

    def __init__(self, folder: Path, *options: str, certificate: Certificate | None = None) -> None:
        program = need("redis-server", "redis-server")
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "socket"

        def command(port: int) -> Sequence[str]:
            ports = ["--port", str(port)]
            if certificate is not None:
                ports = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
                ports += ["--tls-cert-file", str(certificate.cert), "--tls-key-file", str(certificate.key)]
            return [program, *ports, "--bind", "127.0.0.1", "--unixsocket", str(self.socket),
                    "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
                    *options]  # fmt: skip

        super().__init__(command, folder)

    def freeze(self) -> None:
        """Stop without a word: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on, with what has come in the meantime."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; harmless when it has ended."""
        if self._process is not None:
            self.thaw()
        super().stop(number)

    def client(self, **options: Any) -> Any:
        """A client of the library."""
        import redis

        return redis.Redis(unix_socket_path=str(self.socket), **options)

    def entries(self, stream: str = "framewire:events") -> list[dict[str, str]]:
        """The entries of a stream."""
        with self.client(decode_responses=True) as client:
            return [fields for _, fields in client.xrange(stream)]

    def sequences(self, log_id: str = "cafe") -> list[int]:
        """Numbers of the events of a log, in order."""
        return [int(fields["sequence"]) for fields in self.entries() if fields.get("log") == log_id]
