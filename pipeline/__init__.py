"""framewire: camera feeds and recordings in, tracked detection events out.

Importing this package loads nothing heavy; each stage process imports only what that stage needs.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
