"""Colours of the synthetic scene, and what the fake model calls them: the truth that both agree on."""

from __future__ import annotations

__all__ = ["BACKGROUND", "LABELS", "PALETTE"]

#: Grey level of the synthetic background; also what letterboxes are padded with.
BACKGROUND = 114

#: BGR colour of class k. Any two differ by 255 in some channel and each differs from the background by
#: more than 110 in all, so that neither I420 nor scaling turns one into another.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 0, 255),
    (0, 255, 0),
    (255, 0, 0),
    (0, 255, 255),
    (255, 0, 255),
    (255, 255, 0),
)

#: Class names, in the order of `PALETTE`.
LABELS: tuple[str, ...] = ("red", "green", "blue", "yellow", "magenta", "cyan")
