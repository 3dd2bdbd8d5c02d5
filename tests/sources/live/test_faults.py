"""Every failure has a reason, a sentence and a hint, and shows no credential."""

from __future__ import annotations

import errno

import av
import pytest

from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.sources.live.address import parse_address
from pipeline.sources.live.avlog import Line
from pipeline.sources.live.device import check_device
from pipeline.sources.live.faults import Fault, connect_fault, device_fault, lost_fault, raised

URL = "rtsp://admin:hunter2@10.0.0.7/stream1?token=hunter2"
E = av.error


def reply(text: str) -> list[Line]:
    return [Line(24, "rtsp", text)]


def tls(text: str) -> list[Line]:
    return [Line(16, "tls", text)]


def made(kind: type[Exception], code: int = 1) -> Exception:
    """An error as PyAV raises it: with the URL in it."""
    return kind(code, "what it says", URL)


@pytest.mark.parametrize(
    ("url", "error", "lines", "reason", "message", "hint"),
    [
        (URL, made(E.HTTPUnauthorizedError), [], "auth", "refuses the user name or", "percent-quote"),
        ("rtsp://h/x", made(E.HTTPUnauthorizedError), [], "auth", "asks for a user name", "give username"),
        (URL, made(E.HTTPForbiddenError), [], "auth", "forbids this user", "locked"),
        (URL, made(E.HTTPNotFoundError), [], "not_found", "has no stream /stream1", "ONVIF"),
        ("rtsp://h/password=hunter2", made(E.HTTPNotFoundError), [], "not_found", "of that path", "path"),
        (URL, made(E.HTTPOtherClientError), reply("method SETUP failed: 461 Unsupported transport"),
         "network", "does not send over tcp", "udp, multicast"),
        (URL, made(E.HTTPOtherClientError), reply("method PLAY failed: 453 Not Enough Bandwidth"),
         "network", "no more viewers", "other viewers"),
        (URL, made(E.HTTPOtherClientError), reply("method SETUP failed: 454 Session Not Found"),
         "not_found", "has no stream", "path"),
        (URL, made(E.HTTPBadRequestError), reply("method DESCRIBE failed: 400 Bad Request"),
         "not_found", "refuses the request (400)", "URL"),
        (URL, made(E.HTTPServerError), reply("HTTP error 503 Service Unavailable"),
         "network", "no more viewers now (503)", "smaller"),
        (URL, made(E.HTTPServerError), reply("method DESCRIBE failed: 500 Internal Error"),
         "network", "an error of its own (500)", "restart"),
        (URL, made(E.ConnectionRefusedError), [], "network", "refuses the connection", "host and port"),
        (URL, made(E.ConnectionResetError), [], "network", "was reset", "viewers"),
        (URL, made(E.OSError, errno.EHOSTUNREACH), [], "network", "no way to that host", "host and port"),
        (URL, made(E.OSError, errno.ENETUNREACH), [], "network", "no way to that network", "host and port"),
        (URL, made(E.TimeoutError), [], "timeout", "does not answer within 7 s", "switched on"),
        (URL, made(E.ExitError), [], "timeout", "does not answer within 7 s", "switched on"),
        (URL, made(E.EOFError), [], "network", "closes the connection at once", "viewers"),
        (URL, made(E.InvalidDataError), reply("Failed reading RTSP data: End of file"),
         "network", "closes the connection at once", "protocol"),
        (URL, made(E.InvalidDataError), [], "network", "not with RTSP", "port"),
        ("http://h/x", made(E.InvalidDataError), [], "network", "not with a video stream", "port"),
        (URL, made(E.DecoderNotFoundError), [], "codec", "cannot read such a stream", "H.264"),
        ("rtsps://h/x", made(E.OSError, errno.EIO), tls("Peer certificate failed verification"),
         "tls", "the certificate is refused", "tls_ca"),
        ("rtsps://h/x", made(E.OSError, errno.EIO), tls("The certificate's owner does not match hostname h"),
         "tls", "another host", "tls_verify"),
        ("rtsps://h/x", made(E.OSError, errno.EIO), tls("An unexpected TLS packet was received."),
         "tls", "does not speak TLS", "rtsp://"),
        (URL, made(E.OSError, errno.EIO), [], "network", "input/output error", "host"),
    ],
)  # fmt: skip
def test_connecting(
    url: str, error: Exception, lines: list[Line], reason: str, message: str, hint: str
) -> None:
    fault = connect_fault(error, lines, parse_address("gate", url), timed_out=False, timeout_s=7.0)
    assert fault.reason == reason
    assert message in fault.message
    assert hint in fault.hint
    assert "hunter2" not in fault.message + fault.hint


def test_time_that_is_up_is_the_reason_whatever_ffmpeg_makes_of_it() -> None:
    address = parse_address("gate", URL)
    fault = connect_fault(made(E.InvalidDataError), [], address, timed_out=True, timeout_s=7.0)
    assert fault.reason == "timeout"


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (None, "network", "the camera closed the connection"),
        (made(E.EOFError), "network", "the camera closed the connection"),
        (made(E.ExitError), "timeout", "sent nothing for 0.4 s"),
        (made(E.TimeoutError), "timeout", "sent nothing for 0.4 s"),
        (made(E.ConnectionResetError), "network", "was reset"),
        (made(E.InvalidDataError), "codec", "cannot read"),
        (made(E.OSError, errno.EIO), "network", "the connection broke (input/output error)"),
    ],
)
def test_losing(error: Exception | None, reason: str, message: str) -> None:
    fault = lost_fault(error, parse_address("gate", URL), silent_s=0.4, timeout_s=5.0)
    assert (fault.reason, message in fault.message) == (reason, True)
    assert "hunter2" not in fault.message + fault.hint


@pytest.mark.parametrize(
    ("code", "reason", "message", "hint"),
    [
        (errno.ENOENT, "not_found", "there is no camera", "ls /dev/video*"),
        (errno.EACCES, "auth", "may not be read", "usermod -aG video"),
        (errno.EBUSY, "network", "in use by another program", "fuser"),
        (errno.ENOTTY, "codec", "is no camera", "/dev/video"),
        (errno.ENOMEM, "codec", "cannot allocate memory", "/dev/video"),
    ],
)
def test_cameras_of_this_computer(code: int, reason: str, message: str, hint: str) -> None:
    fault = device_fault(OSError(code, "x"), "/dev/video0")
    assert (fault.reason, message in fault.message, hint in fault.hint) == (reason, True, True)


@pytest.mark.parametrize(
    ("path", "message"),
    [("/dev/video97", "there is no camera /dev/video97"), ("/dev/null/x", "/dev/null/x cannot be read")],
)
def test_devices_that_are_not_there(path: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        check_device("cam", path)


def test_a_file_is_no_camera() -> None:
    with pytest.raises(SourceError, match="is no camera") as caught:
        check_device("cam", __file__)
    assert caught.value.reason == "codec"


def test_what_is_raised() -> None:
    fault = Fault("network", "gone", "wait")
    error = raised(fault, "gate")
    assert (type(error), str(error)) == (SourceError, "[gate]: gone\n  -> wait")
    assert isinstance(raised(fault, "gate", lost=True), SourceLostError)
    address = parse_address("gate", "srt://h:1")
    never = connect_fault(made(E.ProtocolNotFoundError), [], address, timed_out=False, timeout_s=1)
    assert "built without srt://" in never.message
    assert isinstance(raised(never, "gate"), ConfigError)
