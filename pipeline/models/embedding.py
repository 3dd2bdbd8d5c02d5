"""Networks that say what an object looks like: a crop in, a vector out that is near to those of its likes.

Such a graph is of no family that `pipeline.heads` decodes: there is nothing in it to recognise but a picture
and a vector, and nothing to decode but the vector itself. So a user says what it is by where it is named.
What its card (`pipeline.models.cards`) says of the input wins over the defaults here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.errors import ModelError
from pipeline.heads import Signature
from pipeline.heads.base import image_input
from pipeline.messages import ModelSpec
from pipeline.models.cards import card_within
from pipeline.models.describe import describe_tensor
from pipeline.models.layout import Layout, picture_of, sizes, with_outputs, with_size
from pipeline.models.onnx import OnnxRunner

__all__ = ["EmbeddingRunner"]

#: Means and deviations of ImageNet's pictures (red, green, blue), with which such networks are trained.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
#: Width and height of a person upright, where the graph takes any size: as in FastReID and torchreid.
_SIZE = (128, 256)
#: Fields of a card that say something of an embedding network.
_FIELDS = (
    "channels", "mean", "std", "letterbox", "pad_value", "crop", "feeds", "input_width", "input_height",
)  # fmt: skip


class EmbeddingRunner(OnnxRunner):
    """An embedding network in an ONNX Runtime session; a `pipeline.models.base.Runner`.

    The one output is a vector for each picture, (n, d) or (n, d, 1, 1); where there are several, the card
    names it (``output_names``). Pictures are stretched to the input's size, and are RGB with ImageNet's mean
    and deviation, or the plain values 0..255 for a uint8 input.

    Args:
        model: A name of `pipeline.models.store.KNOWN`, or a path.
        device: ``auto`` for the best that really works, or a name of `pipeline.models.providers.DEVICES`.
        threads: Threads of one inference on the CPU.
        input_size: Width and height in pixels where the graph takes any; None for 128 x 256.
        batch: Crops at once at most; one at a time where the graph takes no more.
        precision: ``auto`` for that of the file, or ``fp32``, ``fp16``, ``bf16`` where the device can.
        mean: Three numbers on the scale of 0 to 255; None for the card's, or ImageNet's.
        std: The same for the deviation.

    Raises:
        ProviderError: there is no such device or precision, or the one does not do the other.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        threads: int = 1,
        input_size: tuple[int, int] | None = None,
        batch: int = 8,
        precision: str = "auto",
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> None:
        super().__init__(
            model, device=device, threads=threads, input_size=input_size, batch=batch, precision=precision
        )
        self._said = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}

    def _recognise(
        self, declared: Signature, *, name: str, sha256: str, card: Mapping[str, Any], provider: str
    ) -> None:
        """Find out sizes with one test picture; see `GraphRunner._recognise`.

        Raises:
            ModelError: it does not turn a picture into a vector, or fails on the test picture.
        """
        card = card_within(declared.metadata, name) | dict(card)
        self._outputs = declared.outputs
        sized = with_size(declared, self._input_size or _size_for(declared, card))
        feeds = card.get("feeds")
        measured = self._measure(sized, feeds if isinstance(feeds, dict) else {})
        if measured is None:
            raise _unfit(name, declared, "it takes no colour picture")
        self.signature = with_outputs(sized, measured)
        self.spec = _spec(self.signature, name, sha256, dict(card) | self._said, provider)
        self.why = f"it is named as an embedding network, and gives {self.spec.output_names[0]}"
        self._layout = Layout(declared, self.signature, self.spec)
        self.output_shapes, self.output_dtypes = self._layout.output_shapes, self._layout.output_dtypes
        if self._layout.group == 1:
            self._batch = 1


def _size_for(declared: Signature, card: Mapping[str, Any]) -> tuple[int, int] | None:
    """The size to fill in; None where the graph fixes it and the card does not speak of it."""
    if "input_width" in card:
        return (int(card["input_width"]), int(card["input_height"]))
    picture = picture_of(declared)
    return None if picture is None or len(sizes(picture.shape[-3:])) == 3 else _SIZE


def _spec(signature: Signature, name: str, sha256: str, card: Mapping[str, Any], provider: str) -> ModelSpec:
    """What the stages must know of it.

    Raises:
        ModelError: no output is one vector for each picture, or several are and the card names none.
    """
    picture = image_input(signature)
    if picture is None:
        raise _unfit(name, signature, "it takes no colour picture")
    vectors = [
        info.name
        for info in signature.outputs
        if info.dtype in ("float32", "float16")
        and math.prod(sizes(info.shape[1:])) == max(sizes(info.shape[1:]), default=0) > 1
    ]
    wanted = list(card.get("output_names") or vectors)
    if len(wanted) != 1:
        number = "several of its outputs are" if wanted else "none of its outputs is"
        names = ", ".join(wanted) or ", ".join(info.name for info in signature.outputs)
        raise _unfit(name, signature, f"{number} one vector for each picture ({names})", several=bool(wanted))
    if wanted[0] not in vectors:
        raise _unfit(name, signature, f"its output {wanted[0]!r} is no vector for each picture")
    fields: dict[str, Any] = {"channels": "rgb", "letterbox": "stretch", "kind": "classifier"}
    if picture.dtype != "uint8":
        fields |= {"mean": _MEAN, "std": _STD}
    fields |= picture.overrides() | {field: card[field] for field in _FIELDS if field in card}
    fields |= {"name": name, "sha256": sha256, "family": "embedding", "labels": (), "provider": provider}
    try:
        return msgspec.convert(fields | {"output_names": (wanted[0],)}, ModelSpec)
    except msgspec.ValidationError as error:
        raise ModelError(f"the card of model {name!r} does not fit: {error}") from error


def _unfit(name: str, signature: Signature, why: str, *, several: bool = False) -> ModelError:
    rows = [("input", info) for info in signature.inputs] + [("output", info) for info in signature.outputs]
    seen = "\n".join(f"  {kind:6} {describe_tensor(info)}" for kind, info in rows)
    return ModelError(
        f"model {name!r} is no embedding network: {why}\n{seen}",
        hint='name one in a card, a file of the same name with .json added: {"output_names": ["NAME"]}'
        if several
        else "export one without its classifier: a picture (n, 3, h, w) in, a vector (n, d) out",
    )
