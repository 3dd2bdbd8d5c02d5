"""What kind of source a URL or path names, and whether it can be one, before any process starts."""

from __future__ import annotations

import difflib
import logging
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, SourceError, SourceNotFoundError

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "check_source", "detect_kind", "image_files", "local_path"]

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
     ".ogv", ".ts", ".webm", ".wmv"}
)  # fmt: skip
#: What FFmpeg reads over a network, with those that need no host because they listen.
_STREAM_SCHEMES = frozenset(
    {"http", "https", "mms", "mmsh", "mmst", "rtmp", "rtmps", "rtmpt", "rtp", "rtsp", "rtsps", "rtspt", "srt",
     "tcp", "udp"}
)  # fmt: skip
_LISTENING_SCHEMES = frozenset({"rtp", "srt", "tcp", "udp"})
_PUSH_SCHEMES = frozenset({"push", "push+ipc", "push+tcp"})
_WHAT_TO_GIVE = (
    "give the path of a video, an image or a folder of images, rtsp://HOST/PATH or another stream's URL, "
    "/dev/video0, or synthetic:"
)
_CHECK_PERMISSIONS = "check its permissions"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_CAMERA = re.compile(r"^(?:\d{1,2}|/dev/video\d+|/dev/v4l/\S+)$")


def detect_kind(url: str) -> str:
    """The kind of source, a key of `pipeline.sources.SOURCES`.

    Args:
        url: ``synthetic:``, a ``file://`` URL, the path of a video, an image or a folder of images, the URL
            of a stream, ``0`` or ``/dev/video0`` for a camera of this computer, or ``push+tcp://HOST:PORT``
            or ``push+ipc://PATH`` for what another program sends.

    Raises:
        ConfigError: it is empty, or has a scheme that nothing reads. The message repeats the scheme only:
            the rest of a stream's URL may hold a password.
    """
    if not url.strip():
        raise ConfigError("the source is empty", hint=_WHAT_TO_GIVE)
    if url.startswith("synthetic:"):
        return "synthetic"
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme in _STREAM_SCHEMES:
        return "stream"
    if scheme in _PUSH_SCHEMES:
        return "push"
    if _CAMERA.match(url) and not Path(url).is_file():
        return "device"
    if scheme not in {"", "file"}:
        raise ConfigError(f"nothing reads {scheme}:// sources", hint=_scheme_hint(scheme))
    path = local_path(url)
    return "images" if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES else "file"


def local_path(url: str) -> Path:
    """The path that a plain path or ``file://`` URL names, with ``~`` expanded."""
    if url.lower().startswith("file://"):
        url = unquote(url[len("file://") :].removeprefix("localhost"))
    return Path(url).expanduser()


def check_source(url: str) -> str:
    """Check cheaply that a source can be one; to be called before any process starts.

    A live source is not tried: it may well be down now and come up later.

    Args:
        url: As for `detect_kind`.

    Returns:
        The kind of the source.

    Raises:
        ConfigError: see `detect_kind`; or a stream's URL names no host.
        SourceNotFoundError: nothing is there; the hint has the nearest names in that folder.
        SourceError: it is empty, may not be read, is no regular file, or is a folder without images.
    """
    kind = detect_kind(url)
    if kind in ("synthetic", "device", "push"):
        return kind
    if kind == "stream":
        _check_stream(url)
        return kind
    path = local_path(url)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no {path}", hint=_nearest(path)) from error
    except NotADirectoryError as error:
        raise SourceNotFoundError(
            f"there is no {path}: a part of it is a file", hint=_nearest(path.parent)
        ) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", hint=_CHECK_PERMISSIONS) from error
    if stat.S_ISDIR(mode):
        image_files(path, quiet=True)
        return kind
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path} is no regular file", hint=_WHAT_TO_GIVE)
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", hint=_CHECK_PERMISSIONS) from error
    if empty:
        raise SourceError(f"{path} is empty (0 bytes)", hint="copy or record it again")
    return kind


def _check_stream(url: str) -> None:
    scheme = url.partition(":")[0].lower()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host and scheme not in _LISTENING_SCHEMES:
        raise ConfigError(
            f"the {scheme}:// URL names no host, or no valid port",
            hint=f"give {scheme}://HOST/PATH or {scheme}://HOST:PORT/PATH; percent-quote characters such as "
            "@ / : # of a password, or give it beside the URL as password",
        )


def _scheme_hint(scheme: str) -> str:
    """What to type instead of a scheme that nothing reads."""
    if scheme == "onvif":
        return "give the rtsp:// URL of the camera's stream"
    known = ["rtsp", "http", "file", *sorted(_STREAM_SCHEMES)]  # the commonest first
    near = sorted(difflib.get_close_matches(scheme, known, n=len(known), cutoff=0.7), key=known.index)
    return f"did you mean {near[0]}://?" if near else _WHAT_TO_GIVE


def image_files(path: Path, *, quiet: bool = False) -> list[Path]:
    """The images that a path names: itself, or those of a folder in natural order (2 before 10).

    Args:
        path: An image, or a folder; subfolders are not searched, hidden files are left out.
        quiet: Do not log what was skipped.

    Raises:
        SourceError: the folder cannot be listed or holds no image; the message says what it holds.
    """
    if not path.is_dir():
        return [path]
    try:
        found = sorted((entry for entry in path.iterdir() if not entry.name.startswith(".")), key=_natural)
    except OSError as error:
        raise SourceError(f"{path} cannot be listed: {error.strerror}", hint=_CHECK_PERMISSIONS) from error
    images = [entry for entry in found if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    others = [entry for entry in found if entry not in set(images)]
    if not images:
        videos = [str(entry) for entry in others if entry.suffix.lower() in VIDEO_SUFFIXES]
        holds = f"but {_names(others)}" if others else "it is empty"
        hint = "give a folder that holds .jpg, .png or other image files"
        if videos:
            hint = f"run videos one by one or together: framewire run {' '.join(videos[:3])}"
            hint += " ..." if len(videos) > 3 else ""
        raise SourceError(f"{path} holds no image, {holds}", reason="not_found", hint=hint)
    if others and not quiet:
        _log.warning(
            "%s: %d images taken, %d others skipped: %s", path, len(images), len(others), _names(others)
        )
    return images


def _names(entries: list[Path], limit: int = 5) -> str:
    names = ", ".join(entry.name + ("/" if entry.is_dir() else "") for entry in entries[:limit])
    return names + (f" and {len(entries) - limit} more" if len(entries) > limit else "")


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either"
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return "check the path"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(str(folder / name) for name in near)}?" if near else "check the path"
