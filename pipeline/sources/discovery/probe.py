"""WS-Discovery: ask the network which cameras are there, and read what answers with due suspicion."""

from __future__ import annotations

import ipaddress
import selectors
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

import psutil

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.discovery.xmltree import Node, clean, parse_xml

__all__ = ["GROUP", "PORT", "Device", "Found", "device_of", "find_devices", "own_addresses", "service_url"]

GROUP = "239.255.255.250"
PORT = 3702
_MOST_BYTES = 1 << 16
_MOST_DATAGRAMS = 4096
_MOST_DEVICES = 512
_MOST_SCOPES = 40
#: Sent this long after the start, as parts of the time: a lost datagram is nobody's fault.
_SENDINGS = (0.0, 0.2, 0.5)
_SCOPE = "onvif://www.onvif.org/"
_TYPES = {
    "NetworkVideoTransmitter": "http://www.onvif.org/ver10/network/wsdl",
    "Device": "http://www.onvif.org/ver10/device/wsdl",
}


@dataclass(slots=True)
class Device:
    """A device that answered. All texts are fit to be shown.

    Attributes:
        endpoint: Its own lasting name, mostly ``urn:uuid:…``.
        addresses: Where its answers came from; more than one when it has several network interfaces.
        urls: Its ONVIF services, on these addresses.
        elsewhere: Hosts other than these at which it says its services are; they are not asked.
        name: As its owner set it, or its maker.
        hardware: Model.
        location: As its owner set it.
        scopes: All that it says of itself.
    """

    endpoint: str
    addresses: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    name: str = ""
    hardware: str = ""
    location: str = ""
    scopes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """What came back.

    Attributes:
        devices: One per endpoint, by address.
        asked_from: Own addresses from which the question was sent.
        ignored: Answers that could not be read.
    """

    devices: list[Device]
    asked_from: list[str]
    ignored: int = 0


def own_addresses() -> list[str]:
    """IPv4 addresses of this host's network interfaces that are up, without loopback."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return [
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]


def find_devices(
    *, timeout_s: float = 3.0, interface: str = "", to: str = "", port: int = PORT, most: int = _MOST_DEVICES
) -> Found:
    """Ask who is there.

    Args:
        timeout_s: How long to listen for answers.
        interface: Own address from which to ask; empty for all.
        to: Ask this host alone, by unicast, and listen no longer than until it has answered.
        port: Port that devices listen at.
        most: No more devices than this are kept.

    Raises:
        ConfigError: ``interface`` is no address of this host, or ``to`` has no address.
        SourceError: the question could not be sent at all.
    """
    target = _address_of(to) if to else GROUP
    asked_from = [interface] if interface else [""] if to else own_addresses()
    found = Found([], [])
    by_endpoint: dict[str, Device] = {}
    with selectors.DefaultSelector() as selector:
        try:
            for address in asked_from:
                selector.register(_socket(address), selectors.EVENT_READ, address)
            sockets = [(key.fileobj, key.data) for key in selector.get_map().values()]
            start = time.monotonic()
            sendings = [start + part * timeout_s for part in _SENDINGS]
            datagrams = 0
            while (now := time.monotonic()) < start + timeout_s and datagrams < _MOST_DATAGRAMS:
                if sendings and now >= sendings[0]:
                    sendings.pop(0)
                    failure = _send(sockets, (target, port), found)
                    if not found.asked_from:
                        raise _cannot_send(failure, to, interface)
                until = min([start + timeout_s, *sendings[:1]])
                for key, _ in selector.select(max(until - time.monotonic(), 0)):
                    datagrams += 1
                    answered = _receive(key.fileobj, target if to else "")  # type: ignore[arg-type]
                    if answered is None:
                        found.ignored += 1
                        continue
                    for device in answered:
                        if device.endpoint in by_endpoint or len(by_endpoint) < most:
                            _merge(by_endpoint.setdefault(device.endpoint, Device(device.endpoint)), device)
                if to and by_endpoint:
                    break
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    found.devices = sorted(by_endpoint.values(), key=lambda one: _in_order(one.addresses[0]))
    return found


def device_of(match: Node, address: str) -> Device:
    """What one ProbeMatch says.

    Args:
        match: The element.
        address: Where the answer came from.
    """
    scopes = [clean(scope) for scope in _words(match, "Scopes")[:_MOST_SCOPES]]
    device = Device(match.word("EndpointReference", "Address") or address, [address], scopes=scopes)
    for scope in scopes:
        kind, _, value = scope.removeprefix(_SCOPE).partition("/")
        value = clean(unquote(value))
        if scope.startswith(_SCOPE) and value and kind in ("name", "hardware", "location"):
            known = getattr(device, kind)
            setattr(device, kind, f"{known}, {value}" if known and kind == "location" else known or value)
    for url in _words(match, "XAddrs")[:16]:
        service = service_url(url, address)
        if not service:
            continue
        if service not in device.urls:
            device.urls.append(service)
        host = clean(urlsplit(url).hostname or "")
        if host != address and host not in device.elsewhere:
            device.elsewhere.append(host)
    device.urls.sort(key=lambda url: not url.startswith("http:"))  # Few certificates of cameras are valid.
    return device


def service_url(url: str, address: str) -> str:
    """An address that a device gave, turned to the host that gave it; empty when it is none that we ask.

    A device may say that its services are anywhere: behind a wrong router setting, or at a victim's. Only
    port and path are believed.

    Args:
        url: What the device said.
        address: Address of the device itself.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    plain = url.isascii() and url.isprintable() and not set(url) & set(" \"'<>\\^`{|}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or len(url) > 500:
        return ""
    host = f"[{address}]" if ":" in address else address
    return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, parts.path or "/", parts.query, ""))


def _words(match: Node, name: str) -> list[str]:
    node = match.first(name)
    return node.text[:_MOST_BYTES].split() if node else []


def _merge(into: Device, more: Device) -> None:
    """One device answers several questions, over several interfaces; what it said first stays first."""
    for name in ("addresses", "urls", "elsewhere", "scopes"):
        known = getattr(into, name)
        known += [entry for entry in getattr(more, name) if entry not in known]
        del known[_MOST_SCOPES:]
    into.elsewhere = [host for host in into.elsewhere if host not in into.addresses]
    for name in ("name", "hardware", "location"):
        setattr(into, name, getattr(into, name) or getattr(more, name))


def _receive(one: socket.socket, only: str) -> list[Device] | None:
    """The devices that one datagram tells of; None for one that cannot be read."""
    try:
        data, (address, _) = one.recvfrom(_MOST_BYTES)
        if only and address != only:
            return None
        matches = list(parse_xml(data).walk("ProbeMatch"))
    except (OSError, ValueError):
        return None
    return [device_of(match, address) for match in matches[:16]] or None


def _send(sockets: Iterable[tuple[object, str]], target: tuple[str, int], found: Found) -> OSError | None:
    """Send the questions from everywhere; the last failure, if any."""
    failure: OSError | None = None
    for one, address in sockets:
        try:
            for kind, namespace in _TYPES.items():
                one.sendto(_question(kind, namespace), target)  # type: ignore[attr-defined]
        except OSError as error:
            failure = error
            continue
        if address not in found.asked_from:
            found.asked_from.append(address)
    return failure


def _question(kind: str, namespace: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
        'xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
        'xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery">'
        '<s:Header><a:Action s:mustUnderstand="1">http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>'
        f"<a:MessageID>urn:uuid:{uuid.uuid4()}</a:MessageID>"
        '<a:To s:mustUnderstand="1">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></s:Header>'
        f'<s:Body><d:Probe><d:Types xmlns:n="{namespace}">n:{kind}</d:Types></d:Probe></s:Body></s:Envelope>'
    ).encode()


def _socket(address: str) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        one.bind((address, 0))
        if address:
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    except OSError:
        one.close()
        own: Sequence[str] = own_addresses()
        raise ConfigError(
            f"--interface {clean(address)}: this computer has no such address",
            hint=f"it can be {', '.join(own)}" if own else "this computer has no network",
        ) from None
    return one


def _address_of(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0])
    except (OSError, UnicodeError):
        raise ConfigError(
            f"--to {clean(host)}: nobody knows an IPv4 address of that name", hint="give the camera's address"
        ) from None


def _cannot_send(failure: OSError | None, to: str, interface: str) -> SourceError:
    why = failure.strerror if failure and failure.strerror else "this computer has no network but its own"
    whom = f"{clean(to)} cannot be asked" if to else "the network cannot be asked for cameras"
    hint = "" if to or interface else "give --interface with the address of the card that the cameras are on"
    return SourceError(f"{whom}: {why}", reason="network", hint=hint)


def _in_order(address: str) -> tuple[int, int]:
    try:
        return (0, int(ipaddress.ip_address(address)))
    except ValueError:
        return (1, 0)
