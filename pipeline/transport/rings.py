"""Where the packet rings of live sources lie, and how their files are named: for who writes and who reads."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKET_END", "came_ns", "ring_file", "ring_files"]

#: After every packet, so that one cut short by a kill is known: NUT's reader hands out what is left of it.
PACKET_END = b"\x00fw\xff"

_SUFFIX = ".nut"
_DIGITS = 20


def ring_file(prefix: Path, now_ns: int) -> Path:
    """The file whose first packet came at that monotonic time."""
    return prefix.with_name(f"{prefix.name}{now_ns:0{_DIGITS}d}{_SUFFIX}")


def ring_files(prefix: Path) -> list[Path]:
    """The files of a ring, oldest first; other rings, whose names begin alike, left out."""
    found = prefix.parent.glob(f"{prefix.name}{'[0-9]' * _DIGITS}{_SUFFIX}")
    return sorted(found)


def came_ns(path: Path) -> int:
    """When the first packet of a file came, monotonic."""
    return int(path.stem[-_DIGITS:])
