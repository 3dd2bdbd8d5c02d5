"""``framewire sources``: find cameras on the network, and judge a stream before it is put into a config."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.live import add, list_sources, remove
from pipeline.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from pipeline.sources.discovery.advice import Advice
    from pipeline.sources.discovery.onvif import Details
    from pipeline.sources.discovery.probe import Device, Found
    from pipeline.sources.survey import Survey

__all__ = ["app"]

app = typer.Typer(help="Find, judge, list, add and remove sources.", no_args_is_help=True)

app.command("list")(list_sources)
app.command("add")(add)
app.command("remove")(remove)

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead, for programs.")]
_ASKED_AT_ONCE = 16


@app.command("probe")
def probe(
    url: Annotated[
        str, typer.Argument(help="Stream, /dev/video0, or video file; ${NAME} is taken from the environment.")
    ],
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="How long to measure.")] = 5.0,
    transport: Annotated[str, typer.Option(help="Of RTSP: tcp, udp, multicast or http.")] = "tcp",
    decode: Annotated[str, typer.Option(help="auto, cpu, or a device such as cuda or vaapi.")] = "auto",
    tls_ca: Annotated[
        str, typer.Option(help="Certificates to trust instead of the system's; a PEM file.")
    ] = "",
    tls_verify: Annotated[bool, typer.Option(help="Whether a certificate must be valid.")] = True,
    connect_timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait to connect, seconds.")] = 10.0,
    read_timeout: Annotated[float, typer.Option(min=0.1, help="Longest silence, seconds.")] = 5.0,
    model_px: Annotated[int, typer.Option(min=1, help="Width at which the model will look.")] = 416,
    as_json: _AsJson = False,
) -> None:
    """Connect to a stream for some seconds, show what it is like, and say what to change.

    Exit code 3 when it cannot be read, with the reason: auth, not_found, timeout, codec, network or tls.

    Example: framewire sources probe 'rtsp://viewer:${GATE_PASSWORD}@10.0.0.7/stream1'
    """
    from pipeline.config import expand, redact
    from pipeline.sources.discovery.advice import advise
    from pipeline.sources.survey import survey

    filled = expand(url, os.environ)
    typer.echo(f"measuring for {seconds:g} s …", err=True)
    try:
        found = survey(
            filled,
            seconds=seconds,
            transport=transport,
            decode=decode,
            tls_verify=tls_verify,
            tls_ca=tls_ca or None,
            connect_timeout_s=connect_timeout,
            read_timeout_s=read_timeout,
        )
    except SourceError as error:
        if as_json:
            problem = {"reason": error.reason, "message": redact(error.message), "hint": redact(error.hint)}
            typer.echo(json.dumps({"error": problem}, indent=2))
        typer.echo(f"reason: {error.reason}", err=True)
        raise
    advice = advise(found, model_px)
    if as_json:
        figures = {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(found).items()}
        typer.echo(json.dumps(figures | {"advice": [asdict(one) for one in advice]}, indent=2))
        return
    _show_survey(found, advice)


@app.command("discover")
def discover(
    timeout: Annotated[
        float, typer.Option(min=0.1, max=60, help="How long to listen for answers, seconds.")
    ] = 3.0,
    interface: Annotated[str, typer.Option(help="Own address of the network to ask; all if not given.")] = "",
    to: Annotated[
        str, typer.Option(help="Ask this host alone: behind a router or VPN, where broadcasts do not pass.")
    ] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that devices listen at.")] = 3702,
    username: Annotated[
        str, typer.Option(envvar="ONVIF_USER", help="User of the cameras: they are then asked for streams.")
    ] = "",
    password_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds the password.")
    ] = "ONVIF_PASSWORD",  # noqa: S107 - the name of a variable
    ask: Annotated[bool, typer.Option("--ask", help="Ask for streams even without a user.")] = False,
    tls_verify: Annotated[bool, typer.Option(help="Whether a certificate must be valid.")] = True,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print a sources: section for a config.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Ask the network for ONVIF cameras, and with a user and password the cameras for their streams.

    The password is never sent, only a digest of it. Every camera that answers gets one: on a network that
    strangers can join, ask your own cameras one by one with --to.

    Example: framewire sources discover
    """
    from pipeline.sources.discovery.probe import find_devices

    if as_yaml and as_json:
        raise ConfigError("--yaml and --json cannot be printed both", hint="give one of them")
    password = os.environ.get(password_env, "")
    if username and not password:
        raise ConfigError(
            f"there is a user, but the environment variable {password_env} holds no password",
            hint=f"type: read -rs {password_env} && export {password_env}",
        )
    typer.echo(f"asking {to or 'the network'} for {timeout:g} s …", err=True)
    found = find_devices(timeout_s=timeout, interface=interface, to=to, port=port)
    told: list[Details | None] = [None] * len(found.devices)
    if (username or ask) and found.devices:
        typer.echo(f"asking {len(found.devices)} for their streams …", err=True)
        told = _ask_all(found.devices, username, password, tls_verify)
    pairs = list(zip(found.devices, told, strict=True))
    if as_json:
        typer.echo(
            json.dumps({"devices": [_row(*pair) for pair in pairs], "ignored": found.ignored}, indent=2)
        )
    elif as_yaml:
        from pipeline.sources.discovery.snippet import as_yaml as snippet

        user = "ONVIF_USER"
        typer.echo(
            snippet(pairs, user_variable=user, password_variable=password_env, login=bool(username)), nl=False
        )
    else:
        _show_devices(pairs, username)
    _say_what_is_missing(found, told, bool(username or ask), to)


def _ask_all(devices: list[Device], username: str, password: str, tls_verify: bool) -> list[Details | None]:
    from pipeline.sources.discovery.onvif import Details, ask_device

    def one(device: Device) -> Details:
        if not device.urls:
            return Details(refused="it names no service to ask", reason="not_found")
        return ask_device(device.urls[0], username=username, password=password, tls_verify=tls_verify)

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return list(pool.map(one, devices))


def _say_what_is_missing(found: Found, told: list[Details | None], asked: bool, to: str) -> None:
    """On stderr: why there may be less than expected."""
    if found.ignored:
        typer.echo(f"{found.ignored} answers were none that can be read", err=True)
    if not found.devices:
        asked_from = ", ".join(address for address in found.asked_from if address)
        typer.echo(f"nobody answered{f' (asked from {asked_from})' if asked_from else ''}", err=True)
        place = "the address wrong" if to else "the camera on another network: try --interface, or --to"
        typer.echo(f"  -> ONVIF may be off in it, a firewall in the way (UDP 3702), or {place}", err=True)
    elif not asked:
        typer.echo("for their streams: export ONVIF_USER=… ONVIF_PASSWORD=…, or give --ask", err=True)
    elif any(one is not None and one.reason == "auth" for one in told):
        typer.echo("where the login was refused: many cameras keep ONVIF users apart from others", err=True)


def _row(device: Device, details: Details | None) -> dict[str, Any]:
    return asdict(device) | {"details": None if details is None else asdict(details)}


def _show_devices(pairs: list[tuple[Device, Details | None]], username: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for device, details in pairs:
        name = device.name or device.hardware or "(no name)"
        more = [
            device.hardware if device.hardware != name else "",
            device.location and f"at {device.location}",
        ]
        about = "".join(f"  {part}" for part in more if part)
        console.print(Text.assemble((name, "bold"), f"{about}  ", (", ".join(device.addresses), "cyan")))
        for url in device.urls[:1]:
            console.print(Text(f"  service  {url}", style="dim"))
        if device.elsewhere:
            console.print(
                Text(f"  says it is at {', '.join(device.elsewhere)}, which was not asked", style="yellow")
            )
        if details is not None:
            for line in _details_lines(details):
                console.print(line)


def _details_lines(details: Details) -> Iterator[Text]:
    known = " ".join(part for part in (details.manufacturer, details.model, details.firmware) if part)
    if known:
        yield Text(f"  device   {known}")
    offset_s = details.clock_offset_s
    if offset_s is not None and abs(offset_s) > 1.5:  # It tells whole seconds.
        side = "ahead" if offset_s > 0 else "behind"
        yield Text(f"  clock    {abs(offset_s):.0f} s {side}: set NTP in the camera", style="yellow")
    for one in details.profiles:
        size = f"{one.width}x{one.height}" if one.width else ""
        rate = f"{one.fps:g} fps" if one.fps else ""
        bits = f"{one.bit_rate_kbps:g} kbit/s" if one.bit_rate_kbps else ""
        keys = (
            f"keyframe every {one.keyframe_every / one.fps:.2g} s" if one.keyframe_every and one.fps else ""
        )
        what = ", ".join(part for part in (one.codec, size, rate, bits, keys) if part)
        yield Text.assemble("  stream   ", (one.url or one.refused, "green" if one.url else "red"))
        yield Text(f"           {one.name}: {what}" if what else f"           {one.name}")
        if one.elsewhere and one.url:
            yield Text("           careful: that is another host than the camera", style="yellow")
    if details.refused:
        yield Text(f"  {details.reason}: {details.refused}", style="red")
    elif not details.profiles:
        yield Text("  it offers no stream", style="red")


def _show_survey(found: Survey, advice: list[Advice]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _survey_rows(found):
        table.add_row(key, Text(value))
    console.print(table)
    if not advice:
        console.print(Text("\nnothing to change", style="green"))
        return
    console.print()
    listed = Table(box=None, pad_edge=False, show_header=False)
    listed.add_column(no_wrap=True)
    listed.add_column(overflow="fold")
    for one in advice:
        listed.add_row(
            Text(one.level, style="bold yellow" if one.level == "warning" else "dim"), Text(one.text)
        )
    console.print(listed)


def _survey_rows(found: Survey) -> Iterator[tuple[str, str]]:
    """What the table shows, in the order in which one would ask."""

    def told(value: float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    live = found.kind != "file"
    yield "source", found.url
    yield "video", f"{found.codec} {found.profile}".rstrip() + f", {found.width}x{found.height}"
    declared = told(found.fps_declared, "{:.4g}")
    varies = ", varies" if found.variable_rate else ""
    yield "pictures/s", f"{told(found.fps_measured, '{:.4g}')} measured{varies} ({declared} declared)"
    if live:
        yield "jitter", told(found.jitter_ms, "{:.1f} ms (95 %)")
    interval = told(found.keyframe_interval_s, "{:.2f} s")
    least = f"every {found.keyframe_at_least_s:.1f} s or more" if found.keyframe_at_least_s else ""
    yield "keyframes", f"every {interval}" if found.keyframe_interval_s and not least else least or "-"
    yield "bit rate", told(found.bit_rate_kbps, "{:,.0f} kbit/s")
    yield "B-frames", {True: "yes", False: "no", None: "-"}[found.b_frames]
    yield "sound", found.audio or "none"
    if live:
        yield "transport", found.transport
    clock = found.clock or "-"
    if found.clock_offset_s is not None:
        clock += f", {found.clock_offset_s:+.3f} s against this computer"
    if found.clock_drift_ppm is not None:
        clock += f", drifts {found.clock_drift_ppm:+.1f} ppm"
    yield "clock", clock
    yield "decoder", found.decoder
    for refusal in found.refusals:
        yield "", refusal
    yield "decoding", told(found.decode_ms, "{:.1f} ms of CPU a picture")
    if live:
        first = told(found.first_picture_s, "{:.2f} s")
        yield "connected in", f"{told(found.connect_s, '{:.2f} s')}, first picture after {first}"
    damaged = f", {found.decode_errors} left out as damaged" if found.decode_errors else ""
    yield "seen", f"{found.pictures} pictures in {found.seconds:.1f} s{damaged}"
