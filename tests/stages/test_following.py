"""Objects of one source on their way: trackers by camera, scenes that change, epochs, two cameras."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StaleSlotError
from pipeline.messages import Detections, Event, Line, Mask, Scene, Zone
from pipeline.stages.following import Followed, Follower, Following, Pixels
from pipeline.tasks.reading import Found
from pipeline.tracking.botsort import BotSort
from pipeline.tracking.bytetrack import ByteTrack
from pipeline.tracking.single import SingleObject
from tests.helpers import SPEC, make_header

LEFT = Zone(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)), exit_s=0.0)
RIGHT = Zone(((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)), exit_s=0.0)
#: Walked upwards, so the left hand is on the left of the picture.
MIDDLE = Line((0.5, 1.0), (0.5, 0.0), left="west", right="east", margin=0.0)


def at(*places: float, class_id: int = 1) -> Found:
    """Objects of 10 x 10 pixels whose middle is at these x, in frames of 64 x 48."""
    boxes = [(x - 5, 20, x + 5, 30) for x in places]
    return Found(Detections(boxes, [0.9] * len(boxes), [class_id] * len(boxes)))


class Walk:
    """One source, frame after frame, 25 a second."""

    def __init__(self, scene: Scene | None = None, *, source: str = "gate", **following: Any) -> None:
        self.scene = scene or Scene()
        self.source = source
        self.seq = 0
        given: dict[str, Any] = {"track_options": {"min_frames": 1}, "lost_after_s": 0.2, **following}
        self.follower = Follower(source, SPEC, Following(**given), scene_of=lambda: self.scene)

    def step(self, found: Found, *, epoch: int = 0, look: Any = lambda: None) -> tuple[Followed, list[Event]]:
        header = make_header(self.seq, source=self.source, epoch=epoch)
        self.seq += 1
        before = self.follower.enter(header)
        followed = self.follower.follow(header, found, look)
        return followed, [*before, *followed.events]

    def told(self, *places: float, epoch: int = 0) -> list[tuple[Any, ...]]:
        return [short(event) for event in self.step(at(*places), epoch=epoch)[1]]

    @property
    def tracker(self) -> Any:
        return self.follower._tracker


def short(event: Event) -> tuple[Any, ...]:
    place = event.zone or event.line
    said = (event.type, event.track_id, place, event.action or event.direction, event.reason)
    return tuple(word for word in said if word is not None)


def ids(followed: Followed) -> list[int]:
    assert followed.detections.track_ids is not None
    return [int(track_id) for track_id in followed.detections.track_ids]


def test_start_zone_line_and_end_come_in_that_order() -> None:
    walk = Walk(Scene(zones={"yard": LEFT, "road": RIGHT}, lines={"gate": MIDDLE}))
    told = [walk.told(x) for x in (20, 24, 28, 36, 40)]
    assert told == [
        [("start", 1), ("zone", 1, "yard", "enter")],
        [],
        [],
        [("zone", 1, "yard", "exit"), ("zone", 1, "road", "enter"), ("line", 1, "gate", "east")],
        [],
    ]
    for _ in range(8):
        last = walk.told()
        if last:
            break
    assert last[:2] == [("zone", 1, "road", "exit", "lost"), ("end", 1, "lost")]
    end = walk.follower.finish("end_of_file", 9.0)
    assert [short(event) for event in end if event.type in ("end", "zone")] == []


def test_occupancy_is_over_with_the_source() -> None:
    walk = Walk(Scene(zones={"yard": LEFT}))
    counts = [e.count for _ in range(30) for e in walk.step(at(20))[1] if e.type == "occupancy"]
    assert counts == [1]
    told = walk.follower.finish("end_of_file", 9.0)
    assert [short(e) for e in told] == [
        ("zone", 1, "yard", "exit", "end_of_file"), ("end", 1, "end_of_file"), ("occupancy", "yard"),
    ]  # fmt: skip
    assert told[-1].count == 0
    assert told[0].at == told[1].at == told[2].at == 9.0


def test_what_an_end_says() -> None:
    walk = Walk(Scene(zones={"yard": LEFT, "road": RIGHT}))
    for x in range(20, 46, 2):
        walk.step(at(x))
    *_, end = (e for e in walk.follower.finish("end_of_file", 9.0) if e.type == "end")
    assert end.entered_zones == ("yard", "road")
    assert end.zones is None
    assert end.path is not None
    assert end.path[0][1:] == pytest.approx((20 / 64, 30 / 48))
    assert end.path[-1] == pytest.approx((0.48, 44 / 64, 30 / 48))


@pytest.mark.parametrize(
    ("algorithm", "moving", "tracker"),
    [
        ("auto", False, ByteTrack),
        ("auto", True, BotSort),
        ("bytetrack", True, ByteTrack),
        ("botsort", False, BotSort),
        ("single", True, SingleObject),
    ],
)
def test_the_tracker_goes_by_the_camera(algorithm: str, moving: bool, tracker: type) -> None:
    options = {} if algorithm == "single" else {"min_frames": 1}
    walk = Walk(Scene(moving=moving), algorithm=algorithm, track_options=options)
    assert type(walk.tracker) is tracker


def test_a_new_scene_holds_at_once_and_keeps_tracks() -> None:
    walk = Walk(Scene(zones={"yard": LEFT}))
    assert walk.told(20) == [("start", 1), ("zone", 1, "yard", "enter")]
    walk.scene = Scene(zones={"yard": LEFT, "all": Zone(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))})
    assert walk.told(21) == [("zone", 1, "all", "enter")]
    walk.scene = Scene(zones={"all": walk.scene.zones["all"]})
    assert walk.told(22) == [("zone", 1, "yard", "exit", "scene")]
    walk.scene = Scene(zones=dict(walk.scene.zones))  # equal, though another object
    assert walk.told(23) == []


def test_a_camera_that_begins_to_move_gets_another_tracker_and_no_id_twice() -> None:
    walk = Walk(algorithm="auto")
    walk.step(at(20, 50))
    walk.scene = Scene(moving=True)
    assert walk.told(20, 50) == [
        ("end", 1, "scene_changed"), ("end", 2, "scene_changed"), ("start", 3), ("start", 4)
    ]  # fmt: skip
    assert type(walk.tracker) is BotSort


def test_two_cameras_and_one_reset() -> None:
    """The tracker of one source begins anew: ids of the other neither change nor come twice."""
    gate, yard = Walk(source="gate"), Walk(source="yard")
    seen: dict[str, list[list[int]]] = {"gate": [], "yard": []}
    for seq in range(20):
        seen["gate"].append(ids(gate.step(at(20, 40), epoch=seq // 5)[0]))
        seen["yard"].append(ids(yard.step(at(25, 45))[0]))
    assert seen["yard"] == [[1, 2]] * 20
    assert seen["gate"] == [[1 + 2 * (seq // 5), 2 + 2 * (seq // 5)] for seq in range(20)]


def test_an_epoch_ends_all_and_tells_why() -> None:
    walk = Walk(Scene(zones={"yard": LEFT}))
    walk.told(20)
    assert walk.told(20, epoch=1) == [
        ("zone", 1, "yard", "exit", "epoch_changed"), ("end", 1, "epoch_changed"),
        ("start", 2), ("zone", 2, "yard", "enter"),
    ]  # fmt: skip


def pixels(shift: int = 0, *, stale: bool = False) -> Pixels:
    """A textured frame of 64 x 48, moved to the right."""
    wide = np.random.default_rng(3).integers(0, 255, (12, 40, 1), np.uint8).repeat(4, 0).repeat(4, 1)
    bgr = np.ascontiguousarray(np.broadcast_to(wide[:, 40 - shift : 104 - shift], (48, 64, 3)))

    def check() -> None:
        if stale:
            raise StaleSlotError("recycled")

    return Pixels((bgr,), "bgr24", check)


def test_pixels_are_asked_for_only_where_they_are_needed() -> None:
    def never() -> Pixels:
        raise AssertionError("nobody needs them")

    Walk(Scene(zones={"yard": LEFT})).step(at(20), look=never)
    asked = []
    walk = Walk(Scene(moving=True), algorithm="auto")
    walk.step(at(20), look=lambda: asked.append(1))
    assert asked


@pytest.mark.parametrize("how", ["gone", "recycled"])
def test_a_frame_whose_pixels_are_gone_is_followed_all_the_same(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def look() -> Pixels:
        if how == "gone":
            raise StaleSlotError("recycled")
        return pixels(stale=True)

    walk = Walk(Scene(moving=True), algorithm="auto")
    found = [ids(walk.step(at(20), look=look)[0]) for _ in range(4)]
    assert found == [[1]] * 4
    assert [one.levelno for one in caplog.records] == [logging.WARNING], "once, and not with each frame"
    assert "postprocess [gate]" in caplog.text


def test_masks_do_not_concern_who_is_in_the_picture_already() -> None:
    """Masks work before the tracker (`Reader.read`); here a scene with one follows as any other."""
    walk = Walk(Scene(masks={"tree": Mask(LEFT.polygon)}))
    assert walk.told(20) == [("start", 1)]
