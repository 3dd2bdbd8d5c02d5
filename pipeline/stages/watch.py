"""What subscribers are to be told of a source's state, and when: in order with its frames, and in time."""

from __future__ import annotations

from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import Ledger

__all__ = ["SourceWatch"]

#: A change waits for the frames before it, but not longer than this: they may be lost, or the model slow.
_PATIENCE_NS = 1_000_000_000
#: A capture that has not looked around for so long is dead, stopped or stuck.
_ABSENT_NS = 3_000_000_000
_FINAL = ("ended", "failed")
#: Keys above these are not numbers of the journal: capture is absent since so many ms, or is back.
_ABSENT, _BACK = 2**50, 2**51


class SourceWatch:
    """Reads the journal of one source for ``publish``, and speaks for a capture that cannot speak itself.

    All that it must remember lies in the books, so a restarted ``publish`` says nothing twice.

    Args:
        ledger: The books of the source.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._first_look_ns = 0

    def due(self, now_ns: int, now: float, *, ended: bool = False) -> list[tuple[int, SourceState]]:
        """Changes to publish now, oldest first.

        Args:
            now_ns: Monotonic time.
            now: UTC seconds.
            ended: The stream has ended and its last frame is published, so its end may be told.

        Returns:
            (key, change): the key is above 0, unique for the source and the same again after a restart; pass
            it to `told` when the change is published.
        """
        ledger = self._ledger
        found: list[tuple[int, SourceState]] = []
        self._first_look_ns = self._first_look_ns or now_ns
        pending = ledger.journal.since(ledger["state_told"])
        for at, (number, change) in enumerate(pending):
            final = change.state in _FINAL
            if final and not ended:
                if at + 1 == len(pending):
                    break  # Its `EndOfStream` is on the way, with the ends of its objects.
                continue  # It was begun anew before it had ended.
            # After a restart of publish, what was under way has to come again first.
            waited_ns = now_ns - max(change.at_ns, self._first_look_ns)
            if not ended and change.seq > ledger["next_publish"] and waited_ns < _PATIENCE_NS:
                break
            found.append((number, change))
        return found if pending else self._presence(now_ns, now)

    def told(self, key: int) -> None:
        """The change of that key is with all sinks."""
        ledger = self._ledger
        if key < _ABSENT:
            ledger["state_told"] = key
        else:
            ledger["absent_after"] = len(ledger.journal)
            ledger["absent_ms"] = key - _ABSENT if key < _BACK else 0

    def _presence(self, now_ns: int, now: float) -> list[tuple[int, SourceState]]:
        """That capture does not answer, or does again; only when it has said nothing else meanwhile."""
        ledger = self._ledger
        last, alive_ns, absent_ms = ledger.journal.last(), ledger["alive_ns"], ledger["absent_ms"]
        if last is None or not alive_ns:
            return []
        if absent_ms and len(ledger.journal) > ledger["absent_after"]:
            ledger["absent_ms"] = absent_ms = 0  # It has spoken for itself since.
        epoch, seq = ledger["epoch"], ledger["next_publish"]
        absent = now_ns - alive_ns > _ABSENT_NS and last.state not in _FINAL
        if absent and not absent_ms:
            message = f"the process that reads it has not answered for {(now_ns - alive_ns) / 1e9:.1f} s"
            key = _ABSENT + alive_ns // 1_000_000
            return [(key, SourceState("stalled", "crashed", message, self._at(key, now), now_ns, epoch, seq))]
        if absent_ms and not absent:
            key = _BACK + absent_ms
            at = self._at(key, now)
            return [(key, SourceState(last.state, last.reason, last.message, at, now_ns, epoch, seq))]
        return []

    def _at(self, key: int, now: float) -> float:
        """When it was first to be told: files know a state again by its moment."""
        ledger = self._ledger
        if ledger["own_key"] != key:
            ledger["own_at_us"] = round(now * 1e6)
            ledger["own_key"] = key
        return ledger["own_at_us"] / 1e6
