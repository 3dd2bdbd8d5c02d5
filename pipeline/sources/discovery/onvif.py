"""What an ONVIF device says of itself: model, clock, media profiles and the addresses of its streams."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import SourceError
from pipeline.sources.discovery.probe import service_url
from pipeline.sources.discovery.soap import Account, call
from pipeline.sources.discovery.xmltree import Node, clean

__all__ = ["MASK", "Details", "Profile", "ask_device", "stream_uri"]

_DEVICE = "http://www.onvif.org/ver10/device/wsdl"
_MEDIA = "http://www.onvif.org/ver10/media/wsdl"
_MEDIA2 = "http://www.onvif.org/ver20/media/wsdl"
_SCHEMA = "http://www.onvif.org/ver10/schema"
_MOST_PROFILES = 32
#: Stands where a URL held a password; no URL of a device has it otherwise.
MASK = "***"
#: Some makers want the password in the path or query: ``/user=admin_password=secret_channel=1``.
_SECRET = re.compile(r"((?:passw(?:or)?d|passwd|pass|pwd|psw|token|auth|key|sig)=)[^&_/?;#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Profile:
    """One stream that a device offers.

    Attributes:
        name: As the device calls it.
        codec: ``H264``, ``H265``, ``JPEG``, …; empty when it does not say.
        width: Pixels, 0 when it does not say.
        height: Pixels, 0 when it does not say.
        fps: Pictures per second; None when it does not say.
        bit_rate_kbps: Highest bit rate, thousand bits per second.
        keyframe_every: Pictures from one keyframe to the next.
        url: Address of the stream without any login; ``***`` where it held a password. Empty for none.
        elsewhere: Whether that is another host than the device.
        refused: Why there is no address.
    """

    name: str
    codec: str = ""
    width: int = 0
    height: int = 0
    fps: float | None = None
    bit_rate_kbps: float | None = None
    keyframe_every: float | None = None
    url: str = ""
    elsewhere: bool = False
    refused: str = ""


@dataclass(slots=True)
class Details:
    """Answers of one device.

    Attributes:
        manufacturer: Who made it.
        model: What it is.
        firmware: Version of its software.
        clock_offset_s: Device's clock minus this host's, to about a second; None when it does not say.
        profiles: Its streams, largest first.
        refused: Why it did not tell all, one sentence; empty when it did.
        reason: The same as a word: ``auth``, ``timeout``, …
    """

    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    clock_offset_s: float | None = None
    profiles: list[Profile] = field(default_factory=list)
    refused: str = ""
    reason: str = ""


def ask_device(
    url: str, *, username: str = "", password: str = "", timeout_s: float = 5.0, tls_verify: bool = True
) -> Details:
    """Ask a device for its streams. A refusal is part of the answer, not an error.

    Args:
        url: Its device service, from `find_devices`; no other host is asked, whatever it says.
        username: User of the device; empty to ask as nobody.
        password: That user's password; it leaves only as a digest.
        timeout_s: Longest wait for one answer; all of them take at most six times as long.
        tls_verify: Whether the device's certificate must be valid.
    """
    asked = _Asked(url, Account(username, password), timeout_s, tls_verify)
    details = Details()
    try:
        details.clock_offset_s = asked.clock_offset()
        asked.account = Account(username, password, details.clock_offset_s or 0.0)
        answer = asked.device("GetDeviceInformation")
        details.manufacturer, details.model, details.firmware = (
            answer.word(name) for name in ("Manufacturer", "Model", "FirmwareVersion")
        )
        details.profiles = sorted(asked.profiles(), key=lambda one: -one.width * one.height)
    except SourceError as error:
        details.refused, details.reason = error.message, error.reason
        if error.reason == "auth" and not username:
            details.refused = "it tells its streams only to its users"
    return details


def stream_uri(uri: str, address: str) -> tuple[str, bool]:
    """The address of a stream as it may be shown, and whether it is at another host than the device.

    Args:
        uri: What the device gave; logins are cut out, passwords in path or query become ``***``.
        address: Host of the device, which also stands in where it gave none, or 0.0.0.0.

    Returns:
        The address is empty when it is none of a stream that is read over a network.
    """
    try:
        parts = urlsplit(uri.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", False
    plain = uri.strip().isprintable() and not set(uri.strip()) & set(" \"'<>\\`*")
    if parts.scheme.lower() not in ("rtsp", "rtsps", "http", "https") or not plain or len(uri) > 1000:
        return "", False
    if host in ("", "0.0.0.0"):  # noqa: S104 - what some devices say
        host = address
    where = f"[{host}]" if ":" in host else host
    shown = urlunsplit((parts.scheme, f"{where}:{port}" if port else where, parts.path, parts.query, ""))
    return _SECRET.sub(rf"\1{MASK}", shown), host != address


class _Asked:
    """A device, who asks it, and by when it must have answered."""

    def __init__(self, url: str, account: Account, timeout_s: float, tls_verify: bool) -> None:
        self.account = account
        self._url = url
        self._address = urlsplit(url).hostname or ""
        self._timeout_s = timeout_s
        self._until = time.monotonic() + 6 * timeout_s
        self._tls_verify = tls_verify

    def clock_offset(self) -> float | None:
        """Device's clock minus ours; devices answer this to anybody, so that digests can be made to fit."""
        before = time.time()
        question = (self._url, "GetSystemDateAndTime", _DEVICE)
        try:
            answer = self._call(*question, login=False)
        except SourceError as error:
            if error.reason != "auth" or not self.account.username:
                raise
            before = time.time()
            answer = self._call(*question)
        utc = answer.first("UTCDateTime")
        middle = (before + time.time()) / 2
        if utc is None:
            return None
        names = ("Year", "Month", "Day", "Hour", "Minute", "Second")
        numbers = [utc.number(name, most=9999) for name in names]
        try:
            year, month, day, hour, minute, second = (int(number) for number in numbers if number is not None)
            told = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
        except ValueError:
            return None
        return told.timestamp() + 0.5 - middle  # It tells whole seconds.

    def device(self, question: str) -> Node:
        return self._call(self._url, question, _DEVICE)

    def profiles(self) -> Iterator[Profile]:
        """Streams of the newer media service, which alone knows of H.265, else of the older."""
        services = self._services()
        newer = services.get(_MEDIA2)
        if newer:
            try:
                answer = self._call(newer, "GetProfiles", _MEDIA2, "<Type>All</Type>")
            except SourceError as error:
                if error.reason not in ("codec", "not_found") or _MEDIA not in services:
                    raise
            else:
                yield from (self._profile(newer, True, node) for node in self._usable(answer))
                return
        older = services.get(_MEDIA) or self._url
        answer = self._call(older, "GetProfiles", _MEDIA)
        yield from (self._profile(older, False, node) for node in self._usable(answer))

    def _usable(self, answer: Node) -> list[Node]:
        return [node for node in answer.walk("Profiles") if node.attributes.get("token")][:_MOST_PROFILES]

    def _services(self) -> dict[str, str]:
        """Address of each service by namespace, on the device's own host."""
        inner = "<IncludeCapability>false</IncludeCapability>"
        try:
            answer = self._call(self._url, "GetServices", _DEVICE, inner)
            told = {node.word("Namespace"): node.word("XAddr") for node in answer.walk("Service")}
        except SourceError as error:
            if error.reason not in ("codec", "not_found"):
                raise
            answer = self._call(self._url, "GetCapabilities", _DEVICE, "<Category>All</Category>")
            told = {_MEDIA: answer.word("Capabilities", "Media", "XAddr")}
        return {name: url for name, told_url in told.items() if (url := service_url(told_url, self._address))}

    def _profile(self, service: str, newer: bool, node: Node) -> Profile:
        token = node.attributes["token"][:500]
        video = node.first("VideoEncoder") if newer else node.first("VideoEncoderConfiguration")
        video = video or Node("")
        every = video.number("GovLength") or _attribute(video, "GovLength")
        url, elsewhere, refused = "", False, ""
        try:
            url, elsewhere = stream_uri(self._uri(service, newer, token), self._address)
            refused = "" if url else "it gives no address of a stream"
        except SourceError as error:
            if error.reason in ("auth", "timeout"):
                raise
            refused = error.message
        return Profile(
            name=node.word("Name") or clean(token),
            codec=video.word("Encoding").upper(),
            width=int(video.number("Resolution", "Width", most=99_999) or 0),
            height=int(video.number("Resolution", "Height", most=99_999) or 0),
            fps=video.number("RateControl", "FrameRateLimit", most=1000) or None,
            bit_rate_kbps=video.number("RateControl", "BitrateLimit") or None,
            keyframe_every=every or None,
            url=url,
            elsewhere=elsewhere,
            refused=refused,
        )

    def _uri(self, service: str, newer: bool, token: str) -> str:
        asked = f"<ProfileToken>{escape(token)}</ProfileToken>"
        if newer:
            answer = self._call(service, "GetStreamUri", _MEDIA2, f"<Protocol>RTSP</Protocol>{asked}")
        else:
            setup = (
                f'<StreamSetup><Stream xmlns="{_SCHEMA}">RTP-Unicast</Stream>'
                f'<Transport xmlns="{_SCHEMA}"><Protocol>RTSP</Protocol></Transport></StreamSetup>'
            )
            answer = self._call(service, "GetStreamUri", _MEDIA, setup + asked)
        node = answer.first("Uri")
        return node.text if node else ""

    def _call(self, url: str, question: str, namespace: str, inner: str = "", *, login: bool = True) -> Node:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise SourceError(f"{self._address} takes too long to answer", reason="timeout")
        return call(
            url,
            question,
            namespace,
            inner,
            account=self.account if login else None,
            timeout_s=min(self._timeout_s, left_s),
            tls_verify=self._tls_verify,
        )


def _attribute(node: Node, name: str) -> float | None:
    text = node.attributes.get(name, "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None
