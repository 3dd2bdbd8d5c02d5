"""Pythons of their own for what cannot be installed beside framewire; kept in the cache folder."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from pipeline.models.store import cache_dir

__all__ = ["python_with", "same_version"]


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The Python of a virtual environment that has exactly these requirements asked for; made when missing.

    Args:
        name: Of its folder under ``venvs`` in the cache.
        requirements: As pip takes them, pinned.

    Raises:
        SystemExit: pip cannot install them.
    """
    folder = cache_dir() / "venvs" / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp = folder / "bin" / "python", folder / "framewire.stamp"
    wanted = "\n".join(requirements)
    if python.exists() and stamp.exists() and stamp.read_text("utf-8") == wanted:
        return python
    print(
        f"making {folder} with {', '.join(requirements)} (the first time this takes a minute)",
        file=sys.stderr,
    )
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *requirements]
    if subprocess.run(install, stdout=sys.stderr, check=False).returncode != 0:
        raise SystemExit(f"pip cannot install {', '.join(requirements)}; is there a way to a package index?")
    stamp.write_text(wanted, "utf-8")
    return python


def same_version(package: str) -> str:
    """``package==version`` as it is installed here."""
    return f"{package}=={importlib.metadata.version(package)}"
