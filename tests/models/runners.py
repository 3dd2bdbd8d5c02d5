"""What tests of the ONNX runner share: small graphs that pass for YOLOX, and buffers for outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.models.base import Runner
from tests.models import graphs

__all__ = ["CELLS", "YOLOX", "outputs_of", "save_graph"]

#: Cells of strides 8, 16, 32 at 64x64.
CELLS = 64 + 16 + 4
YOLOX = {"output": (CELLS, 85)}


def save_graph(path: Path, outputs: Mapping[str, Sequence[int]], **options: Any) -> Path:
    """A graph of `tests.models.graphs`; a card within settles a family that its values do not show."""
    if "output" in outputs:
        metadata = {"framewire.card": '{"family": "yolox"}'} | options.pop("metadata", {})
        return graphs.save_graph(path, outputs, metadata=metadata, **options)
    return graphs.save_graph(path, outputs, **options)


def outputs_of(runner: Runner, count: int) -> list[np.ndarray[Any, Any]]:
    """Buffers that show which bytes were written."""
    return [
        np.full((count, *shape[1:]), np.nan, dtype)
        for shape, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
    ]
