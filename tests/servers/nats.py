"""A NATS server with JetStream of our own on loopback."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.servers.programs import Program, need

__all__ = ["Nats"]

T = TypeVar("T")


class Nats(Program):
    """The server.

    Args:
        folder: Where its files go.
        options: More of its command line.
        config: Its configuration file.
        jetstream: Whether it keeps streams.
    """

    def __init__(self, folder: Path, *options: str, config: str = "", jetstream: bool = True) -> None:
        program = need("nats-server", "nats-server")
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / "nats.conf"
        written.write_text(config)
        keeping = ["-js", "-sd", str(folder)] if jetstream else []
        super().__init__(
            lambda port: [
                program, "-c", str(written), "-a", "127.0.0.1", "-p", str(port), *keeping, *options,
            ],
            folder,
        )  # fmt: skip

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

    def ask(self, work: Callable[[Any], Awaitable[T]], **login: Any) -> T:
        """Do something with a client of JetStream."""
        import nats

        async def run() -> T:
            client = await nats.connect(f"nats://127.0.0.1:{self.port}", **login)
            try:
                return await work(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(run())

    def messages(self, stream: str = "FRAMEWIRE", **login: Any) -> list[tuple[str, dict[str, Any]]]:
        """Subjects and events in a stream, in order."""

        async def read(jetstream: Any) -> list[tuple[str, dict[str, Any]]]:
            state = (await jetstream.stream_info(stream)).state
            found: list[tuple[str, dict[str, Any]]] = []
            if state.messages:
                sub = await jetstream.subscribe(">", stream=stream, ordered_consumer=True)
                for _ in range(state.messages):
                    message = await sub.next_msg(timeout=5)
                    found.append((message.subject, json.loads(message.data)))
            return found

        return self.ask(read, **login)

    def sequences(self) -> list[int]:
        """Numbers of the events, in order."""
        return [event["sequence"] for _, event in self.messages()]
