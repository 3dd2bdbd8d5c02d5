"""``framewire listen``: print what a running pipeline publishes."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from pipeline.client import Received, Subscriber

__all__ = ["line", "listen"]

_STYLES = {"start": "green", "end": "red", "update": "cyan", "source": "yellow", "frame": "dim"}
# Names come from other machines; control characters in them must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def listen(
    address: Annotated[str, typer.Argument(help="Where the pipeline publishes.")] = "tcp://127.0.0.1:5556",
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only frame, start, update, end or source; may be repeated."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only events of this class; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after this many silent seconds.")
    ] = None,
) -> None:
    """Print frames and events of a running pipeline as they are published.

    Ends with exit code 0 on Ctrl-C, and with 1 when within --timeout nothing (or less than --count) came.

    Example: framewire listen --type start --label person --count 1 --timeout 60
    """
    console, notes = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)
    got = 0
    try:
        with Subscriber(address, source or (), kind or (), label or (), timeout) as subscriber:
            notes.print(Text(f"listening at {address}, Ctrl-C stops", style="dim"))
            for item in subscriber:
                if as_json:
                    sys.stdout.write(msgspec.json.encode(item.record).decode() + "\n")
                    sys.stdout.flush()
                else:
                    console.print(line(item))
                got += 1
                if got == count:
                    return
            malformed = subscriber.malformed
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # the reader of the pipe, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if got and count is None:
        return
    _say_silence(notes, address, timeout, got, count, malformed)
    raise typer.Exit(1)


def line(item: Received) -> Text:
    """One record as a readable line."""
    record = item.record
    head = f"{str(record.get('at') or record.get('captured_at'))[11:23]}  "
    text = Text(_clean(head), style="dim")
    text.append(f"{_clean(item.kind):<7}", style=_STYLES.get(item.kind, ""))
    text.append(f"{_clean(item.source)}  ", style="bold")
    text.append(_clean(_frame(record) if item.kind == "frame" else _event(record)), style="default")
    return text


def _frame(record: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for found in record.get("detections", []):
        counts[found["label"]] = counts.get(found["label"], 0) + 1
    objects = ", ".join(f"{n} {name}" for name, n in counts.items()) or "no objects"
    if record.get("status") == "failed":
        objects = f"failed: {record.get('reason') or record.get('lost') or 'no reason given'}"
    total = record.get("latency_ms", {}).get("total")
    delay = f"  ({total:.0f} ms)" if isinstance(total, int | float) else ""
    return f"#{record.get('seq')}  {objects}{delay}"


def _event(record: dict[str, Any]) -> str:
    words = [str(record[key]) for key in ("state", "label") if key in record]
    if "track_id" in record:
        words.append(f"#{record['track_id']}")
    if "confidence" in record:
        words.append(f"{record['confidence']:.2f}")
    if "box_xyxy" in record:
        words.append("at " + ",".join(f"{value:.0f}" for value in record["box_xyxy"]))
    if "duration_s" in record:
        words.append(f"for {record['duration_s']:.1f} s")
    if "reason" in record:
        words.append(f"({record['reason']})")
    if "message" in record:
        words.append(str(record["message"]))
    return " ".join(words)


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text)


def _say_silence(
    notes: Console, address: str, timeout: float | None, got: int, count: int | None, malformed: int
) -> None:
    what = f"only {got} of {count} records came" if got else "nothing came"
    hint = "is the pipeline running, and does its config publish there? Filters may be too narrow, too."
    if malformed:
        hint = f"{malformed} messages there were not framewire's: is it the right address?"
    notes.print(Text(f"{what} from {address} within {timeout:g} s\n  -> {hint}", style="red"))
