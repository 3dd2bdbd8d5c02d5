"""A process that writes down the numbers of all events, and goes on where it was after it was killed."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.client import Subscriber


def main(address: str, out: Path, how: str) -> None:
    if how == "cursor":
        start = {"cursor": out.with_suffix(".cursor"), "since": 0}
    else:  # its own output says where it was
        out.touch()
        last = out.read_text().splitlines()[-1:]
        log, _, number = last[0].partition(" ") if last else ("", "", "-1")
        start = {"from_sequence": int(number) + 1, "log": log}
    with Subscriber(address, types=["start"], **start) as events, out.open("a") as file:  # type: ignore[arg-type]
        for event in events:
            file.write(f"{event.log} {event.sequence}\n")
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
