"""What went wrong with a stream: FFmpeg's errors as a reason, a sentence, and what to type instead."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import av

from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.sources.live.address import Address
from pipeline.sources.live.avlog import Line

__all__ = [
    "Fault",
    "behind_fault",
    "certificate_fault",
    "connect_fault",
    "device_fault",
    "lost_fault",
    "raised",
]

#: ``method DESCRIBE failed: 461 Unsupported Transport`` and ``HTTP error 503 Service Unavailable``.
_REPLY = re.compile(r"(?:method (?P<method>\w+) failed:|HTTP error) (?P<code>\d{3})")
_UNREACHABLE = {
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.EHOSTDOWN: "that host is down",
    errno.EADDRNOTAVAIL: "this computer has no address to reach it from",
}
_CODES = {
    av.error.HTTPUnauthorizedError: 401,
    av.error.HTTPForbiddenError: 403,
    av.error.HTTPNotFoundError: 404,
}
_CHECK_URL = "check host and port of the URL, and that the camera is switched on"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a stream cannot be read, or was lost.

    Attributes:
        reason: ``auth``, ``not_found``, ``timeout``, ``codec``, ``network`` or ``tls``.
        message: What is wrong; holds no credential.
        hint: What to do about it.
        final: Whether trying again can never help.
    """

    reason: str
    message: str
    hint: str
    final: bool = False


def raised(fault: Fault, name: str, *, lost: bool = False) -> SourceError | ConfigError:
    """The exception that a fault becomes: final ones are errors of configuration."""
    if fault.final:
        return ConfigError(fault.message, hint=fault.hint, source=name)
    kind = SourceLostError if lost else SourceError
    return kind(fault.message, reason=fault.reason, hint=fault.hint, source=name)


def connect_fault(
    error: Exception, lines: Sequence[Line], address: Address, *, timed_out: bool, timeout_s: float
) -> Fault:
    """Why a stream could not be opened.

    Args:
        error: What PyAV raised. Its text is not repeated: it holds the URL.
        lines: What FFmpeg logged meanwhile.
        address: What was to be opened.
        timed_out: Whether the time was up.
        timeout_s: How long that time was.
    """
    if address.scheme == "v4l2":
        return device_fault(error, address.shown)
    fault = _refusal(error, lines, address) or _tls(lines, address) or _transport(error, address.shown)
    if fault is None and (timed_out or isinstance(error, av.error.ExitError | TimeoutError)):
        fault = Fault("timeout", f"{address.shown} does not answer within {timeout_s:g} s", _CHECK_URL)
    if fault is None and any("End of file" in line.text for line in lines):
        error = EOFError()  # FFmpeg's RTSP makes "invalid data" of it.
    return fault or _no_stream(error, address)


def lost_fault(error: Exception | None, address: Address, *, silent_s: float, timeout_s: float) -> Fault:
    """Why a stream broke that had been open.

    Args:
        error: What PyAV raised; None when the stream came to an orderly end.
        address: What was open.
        silent_s: For how long nothing had come.
        timeout_s: How long that may be.
    """
    shown = address.shown
    if address.scheme == "v4l2":
        fault = device_fault(error or OSError(errno.ENODEV, ""), shown)
    elif error is None or isinstance(error, EOFError):
        fault = Fault("network", f"{shown}: the camera closed the connection", "")
    elif isinstance(error, av.error.ExitError | TimeoutError) or silent_s >= timeout_s:
        hint = "check the camera and the network"
        fault = Fault("timeout", f"{shown} sent nothing for {silent_s:.1f} s", hint)
    elif (found := _transport(error, shown)) is not None:
        fault = found
    elif isinstance(error, av.error.InvalidDataError):
        fault = Fault("codec", f"{shown} sends what FFmpeg cannot read", "check the camera and the network")
    else:
        fault = Fault("network", f"{shown}: the connection broke ({_words(error)})", "check the network")
    return fault


def behind_fault(address: Address, behind_s: float) -> Fault:
    """The pictures of a stream have fallen behind for good; ``behind_s`` is by how much, seconds."""
    message = f"{address.shown}: pictures come {behind_s:.0f} s late: the way is too slow for this stream"
    return Fault("network", message, "take the camera's smaller stream, or lower its bit rate")


def certificate_fault(address: Address, tls_ca: str | None, timeout_s: float) -> Fault | None:
    """What exactly is wrong with a server's certificate; FFmpeg only says that something is.

    Connects once more, with Python's own TLS. None when that finds nothing wrong.
    """
    try:
        context = ssl.create_default_context(cafile=tls_ca)
    except OSError as error:
        message = f"tls_ca: {tls_ca} cannot be used: {error.strerror}"
        return Fault("tls", message, "give a file of PEM certificates")
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
    except ssl.SSLError:
        return Fault("tls", f"{address.shown} does not speak TLS there", _plain_hint(address))
    except OSError:
        return None
    if "self" in why:
        hint = "give its certificate as tls_ca: FILE, or tls_verify: false to trust whoever answers"
    elif "ismatch" in why or "not valid for" in why:
        hint = "give the host as its certificate names it, or tls_verify: false to trust whoever answers"
    elif "expired" in why or "not yet valid" in why:
        hint = "renew it, check the clocks, or give tls_verify: false to trust whoever answers"
    else:
        hint = "give its issuer's certificate as tls_ca: FILE, or tls_verify: false to trust whoever answers"
    return Fault("tls", f"{address.shown}: the certificate is refused: {why}", hint)


def device_fault(error: Exception, shown: str) -> Fault:
    """Why a camera of this computer cannot be read.

    Args:
        error: What the system, or PyAV, raised.
        shown: Path of the device.
    """
    code = getattr(error, "errno", None)
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
        hint = "plug it in; ls /dev/video* shows those there are"
        return Fault("not_found", f"there is no camera {shown}", hint)
    if code in (errno.EACCES, errno.EPERM):
        hint = "add the user to the group video: sudo usermod -aG video $USER, then log in again"
        return Fault("auth", f"{shown} may not be read by this user", hint)
    if code == errno.EBUSY:
        hint = f"close that program; fuser -v {shown} names it"
        return Fault("network", f"{shown} is in use by another program", hint)
    if code in (errno.ENOTTY, errno.EINVAL):
        return Fault("codec", f"{shown} is no camera, or gives no pictures", "give another /dev/video*")
    return Fault("codec", f"{shown} cannot be read ({_words(error)})", "give another /dev/video*")


def _refusal(error: Exception, lines: Sequence[Line], address: Address) -> Fault | None:
    """What a reply with a status code says."""
    code = next((int(match["code"]) for line in reversed(lines) if (match := _REPLY.search(line.text))), 0)
    code = next((value for kind, value in _CODES.items() if isinstance(error, kind)), code)
    if not code and not isinstance(error, av.error.HTTPError):
        return None
    shown = address.shown
    number = f" ({code})" if code else ""
    if code in (401, 407) and address.login:
        hint = "check username and password; percent-quote characters such as @ / : in a URL"
        fault = Fault("auth", f"{shown} refuses the user name or password", hint)
    elif code in (401, 407):
        fault = Fault("auth", f"{shown} asks for a user name and password", "give username and password")
    elif code == 403:
        hint = "give a user who may see the live picture, and look whether the camera locked this one"
        fault = Fault("auth", f"{shown} forbids this user to see that stream", hint)
    elif code in (404, 410, 454):
        hint = "check the URL's path; the camera's manual or its ONVIF profile has it"
        fault = Fault("not_found", f"{shown} has no stream {address.path or 'of that path'}", hint)
    elif code == 461:
        hint = "give another transport: tcp, udp, multicast or http"
        fault = Fault("network", f"{shown} does not send over {address.transport}", hint)
    elif code in (453, 503):
        hint = "close other viewers, or take a smaller stream"
        fault = Fault("network", f"{shown} serves no more viewers now{number}", hint)
    elif 400 <= code < 500:
        fault = Fault("not_found", f"{shown} refuses the request{number}", "check the URL")
    else:
        hint = "restart the camera or server"
        fault = Fault("network", f"{shown} reports an error of its own{number}", hint)
    return fault


def _no_stream(error: Exception, address: Address) -> Fault:
    """What is reached and answers, but gives no stream."""
    shown = address.shown
    if isinstance(error, av.error.ProtocolNotFoundError):
        fault = Fault(
            "codec",
            f"this FFmpeg was built without {address.scheme}://",
            "have the stream sent over rtsp, http, rtmp or udp, or build PyAV against an FFmpeg that has it",
            final=True,
        )
    elif isinstance(error, av.error.DecoderNotFoundError | av.error.DemuxerNotFoundError):
        fault = Fault("codec", f"{shown}: this FFmpeg cannot read such a stream", "set the camera to H.264")
    elif isinstance(error, ValueError) and not isinstance(error, av.FFmpegError):
        hint = "leave options.format out, or give a demuxer of FFmpeg's"
        fault = Fault("codec", "options.format: this FFmpeg has no such demuxer", hint, final=True)
    elif isinstance(error, EOFError):
        hint = "it may serve too many viewers already, or speak another protocol on that port"
        fault = Fault("network", f"{shown} closes the connection at once", hint)
    elif isinstance(error, FileNotFoundError):
        fault = Fault("not_found", f"{shown} has no stream {address.path}", "check the URL's path")
    elif isinstance(error, av.error.InvalidDataError):
        spoken = "RTSP" if address.rtsp else "a video stream that FFmpeg knows"
        fault = Fault("network", f"{shown} answers, but not with {spoken}", "check port and path of the URL")
    else:
        fault = Fault("network", f"{shown} cannot be read ({_words(error)})", _CHECK_URL)
    return fault


def _words(error: Exception) -> str:
    """The kind of an error in a few words, without the URL."""
    code = getattr(error, "errno", None)
    if isinstance(code, int) and code in errno.errorcode:
        return os.strerror(code).lower()
    return type(error).__name__.removesuffix("Error")


def _tls(lines: Sequence[Line], address: Address) -> Fault | None:
    said = [line.text for line in lines if line.origin == "tls"]
    if not said or not address.secure:
        return None
    if any("verif" in text for text in said):
        hint = "give its certificate as tls_ca: FILE, or tls_verify: false to trust whoever answers"
        return Fault("tls", f"{address.shown}: the certificate is refused", hint)
    if any("does not match" in text for text in said):
        hint = "give the host as its certificate names it, or tls_verify: false to trust whoever answers"
        return Fault("tls", f"{address.shown}: the certificate is for another host", hint)
    if any("unexpected TLS packet" in text for text in said):
        return Fault("tls", f"{address.shown} does not speak TLS there", _plain_hint(address))
    return Fault("tls", f"{address.shown}: no TLS connection can be made", "check the port")


def _plain_hint(address: Address) -> str:
    return f"give the port that speaks TLS, or {address.scheme[:-1]}:// for a plain connection"


def _transport(error: Exception, shown: str) -> Fault | None:
    """Faults of the network below."""
    code = getattr(error, "errno", None)
    if isinstance(error, ConnectionRefusedError):
        return Fault("network", f"{shown} refuses the connection: nothing listens there", _CHECK_URL)
    if isinstance(error, ConnectionError):
        hint = "it may have restarted, or serve too many viewers"
        return Fault("network", f"{shown}: the connection was reset", hint)
    if code in _UNREACHABLE:
        return Fault("network", f"{shown}: {_UNREACHABLE[code]}", _CHECK_URL)
    return None
