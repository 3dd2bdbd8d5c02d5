"""Where an annotated stream goes: a server by its URL, or an HLS playlist with its segments."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import av

from pipeline.errors import ConfigError

__all__ = ["SCHEMES", "Target", "parse_target"]

#: What a URL may begin with, and the container that goes there.
SCHEMES = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "srt": "mpegts"}
_HINT = "give rtsp://HOST/PATH, rtmp://HOST/APP/KEY, srt://HOST:PORT, or a path that ends in .m3u8"
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True, slots=True)
class Target:
    """The far end of a stream.

    Attributes:
        url: What FFmpeg opens, credentials included: never to be shown.
        shown: The same for people: scheme, host and port, or the playlist. A path may hold a stream key.
        format: FFmpeg's name of the container.
        options: Options of the container.
        playlist: The playlist of HLS, else None.
    """

    url: str = field(repr=False)
    shown: str
    format: str
    options: dict[str, str] = field(repr=False)
    playlist: Path | None = None

    def clear(self) -> None:
        """Remove the segments of an earlier stream: the next one may have another size, and starts anew."""
        if self.playlist is None:
            return
        stem = re.escape(self.playlist.stem)
        mine = re.compile(rf"{stem}-\d+\.m4s(\.tmp)?|{stem}-init\.mp4")
        for path in (*self.playlist.parent.iterdir(), self.playlist):
            if path == self.playlist or mine.fullmatch(path.name):
                path.unlink(missing_ok=True)


def parse_target(
    url: str,
    source: str,
    *,
    key: str | None = None,
    transport: str = "tcp",
    tls_verify: bool = True,
    ca_file: str | None = None,
    gop_s: float = 2.0,
    list_size: int = 6,
) -> Target:
    """Take apart where a stream goes.

    Args:
        url: URL, or path of a playlist; ``{source}`` stands for the name of the source.
        source: Name of the source.
        key: Stream key that is put behind the path.
        transport: ``tcp`` or ``udp``, for RTSP.
        tls_verify: Whether the certificate of an ``rtsps`` server must be valid.
        ca_file: Certificates to trust instead of the system's, PEM.
        gop_s: Length of a segment of HLS, seconds.
        list_size: Segments in the playlist.

    Raises:
        ConfigError: it is none of these, or this FFmpeg cannot do it; nothing of its credentials is repeated.
    """
    url = url.replace("{source}", quote(source, safe=""))
    if "://" not in url:
        if not url.endswith(".m3u8"):
            raise ConfigError("stream: is no URL and no .m3u8 playlist", hint=_HINT, source=source)
        return _playlist(Path(url), gop_s, list_size)
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if scheme not in SCHEMES or not host:
        raise ConfigError("stream: is no URL that can be streamed to", hint=_HINT, source=source)
    if scheme == "rtmps" and tls_verify:
        raise ConfigError(
            "stream: FFmpeg does not check the certificate of an rtmps server",
            hint="add tls_verify: false if the network to it is trusted, or use rtsps",
            source=source,
        )
    _need_protocol("tcp" if SCHEMES[scheme] == "rtsp" else scheme, source)
    if key is not None:
        url = f"{url.rstrip('/')}/{quote(key, safe='?=&-_.~')}"
    host = f"[{host}]" if ":" in host else host
    options: dict[str, str] = {"flush_packets": "1"}
    if SCHEMES[scheme] == "rtsp":
        options["rtsp_transport"] = transport
    elif SCHEMES[scheme] == "flv":
        options["flvflags"] = "no_duration_filesize"
    if scheme == "rtsps":
        options["tls_verify"] = "1" if tls_verify else "0"
        trusted = ca_file or _system_ca()
        if tls_verify and trusted:
            options["ca_file"] = trusted
    return Target(url, f"{scheme}://{host}{f':{port}' if port else ''}", SCHEMES[scheme], options)


def _playlist(path: Path, gop_s: float, list_size: int) -> Target:
    literal = str(path.with_suffix("")).replace("%", "%%")
    options = {
        # A segment ends at the first keyframe after this time, and a keyframe may be a little early.
        "hls_time": f"{0.8 * gop_s:g}",
        "hls_list_size": str(list_size),
        "hls_segment_type": "fmp4",
        "hls_fmp4_init_filename": f"{path.stem}-init.mp4",
        "hls_segment_filename": f"{literal}-%d.m4s",
        "hls_flags": "delete_segments+program_date_time+independent_segments+temp_file",
        # Numbers go on rising from run to run, so that no player takes a new segment for an old one.
        "hls_start_number_source": "epoch",
    }
    return Target(str(path), str(path), "hls", options, path)


def _need_protocol(scheme: str, source: str) -> None:
    """Ask FFmpeg for a protocol: it knows the name or not before it looks at what is allowed: nothing."""
    try:
        av.open(f"{scheme}://127.0.0.1:9/", options={"protocol_whitelist": "none"}).close()
    except av.error.ProtocolNotFoundError:
        raise ConfigError(
            f"stream: the FFmpeg of this PyAV cannot speak {scheme}",
            hint="use rtsp:// or rtmp://, which media servers take as well and give out as SRT; "
            f"or install a PyAV that is built against an FFmpeg with {scheme}",
            source=source,
        ) from None
    except (av.FFmpegError, OSError, ValueError):
        pass


def _system_ca() -> str | None:
    """The system's certificates: FFmpeg's wheel was built elsewhere and would look in the wrong place."""
    paths = (ssl.get_default_verify_paths().cafile, *_CA_FILES)
    return next((path for path in paths if path and Path(path).is_file()), None)
