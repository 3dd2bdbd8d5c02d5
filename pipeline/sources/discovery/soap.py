"""SOAP 1.2 over HTTP, as much as ONVIF needs: one bounded answer, and a login that sends no password."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import SourceError
from pipeline.sources.discovery.xmltree import Node, clean, parse_xml

__all__ = ["Account", "call", "envelope"]

_MOST_BYTES = 1 << 20
_SOAP = "http://www.w3.org/2003/05/soap-envelope"
_WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
_WSU = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
_TOKEN = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordDigest"  # noqa: S105 - a name, not a password
_BASE64 = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary"
_LOGIN_FAULTS = (
    "notauthorized",
    "failedauthentication",
    "not authorized",
    "unauthorized",
    "authority failure",
)
_LOCKS = "check user name and password; a camera may lock a user for some minutes after wrong ones"


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks.

    Attributes:
        username: Name of a user of the device; empty to ask as nobody.
        password: The password, which only ever goes into a digest.
        skew_s: Device's clock minus this host's, seconds: devices refuse digests of another time.
    """

    username: str
    password: str
    skew_s: float = 0.0

    def __repr__(self) -> str:
        return f"Account(username={self.username!r})"


def envelope(body: str, account: Account | None = None) -> bytes:
    """A SOAP message.

    Args:
        body: XML of the body.
        account: Adds a WS-Security UsernameToken with a password digest.
    """
    header = f"<s:Header>{_login(account)}</s:Header>" if account and account.username else ""
    head = f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="{_SOAP}">'
    return f"{head}{header}<s:Body>{body}</s:Body></s:Envelope>".encode()


def call(
    url: str,
    question: str,
    namespace: str,
    inner: str = "",
    *,
    account: Account | None,
    timeout_s: float,
    tls_verify: bool = True,
) -> Node:
    """Ask a device.

    Redirections are not followed, no proxy is used, and a password leaves only as a digest.

    Args:
        url: Address of the service, ``http`` or ``https``.
        question: Name of the operation.
        namespace: Its namespace.
        inner: XML of its arguments.
        account: Who asks; None for a question that anybody may ask.
        timeout_s: Longest time until the whole answer is here.
        tls_verify: Whether the device's certificate must be valid.

    Returns:
        The SOAP body.

    Raises:
        SourceError: there is no answer, or it is a refusal, or none that can be read. ``reason`` is ``auth``,
            ``not_found``, ``timeout``, ``network``, ``tls``, or ``codec`` for an answer that is a fault.
    """
    shown = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    bound = _Bound()
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoRedirect()]
    secure = urlsplit(url).scheme == "https"
    handlers.append(_Https(bound.secure, tls_verify) if secure else _Http(bound.plain))
    if account and account.username:
        keys = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        keys.add_password(None, url, account.username, account.password)
        handlers.append(_Digest(keys))
    # SOAP 1.2 names the operation in the content type; some devices still look where 1.1 had it.
    action = f'"{namespace}/{question}"'
    content = f"application/soap+xml; charset=utf-8; action={action}"
    headers = {"Content-Type": content, "SOAPAction": action, "User-Agent": "framewire"}
    body = f'<{question} xmlns="{namespace}">{inner}</{question}>'
    request = urllib.request.Request(url, envelope(body, account), headers)  # noqa: S310 - http(s) only, see `service_url`
    timer = threading.Timer(timeout_s, bound.cut)
    timer.start()
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as reply:
            status, data = reply.status, _read(reply)
    except urllib.error.HTTPError as error:
        with error:
            status, data = error.code, _read(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_answer(shown, error, bound.was_cut, timeout_s) from None
    finally:
        timer.cancel()
    if bound.was_cut:
        raise _no_answer(shown, TimeoutError(), True, timeout_s)
    return _answer(shown, status, data)


def _answer(shown: str, status: int, data: bytes) -> Node:
    """The SOAP body of an answer, or what the answer complains of."""
    if status == 401:
        raise SourceError(f"{shown} refuses the user name or password", reason="auth", hint=_LOCKS)
    if status in (403, 404):
        reason, what = (
            ("auth", "forbids the question") if status == 403 else ("not_found", "has no such service")
        )
        raise SourceError(f"{shown} {what} ({status})", reason=reason)
    if 300 <= status < 400:
        raise SourceError(f"{shown} sends us elsewhere, which is not followed ({status})", reason="network")
    if len(data) > _MOST_BYTES:
        raise SourceError(f"{shown} answers with more than {_MOST_BYTES >> 20} MiB", reason="codec")
    try:
        body = parse_xml(data).first("Envelope", "Body")
    except ValueError as error:
        raise SourceError(f"{shown} answers with no SOAP ({clean(str(error))})", reason="codec") from None
    if body is None:
        raise SourceError(f"{shown} answers with no SOAP (status {status})", reason="codec")
    fault = body.first("Fault")
    if fault is not None:
        code = " ".join(clean(node.text) for node in fault.walk("Value"))
        why = fault.word("Reason", "Text") or fault.word("faultstring")
        if any(sign in f"{code} {why}".lower() for sign in _LOGIN_FAULTS):
            raise SourceError(f"{shown} refuses the user name or password", reason="auth", hint=_LOCKS)
        raise SourceError(f"{shown} refuses: {why or code or 'no reason given'}", reason="codec")
    return body


def _no_answer(shown: str, error: Exception, was_cut: bool, timeout_s: float) -> SourceError:
    cause = getattr(error, "reason", None)
    cause = cause if isinstance(cause, Exception) else error
    if was_cut or isinstance(cause, TimeoutError):
        return SourceError(f"{shown} does not answer within {timeout_s:g} s", reason="timeout")
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = "give --no-tls-verify to trust whoever answers"
        why = cause.verify_message.rstrip(".")
        return SourceError(f"{shown}: the certificate is refused: {why}", reason="tls", hint=hint)
    if isinstance(cause, ssl.SSLError):
        return SourceError(f"{shown}: no TLS connection can be made", reason="tls")
    # The text of other errors may quote what the device sent.
    why = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
    return SourceError(f"{shown} gives no answer ({clean(why)})", reason="network")


def _read(reply: Any) -> bytes:
    """The answer, or a little more of it than may be; what came of one that broke off."""
    try:
        data: bytes = reply.read(_MOST_BYTES + 1)
    except http.client.IncompleteRead as error:
        return bytes(error.partial)
    return data


def _login(account: Account) -> str:
    """A UsernameToken: the digest is SHA-1 of nonce, time and password, as the standard says."""
    nonce = os.urandom(16)
    created = (datetime.now(UTC) + timedelta(seconds=account.skew_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(nonce + created.encode() + account.password.encode()).digest()  # noqa: S324
    return (
        f'<w:Security s:mustUnderstand="1" xmlns:w="{_WSSE}" xmlns:u="{_WSU}"><w:UsernameToken>'
        f"<w:Username>{escape(account.username)}</w:Username>"
        f'<w:Password Type="{_TOKEN}">{base64.b64encode(digest).decode()}</w:Password>'
        f'<w:Nonce EncodingType="{_BASE64}">{base64.b64encode(nonce).decode()}</w:Nonce>'
        f"<u:Created>{created}</u:Created></w:UsernameToken></w:Security>"
    )


class _Bound:
    """The connections of one call, to cut it short: a socket's timeout bounds single reads only."""

    def __init__(self) -> None:
        self.was_cut = False
        self._sockets: list[socket.socket] = []

    def plain(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return self._watched(http.client.HTTPConnection(host, **options))

    def secure(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return self._watched(http.client.HTTPSConnection(host, **options))

    def cut(self) -> None:
        self.was_cut = True
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # It is closed already.

    def _watched(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        connect_plainly = connection.connect

        def connect() -> None:
            connect_plainly()
            self._sockets.append(connection.sock)
            if self.was_cut:  # The time was up while it connected.
                connection.close()
                raise TimeoutError

        connection.connect = connect  # type: ignore[method-assign]
        return connection


class _Digest(urllib.request.HTTPDigestAuthHandler):
    def http_error_401(self, *args: Any) -> Any:
        try:
            return super().http_error_401(*args)
        except ValueError:  # It asks for a kind of login that we do not know: that is a refusal.
            return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A device sends nobody elsewhere, least of all with a login."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_Connect = Callable[..., http.client.HTTPConnection]


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connect: _Connect) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connect, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connect: _Connect, tls_verify: bool) -> None:
        self._tls = ssl.create_default_context()
        if not tls_verify:
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        super().__init__(context=self._tls)
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connect, req, context=self._tls)
