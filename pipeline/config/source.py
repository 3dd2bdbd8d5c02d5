"""``sources:`` - where frames come from, how they are fetched, and which of them are wanted.

Which keys fit which kind of source is decided here by the look of the URL, so that a key in the wrong place
is an error with a line number; what a file or camera turns out to be is found out by `pipeline.sources`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.config.address import (
    is_cut_short,
    kind_of,
    password_in,
    scheme_of,
    userinfo_of,
    with_login,
)
from pipeline.config.credentials import is_secret_name, redact, redact_url
from pipeline.config.fields import Count, Fraction, Seconds, Section, Switch, Text, is_loopback
from pipeline.config.hours import check_timezone, parse_hours
from pipeline.errors import ConfigError

__all__ = ["Motion", "Source", "as_source"]

_PUSH = re.compile(
    r"push\+(?:tcp://(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/@\s]+)):(?:\d{1,5}|\*)|ipc://(@?[^\s@]+))"
)
_RTSP = ("rtsp", "rtsps", "rtspt")
_TLS = ("rtsps", "https", "rtmps")
_WITHOUT_LOGIN = ("udp", "rtp", "tcp", "srt")

#: Keys that fit some kinds of sources only: kinds or schemes, and how to say so.
_FITS: dict[str, tuple[tuple[str, ...], str]] = {
    "transport": (_RTSP, "is for rtsp:// sources"),
    "tls_verify": (_TLS, "is for rtsps://, https:// and rtmps:// sources"),
    "tls_ca": (_TLS, "is for rtsps://, https:// and rtmps:// sources"),
    "decode": (("stream", "device"), "is for cameras and streams"),
    "threads": (("stream", "device", "recording"), "is for what has to be decoded"),
    "connect_timeout_s": (("stream", "device"), "is for cameras and streams"),
    "read_timeout_s": (("stream", "device", "push"), "is for live sources"),
    "max_age_s": (("stream", "device", "push", "paced"), "is for live sources, or goes with realtime: true"),
    "schedule": (("stream", "device", "push"), "is for live sources, a recording is read whenever it is run"),
    "timezone": (("stream", "device", "push"), "is for live sources"),
    "realtime": (("recording", "synthetic"), "is for recordings, this source is live already"),
    "raw_options": (("stream", "device"), "is for cameras and streams"),
    "insecure": (("push",), "is for push sources"),
}
_STREAM = (
    "transport", "tls_verify", "tls_ca", "decode", "threads", "connect_timeout_s", "read_timeout_s",
    "max_fps", "max_age_s", "raw_options",
)  # fmt: skip
#: By kind, which keys are arguments of the adapter in `pipeline.sources`.
_ARGUMENTS = {
    "stream": _STREAM,
    "device": _STREAM,
    "push": ("read_timeout_s", "max_age_s", "insecure"),
    "recording": ("threads",),
    "synthetic": (),
}


def as_source(value: Any) -> Any:
    """What `Source` takes, from the short form as well: a plain path or URL.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str) or _is_number(value):
        return {"url": value}
    if isinstance(value, dict | Source):
        return value
    raise ValueError("must be a path or URL, or {url: …}")


def _camera_number(value: Any) -> Any:
    """YAML makes a number of the first local camera's name."""
    return str(value) if _is_number(value) and 0 <= value < 100 else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _secret(value: Any) -> Any:
    if isinstance(value, str) and not value:
        raise ValueError("must not be empty; write the password, or leave the key out")
    if not isinstance(value, str | SecretStr):
        raise ValueError("must be text; put it in quotes")
    return value


def _motion(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, dict | Motion):
        return value
    raise ValueError("must be true, or {min_area: …}; write true")


def _one_or_more(value: Any) -> Any:
    if value in ([], ()):
        raise ValueError("is empty, so no picture would ever be wanted; add an entry, or leave the key out")
    return (value,) if isinstance(value, str) else value


def _hours(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be text such as `mon-fri 07:00-19:00`; put it in quotes")
    parse_hours(value)
    return value


def _raw_options(value: Any) -> Any:
    """FFmpeg takes text only; a switch is 1 or 0 to it."""
    if not isinstance(value, Mapping):
        raise ValueError("must hold `name: value` pairs; write such as {rtsp_flags: prefer_tcp}")
    for name, given in value.items():
        if not isinstance(given, str | int | float):
            raise ValueError(f"has no plain value for {name}; write text or a number")
    return {name: str(int(given)) if isinstance(given, bool) else str(given) for name, given in value.items()}


class Motion(Section):
    """When a picture of a source counts as moving."""

    threshold: Annotated[float, Field(ge=1, le=255)] = Field(
        default=16.0, description="Change of brightness from which a spot counts as changed, 1..255."
    )
    min_area: Annotated[Fraction, Field(gt=0)] = Field(
        default=0.001, description="Share of the picture that must have changed, 0..1."
    )
    hold_s: Seconds = Field(
        default=3.0, description="Pictures pass for this long after the last motion, seconds."
    )
    recheck_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0, description="While nothing moves, one picture passes this often, seconds."
    )


class Source(Section):
    """One place where frames come from."""

    url: Annotated[Text, BeforeValidator(_camera_number, json_schema_input_type=str | int)] = Field(
        description="A video file, an image folder, rtsp:// or another stream, 0 for the first local camera, "
        "push+tcp:// to be sent pictures, or synthetic: with options."
    )
    username: Text | None = Field(default=None, description="User name of the camera, written plainly.")
    password: Annotated[SecretStr, BeforeValidator(_secret)] | None = Field(
        default=None, description="Its password, written plainly; best as ${NAME}."
    )
    password_file: Text | None = Field(
        default=None, description="A file with the password on its only line, read when a run starts."
    )
    transport: Literal["tcp", "udp", "multicast", "http"] = Field(
        default="tcp", description="How RTSP brings the video; tcp loses nothing and passes firewalls."
    )
    tls_verify: Switch = Field(default=True, description="Whether the server's certificate must be valid.")
    tls_ca: Text | None = Field(
        default=None, description="PEM file with the certificates to trust instead of the system's."
    )
    decode: Literal["auto", "cpu", "cuda", "nvdec", "vaapi", "qsv", "drm", "v4l2", "amf"] = Field(
        default="auto", description="What decodes; auto takes a graphics card where one truly works."
    )
    threads: Count = Field(default=1, description="Decoder threads; more adds latency on some streams.")
    connect_timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0, description="Longest time until a stream is open, seconds."
    )
    read_timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=5.0, description="Longest silence before a stream counts as lost, seconds."
    )
    realtime: Switch | None = Field(
        default=None, description="Play a recording at its own pace; left out: as run.realtime says."
    )
    max_fps: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="At most so many pictures a second are looked at; left out: all."
    )
    max_age_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=1.0, description="A live picture that lags by more is dropped, seconds."
    )
    motion: Annotated[
        Motion | None, BeforeValidator(_motion, json_schema_input_type=bool | Motion | None)
    ] = Field(default=None, description="Look only at pictures in which something moves.")
    schedule: (
        Annotated[
            tuple[Annotated[str, BeforeValidator(_hours)], ...],
            BeforeValidator(_one_or_more, json_schema_input_type=str | tuple[str, ...]),
        ]
        | None
    ) = Field(
        default=None, description="When pictures are wanted, such as mon-fri 07:00-19:00; left out: always."
    )
    timezone: Text | None = Field(
        default=None, description="Time zone of the schedule, such as Europe/Berlin; left out: this host's."
    )
    moving: Switch = Field(default=False, description="Whether the camera itself moves, as in a car.")
    raw_options: Annotated[
        dict[str, str],
        BeforeValidator(_raw_options, json_schema_input_type=dict[str, str | int | float | bool]),
    ] = Field(default_factory=dict, alias="options", description="Raw options of FFmpeg, for experts.")
    insecure: Switch = Field(
        default=False, description="Let other hosts reach a push source, in plain text and open to all."
    )

    @field_validator("url")
    @classmethod
    def _url_can_be_one(cls, value: str) -> str:
        kind = kind_of(value)
        if kind == "push":
            if not _PUSH.fullmatch(value):
                raise ValueError("must be push+tcp://HOST:PORT or push+ipc://PATH")
        elif kind == "stream" and re.search(r"[\s\x00-\x1f]", value):
            raise ValueError("must not have a space in it; write %20, or give username: and password:")
        elif kind == "stream" and is_cut_short(value):
            raise ValueError(
                "must have no / ? or # in its password; give username: and password: instead of a login in it"
            )
        return value

    @field_validator("username", "password", "password_file")
    @classmethod
    def _login(cls, value: Any, info: ValidationInfo) -> Any:
        url = info.data.get("url")
        if value is None or url is None:
            return value
        if kind_of(url) != "stream" or scheme_of(url) in _WITHOUT_LOGIN:
            hint = "write options: {passphrase: …}" if scheme_of(url) == "srt" else "leave it out"
            raise ValueError(f"is there, but this source has no login; {hint}")
        user, colon, _ = userinfo_of(url).partition(":")
        if info.field_name == "username":
            if user:
                raise ValueError("says again who logs in; take the user out of the url")
            return value
        if colon:
            raise ValueError("says the password again; take it out of the url")
        if not user and not info.data.get("username"):
            raise ValueError("has no user name with it; add username: …")
        if info.field_name == "password_file" and info.data.get("password") is not None:
            raise ValueError("says the password again; keep password or password_file")
        return value

    @field_validator(*_FITS)
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        url = info.data.get("url")
        if url is None or info.field_name is None or value is None:
            return value
        if not _fitting(info.field_name, url, paced=bool(info.data.get("realtime"))):
            raise ValueError(f"{_FITS[info.field_name][1]}; leave it out")
        return value

    @field_validator("transport")
    @classmethod
    def _secure_is_tcp(cls, value: str, info: ValidationInfo) -> str:
        scheme = scheme_of(info.data.get("url", ""))
        if value != "tcp" and scheme in ("rtsps", "rtspt"):
            raise ValueError(f"is {value}, but {scheme}:// always travels over TCP; leave it out")
        return value

    @field_validator("tls_ca")
    @classmethod
    def _something_to_verify(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("tls_verify") is False:
            raise ValueError("is not used while tls_verify is false; leave one of them out")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if "schedule" in info.data and info.data["schedule"] is None:
            raise ValueError("is there without a schedule; add schedule: [mon-fri 07:00-19:00]")
        return check_timezone(value)

    @model_validator(mode="after")
    def _push_stays_here(self) -> Self:
        match = _PUSH.fullmatch(self.url)
        host = match and (match[1] or match[2])
        if host and not self.insecure and not is_loopback(host):
            raise ValueError(
                f"listens at {self.url}, where other hosts can reach it, in plain text and open to all; "
                "listen at push+tcp://127.0.0.1:PORT, or add insecure: true if the network is trusted"
            )
        return self

    @model_serializer(mode="wrap")
    def _shown(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As shown to people: no secret, and no key that means nothing for this source."""
        plain: dict[str, Any] = handler(self)
        plain = {key: value for key, value in plain.items() if value not in (None, {}) and self._means(key)}
        plain["url"] = redact_url(self.url)
        if plain.get("password") is not None:
            plain["password"] = str(self.password)
        for key in {"options", "raw_options"} & plain.keys():
            plain[key] = {
                name: "***" if is_secret_name(name) else redact(value)
                for name, value in self.raw_options.items()
            }
        return plain

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return list(self.model_dump(exclude_unset=True).items())

    def _means(self, key: str) -> bool:
        if key == "read_timeout_s" and kind_of(self.url) == "push":
            return key in self.model_fields_set
        return _fitting("raw_options" if key == "options" else key, self.url, paced=bool(self.realtime))

    def address(self) -> str:
        """The URL with the login in it, percent-quoted: the only place where the two are joined.

        Raises:
            ConfigError: the file with the password is not there, cannot be read, or holds no password.
        """
        password = self.password.get_secret_value() if self.password is not None else None
        if self.password_file is not None:
            password = password_in(Path(self.password_file).expanduser())
        return with_login(self.url, self.username, password)

    def cautions(self) -> tuple[str, ...]:
        """What is allowed but unwise, one sentence each, to be logged when a run starts."""
        if self.password_file is None:
            return ()
        path = Path(self.password_file).expanduser()
        try:
            mode = path.stat().st_mode
        except OSError:
            return ()  # `address` says why.
        # What an orchestrator mounts for one container is readable by all in it, and there is no one else.
        if not stat.S_ISREG(mode) or not mode & stat.S_IROTH or path.is_relative_to("/run/secrets"):
            return ()
        return (f"every user of this machine can read the password in {path}; type: chmod 600 {path}",)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the adapter of its kind, as plain data.

        Of recordings and push sources those that were given: a folder of images takes none of those of a
        video, and for pushed pictures silence means less.

        Raises:
            ConfigError: the file with the certificates is not there.
        """
        kind = kind_of(self.url)
        given = {
            key.removeprefix("raw_"): getattr(self, key)
            for key in _ARGUMENTS[kind]
            if key in self.model_fields_set or (kind in ("stream", "device") and self._means(key))
        }
        if self.tls_ca is not None:
            path = Path(self.tls_ca).expanduser()
            if not path.is_file():
                raise ConfigError(
                    f"there is no file {path} with certificates", hint="give tls_ca the path of a PEM file"
                )
            given["tls_ca"] = str(path)
        return given

    def admission(self) -> dict[str, Any]:
        """Keyword arguments of `pipeline.sources.admission.Admission`, as plain data; empty to want all."""
        wanted: dict[str, Any] = {}
        if self.max_fps is not None:
            wanted["max_fps"] = self.max_fps
        if _fitting("max_age_s", self.url, paced=bool(self.realtime)):
            wanted["max_age_s"] = self.max_age_s
        if self.motion is not None:
            wanted["motion"] = self.motion.model_dump()
        if self.schedule is not None:
            wanted["schedule"] = [tuple(parse_hours(text)) for text in self.schedule]
            wanted["timezone"] = self.timezone
        return wanted


def _fitting(key: str, url: str, *, paced: bool) -> bool:
    """Whether a key means anything for a source."""
    words = {kind_of(url), scheme_of(url), "paced" if paced else ""}
    return key not in _FITS or not words.isdisjoint(_FITS[key][0])
