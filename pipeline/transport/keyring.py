"""The keys of the event stream on disk: the server's own pair, and the public half of each client's."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
import zmq

from pipeline.errors import ConfigError

__all__ = ["SCHEMA", "Bundle", "Client", "Keyring", "default_folder"]

SCHEMA: Final = "framewire.keys/1"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_SERVER = "server.json"
_CLIENTS = "clients"
#: A file that was written this recently may change again without a change of its times.
_FRESH_NS = 1_000_000_000


class Bundle(msgspec.Struct, frozen=True):
    """A client's key file; the keys are Z85 texts of 40 characters.

    Attributes:
        schema: `SCHEMA`.
        name: Name of the client.
        public: Its public key.
        secret: Its secret key. Nobody else has it: the server keeps the public one only.
        server: The server's public key.
    """

    schema: Literal["framewire.keys/1"]
    name: str
    public: str
    secret: str
    server: str

    def __repr__(self) -> str:
        return f"Bundle(name={self.name!r}, public={self.public!r})"

    def json(self) -> bytes:
        """What a key file holds."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    def write(self, path: Path) -> None:
        """Write a key file that only this user can read.

        Raises:
            ConfigError: something is there already, or it cannot be written.
        """
        if not _create(path, self.json(), 0o600):
            raise ConfigError(f"{path} exists already", hint="name another file: --out FILE")


@dataclass(frozen=True, slots=True)
class Client:
    """One who may subscribe.

    Attributes:
        name: What it is called.
        public: Its public key, Z85.
        created: When the keys were made, ISO 8601 in UTC.
    """

    name: str
    public: str
    created: str


class _ServerFile(msgspec.Struct, frozen=True):
    schema: Literal["framewire.server/1"]
    public: str
    secret: str


class _ClientFile(msgspec.Struct, frozen=True):
    schema: Literal["framewire.client/1"]
    name: str
    public: str
    created: str


def default_folder() -> Path:
    """``$XDG_CONFIG_HOME/framewire/keys``, or ``~/.config/framewire/keys``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "framewire" / "keys"


class Keyring:
    """A folder of keys. Nothing is made or read before it is needed.

    Every change is one step on the disk, so that whoever looks sees a client whole or not at all, and
    processes that share the folder need not know of each other.

    Args:
        folder: Where the keys are; None for `default_folder`.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder).expanduser()
        self._known: dict[str, tuple[tuple[int, ...], Client | None]] = {}

    def server(self) -> tuple[str, str]:
        """The server's public and secret key, Z85; made when there are none yet.

        Raises:
            ConfigError: they cannot be made or read, or others can read the secret or change the folder.
        """
        path = self.folder / _SERVER
        if not path.exists():
            self._make_folder()
            public, secret = _pair()
            # Who comes second takes what the first has made.
            _create(
                path, msgspec.json.encode(_ServerFile("framewire.server/1", public, secret)) + b"\n", 0o600
            )
        self._check_modes()
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_ServerFile)
        except OSError as error:
            raise _unreadable(path, error) from error
        except msgspec.DecodeError:
            raise ConfigError(f"{path} does not hold the keys of a server", hint=_new_server(path)) from None
        if not _Z85.fullmatch(found.public) or not _Z85.fullmatch(found.secret):
            raise ConfigError(f"{path} holds a key that is none", hint=_new_server(path))
        return found.public, found.secret

    def new(self, name: str) -> Bundle:
        """Make the keys of a client, and let it in from now on.

        Args:
            name: 1 to 64 letters, digits, ``_`` or ``-``.

        Raises:
            ConfigError: the name is none or taken, or the folder cannot be written.
        """
        _check_name(name)
        server, _ = self.server()
        self._make_folder()
        public, secret = _pair()
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        raw = msgspec.json.encode(_ClientFile("framewire.client/1", name, public, created)) + b"\n"
        # Not secret, and readable so that root can make keys for a server of another user.
        if not _create(self._path(name), raw, 0o644):
            raise ConfigError(
                f"there are keys for {name} already",
                hint=f"choose another name, or take the old ones back: framewire keys revoke {name}",
            )
        return Bundle(SCHEMA, name, public, secret, server)

    def revoke(self, name: str) -> None:
        """Let a client in no more.

        Raises:
            ConfigError: there is none of that name, or its file cannot be removed.
        """
        _check_name(name)
        try:
            self._path(name).unlink()
            _sync(self.folder / _CLIENTS)
        except FileNotFoundError:
            known = ", ".join(client.name for client in self.clients())
            raise ConfigError(
                f"there are no keys for {name} in {self.folder}",
                hint=f"there are {known}" if known else "there are none at all",
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot revoke the keys of {name}: {error.strerror}") from error

    def clients(self) -> tuple[Client, ...]:
        """All who may subscribe, by name; as it is on the disk now. A file that is damaged lets nobody in.

        Raises:
            ConfigError: the folder cannot be read.
        """
        folder = self.folder / _CLIENTS
        known: dict[str, tuple[tuple[int, ...], Client | None]] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # revoked while we look
                        if entry.name.endswith(".json"):
                            known[entry.name] = self._look(entry)
        except FileNotFoundError:
            known = {}
        except OSError as error:
            raise _unreadable(folder, error) from error
        self._known = known
        return tuple(sorted((client for _, client in known.values() if client), key=lambda one: one.name))

    def damaged(self) -> tuple[str, ...]:
        """Names of files among the clients' that were no key files when `clients` looked last."""
        return tuple(sorted(name for name, (_, client) in self._known.items() if client is None))

    def _look(self, entry: os.DirEntry[str]) -> tuple[tuple[int, ...], Client | None]:
        stat = entry.stat()
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
        before = self._known.get(entry.name)
        if before is not None and before[0] == state and time.time_ns() - stat.st_ctime_ns > _FRESH_NS:
            return before
        try:
            found = msgspec.json.decode(Path(entry.path).read_bytes(), type=_ClientFile)
        except FileNotFoundError:
            raise
        except (msgspec.DecodeError, PermissionError, IsADirectoryError):
            return state, None
        name = entry.name.removesuffix(".json")
        fine = found.name == name and _NAME.fullmatch(name) and _Z85.fullmatch(found.public)
        return state, Client(name, found.public, found.created) if fine else None

    def _path(self, name: str) -> Path:
        return self.folder / _CLIENTS / f"{name}.json"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / _CLIENTS).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the folder of keys {self.folder}: {error.strerror}",
                hint="name another one: --keys FOLDER, or keys: FOLDER in a config",
            ) from error

    def _check_modes(self) -> None:
        for path, forbidden, what in (
            (self.folder, 0o022, "can be changed by other users, who could let themselves in"),
            (self.folder / _CLIENTS, 0o022, "can be changed by other users, who could let themselves in"),
            (self.folder / _SERVER, 0o077, "can be read by other users, and holds a secret"),
        ):
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                if path.name == _SERVER:
                    raise
                continue
            except OSError as error:
                raise _unreadable(path, error) from error
            if mode & forbidden:
                wanted = "600" if path.name == _SERVER else "700"
                raise ConfigError(f"{path} {what}", hint=f"type: chmod {wanted} {path}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a client", hint="write 1 to 64 letters, digits, `_` or `-`, such as desk"
        )


def _pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _create(path: Path, raw: bytes, mode: int) -> bool:
    """Put a file there in one step; False when there is one already."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)  # whatever the umask says
                file.write(raw)
                file.flush()
                os.fsync(descriptor)
            os.link(beside, path)  # unlike a rename, this never replaces
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}",
            hint="free space there, or name a folder where you may write",
        ) from error
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read {path}: {error.strerror}", hint="run as the user that the keys belong to"
    )


def _new_server(path: Path) -> str:
    return f"put it back from a copy, or remove {path} and make new keys for all clients"
