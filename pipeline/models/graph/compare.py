"""Two versions of a network on the same frames: what each finds, and how long each takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import load_classifier, load_head
from pipeline.messages import Detections, ModelSpec
from pipeline.models.graph.network import Network, temporary_folder
from pipeline.models.sessions import ORT_ERRORS, first_line, open_session
from pipeline.models.store import ModelFile
from pipeline.vision.boxes import iou_matrix
from pipeline.vision.nms import nms
from pipeline.vision.tensor import TensorFiller

__all__ = ["Agreement", "Step", "Trial", "agreement_of", "milliseconds_of", "tensors_of"]

#: What a user sees by default.
_CONFIDENCE = 0.4
#: A box that overlaps so much, with the same class, is the same object.
_SAME = 0.5
_MOST = 300

#: Told after each step: how many are done.
Step = Callable[[int], None]


@dataclass(frozen=True)
class Agreement:
    """How far a changed network says what the first one said.

    Attributes:
        frames: Frames compared.
        expected: Objects that the first one found (for a classifier: frames).
        again: Objects that the changed one found again, with the same class and an IoU of 0.5.
        extra: Objects that only the changed one found.
    """

    frames: int
    expected: int
    again: int
    extra: int

    @property
    def share(self) -> float:
        """Share found again, 0..1; 1 where there was nothing to find."""
        return self.again / self.expected if self.expected else 1.0

    @property
    def extra_share(self) -> float:
        """Extra objects for each one that was expected."""
        return self.extra / max(self.expected, 1)


class Trial:
    """A network in a session of its own, with one thread.

    Args:
        network: The network; its file is not read again.
    """

    def __init__(self, network: Network) -> None:
        import onnx

        self.spec: ModelSpec = network.spec
        with temporary_folder() as folder:
            path = folder / "trial.onnx"
            onnx.save(network.model, path)
            self._session = open_session(ModelFile(network.spec.name, path, ""), "cpu").session
        others = self._session.get_inputs()
        self._feeds = {
            one.name: _fed(network.spec.feeds[one.name], one)
            for one in others
            if one.name in network.spec.feeds
        }
        self._picture = next(one.name for one in others if one.name not in network.spec.feeds)
        self._flat = next(len(one.shape) == 3 for one in others if one.name == self._picture)

    def feed(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What the session takes for one picture (1, …)."""
        return {self._picture: tensor[0] if self._flat else tensor, **self._feeds}

    def run(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        """Outputs for one picture.

        Args:
            tensor: (1, …) as the spec says.

        Raises:
            ModelError: the network fails.
        """
        try:
            found = self._session.run(list(self.spec.output_names), self.feed(tensor))
        except ORT_ERRORS as error:
            raise ModelError(f"model {self.spec.name!r} failed: {first_line(error)}") from error
        return [np.asarray(one) for one in found]

    def detect(self, tensor: NDArray[Any], confidence: float = _CONFIDENCE) -> Detections:
        """Objects in one picture, after NMS, in pixels of the model input; for a detector."""
        found = load_head(self.spec.family).decode(self.run(tensor), self.spec, confidence)
        if self.spec.nms_iou is None:
            return found.select(slice(0, _MOST))
        return found.select(nms(found.boxes_xyxy, found.scores, found.class_ids, self.spec.nms_iou, _MOST))

    def top_class(self, tensor: NDArray[Any]) -> int:
        """The best class of one picture; for a classifier."""
        return load_classifier(self.spec.family).classify(self.run(tensor), self.spec, 1).class_ids[0]


def tensors_of(
    frames: Iterable[NDArray[np.uint8]], spec: ModelSpec, step: Step | None = None
) -> list[NDArray[Any]]:
    """Frames as a network takes them.

    Args:
        frames: BGR uint8 (h, w, 3), of any sizes.
        spec: The network.
        step: Told after each frame.

    Returns:
        A tensor (1, …) per frame, in the dtype and layout of the spec.
    """
    filler = TensorFiller(spec)
    tensors = []
    for frame in frames:
        tensor = np.zeros(filler.shape, spec.input_dtype)
        filler.fill((np.ascontiguousarray(frame),), "bgr24", tensor)
        tensors.append(tensor)
        if step is not None:
            step(len(tensors))
    return tensors


def agreement_of(
    first: Trial, other: Trial, tensors: Sequence[NDArray[Any]], step: Step | None = None
) -> Agreement:
    """Compare two networks that take the same tensors.

    Args:
        first: The one that counts as right.
        other: The one to judge.
        tensors: Pictures (1, …).
        step: Told after each picture.
    """
    expected = again = extra = 0
    for done, tensor in enumerate(tensors, start=1):
        if first.spec.kind == "classifier":
            expected += 1
            same = first.top_class(tensor) == other.top_class(tensor)
            again += same
            extra += not same
        else:
            wanted, found = first.detect(tensor), other.detect(tensor)
            matched = _matched(wanted, found)
            expected += len(wanted)
            again += matched
            extra += len(found) - matched
        if step is not None:
            step(done)
    return Agreement(len(tensors), expected, again, extra)


def milliseconds_of(trials: Sequence[Trial], tensor: NDArray[Any], runs: int = 20) -> list[float]:
    """Best time of one inference of each; taken in turns, so that a busy moment meets all alike."""
    times: list[list[float]] = [[] for _ in trials]
    for number in range(runs + 2):
        for trial, own in zip(trials, times, strict=True):
            start_ns = time.perf_counter_ns()
            trial.run(tensor)
            if number >= 2:  # the first ones warm up
                own.append((time.perf_counter_ns() - start_ns) / 1e6)
    return [min(own) for own in times]


def _matched(wanted: Detections, found: Detections) -> int:
    """How many of the objects wanted are found, each by another box of its class; best scores first."""
    overlap = iou_matrix(wanted.boxes_xyxy, found.boxes_xyxy)
    overlap[wanted.class_ids[:, None] != found.class_ids[None, :]] = 0.0
    count = 0
    for row in overlap:
        if len(row) and row.max() >= _SAME:
            overlap[:, row.argmax()] = 0.0
            count += 1
    return count


def _fed(values: Sequence[float], info: Any) -> NDArray[Any]:
    """A constant input, for one picture."""
    dtype = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(info.type, np.float32)
    shape = (1, *(size for size in info.shape[1:] if isinstance(size, int)))
    return np.asarray(values, dtype).reshape(shape if info.shape else ())
