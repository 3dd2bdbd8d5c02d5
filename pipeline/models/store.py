"""Where model files come from: inside the package, the cache, a pinned download, or a path.

The cache is ``$FRAMEWIRE_CACHE``, else ``$XDG_CACHE_HOME/framewire``, else ``~/.cache/framewire``.
``$FRAMEWIRE_MODEL_MIRROR`` names base addresses, separated by spaces, under which the same file names lie
(``https://user:password@mirror.example/models``); when it is set nothing else is asked.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ModelError
from pipeline.models import nanodet_g, npm
from pipeline.models.download import Progress, copy_file, fetch, sha256_of

__all__ = [
    "ALIASES",
    "EMBEDDED_PATH",
    "KNOWN",
    "KnownModel",
    "ModelFile",
    "cache_dir",
    "cached",
    "pull",
    "resolve",
]

EMBEDDED_PATH = Path(__file__).parent / "data" / "nanodet_g_416_int8.onnx"

_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/"


@dataclass(frozen=True)
class KnownModel:
    """A model that can be named.

    Attributes:
        name: Its name.
        file: Name of its file in the cache.
        origin: ``embedded`` in the package, an official ``download``, or built from an ``npm`` package.
        family: Head that decodes it.
        size: Edge of its square input in pixels.
        bytes: Size of the file; of a built one, about.
        licence: SPDX name of the licence of the weights.
        note: What it is good for.
        url: Address of the download.
        sha256: Digest of the download, lower-case hex.
    """

    name: str
    file: str
    origin: Literal["embedded", "download", "npm"]
    family: str
    size: int
    bytes: int
    licence: str
    note: str
    url: str = ""
    sha256: str = ""


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


def _yolox(variant: str, size: int, count: int, sha256: str, note: str) -> KnownModel:
    file = f"yolox_{variant}.onnx"
    return KnownModel(
        f"yolox-{variant}", file, "download", "yolox", size, count, "Apache-2.0", note, _YOLOX + file, sha256
    )


_TABLE = (
    KnownModel("nanodet-g-int8", EMBEDDED_PATH.name, "embedded", "nanodet", 416, 4_010_954, "Apache-2.0",
               "the default; int8, for CPUs with VNNI"),
    KnownModel("nanodet-g", "nanodet_g_416.onnx", "npm", "nanodet", 416, 15_269_140, "Apache-2.0",
               "the default in float32, for GPUs and older CPUs; built from npm"),
    _yolox("nano", 416, 3_659_407, "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
           "COCO AP 25.8"),
    _yolox("tiny", 416, 20_219_662, "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7",
           "COCO AP 32.8"),
    _yolox("s", 640, 35_858_002, "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063",
           "COCO AP 40.5"),
    _yolox("m", 640, 101_259_744, "21ff6cfdeb53b013bac2249599e55f00bff3cfdfdab37ed7a4620818c1d15b3f",
           "COCO AP 47.2; wants a GPU"),
    _yolox("l", 640, 216_746_733, "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
           "COCO AP 50.1; wants a GPU"),
    _yolox("x", 640, 396_142_663, "c892d7aaf1c4746d8a4d675bec669a4db4f434b4ee1efb654bc9b353379c7c55",
           "COCO AP 51.5; wants a GPU"),
)  # fmt: skip

#: Models by name, in the order in which they are listed.
KNOWN: dict[str, KnownModel] = {model.name: model for model in _TABLE}
#: Second names.
ALIASES: dict[str, str] = {"default": "nanodet-g-int8"}


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


def resolve(name_or_path: str, *, fetch_missing: bool = True, progress: Progress | None = None) -> ModelFile:
    """The file of a model; one that is here is never fetched again.

    Args:
        name_or_path: A name of `KNOWN` or `ALIASES`, or a path (``./default`` for a file of such a name).
        fetch_missing: Fetch a known model that is not here; else that is an error.
        progress: Told how far a transfer is.

    Returns:
        The file.

    Raises:
        ModelError: there is no such model or file, it cannot be fetched, or it is empty or not readable.
    """
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
    return [f"{mirror.rstrip('/')}/{model.file}" for mirror in mirrors] or [model.url]


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
    names = [*ALIASES, *KNOWN]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return ModelError(
        f"there is no model {name!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else f"the names are {', '.join(names)}; or give a file",
    )
