"""Where a live stream is, how it travels, and what of that may be shown."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import ConfigError, SourceError

__all__ = ["TRANSPORTS", "Address", "ffmpeg_options", "parse_address", "resolve"]

#: Transports of RTSP, and FFmpeg's name of each.
TRANSPORTS = {"tcp": "tcp", "udp": "udp", "multicast": "udp_multicast", "http": "http"}
_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
_SECURE = ("rtsps", "https", "rtmps")
_BUFFER_BYTES = 4 << 20
_HTTP = {"timeout": "{micros}", "live_start_index": "-1", "user_agent": "framewire"}
_UDP = {"timeout": "{micros}", "buffer_size": str(_BUFFER_BYTES), "overrun_nonfatal": "1"}
_BY_SCHEME = {
    "http": _HTTP,
    "https": _HTTP,
    "tcp": {"timeout": "{micros}"},
    "srt": {"timeout": "{micros}"},
    "udp": _UDP,
    "rtp": _UDP,
    "rtmp": {"rtmp_live": "live"},  # Its own `timeout` would make it listen.
    "rtmps": {"rtmp_live": "live"},
}
_CAMERA = re.compile(r"^(?:\d{1,2}|/dev/\S+)$")
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True, slots=True)
class Address:
    """A stream's address, taken apart.

    Attributes:
        url: What FFmpeg opens, credentials included: never to be shown.
        shown: The same for people: scheme, host and port. Paths and queries may hold passwords and keys.
        path: Path on the host, for messages about a wrong one; empty where it may hold a secret.
        scheme: ``rtsp``, ``https``, …; ``v4l2`` for a camera of this computer.
        host: Host to be looked up; empty for none.
        port: Port, 0 when it has none.
        transport: ``tcp``, ``udp``, ``multicast``, ``http``, or the scheme's own name.
        login: Whether it carries a user name or password.
    """

    url: str
    shown: str
    path: str
    scheme: str
    host: str
    port: int
    transport: str
    login: bool

    @property
    def rtsp(self) -> bool:
        """Whether it is RTSP, plain or over TLS."""
        return self.scheme in ("rtsp", "rtsps")

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in _SECURE


def parse_address(name: str, url: str, transport: str = "tcp") -> Address:
    """Take a URL apart.

    Args:
        name: Name of the source, for messages.
        url: URL of a stream, or ``0`` or ``/dev/video0`` for a camera of this computer.
        transport: For RTSP: ``tcp``, ``udp``, ``multicast`` or ``http``.

    Raises:
        ConfigError: it is no URL, or there is no such transport; nothing of its credentials is repeated.
    """
    if transport not in TRANSPORTS:
        raise ConfigError(
            f"sources.{name}.transport: there is no transport {transport!r}",
            hint=f"it can be {', '.join(TRANSPORTS)}",
            source=name,
        )
    if _CAMERA.match(url):
        path = f"/dev/video{int(url)}" if url.isdecimal() else url
        return Address(path, path, path, "v4l2", "", 0, "v4l2", False)
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port or 0
    except ValueError:
        raise _no_url(name) from None
    if not scheme or not (host or parts.netloc or scheme in ("udp", "rtp", "srt", "tcp")):
        raise _no_url(name)
    if scheme == "rtspt":
        scheme, transport, url = "rtsp", "tcp", "rtsp" + url[len("rtspt") :]
    rtsp = scheme in ("rtsp", "rtsps")
    shown_host = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{shown_host}{f':{port}' if port else ''}"
    return Address(
        url=url,
        shown=shown,
        path=_harmless_path(parts, scheme),
        scheme=scheme,
        host=host,
        port=port or _DEFAULT_PORTS.get(scheme, 0),
        transport=transport if rtsp else scheme,
        login=bool(parts.username or parts.password),
    )


def ffmpeg_options(
    address: Address, *, timeout_s: float, tls_verify: bool, tls_ca: str | None
) -> tuple[str | None, dict[str, str]]:
    """The demuxer to force, None for FFmpeg's choice, and the options to open the stream with.

    Args:
        address: What will be opened.
        timeout_s: Longest wait for one reply or packet.
        tls_verify: Whether a certificate must be valid.
        tls_ca: Certificates to trust instead of the system's; a PEM file.
    """
    micros = str(round(timeout_s * 1e6))
    options = {"flags": "low_delay"}
    if address.rtsp:
        # The SDP says what there is, so nothing needs to be read ahead. `nobuffer` would lose the first GOP.
        options |= {"probesize": "32", "analyzeduration": "0", "timeout": micros}
        options["rtsp_transport"] = TRANSPORTS[address.transport]
        if address.transport in ("tcp", "http"):
            # Over TCP nothing needs reordering, but without a queue FFmpeg does not say what is missing.
            options["reorder_queue_size"] = "2"
        else:
            options["buffer_size"] = str(_BUFFER_BYTES)
    elif address.scheme != "v4l2":
        options |= {"probesize": str(1 << 20), "analyzeduration": "1000000"}
        options |= {
            key: value.format(micros=micros) for key, value in _BY_SCHEME.get(address.scheme, {}).items()
        }
    if address.secure:
        options["tls_verify"] = "1" if tls_verify else "0"
        ca_file = tls_ca or _system_ca()
        if tls_verify and ca_file:
            options["ca_file"] = ca_file
    return "v4l2" if address.scheme == "v4l2" else None, options


def resolve(name: str, address: Address, timeout_s: float) -> None:
    """Look the host's name up, within a bound: FFmpeg's own look-up cannot be interrupted.

    The answer is not used, but FFmpeg then gets it quickly, and a wrong name gets a message of its own.

    Raises:
        SourceError: there is no such name, or no answer in time.
    """
    if not address.host:
        return
    failure: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            socket.getaddrinfo(address.host, address.port or None)
        except OSError as error:
            failure.append(error)
        done.set()

    threading.Thread(target=look_up, name="dns", daemon=True).start()
    if not done.wait(timeout_s):
        raise SourceError(
            f"{address.shown}: the name server gives no answer for {address.host}",
            reason="network",
            hint="check this computer's DNS, or give the camera's IP address",
            source=name,
        )
    if failure:
        raise SourceError(
            f"{address.shown}: nobody knows the name {address.host}",
            reason="network",
            hint="check the spelling, or give the camera's IP address",
            source=name,
        )


def _system_ca() -> str | None:
    """The system's certificates: FFmpeg's wheel was built elsewhere and would look in the wrong place."""
    paths = (ssl.get_default_verify_paths().cafile, *_CA_FILES)
    return next((path for path in paths if path and Path(path).is_file()), None)


def _harmless_path(parts: SplitResult, scheme: str) -> str:
    """The path, unless a key or password may be in it, as in ``/user=admin_password=…`` or RTMP's."""
    secret = scheme.startswith("rtmp") or any(sign in parts.path for sign in "=@;")
    # A long word may be a token.
    secret = secret or any(len(word) > 24 for word in parts.path.split("/"))
    return "" if secret else parts.path


def _no_url(name: str) -> ConfigError:
    return ConfigError(
        f"sources.{name}.url is no URL of a stream",
        hint="give rtsp://USER:PASSWORD@HOST/PATH, with characters such as @ / : of the password "
        "percent-quoted, or put username and password beside url",
        source=name,
    )
