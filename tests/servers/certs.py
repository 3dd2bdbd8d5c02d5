"""A self-signed certificate for loopback, made when a test first asks for it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.streams import make_folder

__all__ = ["Certificate", "certificate"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a certificate that signs itself: ``cert`` is also the authority to trust."""

    cert: Path
    key: Path


@functools.cache
def certificate(host: str = "127.0.0.1") -> Certificate:
    """A certificate for one address (any but 127.0.0.1 and localhost makes one with the wrong name).

    Skips the test where the ``openssl`` command is missing.
    """
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed (apt-get install openssl)")
    local = host == "127.0.0.1"
    made = Certificate(make_folder() / f"{host}.crt", make_folder() / f"{host}.key")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", f"/CN={host}", "-keyout", str(made.key), "-out", str(made.cert)]
    command += ["-addext", "subjectAltName=" + ("IP:127.0.0.1,DNS:localhost" if local else f"DNS:{host}")]
    subprocess.run(command, check=True, capture_output=True)
    return made
