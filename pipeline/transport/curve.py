"""Who may connect to the event stream: CURVE, and the ZAP handler of a ZeroMQ context.

ZeroMQ asks the handler for each connection, once, at its handshake (RFC 27). It looks into the keyring each
time, so keys that are made or revoked hold at once. Who is connected when its key is revoked must be cut off
by the owner of the sockets: `Curve.revoked`.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections import Counter, deque
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from pipeline.errors import ConfigError, TransportError
from pipeline.transport.keyring import Bundle, Client, Keyring

__all__ = ["DOMAIN", "Curve", "apply"]

log = logging.getLogger(__name__)

DOMAIN = "framewire"

_HANDLER = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
#: Who has not finished its handshake by then is hung up on; so often one whose key is not known tries again.
_HANDSHAKE_MS = 5_000
_QUIET_S = 60.0
_POLL_S = 1.0
_ACCEPTED = b"200"
#: Temporary, says RFC 27: the client tries again. After 400 libzmq gives up for ever, in silence, and a key
#: that becomes known a moment later would need a restart of the client.
_REFUSED = b"300"
_MALFORMED = b"400"
_EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_MONITOR_STOPPED
)
_GONE = (errno.EPIPE, errno.ECONNRESET)
_BROKEN: dict[int, str] = {
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "it is not encrypted; it needs a key file",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "its key file is of another server",
}


class Curve:
    """Lets the clients of a keyring connect, and nobody else. `secure` each socket before it is bound.

    A context has one handler: it belongs to the sockets of one publisher. Close it after its sockets; should
    it end before them, they let nobody in.

    Args:
        context: The context of the sockets.
        keyring: Who may connect; the server's pair is made if there is none.
        poll_s: How often to look for revoked keys, seconds.

    Attributes:
        accepted: Connections that were let in.
        refusals: Connections that were not, by the reason in words.

    Raises:
        ConfigError: the keys cannot be read, or others can read them.
        TransportError: the context has a handler already.
    """

    def __init__(self, context: zmq.Context[Any], keyring: Keyring, *, poll_s: float = _POLL_S) -> None:
        self.accepted = 0
        self.refusals: Counter[str] = Counter()
        self._context = context
        self._keyring = keyring
        self._poll_s = poll_s
        self._public, self._secret = keyring.server()
        keyring.clients()
        self._revoked = threading.Event()
        self._admitted: dict[str, str] = {}  # public key -> name
        self._complained_at = -_QUIET_S
        self._monitors: deque[zmq.Socket[bytes]] = deque()  # made by `secure`, taken by the thread
        self._numbers = itertools.count()
        self._handler: zmq.Socket[bytes] = context.socket(zmq.REP)
        self._handler.linger = 0
        try:
            self._handler.bind(_HANDLER)
        except zmq.ZMQError as error:
            self._handler.close()
            raise TransportError(f"this context has a handler of keys already: {error.strerror}") from error
        inside = f"inproc://framewire.curve.{id(self)}"
        self._commands: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._commands.linger = 0
        self._commands.bind(inside)
        self._thread = threading.Thread(target=self._run, args=(inside,), name="curve", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> int:
        """Connections that were not let in."""
        return sum(self.refusals.copy().values())

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket a CURVE server; before it is bound, and from any thread."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
        socket.setsockopt(
            zmq.ZAP_ENFORCE_DOMAIN, 1
        )  # without a handler nobody is let in, instead of everybody
        socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        # A client without the server's key never gets as far as the handler; only the monitor tells of it.
        where = f"inproc://framewire.curve.{id(self)}.{next(self._numbers)}"
        socket.monitor(where, _EVENTS)
        monitor: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        monitor.linger = 0
        monitor.rcvhwm = 0  # ZeroMQ's own thread waits where events do not fit in
        monitor.connect(where)
        self._monitors.append(monitor)

    def revoked(self) -> bool:
        """Whether keys of clients that were let in have been revoked since this was asked last.

        When it says so, close and bind all secured sockets anew: those who still may come back by themselves.
        """
        if not self._revoked.is_set():
            return False
        self._revoked.clear()
        return True

    def close(self) -> None:
        """End the thread; harmless when closed already."""
        if self._commands.closed:
            return
        if self._thread.is_alive():
            self._commands.send(b"")
            self._thread.join()
        self._commands.close()
        while self._monitors:
            self._monitors.popleft().close()

    def _run(self, inside: str) -> None:
        commands: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        commands.linger = 0
        watched: list[zmq.Socket[bytes]] = []
        looked_at = time.monotonic()
        try:
            commands.connect(inside)
            while True:
                poller = zmq.Poller()
                for socket in (self._handler, commands, *watched):
                    poller.register(socket, zmq.POLLIN)
                ready = dict(poller.poll(int(self._poll_s * 1000)))
                if commands in ready:
                    return
                if self._handler in ready:
                    self._handler.send_multipart(self._reply(self._handler.recv_multipart()))
                watched = [one for one in watched if one not in ready or self._hear(one)]
                while self._monitors:
                    watched.append(self._monitors.popleft())
                if time.monotonic() - looked_at >= self._poll_s:
                    self._look()
                    looked_at = time.monotonic()
        except zmq.ContextTerminated:
            return
        finally:
            for socket in (self._handler, commands, *watched):
                socket.close()

    def _reply(self, parts: list[bytes]) -> list[bytes]:
        """The answer to a request of ZeroMQ's: version, id, status, text, user id, metadata."""
        number = parts[1] if len(parts) > 1 else b""
        if len(parts) != 7 or parts[0] != _VERSION or parts[5] != b"CURVE" or len(parts[6]) != 32:
            return [_VERSION, number, _MALFORMED, b"not a CURVE handshake", b"", b""]
        domain, address = parts[2].decode(errors="replace"), parts[3].decode(errors="replace")
        client, why = self._judge(domain, z85.encode(parts[6]).decode())
        if client is None:
            self._refuse(why, address)
            return [_VERSION, number, _REFUSED, b"", b"", b""]
        self._admitted[client.public] = client.name
        self.accepted += 1
        log.info("%s connected from %s", client.name, address or "this host")
        return [_VERSION, number, _ACCEPTED, b"", client.name.encode(), b""]

    def _judge(self, domain: str, public: str) -> tuple[Client | None, str]:
        if domain != DOMAIN:
            return None, "it asks for another domain"
        try:
            client = next((one for one in self._keyring.clients() if one.public == public), None)
        except ConfigError as error:
            return None, error.message
        return client, "its key is not known, or was revoked"

    def _refuse(self, why: str, address: str = "") -> None:
        self.refusals[why] += 1
        now = time.monotonic()
        if now - self._complained_at >= _QUIET_S:
            self._complained_at = now
            where = f" from {address}" if address else ""
            log.warning("refused a connection%s: %s (%d refused so far)", where, why, self.refused)

    def _hear(self, monitor: zmq.Socket[bytes]) -> bool:
        """Take in what the monitor of a socket says; whether the socket still lives."""
        while monitor.poll(0):
            event = parse_monitor_message(monitor.recv_multipart())
            if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                monitor.close()
                return False
            if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._refuse(_BROKEN.get(int(event["value"]), "its handshake is broken"))
            elif int(event["value"]) in _GONE:  # or else it was too slow, or the handler's to refuse
                self._refuse("it hung up before it had shown a key; without a key file it would")
        return True

    def _look(self) -> None:
        if not self._admitted:
            return
        try:
            known = {client.public for client in self._keyring.clients()}
        except ConfigError as error:
            log.warning("cannot look for revoked keys: %s", error.message)
            return
        for public in self._admitted.keys() - known:
            log.warning("the keys of %s were revoked: everybody is hung up on", self._admitted.pop(public))
            self._revoked.set()


def apply(bundle: Bundle, socket: zmq.Socket[Any]) -> None:
    """Make a socket a client with these keys; before it connects."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, bundle.server.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, bundle.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, bundle.secret.encode())
