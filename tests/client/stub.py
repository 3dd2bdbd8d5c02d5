"""A publisher in memory that speaks the wire of ``docs/stream.md``, and can be made to misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec
import zmq

from pipeline.schemas import topic


class StubLog:
    """Events in a list; ``oldest`` are forgotten, and a log can continue another one."""

    def __init__(
        self, log_id: str = "0" * 16, base: int = 0, ancestors: Sequence[tuple[str, int]] = ()
    ) -> None:
        self.id, self.base, self.ancestors = log_id, base, list(ancestors)
        self.records: list[dict[str, Any]] = []  # the first of them has the number `base`
        self.times: list[float] = []
        self.oldest = base

    @property
    def next(self) -> int:
        return self.base + len(self.records)

    def commit(self, **fields: Any) -> dict[str, Any]:
        kind = fields.pop("type", "start")
        record = {
            "schema": f"framewire.{kind}/1", "sequence": self.next, "id": f"{self.id}-{self.next}",
            "type": kind, "source": "gate", "at": "2026-01-31T09:30:00.000Z",
        } | fields  # fmt: skip
        self.records.append(record)
        self.times.append(time.time())
        return record

    def forget(self, before: int) -> None:
        self.oldest = max(self.oldest, min(before, self.next))

    def heartbeat(self, replay: str) -> dict[str, Any]:
        return {
            "schema": "framewire.heartbeat/1", "log": self.id, "run": "r", "next": self.next,
            "oldest": self.oldest, "at": datetime.now(UTC).isoformat(), "replay": replay, "interval_s": 1.0,
        }  # fmt: skip

    def answer(
        self, request: dict[str, Any], limit: int = 1000
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        header: dict[str, Any] = {
            "schema": "framewire.replay/1", "id": request["id"], "log": self.id,
            "oldest": self.oldest, "next": self.next,
        }  # fmt: skip
        if request["do"] == "latest":
            found = {(record["source"], record.get("track_id")): record for record in self.records}
            kept = [one for one in found.values() if one["type"] != "end" and matches(one, request)]
            kept.sort(key=lambda one: int(one["sequence"]))
            return header | {"from": self.next, "to": self.next, "count": len(kept)}, kept
        first = request.get("from", self.next)
        if "since" in request:
            first = next((at for at, when in enumerate(self.times) if when >= request["since"]), None)
            first = self.next if first is None else first + self.base
        known = next((at for at, (old, _) in enumerate(self.ancestors) if old == request.get("log")), None)
        if request.get("log", self.id) != self.id:
            if known is None:
                first = self.oldest
            else:
                first = min([first, *(end for _, end in self.ancestors[known:])])
                header["continued"] = True
        first = max(first, self.oldest)
        found_records: list[dict[str, Any]] = []
        to = first
        while to < self.next and len(found_records) < min(limit, request.get("limit", 500)):
            record = self.records[to - self.base]
            found_records += [record] if matches(record, request) else []
            to += 1
        return header | {"from": first, "to": to, "count": len(found_records)}, found_records


def matches(record: dict[str, Any], request: dict[str, Any]) -> bool:
    zones = {*record.get("zones", ()), record.get("zone")}
    return all(
        record.get(field) in request[f"{field}s"]
        for field in ("source", "type", "label")
        if request.get(f"{field}s")
    ) and (not request.get("zones") or bool(zones & set(request["zones"])))


class StubPublisher:
    """PUB and ROUTER on threads of one object; give the ports of another one to take its place.

    ``mute`` drops what `publish` would broadcast, ``deaf`` leaves questions unanswered.
    """

    def __init__(
        self, log: StubLog | None = None, port: int = 0, replay_port: int = 0, *, interval_s: float = 0.02,
        encode: Callable[[Any], bytes] = msgspec.msgpack.encode, said: str = "", page: int = 1000,
        hwm: int = 1000,
    ) -> None:  # fmt: skip
        self.log = log or StubLog()
        self.mute = self.deaf = False
        self.asked: list[dict[str, Any]] = []
        self._encode, self._interval_s, self._page = encode, interval_s, page
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pub, self._router = self._context.socket(zmq.PUB), self._context.socket(zmq.ROUTER)
        self._pub.sndhwm = hwm
        self._pub.bind(f"tcp://127.0.0.1:{port or '*'}")
        self._router.bind(f"tcp://127.0.0.1:{replay_port or '*'}")
        self.address = self._pub.getsockopt_string(zmq.LAST_ENDPOINT)
        self.replay = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port, self.replay_port = (int(text.rpartition(":")[2]) for text in (self.address, self.replay))
        self._said = said or self.replay
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> StubPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, **fields: Any) -> dict[str, Any]:
        with self._lock:
            record = self.log.commit(**fields)
            if not self.mute:
                self.broadcast(record)
            return record

    def broadcast(self, record: dict[str, Any]) -> None:
        body = self._encode(record)
        self.send(topic(record["source"], record["type"], record.get("label", "")), body)
        self.send(f"framewire.log/{self.log.id}/", body)

    def frame(self, **fields: Any) -> None:
        record = {"schema": "framewire.frame/1", "source": "gate"} | fields
        with self._lock:
            self.send(topic(record["source"], "frame"), self._encode(record))

    def send(self, name: str, body: bytes) -> None:
        self._pub.send_multipart([name.encode(), body])

    def raw(self, parts: list[bytes]) -> None:
        with self._lock:
            self._pub.send_multipart(parts)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._pub.close(0)
        self._router.close(0)
        self._context.term()

    def _serve(self) -> None:
        beat_at = 0.0
        while not self._over.is_set():
            if time.monotonic() >= beat_at and self._interval_s:
                beat_at = time.monotonic() + self._interval_s
                with self._lock:
                    self.send("framewire.log/heartbeat/", self._encode(self.log.heartbeat(self._said)))
            if not self._router.poll(5):
                continue
            sender, body = self._router.recv_multipart()
            request = msgspec.msgpack.decode(body)
            self.asked.append(request)
            if self.deaf:
                continue
            with self._lock:
                header, records = self.log.answer(request, self._page)
            self._router.send_multipart(
                [sender, *(msgspec.msgpack.encode(part) for part in (header, *records))]
            )
