from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.messages import Classes, Detections, FrameHeader, Mask, Result, Scene
from pipeline.vision.privacy import HIDING_MODES, HidingMode, Privacy

LABELS = ("person", "car", "face")
WIDTH, HEIGHT = 320, 240
Rows = list[tuple[float, float, float, float]]


def noise(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def result(
    at_ms: int,
    boxes: Rows,
    class_ids: list[int] | None = None,
    tracks: list[int] | None = None,
    *,
    source: str = "gate",
    epoch: int = 0,
    **changes: Any,
) -> Result:
    header = FrameHeader(source, epoch, at_ms, at_ms * 1_000_000, 0, 0.0, "container", WIDTH, HEIGHT)
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), [0.5] * len(boxes), class_ids or [0] * len(boxes), tracks
    )
    fields: dict[str, Any] = {"status": "ok", "detections": found}
    return Result(header, (), None, **(fields | changes))


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """The smallest rectangle that holds all that differs."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    if not len(rows):
        return None
    return (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


BOX = (100.0, 60.0, 140.0, 160.0)


@pytest.mark.parametrize("mode", HIDING_MODES)
def test_what_is_hidden_is_gone_and_all_else_is_as_it_was(mode: HidingMode) -> None:
    picture = noise()
    before = picture.copy()
    hidden = Privacy(["person"], mode, margin=0).apply(picture, result(0, [BOX]), LABELS)
    assert (picture == before).all()
    assert changed(picture, hidden) == (100, 60, 140, 160)
    part = hidden[60:160, 100:140].astype(int)
    if mode == "blur":  # no step is left between neighbours, of 85 on average before
        assert max(np.abs(np.diff(part, axis=0)).max(), np.abs(np.diff(part, axis=1)).max()) <= 6
    else:
        colours = np.unique(part.reshape(-1, 3), axis=0)
        assert len(colours) <= 2 * 6


@pytest.mark.parametrize("mode", HIDING_MODES)
def test_two_people_with_the_same_colours_look_the_same(mode: HidingMode) -> None:
    """What differs within a cell can not be told from what is left."""
    privacy = Privacy(["person"], mode, margin=0)
    box = (0.0, 0.0, 96.0, 192.0)  # 3 x 6 cells of 32 pixels
    one = noise()
    other = one.copy()
    cells = other[:192, :96].reshape(6, 32, 3, 32, 3)
    cells[:] = cells[:, ::-1, :, ::-1]  # each cell upside down, and the other way round
    looks = [privacy.apply(picture, result(0, [box]), LABELS)[:192, :96] for picture in (one, other)]
    assert np.abs(one[:192, :96].astype(int) - other[:192, :96]).mean() > 50
    assert (looks[0] == looks[1]).all()


def test_all_boxes_of_the_named_labels_confirmed_or_not() -> None:
    picture = noise()
    boxes: Rows = [BOX, (10, 10, 30, 30), (200, 100, 260, 140), (280, 10, 300, 30)]
    hidden = Privacy(["person", "face"], "fill", margin=0).apply(
        picture, result(0, boxes, [0, 2, 1, 7], [5, -1, 6, -1]), LABELS
    )
    assert (hidden[60:160, 100:140] == 96).all()
    assert (hidden[10:30, 10:30] == 96).all()
    assert (hidden[100:140, 200:260] == picture[100:140, 200:260]).all()
    assert (hidden[10:30, 280:300] == picture[10:30, 280:300]).all()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-20.0, -30.0, 20.0, 10.0), (0, 0, 24, 14)),
        ((300.0, 230.0, 400.0, 300.0), (290, 223, 320, 240)),
        ((100.4, 60.6, 110.4, 80.2), (99, 58, 112, 83)),
        ((500.0, 500.0, 600.0, 600.0), None),
        ((50.0, 50.0, 51.0, 51.0), (49, 49, 52, 52)),
    ],
)
def test_edges(box: tuple[float, float, float, float], expected: tuple[int, ...] | None) -> None:
    picture = noise()
    for mode in HIDING_MODES:
        hidden = Privacy(["person"], mode).apply(picture, result(0, [box]), LABELS)
        assert changed(picture, hidden) == expected, mode


def test_small_boxes_keep_no_pixels() -> None:
    picture = noise()
    hidden = Privacy(["person"], "pixelate", margin=0).apply(picture, result(0, [(8, 8, 15, 16)]), LABELS)
    assert len(np.unique(hidden[8:16, 8:15].reshape(-1, 3), axis=0)) <= 4


def test_nothing_to_hide() -> None:
    picture = noise()
    picture.flags.writeable = False
    hidden = Privacy(["person"]).apply(picture, result(0, []), LABELS)
    assert (hidden == picture).all()
    assert hidden.flags.writeable
    assert not np.shares_memory(hidden, picture)


class TestMissed:
    """A detector that misses an object in some frames."""

    def hidden(self, privacy: Privacy, frame: Result) -> tuple[int, int, int, int] | None:
        picture = noise()
        return changed(picture, privacy.apply(picture, frame, LABELS))

    def test_hidden_for_a_while_and_more_of_it(self) -> None:
        privacy = Privacy(["person"], "fill", margin=0, hold_s=1.0)
        assert self.hidden(privacy, result(0, [BOX])) == (100, 60, 140, 160)
        assert self.hidden(privacy, result(100, [])) == (90, 50, 150, 170)
        assert self.hidden(privacy, result(400, [])) == (60, 20, 180, 200)
        assert self.hidden(privacy, result(1000, [])) == (0, 0, 240, 240)
        assert self.hidden(privacy, result(1001, [])) is None

    def test_on_its_way(self) -> None:
        """It went 10 pixels in 100 ms; half a second later it is 50 farther, and 25 to all sides of that."""
        privacy = Privacy(["person"], "fill", margin=0)
        for n in range(5):
            x = 10.0 * n
            self.hidden(privacy, result(100 * n, [(x, 60, x + 40, 160)]))
        assert self.hidden(privacy, result(900, [])) == (15, 35, 155, 185)

    def test_seen_again_it_leaves_no_trail(self) -> None:
        privacy = Privacy(["person"], "fill", margin=0)
        self.hidden(privacy, result(0, [BOX], tracks=[4]))
        self.hidden(privacy, result(100, []))
        found = self.hidden(privacy, result(600, [(160, 60, 200, 160)], tracks=[4]))
        assert found == (160, 60, 200, 160)

    def test_behind_somebody_else(self) -> None:
        """Two people become one box: the other stays hidden."""
        privacy = Privacy(["person"], "fill", margin=0)
        self.hidden(privacy, result(0, [(100, 60, 140, 160), (120, 60, 160, 160)]))
        found = self.hidden(privacy, result(100, [(102, 60, 142, 160)]))
        assert found is not None
        assert found[2] >= 160

    def test_frames_that_nobody_looks_at_count(self) -> None:
        privacy = Privacy(["person"], "fill", margin=0)
        privacy.see(result(0, [BOX]), LABELS)
        privacy.see(result(0, [BOX]), LABELS)
        assert self.hidden(privacy, result(100, [])) == (90, 50, 150, 170)

    def test_sources_and_epochs_are_apart(self) -> None:
        privacy = Privacy(["person"], "fill", margin=0)
        self.hidden(privacy, result(0, [BOX]))
        assert self.hidden(privacy, result(100, [], source="yard")) is None
        assert self.hidden(privacy, result(100, [], epoch=1)) is None
        privacy.forget("gate")
        privacy.forget("gate")

    @pytest.mark.parametrize("mode", HIDING_MODES)
    @pytest.mark.parametrize(
        "changes", [{"status": "failed"}, {"lost": "infer_died"}, {"classes": Classes((0,), (0.9,))}]
    )
    def test_a_frame_of_which_nothing_is_known(self, mode: HidingMode, changes: dict[str, Any]) -> None:
        privacy = Privacy(["person"], mode)
        self.hidden(privacy, result(0, [BOX]))
        picture = noise()
        hidden = privacy.apply(picture, result(100, [], **changes), LABELS)
        assert changed(picture, hidden) == (0, 0, WIDTH, HEIGHT)
        assert np.abs(np.diff(hidden.astype(int), axis=1)).mean() < 1.5
        # And then it still knows who was there before.
        assert self.hidden(privacy, result(200, [])) is not None


def test_masks() -> None:
    triangle = ((0.25, 0.5), (0.75, 0.5), (0.25, 1.0))
    scene = Scene(
        masks={
            "window": Mask(triangle, hides="both"),
            "door": Mask(((0, 0), (20, 0), (20, 30), (0, 30)), "pixels", "picture"),
            "road": Mask(((0.5, 0), (1, 0), (1, 0.4)), hides="detections"),
        }
    )
    picture = noise()
    privacy = Privacy([], "fill")
    hidden = privacy.apply(picture, result(0, [BOX], status="failed"), LABELS, scene)
    gone = (hidden == 96).all(axis=2)
    assert gone[:30, :20].all()
    slope = np.add.outer((np.arange(HEIGHT) - 120) / 120, (np.arange(WIDTH) - 80) / 160)
    assert gone[120:, 80:][slope[120:, 80:] < 1].all()
    assert not gone[slope > 1.02].any()
    assert not gone[:118, 22:].any()
    assert (hidden[~gone] == picture[~gone]).all()
    # A scene may be replaced.
    assert (privacy.apply(picture, result(1, []), LABELS, Scene()) == picture).all()


def test_a_scaled_picture() -> None:
    scene = Scene(masks={"door": Mask(((0, 0), (20, 0), (20, 30), (0, 30)), "pixels", "picture")})
    picture = noise(WIDTH // 2, HEIGHT // 2)
    hidden = Privacy(["person"], "fill", margin=0).apply(picture, result(0, [BOX]), LABELS, scene)
    gone = (hidden == 96).all(axis=2)
    assert gone[30:80, 50:70].all()
    assert gone[:15, :10].all()
    assert gone.sum() <= 50 * 20 + 17 * 12


@pytest.mark.parametrize(
    ("options", "words"),
    [({"mode": "smudge"}, "mode"), ({"margin": -0.1}, "margin"), ({"hold_s": float("nan")}, "hold_s")],
)
def test_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Privacy(["person"], **options)


def test_a_label_that_the_model_does_not_know() -> None:
    Privacy(["person", "face"]).check(LABELS)
    with pytest.raises(ConfigError, match="'persn'") as caught:
        Privacy(["persn"]).check(LABELS)
    assert "'person'" in caught.value.hint
