"""``framewire serve``: pictures over HTTP."""

from __future__ import annotations

import logging
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from pipeline.errors import ConfigError
from pipeline.models.base import prepare

__all__ = ["serve"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?(?:b|p|px)?", re.IGNORECASE)
_SHORTEST_TOKEN = 16
#: For what nobody waits for any more.
_LAST_WAIT_S = 2.0
_HERE = ("localhost", "127.0.0.1", "[::1]")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8080,
    model: Annotated[
        str, typer.Option(help="Detector: name from `models list`, or an ONNX file.")
    ] = "default",
    classifier: Annotated[
        str | None, typer.Option(help="Classifier for /v1/classify, such as default-classifier.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")] = "auto",
    max_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Largest file that is taken.")] = "20MB",
    max_pixels: Annotated[str, typer.Option(metavar="COUNT", help="Most pixels of a picture.")] = "50M",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Pictures looked at at the same time.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of one inference on the CPU.", show_default=False)
    ] = None,
    queue: Annotated[int, typer.Option(min=0, max=10_000, help="Requests that may wait.")] = 16,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest time for a body or an answer, s.")] = 30.0,
    allow_url_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help='Take {"url": …} of this host; HOST=ADDRESS for a private one.'),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Answer to this name, too: of a proxy before it.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients send; or FRAMEWIRE_TOKEN.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines ask without a token.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No access log.")] = False,
) -> None:
    """Answer HTTP requests: POST a picture to /v1/tag, /v1/detect, /v1/localize or /v1/classify.

    A page for trying it is at /, what a program needs to know at /openapi.json. Ends on SIGTERM with exit
    code 0, on Ctrl-C with 130; requests under way are answered first.

    Example: framewire serve --port 8080 --classifier default-classifier
    """
    _check_installed()
    from pipeline.config.fields import is_loopback
    from pipeline.web.app import Limits, make_app
    from pipeline.web.fetching import parse_hosts
    from pipeline.web.server import bind
    from pipeline.web.server import serve as answer
    from pipeline.web.service import Service

    token = _token(token_file)
    here = is_loopback(host)
    if not here and not token and not insecure:
        raise ConfigError(
            f"{host} can be reached from other machines, and there is no token",
            hint="give --token-file FILE, or --insecure where everybody may ask",
        )
    names = [*(allow_host or ())]
    if here and not token:
        names += [*_HERE, f"[{host}]" if ":" in host else host]
    limits = Limits(
        max_bytes=_amount(max_bytes, "--max-bytes"),
        max_pixels=_amount(max_pixels, "--max-pixels"),
        timeout_s=timeout,
        hosts=parse_hosts(allow_url_host or ()),
        token=token,
        names=names,
    )
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("pipeline.web").setLevel(logging.WARNING if quiet else logging.INFO)
    # What is wrong with a request is in our own lines, with the address of who sent it.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    models = [model] if classifier is None else [model, classifier]
    with bind(host, port) as sock:
        for name in models:
            prepare(name)
        service = Service(
            models, device=device, workers=workers, threads=threads, queue_limit=queue, timeout_s=timeout
        )
        service.open()
        try:
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{sock.getsockname()[1]}/"

            def ready() -> None:
                for kind, spec in service.specs.items():
                    notes.print(Text(f"{kind} {spec.name} ({spec.family}) on {spec.provider}", style="dim"))
                notes.print(Text(f"listening at {address}, Ctrl-C stops"))

            code = answer(make_app(service, limits), sock, ready=ready, stop_s=timeout)
        finally:
            ended = service.close(min(timeout, _LAST_WAIT_S))
    if not ended:  # a decoder that goes on and on: its thread would keep us for as long
        logging.shutdown()
        os._exit(code)
    if code:
        raise typer.Exit(code)


def _check_installed() -> None:
    missing = [name for name in ("fastapi", "python_multipart", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serve needs what is not installed: {', '.join(missing)}", hint="pip install 'framewire[web]'"
        )


def _token(path: Path | None) -> str:
    """The token that clients have to send; empty for none."""
    where, text = "FRAMEWIRE_TOKEN", os.environ.get("FRAMEWIRE_TOKEN", "")
    if path is not None:
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"the token file {path} cannot be read: {why}") from error
    token = text.strip()
    if (token or path is not None) and not re.fullmatch(rf"[!-~]{{{_SHORTEST_TOKEN},}}", token):
        raise ConfigError(
            f"{where} holds no token: one word of {_SHORTEST_TOKEN} characters or more, without blanks",
            hint="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one",
        )
    return token


def _amount(text: str, option: str) -> int:
    match = _AMOUNT.fullmatch(text.strip())
    found = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if found < 1:
        raise ConfigError(f"{option} is {text!r}, no amount", hint="write 500k, 20MB or 50M")
    return found
