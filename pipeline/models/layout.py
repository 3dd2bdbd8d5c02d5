"""The arrays of a graph: which input is the picture, what feeds the others, and what buffers outputs need.

Shapes follow `pipeline.heads.TensorInfo`: a name or None where a size is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo
from pipeline.messages import ModelSpec

__all__ = [
    "DTYPES",
    "Layout",
    "picture_of",
    "sizes",
    "stand_ins",
    "with_outputs",
    "with_size",
]

#: Edge in pixels of a free input when nobody names one.
DEFAULT_SIZE = 640
#: Element types that are run, as numpy names them.
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64", "bool")


@dataclass(frozen=True)
class _Output:
    """One output that is read.

    Attributes:
        name: Its name.
        dtype: numpy dtype name.
        shape: Of its buffer for one frame, leading 1 included.
        batched: Whether the graph's own array has that leading axis.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batched: bool


class Layout:
    """How frames become the inputs of a graph, and its outputs the buffers of frames.

    Args:
        declared: What the graph says of itself.
        signature: The same with every size known but that of the batch.
        spec: The model.

    Attributes:
        group: Pictures that each run takes: 0 where any number will do, else exactly so many.
        name: Name of the picture input.
        output_shapes: Shape of each buffer for one frame, leading 1 included, in the spec's order.
        output_dtypes: numpy dtype name of each.

    Raises:
        ModelError: an input has no value, or one of another size than the graph takes.
    """

    def __init__(self, declared: Signature, signature: Signature, spec: ModelSpec) -> None:
        picture = picture_of(signature)
        assert picture is not None
        self.name = picture.name
        self._spec = spec
        self._rank = len(picture.shape)
        self._feeds = _feeds(signature, picture, spec)
        self._repeated: dict[int, dict[str, NDArray[Any]]] = {}
        first = picture.shape[0]
        said = {info.name: info for info in declared.outputs}
        known = {info.name: info for info in signature.outputs}
        self._outputs = [
            _output(said[name], known[name], signature.samples.get(name), first, self._rank, spec.max_rows)
            for name in spec.output_names
        ]
        self.output_shapes = tuple(output.shape for output in self._outputs)
        self.output_dtypes = tuple(output.dtype for output in self._outputs)
        self.group = first if self._rank == 4 and isinstance(first, int) else 0
        if self._rank == 3 or spec.max_rows or not all(output.batched for output in self._outputs):
            if self.group > 1:
                raise ModelError(
                    f"model {spec.name!r} takes batches of exactly {self.group} pictures, "
                    "and its outputs cannot be told apart by picture",
                    hint="export it with a batch of 1",
                )
            self.group = 1
        size = (spec.input_height, spec.input_width)
        pixels = (3, *size) if spec.input_layout == "nchw" else (*size, 3)
        self._wanted: list[tuple[tuple[int, ...], str]] = [(pixels, spec.input_dtype)]
        self._wanted += [(output.shape[1:], output.dtype) for output in self._outputs]

    def check(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Refuse what bound pointers would misread.

        Raises:
            ModelError: see `pipeline.models.base.Runner.forward`.
        """
        arrays = (tensors, *outputs)
        got = [(array.shape[1:], array.dtype.name) for array in arrays]
        counts = {len(array) for array in arrays}
        if got != self._wanted or len(counts) != 1 or not all(array.flags.c_contiguous for array in arrays):
            raise ModelError(
                f"model {self._spec.name!r} takes and gives {self._wanted} per frame, contiguous; got {got}"
            )

    def inputs(self, tensors: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Every input of the graph for pictures (n, …), by name; the picture's own is a view."""
        count = len(tensors)
        if count not in self._repeated:
            self._repeated[count] = {
                name: np.repeat(array, count, axis=0) if batched else array
                for name, (array, batched) in self._feeds.items()
            }
        return {self.name: tensors[0] if self._rank == 3 else tensors, **self._repeated[count]}

    def targets(self, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The buffers by output name, as views of the shapes that the graph itself gives."""
        return {
            output.name: buffer if output.batched else buffer[0, ...]  # of a number a view, too
            for output, buffer in zip(self._outputs, outputs, strict=True)
        }

    def copy(self, found: Mapping[str, NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> None:
        """Copy fresh arrays into the buffers; rows that the picture left free become 0.

        Args:
            found: What a run gave, by name.
            outputs: As for `pipeline.models.base.Runner.forward`.

        Raises:
            ModelError: an array is not of the shape or type expected, or there are more rows than
                ``max_rows``.
        """
        spec = self._spec
        for output, buffer in zip(self._outputs, outputs, strict=True):
            array = found[output.name]
            rows = array if output.batched else array[None]
            if spec.max_rows and rows.ndim == buffer.ndim > 1 and rows.shape[1] > buffer.shape[1]:
                raise ModelError(
                    f"output {output.name!r} of model {spec.name!r} gives {rows.shape[1]} rows, "
                    f"over its max_rows of {spec.max_rows}",
                    hint=f'write {{"max_rows": {rows.shape[1] * 2}}} in its card',
                )
            fixed = 2 if spec.max_rows else 1
            fits = rows.ndim == buffer.ndim and len(rows) == len(buffer) and array.dtype.name == output.dtype
            if not fits or rows.shape[fixed:] != buffer.shape[fixed:]:
                raise ModelError(
                    f"output {output.name!r} of model {spec.name!r} came as {array.dtype} {array.shape}, "
                    f"not as {output.dtype} {buffer.shape if output.batched else buffer.shape[1:]}"
                )
            if not spec.max_rows:
                buffer[...] = rows
                continue
            buffer[...] = 0
            buffer[tuple(slice(0, size) for size in rows.shape)] = rows


def picture_of(signature: Signature) -> TensorInfo | None:
    """The one input that is a colour picture; None when there is none, or several."""
    found = [info for info in signature.inputs if _is_picture(info)]
    return found[0] if len(found) == 1 else None


def sizes(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """The sizes of a shape that are known."""
    return tuple(size for size in shape if isinstance(size, int))


def with_size(signature: Signature, size: tuple[int, int] | None) -> Signature:
    """The signature with a free input width or height filled in.

    Args:
        signature: As declared.
        size: Width and height in pixels; None for `DEFAULT_SIZE` where the graph leaves them open.

    Raises:
        ModelError: the size asked for is not the one that the graph fixes.
    """
    info = picture_of(signature)
    if info is None:
        return signature
    rank = len(info.shape)
    where = slice(rank - 3, rank - 1) if info.shape[-1] == 3 else slice(rank - 2, rank)
    width, height = size or (DEFAULT_SIZE, DEFAULT_SIZE)
    shape = list(info.shape)
    filled = [
        have if isinstance(have, int) else want
        for have, want in zip(shape[where], (height, width), strict=True)
    ]
    if size and filled != [height, width]:
        raise ModelError(
            f"the model takes {filled[1]}x{filled[0]} pixels, not {width}x{height}",
            hint="leave the input size out, or export the model for it",
        )
    shape[where] = filled
    inputs = tuple(
        TensorInfo(info.name, info.dtype, tuple(shape)) if one is info else one for one in signature.inputs
    )
    return Signature(inputs, signature.outputs, signature.metadata)


def with_outputs(signature: Signature, measured: Mapping[str, NDArray[Any]]) -> Signature:
    """The signature with the sizes and values that a run had.

    A free batch stays as declared; one that is fixed to several becomes 1, for all else is told per picture.
    """
    info = picture_of(signature)
    group = info.shape[0] if info is not None and len(info.shape) == 4 else 1
    several = isinstance(group, int) and group > 1

    def first(declared: TensorInfo, array: NDArray[Any]) -> tuple[int | str | None, ...]:
        return (1,) if several and array.shape[:1] == (group,) else declared.shape[:1]

    outputs = tuple(
        TensorInfo(one.name, array.dtype.name, (*first(one, array), *array.shape[1:]))
        for one, array in ((one, measured[one.name]) for one in signature.outputs)
    )
    samples = {
        name: array[:1] if several and array.shape[:1] == (group,) else array
        for name, array in measured.items()
    }
    return Signature(signature.inputs, outputs, signature.metadata, samples)


def stand_ins(signature: Signature, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Values for all inputs while the test picture runs.

    Args:
        signature: With the size of the picture known.
        feeds: What a card says of the other inputs, for one frame.

    Returns:
        For the picture noise from 0 to 1 (0 to 255 for uint8), which is a picture to all networks, whatever
        they subtract and divide by; for the others what the card feeds, or the picture's own size where two
        numbers are taken that count something, or ones.
    """
    picture = picture_of(signature)
    assert picture is not None
    arrays = {}
    for info in signature.inputs:
        shape = tuple(size if isinstance(size, int) else 1 for size in info.shape)
        if info is picture:
            noise = np.random.default_rng(0).random(shape, np.float32)
            arrays[info.name] = (noise * (255 if info.dtype == "uint8" else 1)).astype(info.dtype)
            continue
        array = np.ones(shape, info.dtype)
        given = np.asarray(feeds.get(info.name, ()), np.float64)
        if given.size and array.size % given.size == 0:
            array[...] = np.resize(given, shape).astype(info.dtype)  # the same for each picture
        elif array.size == 2 and (array.dtype.kind == "i" or "shape" in info.name or "size" in info.name):
            sides = sizes(picture.shape[-2:] if picture.shape[-3] == 3 else picture.shape[-3:-1])
            array[...] = np.asarray(sides, info.dtype)
        arrays[info.name] = array
    return arrays


def _is_picture(info: TensorInfo) -> bool:
    return (
        len(info.shape) in (3, 4)
        and info.dtype in ("uint8", "float32", "float16")
        and (info.shape[-3] == 3 or info.shape[-1] == 3)
    )


def _feeds(
    signature: Signature, picture: TensorInfo, spec: ModelSpec
) -> dict[str, tuple[NDArray[Any], bool]]:
    """The other inputs than the picture for one frame, each with whether there is one such for each frame."""
    others = {info.name: info for info in signature.inputs if info.name != picture.name}
    missing = sorted(set(others) - set(spec.feeds))
    if missing:
        raise ModelError(
            f"model {spec.name!r} has inputs that nothing feeds: {', '.join(missing)}",
            hint='give their values in its card: {"feeds": {"NAME": [640, 640]}}',
        )
    arrays = {}
    group = picture.shape[0] if len(picture.shape) == 4 else 1
    for name, info in others.items():
        # A fixed first axis is the graph's own; a free one counts pictures.
        batched = bool(info.shape) and not isinstance(info.shape[0], int)
        shape = (1, *sizes(info.shape[1:])) if batched else sizes(info.shape)
        values = np.asarray(spec.feeds[name], info.dtype)
        if isinstance(group, int) and shape[:1] == (group,):
            values = np.tile(values.reshape(-1), group)  # the same for each picture of a fixed batch
        if values.size != int(np.prod(shape)):
            raise ModelError(
                f"input {name!r} of model {spec.name!r} takes {int(np.prod(shape))} values, "
                f"its card feeds {values.size}"
            )
        arrays[name] = (values.reshape(shape), batched)
    return arrays


def _output(
    declared: TensorInfo,
    known: TensorInfo,
    sample: NDArray[Any] | None,
    batch: int | str | None,
    rank: int,
    max_rows: int,
) -> _Output:
    """What is known of one output; the first axis of some counts rows and not pictures."""
    shape = known.shape if sample is None else sample.shape
    one = len(shape) > 0 and shape[0] == 1
    if not max_rows:
        rest = sizes(shape[1:] if one else shape)
        return _Output(known.name, known.dtype, (1, *rest), one)
    first = declared.shape[0] if declared.shape else None
    batched = one and (first == 1 or (rank == 4 and first == batch))
    rows = shape[1:] if batched else shape
    return _Output(known.name, known.dtype, (1, max_rows, *sizes(rows[1:])) if rows else (1,), batched)
