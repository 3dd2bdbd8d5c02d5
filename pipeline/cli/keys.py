"""``framewire keys``: who may subscribe to the event stream when it is encrypted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.errors import ConfigError, FramewireError
from pipeline.transport.keyring import Keyring

__all__ = ["app", "list_keys", "new", "revoke"]

app = typer.Typer(
    help="Make, list and revoke keys of those who may subscribe.\n\nExample: framewire keys new desk",
    no_args_is_help=True,
)

_Folder = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FOLDER",
        help="Folder of the keys, as in the config; left out: ~/.config/framewire/keys.",
        show_default=False,
    ),
]


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the client: letters, digits, _ and -.")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where to write the key file; - prints it.")
    ] = None,
    keys: _Folder = None,
) -> None:
    """Make the keys of a client. A pipeline that runs with this folder lets it in at once.

    The key file is the only copy of the client's secret: whoever has it can read the stream.

    Example: framewire keys new desk
    """
    keyring = Keyring(keys)
    path = None if out == "-" else Path(out or f"{name}.key.json").expanduser()
    if path is not None and (path.exists() or path.is_symlink()):
        raise ConfigError(f"{path} exists already", hint="name another file: --out FILE")
    bundle = keyring.new(name)
    if path is None:
        sys.stdout.write(bundle.json().decode())
        return
    try:
        bundle.write(path)
    except FramewireError:
        keyring.revoke(name)  # nobody has the secret
        raise
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(f"{path}: the keys of {name}; keep the file secret, there is no copy"))
    console.print(
        Text(f"  publish:  - zmq: tcp://0.0.0.0:5556\n              keys: {keyring.folder.absolute()}")
    )
    console.print(Text(f"  there:    framewire listen --keys {path.name} tcp://HOST:5556"))


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")] = False,
    keys: _Folder = None,
) -> None:
    """Who may subscribe, and since when. Shows public keys only.

    Example: framewire keys list
    """
    keyring = Keyring(keys)
    clients = keyring.clients()
    for file in keyring.damaged():
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            Text(f"{keyring.folder / 'clients' / file} is no key of a client, and lets nobody in"),
            style="yellow",
        )
    if as_json:
        rows = [{"name": one.name, "created": one.created, "public": one.public} for one in clients]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table("client", "created", "public key", box=None, pad_edge=False, header_style="bold")
    for one in clients:
        table.add_row(*(Text(cell, overflow="fold") for cell in (one.name, one.created, one.public)))
    console = Console(highlight=False, soft_wrap=True)
    if clients:
        console.print(table)
    else:
        console.print(Text(f"nobody: no keys in {keyring.folder}"))


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the client.")],
    keys: _Folder = None,
) -> None:
    """Let a client in no more; one that is connected is cut off within two seconds or so.

    The others are connected anew, and miss nothing.

    Example: framewire keys revoke desk
    """
    Keyring(keys).revoke(name)
    typer.echo(f"{name} is let in no more", err=True)
