"""A picture from an address that a client names: only from hosts that the operator has listed.

A server that fetches what it is told to is a way into the network behind it. So a name is resolved once and
the connection goes to the address that was checked; it must be a public one, unless the operator has listed
the address itself. Redirects are not followed, no proxy of the environment is used, and time and size are
bounded from the first byte on.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.web.problems import Problem

__all__ = ["Hosts", "fetch", "is_public", "parse_hosts"]

_ENTRY = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:=/@\s]+)(?::(?P<port>\d{1,5}))?(?:=(?P<to>[^\s=]+))?"
)
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CHUNK = 65_536

#: Host and port (None: the scheme's own) to the address that stands for it; None: ask the resolver.
Hosts = Mapping[tuple[str, int | None], str | None]


def parse_hosts(entries: Sequence[str]) -> Hosts:
    """The hosts that pictures may be fetched from.

    Args:
        entries: ``images.example.com``; with a port ``images.example.com:8443``; with the address in place of
            the resolver's ``nas.local=192.168.1.5``, which may be private; or an address itself.

    Raises:
        ConfigError: an entry is none of these.
    """
    found: dict[tuple[str, int | None], str | None] = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        port = int(match["port"]) if match and match["port"] else None
        host = match["host"].strip("[]").lower() if match else ""
        pinned = (match["to"] if match else None) or (host if _address(host) else None)
        if not match or (port is not None and not 0 < port < 65536) or (pinned and not _address(pinned)):
            raise ConfigError(
                f"{entry!r} names no host to fetch from",
                hint="write images.example.com, images.example.com:8443, or nas.local=192.168.1.5",
            )
        found[host, port] = pinned
    return found


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, seen through what may wrap it in IPv6."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        wrapped = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if wrapped is None and found in _NAT64:
            wrapped = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    return found.is_global and not found.is_multicast


@dataclass(frozen=True)
class _Target:
    """Where to connect, and what to ask for there."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]
    path: str


def fetch(url: str, hosts: Hosts, *, max_bytes: int, timeout_s: float) -> bytes:
    """Get a file. Blocks; the caller bounds how long it waits for the resolver, which nobody can stop.

    Args:
        url: ``http`` or ``https``.
        hosts: Where it may lie.
        max_bytes: Largest file that is taken.
        timeout_s: Longest time for connecting and for all of the answer.

    Raises:
        Problem: 400 the URL is none, 403 the host is not allowed, 413 the file is too large, 502 the host
            does not give it, 504 not in time.
    """
    target = _checked(url, hosts)
    with contextlib.ExitStack() as stack:
        bound = _Bound(timeout_s)
        stack.callback(bound.end)
        try:
            connection = _connected(target, timeout_s)
            stack.callback(connection.close)
            bound.start(connection)
            headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "framewire"}
            connection.request("GET", target.path, headers=headers)
            response = connection.getresponse()
            stack.callback(response.close)
            return _body(response, target.host, max_bytes, bound)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if bound.cut or isinstance(error, TimeoutError):
                raise Problem(504, f"{target.host} did not give the file within {timeout_s:g} s") from error
            raise Problem(502, f"{target.host} cannot be asked: {_why(error)}") from error


def _checked(url: str, hosts: Hosts) -> _Target:
    try:
        if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
            raise ValueError("characters that have to be percent-quoted")
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Problem(400, f"the url cannot be read: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise Problem(400, "the url is to start with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise Problem(400, "the url holds a user name or password; it is not taken")
    own = _PORTS[parts.scheme]
    port = own if port is None else port
    keys = [(host, port)] + ([(host, None)] if port == own else [])
    key = next((key for key in keys if key in hosts), None)
    if key is None:
        hint = "the operator lists hosts with --allow-url-host" + ("" if hosts else "; none is listed")
        raise Problem(403, f"pictures are not fetched from {host}:{port}", hint=hint)
    pinned = hosts[key]
    addresses = (pinned,) if pinned is not None else _resolved(host, port)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, host, port, addresses, path)


def _resolved(host: str, port: int) -> tuple[str, ...]:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Problem(502, f"the name {host} cannot be resolved") from error
    addresses = tuple(dict.fromkeys(str(row[4][0]) for row in rows))
    if not all(is_public(address.partition("%")[0]) for address in addresses):
        # Which address it is stays here: the answer is no way to explore a network.
        raise Problem(
            403, f"{host} is not on the public internet",
            hint=f"the operator can list it with its address: --allow-url-host {host}=ADDRESS",
        )  # fmt: skip
    return addresses


def _connected(target: _Target, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to an address that was checked, under the name that was asked for."""
    failure: OSError = OSError("no address")
    for address in target.addresses:
        try:
            sock = socket.create_connection((address, target.port), timeout_s)
        except OSError as error:
            failure = error
            continue
        if target.scheme == "https":
            try:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=target.host)
            except OSError:
                sock.close()
                raise
        connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
        connection.default_port = _PORTS[target.scheme]  # for the Host header
        connection.sock = sock
        return connection
    raise failure


def _body(response: http.client.HTTPResponse, host: str, max_bytes: int, bound: _Bound) -> bytes:
    if 300 <= response.status < 400:
        raise Problem(502, f"{host} redirects to another address; that is not followed")
    if response.status != 200:
        raise Problem(502, f"{host} answers with status {response.status}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise Problem(502, f"{host} packs its answer, although it was asked not to")
    data = bytearray()
    while chunk := response.read1(_CHUNK):
        data += chunk
        if len(data) > max_bytes or (response.length or 0) > max_bytes:
            raise Problem(413, f"the file at {host} is larger than {max_bytes:,} bytes")
    if bound.cut:  # without a length, an answer that was cut looks whole
        raise TimeoutError
    if response.length:
        raise Problem(502, f"{host} broke off before the file was whole")
    return bytes(data)


class _Bound:
    """Cuts a connection when its time is over, however steadily it drips."""

    def __init__(self, timeout_s: float) -> None:
        self.cut = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True

    def start(self, connection: http.client.HTTPConnection) -> None:
        self._socket = connection.sock
        self._timer.start()

    def end(self) -> None:
        self._timer.cancel()

    def _cut(self) -> None:
        self.cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _why(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "it broke off before the file was whole"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    return (error.strerror if isinstance(error, OSError) else "") or "its answer is no HTTP"
