"""A camera that answers WS-Discovery and ONVIF on loopback, honestly or not."""

from __future__ import annotations

import base64
import hashlib
import http.server
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from tests.servers.certs import Certificate

__all__ = ["MEDIA", "MEDIA2", "OnvifCamera", "Reply", "envelope", "fault", "probe_match"]

MEDIA = "http://www.onvif.org/ver10/media/wsdl"
MEDIA2 = "http://www.onvif.org/ver20/media/wsdl"
_SOAP = "http://www.w3.org/2003/05/soap-envelope"


def envelope(body: str) -> bytes:
    return f'<?xml version="1.0"?><s:Envelope xmlns:s="{_SOAP}"><s:Body>{body}</s:Body></s:Envelope>'.encode()


def fault(why: str, code: str = "ter:ActionNotSupported") -> bytes:
    return envelope(
        f"<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>{code}</s:Value></s:Subcode></s:Code>"
        f"<s:Reason><s:Text>{why}</s:Text></s:Reason></s:Fault>"
    )


def probe_match(xaddrs: str, endpoint: str = "urn:uuid:1", scopes: str = "") -> bytes:
    return envelope(
        "<d:ProbeMatches><d:ProbeMatch>"
        f"<a:EndpointReference><a:Address>{endpoint}</a:Address></a:EndpointReference>"
        f"<d:Scopes>{scopes}</d:Scopes><d:XAddrs>{xaddrs}</d:XAddrs></d:ProbeMatch></d:ProbeMatches>"
    )


def _profile(token: str, width: int, height: int) -> str:
    return (
        f'<t:Profiles token="{token}"><t:Name>{token}</t:Name><t:VideoEncoderConfiguration>'
        f"<t:Encoding>H264</t:Encoding><t:Resolution><t:Width>{width}</t:Width><t:Height>{height}</t:Height>"
        "</t:Resolution><t:RateControl><t:FrameRateLimit>25</t:FrameRateLimit><t:BitrateLimit>4096"
        "</t:BitrateLimit></t:RateControl><t:H264><t:GovLength>50</t:GovLength></t:H264>"
        "</t:VideoEncoderConfiguration></t:Profiles>"
    )


@dataclass(slots=True)
class Reply:
    """What an operation is answered with instead of what an honest camera says.

    Attributes:
        data: Body.
        status: HTTP status.
        headers: More headers.
        write: Writes the body itself, slowly or without end; gets the handler's file.
    """

    data: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    write: Callable[[Any], None] | None = None


class OnvifCamera:
    """Answers on loopback; a context manager.

    Args:
        host: Address of its services; probes are answered on 127.0.0.1.
        user: Who may ask for streams; empty for everybody.
        password: With which password.
        http_digest: Ask for the login by HTTP digest, not in the SOAP header.
        clock_offset_s: How far its clock is ahead.
        replies: By operation, instead of the honest answer.
        datagrams: Answers to a probe, instead of the honest one.
        group: Multicast group to listen to as well.
        tls: Certificate of an ``https`` service.

    Attributes:
        asked: Operations asked for, in order.
        requests: All that came in over HTTP, headers and bodies.
        created: Times in the login tokens.
        stop_writing: Is set when the camera is closed; for `Reply.write`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        user: str = "",
        password: str = "",
        http_digest: bool = False,
        clock_offset_s: float = 0.0,
        replies: Mapping[str, Reply] | None = None,
        datagrams: list[bytes] | None = None,
        group: str = "",
        tls: Certificate | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.requests: list[bytes] = []
        self.created: list[str] = []
        self.stop_writing = threading.Event()
        self.replies = dict(replies or {})
        self._host = host
        self._login = (user, password)
        self._http_digest = http_digest
        self._clock_offset_s = clock_offset_s
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("" if group else "127.0.0.1", 0))
        if group:
            member = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
            self._udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self._http = http.server.ThreadingHTTPServer((host, 0), self._handler())
        self._http.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.cert, tls.key)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._datagrams = datagrams
        self._threads = [
            threading.Thread(target=self._answer_probes, daemon=True),
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True),
        ]

    @property
    def port(self) -> int:
        """UDP port of discovery."""
        return int(self._udp.getsockname()[1])

    @property
    def base(self) -> str:
        """``http://HOST:PORT``."""
        return f"{self._scheme}://{self._host}:{self._http.server_port}"

    @property
    def url(self) -> str:
        """Device service."""
        return f"{self.base}/onvif/device_service"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_writing.set()
        self._http.shutdown()
        self._udp.sendto(b"end", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(10)
        self._http.server_close()
        self._udp.close()

    def _answer_probes(self) -> None:
        while True:
            data, peer = self._udp.recvfrom(1 << 16)
            if data == b"end":
                return
            scopes = "onvif://www.onvif.org/name/Front%20door onvif://www.onvif.org/hardware/M-1"
            honest = [probe_match(self.url, scopes=scopes)]
            for answer in honest if self._datagrams is None else self._datagrams:
                self._udp.sendto(answer, peer)

    def answer(self, operation: str) -> bytes:
        """What an honest camera says."""
        now = datetime.now(UTC) + timedelta(seconds=self._clock_offset_s)
        bodies = {
            "GetSystemDateAndTime": f"<t:UTCDateTime><t:Time><t:Hour>{now.hour}</t:Hour>"
            f"<t:Minute>{now.minute}</t:Minute><t:Second>{now.second}</t:Second></t:Time><t:Date>"
            f"<t:Year>{now.year}</t:Year><t:Month>{now.month}</t:Month><t:Day>{now.day}</t:Day></t:Date>"
            "</t:UTCDateTime>",
            "GetDeviceInformation": "<t:Manufacturer>Acme</t:Manufacturer><t:Model>M-1</t:Model>"
            "<t:FirmwareVersion>1.2</t:FirmwareVersion>",
            "GetServices": f"<t:Service><t:Namespace>{MEDIA}</t:Namespace>"
            f"<t:XAddr>{self.base}/onvif/media</t:XAddr></t:Service>",
            "GetCapabilities": "<t:Capabilities><t:Media>"
            f"<t:XAddr>{self.base}/onvif/media</t:XAddr></t:Media></t:Capabilities>",
            "GetProfiles": _profile("main", 2560, 1440) + _profile("sub", 640, 360),
            "GetStreamUri": "<t:MediaUri><t:Uri>rtsp://admin:oops@127.0.0.1:554/live</t:Uri></t:MediaUri>",
        }
        return envelope(bodies[operation])

    def _allowed(self, body: str, headers: Mapping[str, str], method: str) -> bool:
        user, password = self._login
        if not user:
            return True
        if self._http_digest:
            given = dict(re.findall(r'(\w+)="?([^",]*)"?', headers.get("Authorization", "")))
            if given.get("username") != user:
                return False
            secret = hashlib.md5(f"{user}:cam:{password}".encode()).hexdigest()
            question = hashlib.md5(f"{method}:{given['uri']}".encode()).hexdigest()
            middle = f"{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}"
            return bool(
                given["response"] == hashlib.md5(f"{secret}:{middle}:{question}".encode()).hexdigest()
            )
        found = {
            name: match[1] if (match := re.search(rf"<(?:\w+:)?{name}\b[^>]*>([^<]*)<", body)) else ""
            for name in ("Username", "Password", "Nonce", "Created")
        }
        self.created.append(found["Created"])
        digest = hashlib.sha1(
            base64.b64decode(found["Nonce"]) + found["Created"].encode() + password.encode()
        ).digest()
        return (found["Username"], found["Password"]) == (user, base64.b64encode(digest).decode())

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                camera.requests.append(str(self.headers).encode() + body)
                operation = self.headers["SOAPAction"].strip('"').rpartition("/")[2]
                camera.asked.append(operation)
                reply = camera.replies.get(operation) or self._honest(operation, body.decode())
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(reply.data)
                    if reply.write is not None:
                        reply.write(self.wfile)
                except OSError:
                    return  # The client has had enough.

            def do_GET(self) -> None:
                camera.asked.append(f"GET {self.path}")
                self.send_error(405)

            def _honest(self, operation: str, body: str) -> Reply:
                open_to_all = operation in ("GetSystemDateAndTime", "GetServices")
                if open_to_all or camera._allowed(body, dict(self.headers), "POST"):
                    return Reply(camera.answer(operation))
                if camera._http_digest:
                    ask = {"WWW-Authenticate": f'Digest realm="cam", nonce="{time.time_ns()}", qop="auth"'}
                    return Reply(b"", 401, ask)
                return Reply(fault("Sender not Authorized", "ter:NotAuthorized"), 400)

            def log_message(self, *_: Any) -> None:
                return

        return Handler
