"""SSD before its NMS: prior boxes by hand, and the real files against a plain decoding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.heads._priors import SSD300, ULTRAFACE, count_of, priors_of
from pipeline.heads.ssd_raw import SsdRawHead
from pipeline.tasks.reading import Reader
from pipeline.vision.boxes import iou_matrix
from tests.heads import real

WIDTH, HEIGHT = 64, 32
#: 8x4 cells with two boxes each, 4x2 with one: 72.
PRIORS = {"strides": [8, 16], "min_boxes": [[8, 12], [20]]}
COUNT = 72


def test_priors_of_grids_by_hand() -> None:
    priors = priors_of(PRIORS, WIDTH, HEIGHT, False, "m")
    assert priors.shape == (COUNT, 4)
    np.testing.assert_allclose(priors[0], [4 / 64, 4 / 32, 8 / 64, 8 / 32])
    np.testing.assert_allclose(priors[1], [4 / 64, 4 / 32, 12 / 64, 12 / 32])
    # The second cell is to the right of the first; the second row comes after all of the first.
    np.testing.assert_allclose(priors[2, :2], [12 / 64, 4 / 32])
    np.testing.assert_allclose(priors[16, :2], [4 / 64, 12 / 32])
    np.testing.assert_allclose(priors[64], [8 / 64, 8 / 32, 20 / 64, 20 / 32])


def test_priors_of_ssd300_as_published() -> None:
    priors = priors_of(SSD300, 300, 300, True, "m")
    # Liu et al. 2016, section 2.2: 38^2 x 4 + 19^2 x 6 + 10^2 x 6 + 5^2 x 6 + 3^2 x 4 + 4.
    assert len(priors) == count_of(SSD300, 300, 300) == 8732
    half = 4 / 300
    np.testing.assert_allclose(priors[0], [half, half, 0.07, 0.07], atol=1e-6)
    np.testing.assert_allclose(priors[1, 2:], [math.sqrt(0.07 * 0.15)] * 2, atol=1e-6)
    np.testing.assert_allclose(priors[2, 2:], [0.07 * math.sqrt(2), 0.07 / math.sqrt(2)], atol=1e-6)
    np.testing.assert_allclose(priors[3, 2:], [0.07 / math.sqrt(2), 0.07 * math.sqrt(2)], atol=1e-6)
    np.testing.assert_allclose(priors[4, :2], [12 / 300, half], atol=1e-6)
    np.testing.assert_allclose(priors[-4:, :2], 0.5)
    assert priors.max() <= 1 < priors_of(SSD300, 300, 300, False, "m").max()


def test_ultraface_has_as_many_priors_as_its_files_boxes() -> None:
    assert count_of(ULTRAFACE, 320, 240) == 4420
    assert count_of(ULTRAFACE, 640, 480) == 17640


# The real files

FINISHED, RAW = "ultraface_RFB-320.onnx", "ultraface_RFB-320_rawoffsets.onnx"
PEOPLE, TEAM = "coco_val2017_000000005001.jpg", "coco_val2017_000000001000.jpg"


def plain(outputs: list[NDArray[Any]], raw: bool) -> list[tuple[float, list[float]]]:
    """Faces of 320x240 one by one, with their greedy NMS: written out, slowly."""
    priors: list[list[float]] = []
    for stride, sizes in ((8, (10, 16, 24)), (16, (32, 48)), (32, (64, 96)), (64, (128, 192, 256))):
        for row in range(math.ceil(240 / stride)):
            for column in range(math.ceil(320 / stride)):
                for size in sizes:
                    place = (column + 0.5) * stride / 320, (row + 0.5) * stride / 240
                    priors.append([min(value, 1.0) for value in (*place, size / 320, size / 240)])
    faces = []
    for prior, (_, score), box in zip(priors, outputs[0][0], outputs[1][0], strict=True):
        if score < 0.7:
            continue
        x1, y1, x2, y2 = map(float, box)
        if raw:
            x, y = prior[0] + x1 * 0.1 * prior[2], prior[1] + y1 * 0.1 * prior[3]
            w, h = prior[2] * math.exp(x2 * 0.2), prior[3] * math.exp(y2 * 0.2)
            x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        faces.append((float(score), [x1 * 320, y1 * 240, x2 * 320, y2 * 240]))
    kept: list[tuple[float, list[float]]] = []
    for score, corners in sorted(faces, key=lambda face: -face[0]):
        if all(iou_matrix(np.array([corners]), np.array([other]))[0, 0] <= 0.3 for _, other in kept):
            kept.append((score, corners))
    return kept


@pytest.mark.parametrize(("model", "raw"), [(FINISHED, False), (RAW, True)])
@pytest.mark.parametrize(("picture", "faces"), [(PEOPLE, 14), (TEAM, 9), (real.SKIER, 1), (real.BEAR, 0)])
def test_the_real_files_agree_with_a_plain_decoding(model: str, raw: bool, picture: str, faces: int) -> None:
    spec, outputs, letterbox = real.run(model, picture)
    assert (spec.family, spec.labels, spec.nms_iou) == ("ssd_raw", ("face",), 0.3)
    found = Reader(spec, confidence=0.7).read(outputs, letterbox).detections
    want = plain(outputs, raw)
    assert len(found) == len(want) == faces
    scale = [letterbox.width / 320, letterbox.height / 240] * 2
    edge = [letterbox.width, letterbox.height] * 2
    for score, box, (want_score, corners) in zip(found.scores, found.boxes_xyxy, want, strict=True):
        assert score == pytest.approx(want_score)
        np.testing.assert_allclose(box, np.clip(np.array(corners) * scale, 0, edge), atol=0.02)


def test_both_real_files_give_the_same_boxes() -> None:
    found = []
    for model in (FINISHED, RAW):
        spec, outputs, _ = real.run(model, PEOPLE)
        found.append(SsdRawHead().decode(outputs, spec, 0.3, 5000))
    np.testing.assert_allclose(found[0].boxes_xyxy, found[1].boxes_xyxy, atol=0.01)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-5)


def test_priors_are_spread_evenly_where_a_stride_does_not_divide_the_frame() -> None:
    """UltraFace's 240 rows have 8 cells of stride 32: a cell is 30 pixels high, not 32."""
    priors = priors_of({"strides": [32], "min_boxes": [[64]]}, 320, 240, False, "m")
    np.testing.assert_allclose(priors[:, 1].reshape(8, 10)[:, 0], (np.arange(8) + 0.5) / 8)
