"""The error tree. Every error that a user can meet is one of these, and each says what to do.

::

    FramewireError                 exit code 1
    ├── ConfigError                exit code 2   a config file, option or argument is wrong
    ├── SourceError                exit code 3   a source cannot be read
    │   ├── SourceNotFoundError                  (also FileNotFoundError)
    │   └── SourceLostError                      it broke after frames had been read
    ├── ModelError                 exit code 4   a model cannot be loaded, recognised or fetched
    │   └── ProviderError                        the accelerator asked for is not there
    ├── SinkError                  exit code 5   results cannot be written or published
    ├── TransportError             exit code 6   a link, pool or endpoint failed
    │   ├── PoolError                            shared memory is too small or not usable
    │   ├── StaleSlotError                       the slot was recycled; the reader came too late
    │   └── MessageError                         bytes that are not a message we accept
    └── StageError                 exit code 7   a stage died or raised more often than its budget allows
"""

from __future__ import annotations


class FramewireError(Exception):
    """Base of all framewire errors.

    Args:
        message: What is wrong, in one sentence.
        hint: What to do about it, or what to type instead.
        stage: The stage in which it happened (``capture``, ``infer``, …), if any.
        source: The name of the source that it concerns, if any.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", stage: str = "", source: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.stage = stage
        self.source = source

    def __str__(self) -> str:
        where = " ".join(part for part in (self.stage, self.source and f"[{self.source}]") if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  -> {self.hint}" if self.hint else text


class ConfigError(FramewireError, ValueError):
    """A config file, option or argument is wrong."""

    exit_code = 2


class SourceError(FramewireError):
    """A source cannot be read.

    Args:
        reason: One of ``auth``, ``not_found``, ``timeout``, ``codec``, ``network``, ``tls``.
        message: What is wrong, in one sentence.
        hint: What to do about it.
        stage: The stage in which it happened.
        source: The name of the source.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, reason: str = "codec", hint: str = "", stage: str = "", source: str = ""
    ) -> None:
        super().__init__(message, hint=hint, stage=stage, source=source)
        self.reason = reason


class SourceNotFoundError(SourceError, FileNotFoundError):
    """There is no such file, folder or stream."""

    def __init__(self, message: str, *, hint: str = "", stage: str = "", source: str = "") -> None:
        super().__init__(message, reason="not_found", hint=hint, stage=stage, source=source)


class SourceLostError(SourceError):
    """The source broke after frames had been read; what was read stays valid."""


class ModelError(FramewireError):
    """A model cannot be loaded, recognised or fetched."""

    exit_code = 4


class ProviderError(ModelError):
    """The execution provider that was asked for is not in force."""


class SinkError(FramewireError):
    """Results cannot be written or published."""

    exit_code = 5


class TransportError(FramewireError):
    """A link, pool or endpoint failed."""

    exit_code = 6


class PoolError(TransportError):
    """Shared memory is too small or cannot be used."""


class StaleSlotError(TransportError):
    """A slot was recycled before or while it was read."""


class MessageError(TransportError, ValueError):
    """Bytes that are not a message of a version that we accept."""


class StageError(FramewireError):
    """A stage died or raised more often than its budget allows."""

    exit_code = 7


#: Every error class by name, so that an error can cross a process edge as plain data.
BY_NAME: dict[str, type[FramewireError]] = {
    cls.__name__: cls
    for cls in (
        FramewireError, ConfigError, SourceError, SourceNotFoundError, SourceLostError, ModelError,
        ProviderError, SinkError, TransportError, PoolError, StaleSlotError, MessageError, StageError,
    )
}  # fmt: skip
