"""The picture in the body of a request: as it is, in a form, or at an address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipeline.web.headers import FORMATS, format_of, scans_of, size_of
from pipeline.web.problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["check_picture", "form_picture", "read_picture"]

#: What a form may add to the picture: boundaries, headers of parts.
_FORM_EXTRA = 65_536
_LONGEST_URL_BODY = 16_384
_MOST_PARTS = 4
#: Encoders of progressive JPEGs make about 10.
_MOST_SCANS = 64
_FIELD = "image"
_HOW = "send the file itself with Content-Type: image/jpeg, or a form with the field image"


async def read_picture(
    request: Request, max_bytes: int, timeout_s: float, fetch: Callable[[str], Awaitable[bytes]]
) -> bytes:
    """The picture's file.

    Nothing over the limit is ever kept: a length that is stated is refused before the body is read, a length
    that is not while it is.

    Args:
        request: The request.
        max_bytes: Largest file that is taken.
        timeout_s: Longest time that the body may take to come.
        fetch: Gets a file from an address.

    Raises:
        Problem: 400 no picture in it, 408 too slow, 413 too large, 415 of another type; and what ``fetch``
            raises.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Problem(415, f"the body is packed with {encoding}", hint="send it as it is", headers=_accepts())
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise Problem(400, "the form names no boundary", hint="curl -F image=@photo.jpg makes it right")
        body = await _read(request, max_bytes + _FORM_EXTRA, _too_large(max_bytes), timeout_s)
        data = form_picture(body, boundary)
    elif kind == b"application/json":
        long = Problem(413, f"the JSON is longer than {_LONGEST_URL_BODY:,} bytes", hint=_HOW)
        body = await _read(request, _LONGEST_URL_BODY, long, timeout_s)
        data = await fetch(_url_in(body))
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        data = await _read(request, max_bytes, _too_large(max_bytes), timeout_s)
    else:
        shown = kind.decode("latin-1") or "nothing"
        raise Problem(415, f"the request says that its body is {shown}", hint=_HOW, headers=_accepts())
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def check_picture(data: bytes, max_pixels: int) -> None:
    """Refuse what must not be decoded, by its header alone.

    Args:
        data: The file.
        max_pixels: Most pixels that are taken.

    Raises:
        Problem: 400 empty, 413 too many pixels, 415 of another format, 422 the header is damaged,
            or it would take a decoder very long.
    """
    if not data:
        raise Problem(400, "the picture is empty", hint=_HOW)
    if not format_of(data):
        raise Problem(
            415, "that is no picture of a format that is taken",
            hint=f"send one of {', '.join(FORMATS)}", headers=_accepts(),
        )  # fmt: skip
    size = size_of(data)
    if size is None:
        raise Problem(422, "the picture's header is damaged or cut short")
    width, height = size
    if width * height > max_pixels:
        raise Problem(
            413, f"the picture has {width}x{height} pixels; at most {max_pixels:,} are taken",
            hint="scale it down",
        )  # fmt: skip
    if scans_of(data, _MOST_SCANS) > _MOST_SCANS:
        raise Problem(
            422, f"the picture has more than {_MOST_SCANS} scans, or thousands of segments",
            hint="save it as baseline JPEG",
        )  # fmt: skip


def form_picture(body: bytes, boundary: bytes) -> bytes:
    """The content of the field ``image`` of a form, RFC 7578.

    Args:
        body: The whole body.
        boundary: As its content type names it.

    Raises:
        Problem: 400 it is no form, ends early, has no such field or two, or has others.
    """
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Problem(400, f"the form cannot be read: {error}") from error
    if not form.whole:
        raise Problem(400, "the form ends early")
    others = sorted(name for name, _ in form.parts if name != _FIELD)
    if others:
        raise Problem(
            400, f"the form has the field {others[0]!r}; the only one is {_FIELD}",
            hint="what else there is to say goes into the address: /v1/detect?confidence=0.5",
        )  # fmt: skip
    if len(form.parts) != 1:
        count = "two or more fields" if form.parts else "no field"
        raise Problem(
            400, f"the form has {count} {_FIELD}", hint="one picture a request: curl -F image=@photo.jpg"
        )
    return bytes(form.parts[0][1])


class _Form:
    """Collects the parts of a form as the parser finds them."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, bytearray]] = []
        self.whole = False
        self._header = self._value = b""
        self._name = ""
        self._data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) >= _MOST_PARTS:
            raise Problem(400, f"the form has more than {_MOST_PARTS} fields", hint="one picture a request")
        self._name, self._data = "", bytearray()

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header = self._value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _end(self) -> None:
        self.parts.append((self._name, self._data))

    def _finish(self) -> None:
        self.whole = True


async def _read(request: Request, limit: int, too_large: Problem, timeout_s: float) -> bytes:
    """The body, if it is no longer than ``limit`` and comes in time."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                body += chunk
    except TimeoutError as error:
        raise Problem(
            408, f"the body did not come within {timeout_s:g} s", headers={"Connection": "close"}
        ) from error
    return bytes(body)


def _url_in(body: bytes) -> str:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem(400, f"the body is no JSON that can be read{why}") from error
    if not isinstance(document, dict) or set(document) != {"url"} or not isinstance(document["url"], str):
        raise Problem(
            400, "the JSON is to be one object with a url", hint='{"url": "https://example.com/a.jpg"}'
        )
    return document["url"]


def _too_large(limit: int) -> Problem:
    return Problem(
        413, f"the file is larger than {limit:,} bytes, the most that is taken", hint="scale the picture down"
    )


def _accepts() -> dict[str, str]:
    """RFC 9110, 12.5.1: what would have been taken."""
    return {"Accept": ", ".join([*FORMATS.values(), "multipart/form-data", "application/json"])}
