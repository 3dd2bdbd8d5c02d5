"""What connectors share: their library, their password, their certificates."""

from __future__ import annotations

import ssl
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.sinks.connector import UnreachableError

__all__ = ["library", "secret_of", "tls_context"]


def library(name: str, extra: str) -> Any:
    """Import the library of a connector, now and not before.

    Args:
        name: The module.
        extra: The extra of framewire that installs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import_module(name.partition(".")[0])
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"the sink {extra} needs {name.partition('.')[0]}, which is not installed",
            hint=f'type: pip install "framewire[{extra}]"',
        ) from error


def secret_of(value: str | None, path: str | None) -> str | None:
    """A secret as it is now: written in the config, or the only line of a file, which may change.

    Raises:
        UnreachableError: the file cannot be read, or is empty.
    """
    if path is None:
        return value
    try:
        secret = Path(path).expanduser().read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreachableError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not secret:
        raise UnreachableError(f"{path} is empty; write the password there")
    return secret


def tls_context(
    ca_file: str | None, cert_file: str | None = None, key_file: str | None = None
) -> ssl.SSLContext:
    """What a TLS connection trusts, and who we say that we are.

    Args:
        ca_file: Certificates to trust, PEM; None for those of this system.
        cert_file: Our own certificate, PEM; None for none.
        key_file: Its key; None if it is in the same file.

    Raises:
        UnreachableError: a file cannot be read, or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(name for name in (ca_file, cert_file, key_file) if name)
        raise UnreachableError(f"cannot use the certificates in {named}: {error}") from error
    return context
