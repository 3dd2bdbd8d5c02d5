"""postprocess: boxes in the source frame, tracks and events, each frame once and in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import permutations
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.errors import ConfigError, StaleSlotError
from pipeline.messages import (
    EndOfStream,
    LetterboxMap,
    Lost,
    Mask,
    Message,
    ModelOutput,
    Result,
    Scene,
)
from pipeline.stages.following import Following
from pipeline.stages.postprocess import PostprocessStage
from pipeline.transport.ledger import Ledger
from tests.helpers import SPEC, make_frame, make_header, make_ledger, make_output, no_view

CAR = (10.0, 10.0, 30.0, 30.0, 0.9, 1.0)


class Bench:
    """A postprocess over the books of two sources."""

    def __init__(self, ledgers: dict[str, Ledger] | None = None, **options: Any) -> None:
        self.ledgers = ledgers or {"gate": make_ledger(), "yard": make_ledger()}
        names = {one.name for one in fields(Following)} & options.keys()
        options["following"] = Following(**{name: options[name] for name in names})
        options = {
            name: value for name, value in options.items() if name == "confidence" or name not in names
        }
        self.stage = PostprocessStage(ledger_of=self.ledgers.__getitem__, **options)
        self.stage.open()
        self.stage.begin(SPEC)

    def give(self, message: Message, view: Any = no_view) -> list[Message]:
        return list(self.stage.process(message, view))

    def frame(self, seq: int, rows: Sequence[Sequence[float]] = (CAR,), **changes: Any) -> list[Message]:
        return self.give(*make_output(rows, seq, **changes))

    def results(self, seq: int, rows: Sequence[Sequence[float]] = (CAR,), **changes: Any) -> list[Result]:
        return [message for message in self.frame(seq, rows, **changes) if isinstance(message, Result)]


def seqs(messages: Sequence[Message]) -> list[int]:
    return [
        m.seq if isinstance(m, EndOfStream) else m.header.seq
        for m in messages
        if isinstance(m, Result | EndOfStream)
    ]


def end(seq: int, source: str = "gate") -> EndOfStream:
    return EndOfStream(source, 0, seq, "ended", "end_of_file", 99.0)


def lost(seq: int, cause: str = "infer_died", reason: str = "infer died", **changes: Any) -> Lost:
    frame = make_frame(seq, **changes)
    return Lost(frame.header, frame.spans, frame, cause, reason)


def track_ids(result: Result) -> list[int]:
    return [] if result.detections.track_ids is None else result.detections.track_ids.tolist()


def test_a_result_is_in_pixels_of_the_source() -> None:
    bench = Bench(algorithm="none")
    output, view = make_output([(12, 10, 22, 20, 0.9, 1), (0, 0, 5, 5, 0.3, 0)])
    (made,) = bench.give(
        msgspec.structs.replace(output, letterbox=LetterboxMap(0.5, 0.5, 2, 0, 64, 48)), view
    )
    assert isinstance(made, Result)
    assert (made.status, made.reason, made.lost) == ("ok", "", "")
    np.testing.assert_allclose(made.detections.boxes_xyxy, [[20, 20, 40, 40]])
    assert made.detections.class_ids.tolist() == [1], "what is below the threshold is left out"
    assert made.frame == output.frame
    assert [span.stage for span in made.spans] == ["capture", "postprocess"]
    assert all(span.wait_ns >= 0 and span.service_ns >= 0 for span in made.spans)


def test_classes_nms_and_the_most() -> None:
    rows = [(0, 0, 20, 20, 0.9, 0), (1, 1, 21, 21, 0.8, 0), (0, 0, 20, 20, 0.85, 1), (40, 0, 60, 20, 0.7, 0)]
    table: list[tuple[dict[str, Any], list[float]]] = [
        ({}, [0.9, 0.85, 0.8, 0.7]),  # the fake head is end-to-end: no NMS of its own
        ({"nms_iou": 0.5}, [0.9, 0.85, 0.7]),
        ({"nms_iou": 0.5, "max_detections": 2}, [0.9, 0.85]),
        ({"classes": ("car",)}, [0.85]),
        ({"confidence": 0.82}, [0.9, 0.85]),
    ]
    for options, scores in table:
        (made,) = Bench(algorithm="none", **options).results(0, rows)
        np.testing.assert_allclose(made.detections.scores, scores, rtol=1e-6, err_msg=str(options))


def test_a_class_that_the_model_does_not_know() -> None:
    with pytest.raises(ConfigError, match="the model fake has no class cat, dog") as raised:
        Bench(classes=("dog", "car", "cat"))
    assert "car" in raised.value.hint


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_any_order_in_and_frame_order_out_with_the_end_last(order: tuple[int, ...]) -> None:
    """The end of the stream overtakes frames that are in a slow replica: number 3 is the end."""
    bench = Bench()
    out: list[Message] = []
    for seq in order:
        out += bench.give(end(3)) if seq == 3 else bench.frame(seq)
    assert seqs(out) == [0, 1, 2, 3]
    assert isinstance(out[-1], EndOfStream)


def test_a_frame_that_came_twice_is_tracked_once_and_answered_alike() -> None:
    bench = Bench()
    firsts = [bench.results(seq)[0] for seq in range(3)]
    again = bench.results(1)
    assert again == [firsts[1]], "publish may have been killed with it: the very same once more"
    assert track_ids(bench.results(3)[0]) == [1], "the tracker has not seen it twice"
    bench.frame(5)
    assert bench.frame(5) == [], "it waits for its turn already"
    assert seqs(bench.frame(4)) == [4, 5]


def test_the_end_that_came_twice() -> None:
    bench = Bench()
    bench.frame(0)
    bench.frame(1)
    (first,) = bench.give(end(2))
    assert isinstance(first, EndOfStream)
    assert [(e.type, e.reason) for e in first.events] == [("end", "end_of_file")]
    assert bench.give(end(2)) == [first]
    early = Bench()
    assert early.give(end(1)) == []
    assert early.give(end(1)) == []
    assert seqs(early.frame(0)) == [0, 1]


def test_tracks_and_events() -> None:
    bench = Bench()
    made = [bench.results(seq)[0] for seq in range(3)]
    assert [track_ids(result) for result in made] == [[-1], [1], [1]]
    assert [[e.type for e in result.events] for result in made] == [[], ["start"], []]
    assert made[1].events[0].label == "car"
    assert made[1].events[0].model == "fake"
    assert bench.ledgers["gate"]["next_track_id"] == 2


def test_a_source_that_is_back_after_its_end_begins_anew() -> None:
    bench = Bench()
    first = [track_ids(bench.results(seq)[0]) for seq in range(3)]
    assert seqs(bench.give(end(3))) == [3]
    bench.ledgers["gate"]["next_publish"] = 3
    again = [bench.results(seq, epoch=1)[0] for seq in range(3, 6)]
    assert [result.header.seq for result in again] == [3, 4, 5]
    assert min(track_ids(again[-1])) > max(first[-1]), "no id is given twice in a run"
    assert [e.type for result in again for e in result.events].count("start") == 1
    assert "end" not in [e.type for result in again for e in result.events], "it was ended with its source"
    (closing,) = bench.give(end(6))
    assert isinstance(closing, EndOfStream)
    assert [e.track_id for e in closing.events] == track_ids(again[-1])


def test_a_source_that_is_back_and_gone_without_a_frame_ends_again() -> None:
    bench = Bench()
    bench.frame(0)
    for _ in range(3):
        assert seqs(bench.give(end(1))) == [1]
    bench.ledgers["gate"]["next_publish"] = 1
    assert seqs(bench.frame(1)) == [1]
    assert seqs(bench.give(end(2))) == [2]


def test_sources_do_not_share_anything() -> None:
    bench = Bench()
    for seq in range(2):
        gate = bench.results(seq, source="gate")[0]
        yard = bench.results(seq, source="yard")[0]
    assert (track_ids(gate), track_ids(yard)) == ([1], [1])
    assert bench.ledgers["yard"]["next_track_id"] == 2
    assert seqs(bench.give(end(2, "yard"))) == [2]
    assert seqs(bench.frame(2, source="gate")) == [2]


def test_a_lost_frame_takes_its_place_in_the_order() -> None:
    bench = Bench()
    assert bench.give(lost(1)) == []
    out = bench.frame(0)
    assert seqs(out) == [0, 1]
    assert isinstance(out[1], Result)
    assert (out[1].status, out[1].lost, out[1].reason) == ("failed", "infer_died", "infer died")
    assert len(out[1].detections) == 0
    assert out[1].frame is not None, "its lease must still come home"


def test_a_frame_that_comes_after_it_was_given_up_is_not_published_again() -> None:
    bench = Bench()
    bench.give(lost(0))
    (again,) = bench.frame(0)
    assert isinstance(again, Result)
    assert again.lost == "infer_died"


@pytest.mark.parametrize("cause", ["", "infer_died"])
def test_a_failed_frame_is_not_a_frame_without_objects(cause: str) -> None:
    """Shown to the tracker as empty, fifty failed frames would end every track."""
    bench = Bench(track_options={"lost_s": 0.1}, lost_after_s=0.1)
    for seq in range(3):
        assert bench.results(seq)
    for seq in range(3, 53):
        (result,) = bench.give(lost(seq, cause, "infer: the network refused it", pts_ns=2 * 40_000_000))
        assert isinstance(result, Result)
        assert (result.status, result.events) == ("failed", ())
        assert result.detections.track_ids is None
    (back,) = bench.results(53, pts_ns=3 * 40_000_000)
    assert track_ids(back) == [1]
    assert back.events == ()


def test_a_new_epoch_ends_objects_and_starts_new_tracks() -> None:
    bench = Bench()
    for seq in range(3):
        bench.results(seq)
    changed = bench.results(3, epoch=1)[0]
    assert [(e.type, e.track_id, e.reason) for e in changed.events] == [("end", 1, "epoch_changed")]
    assert track_ids(changed) == [-1]
    assert track_ids(bench.results(4, epoch=1)[0]) == [2], "no id is given twice"


def test_a_failed_first_frame_of_an_epoch_ends_the_old_objects_too() -> None:
    bench = Bench()
    for seq in range(3):
        bench.results(seq)
    (failed,) = bench.give(lost(3, epoch=1))
    assert isinstance(failed, Result)
    assert [e.type for e in failed.events] == ["end"]
    assert bench.results(4, epoch=1)[0].events == ()


def test_after_a_restart_it_goes_on_where_publish_is() -> None:
    first = Bench()
    for seq in range(4):
        first.results(seq)
    first.ledgers["gate"]["next_publish"] = 3
    second = Bench(first.ledgers)
    assert second.frame(1) == [], "published already"
    (result,) = second.results(3)
    assert result.resumed, "publish must end the objects that nobody follows any more"
    (following,) = second.results(4)
    assert not following.resumed
    assert track_ids(following) == [2], "no id is given twice"
    assert not first.results(4)[0].resumed


def test_a_fresh_start_is_not_a_resumption() -> None:
    assert not Bench().results(0)[0].resumed


def test_a_slot_recycled_while_it_was_read_is_as_if_it_had_not_come() -> None:
    recycled = [True]

    def check(*_: object) -> None:
        if recycled:
            recycled.pop()
            raise StaleSlotError("recycled")

    bench = Bench(check=check)
    with pytest.raises(StaleSlotError):
        bench.frame(0)
    assert seqs(bench.frame(0)) == [0], "the frame that is sent again is taken"


def test_outputs_that_the_head_refuses_because_they_were_overwritten_are_as_if_they_had_not_come() -> None:
    def check(*_: object) -> None:
        raise StaleSlotError("recycled")

    output, _ = make_output([CAR])
    with pytest.raises(StaleSlotError):
        Bench(check=check).give(output, lambda _: np.full((1, 1, 6), np.nan, np.float32))


def test_outputs_that_the_head_refuses_leave_the_order_as_it_was() -> None:
    bench = Bench()
    output, _ = make_output([CAR])
    with pytest.raises(Exception, match=r"NaN|finite|scores"):
        bench.give(output, lambda _: np.full((1, 1, 6), np.nan, np.float32))
    assert seqs(bench.give(lost(0, "", "postprocess: refused"))) == [0]


def test_what_it_cannot_take() -> None:
    with pytest.raises(TypeError, match="postprocess cannot take Frame"):
        Bench().give(make_frame())
    assert Bench().stage.summary() == {}
    assert isinstance(make_output([CAR])[0], ModelOutput)
    assert make_header(3).seq == 3


def test_masks_hide_objects_from_the_tracker_but_not_from_privacy() -> None:
    left = Mask(((0.0, 0.0), (0.6, 0.0), (0.6, 1.0), (0.0, 1.0)))
    scenes = {
        "gate": Scene(masks={"tree": left}),
        "yard": Scene(masks={"pond": Mask(left.polygon, hides="picture")}),
    }
    bench = Bench(scene_of=scenes.__getitem__, algorithm="bytetrack")
    rows = [CAR, (44.0, 10.0, 60.0, 30.0, 0.5, 0.0)]
    (masked,) = bench.results(0, rows)
    assert masked.detections.class_ids.tolist() == [0]
    assert masked.masked is not None
    assert masked.masked.class_ids.tolist() == [1]
    (shown,) = bench.results(0, rows, source="yard")
    assert shown.detections.class_ids.tolist() == [1, 0]
    assert shown.masked is None


def test_the_surest_object_is_one_that_no_mask_hides() -> None:
    left = Mask(((0.0, 0.0), (0.6, 0.0), (0.6, 1.0), (0.0, 1.0)))
    bench = Bench(scene_of=lambda _: Scene(masks={"tree": left}), algorithm="single", task="localize")
    (made,) = bench.results(0, [CAR, (44.0, 10.0, 60.0, 30.0, 0.5, 0.0)])
    assert made.detections.class_ids.tolist() == [0]


def test_a_confidence_that_is_set_for_one_source_holds_for_it_alone_and_at_once() -> None:
    set_for: dict[str, float] = {}
    bench = Bench(confidence_of=set_for.get, confidence=0.4)
    rows = [(44.0, 10.0, 60.0, 30.0, 0.5, 0.0), (4.0, 10.0, 20.0, 30.0, 0.3, 0.0)]
    counts = []
    for seq, value in enumerate((None, 0.6, 0.2, None)):
        set_for.pop("gate", None)
        if value is not None:
            set_for["gate"] = value
        (gate,) = bench.results(seq, rows)
        (yard,) = bench.results(seq, rows, source="yard")
        counts.append((len(gate.detections), len(yard.detections)))
    assert counts == [(1, 1), (0, 1), (2, 1), (1, 1)]
