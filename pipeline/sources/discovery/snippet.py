"""What was found, as sources of a config that can be pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from pipeline.sources.discovery.onvif import MASK, Details, Profile
from pipeline.sources.discovery.probe import Device

__all__ = ["as_yaml", "best_profile"]

#: Detectors look at a small picture: no more is decoded than they can use.
_ENOUGH_WIDTH = 640


def best_profile(profiles: Sequence[Profile]) -> Profile | None:
    """The smallest stream at least 640 pixels wide, else the largest; None when none has an address."""
    usable = [one for one in profiles if one.url]
    enough = [one for one in usable if one.width >= _ENOUGH_WIDTH]
    if enough:
        return min(enough, key=lambda one: (one.width * one.height, one.codec == "H265"))
    return max(usable, key=lambda one: one.width * one.height, default=None)


def as_yaml(
    found: Iterable[tuple[Device, Details | None]], *, user_variable: str, password_variable: str, login: bool
) -> str:
    """A ``sources:`` section. Whatever the devices said is quoted, and fills in no variable.

    Args:
        found: Devices and what they told.
        user_variable: Environment variable with the user's name.
        password_variable: Environment variable with the password.
        login: Whether the streams need a login.
    """
    lines = ["sources:"]
    names: set[str] = set()
    account = f', username: "${{{user_variable}}}", password: "${{{password_variable}}}"' if login else ""
    for device, details in found:
        name = _name(device, details, names)
        best = best_profile(details.profiles) if details else None
        if best is None:
            why = details.refused if details and details.refused else "it was not asked for its streams"
            lines.append(f"  # {device.addresses[0]} {device.name}: {why}")
            continue
        # What is at another host gets nobody's password before a person has looked at it.
        begin = "  # " if best.elsewhere else "  "
        lines.append(f"{begin}{name}: {{url: {_quoted(best.url)}{account}}}{_remark(best)}")
        others = [one for one in (details.profiles if details else ()) if one.url and one is not best]
        lines += [f"  #   or url: {_quoted(one.url)}{_remark(one)}" for one in others]
    return "\n".join(lines if len(lines) > 1 else ["sources: {}"]) + "\n"


def _name(device: Device, details: Details | None, taken: set[str]) -> str:
    """A name that a config takes, unlike the others."""
    for text in (
        device.name,
        details.model if details else "",
        device.hardware,
        f"camera_{device.addresses[0]}",
    ):
        base = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower()[:50]
        if base:
            break
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def _quoted(url: str) -> str:
    """JSON's quotes are YAML's too; a ``$`` of a stranger's must not name a variable of ours.

    A password that stood in the URL itself becomes a variable that nobody has set yet.
    """
    return json.dumps(url.replace("$", "$$"), ensure_ascii=True).replace(MASK, "${PASSWORD_IN_URL}")


def _remark(profile: Profile) -> str:
    size = f"{profile.width}x{profile.height}" if profile.width else ""
    rate = f"{profile.fps:g} fps" if profile.fps else ""
    parts = [part for part in (profile.name, profile.codec, size, rate) if part]
    if profile.elsewhere:
        parts.append("CAREFUL: at another host than the camera that says so")
    return f"  # {', '.join(parts)}" if parts else ""
