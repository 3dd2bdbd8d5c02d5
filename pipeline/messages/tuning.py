"""What can be changed of a source while it runs, without its config: on or off, and how sure is sure."""

from __future__ import annotations

import msgspec

__all__ = ["Tuning"]


class Tuning(msgspec.Struct, frozen=True):
    """What somebody has set for a source while the run goes on.

    Attributes:
        enabled: Whether anything is detected; pictures are dropped at capture otherwise, as ``gated``.
        confidence: Detections below it are dropped, 0..1; None for what the config says.
    """

    enabled: bool = True
    confidence: float | None = None
