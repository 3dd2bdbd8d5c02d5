"""``framewire listen``: print what a running pipeline publishes, and what its event log keeps."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from pipeline.client import Received, Subscriber
from pipeline.errors import ConfigError

__all__ = ["line", "listen", "moment"]

_STYLES = {"start": "green", "end": "red", "update": "cyan", "source": "yellow", "frame": "dim"}
# Names come from other machines; control characters in them must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Without --follow nobody waits for a pipeline that is not there.
_THERE_S = 10.0


def listen(
    address: Annotated[str, typer.Argument(help="Where the pipeline publishes.")] = "tcp://127.0.0.1:5556",
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only frame, start, update, end, source, …; may be repeated."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only events of this class; may be repeated.")
    ] = None,
    zone: Annotated[
        list[str] | None, typer.Option(help="Only events in or at this zone; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin so long ago (10m, 2h, 1d), or at a time: 2026-01-31T09:30Z.")
    ] = None,
    from_sequence: Annotated[
        int | None, typer.Option("--from", min=0, help="Begin with the event of this number.")
    ] = None,
    cursor: Annotated[
        Path | None, typer.Option(help="Go on where this file says, and keep it up to date.")
    ] = None,
    snapshot: Annotated[bool, typer.Option(help="Begin with what is there now.")] = False,
    follow: Annotated[
        bool, typer.Option(help="Go on with what comes; without, stop at the end of the log.")
    ] = True,
    keys: Annotated[Path | None, typer.Option(help="Key file of this client (CURVE).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after this many silent seconds.")
    ] = None,
) -> None:
    """Print frames and events of a running pipeline, as they come or from its event log.

    Every event comes once and in order; what was missed is fetched. Says so at the end when events are gone
    that the log no longer keeps. Ends with exit code 0 on Ctrl-C, and with 1 when within --timeout nothing
    (or less than --count) came.

    Example: framewire listen --type start --label person --count 1 --timeout 60

    Example: framewire listen --since 10m --no-follow --json
    """
    console, notes = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)
    if not follow and timeout is None:
        timeout = _THERE_S
    got, done, wide = 0, False, 0
    begin = None if since is None else moment(since)
    with Subscriber(
        address, source or (), kind or (), label or (), timeout, zones=zone or (), since=begin,
        from_sequence=from_sequence, cursor=cursor, snapshot=snapshot, follow=follow, keys=keys,
    ) as subscriber:  # fmt: skip
        try:
            notes.print(Text(f"listening at {address}, Ctrl-C stops", style="dim"))
            for item in subscriber:
                if as_json:
                    sys.stdout.write(msgspec.json.encode(item.record).decode() + "\n")
                    sys.stdout.flush()
                else:
                    wide = max(wide, len(item.source))
                    console.print(line(item, wide))
                got += 1
                if got == count:
                    subscriber.commit()
                    done = True
                    break
        except KeyboardInterrupt:
            done = True
        except BrokenPipeError:  # the reader of the pipe, such as head, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        _say_losses(notes, subscriber)
        ended = not follow and subscriber.caught_up
        if done or (count is None and (got or ended)):
            return
        if ended:
            notes.print(Text(f"only {got} of {count} records are in the log", style="red"))
        else:
            _say_silence(notes, address, timeout, got, count, subscriber.malformed)
    raise typer.Exit(1)


def moment(text: str, now: float | None = None) -> float | str:
    """What ``--since`` means: UTC seconds for "so long ago", the text itself for a time.

    Raises:
        ConfigError: it is neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago:
        return max(0.0, (time.time() if now is None else now) - float(ago[1]) * _UNITS[ago[2]])
    if not re.fullmatch(r"\d+(\.\d+)?|\d{4}-\d\d-\d\d([T ].+)?", text):
        raise ConfigError(
            f"--since {text}: that is no time", hint="write --since 10m, 2h or 1d, or 2026-01-31T09:30Z"
        )
    if re.fullmatch(r"\d{4}-\d\d-\d\d([T ][\d:.]+)?", text):
        whole = text if "T" in text or " " in text else f"{text}T00:00"
        raise ConfigError(
            f"--since {text} has no time zone",
            hint=f"write --since {whole.replace(' ', 'T')}Z for UTC, or {whole.replace(' ', 'T')}+02:00",
        )
    return text


def line(item: Received, wide: int = 0) -> Text:
    """One record as a readable line, in columns.

    Args:
        item: The record.
        wide: Width of the column of sources.
    """
    record = item.record
    head = f"{str(record.get('at') or record.get('captured_at'))[11:23]}  "
    text = Text(_clean(head), style="dim")
    text.append(f"{_clean(item.kind):<9} ", style=_STYLES.get(item.kind, ""))
    text.append(f"{_clean(item.source):<{wide}}  ", style="bold")
    text.append(_clean(_frame(record) if item.kind == "frame" else _event(record)), style="default")
    if item.snapshot:
        text.append("  (as it was)", style="dim")
    text.rstrip()
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
    what = str(record.get("label", ""))
    if "track_id" in record:
        what += f" #{record['track_id']}"
    words = [f"{what:<14}"] if what else []
    words += [str(record[key]) for key in ("state", "zone", "line", "action", "direction") if key in record]
    if "count" in record:
        words.append(f"{record['count']}")
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


def _say_losses(notes: Console, subscriber: Subscriber) -> None:
    """Say what a reader of the output cannot see in it."""
    said = []
    if subscriber.lost:
        said.append(
            f"{subscriber.lost} events are gone: the log no longer kept them when they were asked for"
        )
    if subscriber.resets:
        said.append(f"the pipeline came with another event log {subscriber.resets} times; numbers began anew")
    for words in said:
        notes.print(Text(words, style="yellow"))


def _say_silence(
    notes: Console, address: str, timeout: float | None, got: int, count: int | None, malformed: int
) -> None:
    what = f"only {got} of {count} records came" if got else "nothing came"
    hint = "is the pipeline running, and does its config publish there? Filters may be too narrow, too."
    if malformed:
        hint = f"{malformed} messages there were not framewire's: is it the right address?"
    notes.print(Text(f"{what} from {address} within {timeout:g} s\n  -> {hint}", style="red"))
