"""capture: loses nothing of a file, keeps the newest of a camera, goes on where it was killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SourceError, SourceLostError
from pipeline.messages import EndOfStream, Frame, Message
from pipeline.transport import codec
from pipeline.transport.ledger import STATES
from tests.helpers import (
    ListSource,
    make_picture,
    names_in,
)
from tests.stages.rig import Downstream, Rig, run_to_end


def recording(count: int = 10, *, error: SourceError | None = None) -> ListSource:
    return ListSource((make_picture(n) for n in range(count)), error=error)


def frame_of(message: Message | None) -> Frame:
    assert isinstance(message, Frame), message
    return message


def books(rig: Rig) -> tuple[int, int, dict[str, int]]:
    return rig.ledger["decoded"], rig.ledger["admitted"], rig.ledger.dropped()


def test_a_frame_is_what_was_decoded() -> None:
    rig = Rig(lambda: ListSource([make_picture(3, size=(5, 3), pixel_format="i420")]))
    frame = frame_of(rig.capture().receive())
    header = frame.header
    assert (header.source, header.seq, header.epoch, header.width, header.height) == ("gate", 0, 0, 5, 3)
    assert (header.pts_ns, header.captured_ns, header.clock) == (120_000_000, 1003, "container")
    assert frame.pixel_format == "i420"
    assert [blob.shape for blob in frame.pixels] == [(3, 5), (2, 3), (2, 3)]
    assert [blob.offset for blob in frame.pixels] == [0, 15, 21]
    for blob in frame.pixels:
        np.testing.assert_array_equal(rig.pools.view(blob), np.full(blob.shape, 3, np.uint8))
    (span,) = frame.spans
    assert span.stage == "capture"
    assert span.service_ns >= 0


def test_strided_planes_are_copied_whole() -> None:
    wide = np.arange(48 * 128 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 128, 3)
    picture = make_picture(0)
    object.__setattr__(picture, "planes", (wide[:, :64],))
    rig = Rig(lambda: ListSource([picture]))
    frame = frame_of(rig.capture().receive())
    np.testing.assert_array_equal(rig.pools.view(frame.pixels[0]), wide[:, :64])


def test_a_recording_waits_for_a_slot_and_drops_nothing() -> None:
    rig = Rig(recording, slots=3)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    assert rig.ledger["expected"] == 10
    assert STATES[rig.ledger["state"]] == "running"
    for seq in range(3):
        message = frame_of(capture.receive())
        assert message.header.seq == seq
        behind.take(message)
    assert [capture.receive() for _ in range(3)] == [None, None, None]
    assert isinstance(capture.source, ListSource)
    assert capture.source.at == 3, "the next picture is not even decoded"
    assert books(rig) == (3, 3, {})
    behind.work()
    assert frame_of(capture.receive()).header.seq == 3
    assert capture.receive() is None


def test_to_the_end_once(tmp_path: Path) -> None:
    rig = Rig(recording, slots=3)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    run_to_end(capture, behind)
    assert behind.seqs == behind.pixels == list(range(10))
    assert [(end.seq, end.state, end.reason) for end in behind.ends] == [(10, "ended", "end_of_file")]
    assert [capture.receive() for _ in range(3)] == [None, None, None], "the end comes once"
    assert rig.ledger.balanced()
    assert STATES[rig.ledger["state"]] == "ended"
    capture.close()
    assert isinstance(capture.source, ListSource)
    assert capture.source.closed


def test_the_end_does_not_count_as_finished_before_it_is_published() -> None:
    rig = Rig(lambda: recording(1))
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    for _ in range(2):
        message = capture.receive()
        assert message is not None
        behind.take(message)
    assert not capture.finished
    behind.drain()
    assert capture.finished


def test_an_empty_recording() -> None:
    rig = Rig(lambda: recording(0))
    end = rig.capture().receive()
    assert isinstance(end, EndOfStream)
    assert (end.seq, end.state) == (0, "ended")
    assert rig.made == [], "no pool for nothing"


@pytest.mark.parametrize("after", [0, 1, 4])
def test_stop_ends_after_the_last_admitted_frame(after: int) -> None:
    rig = Rig(recording, slots=4)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    for _ in range(after):
        behind.take(frame_of(capture.receive()))
    capture.stop("interrupted")
    capture.stop("again")
    end = capture.receive()  # even while no slot is free
    assert isinstance(end, EndOfStream)
    assert (end.seq, end.state, end.reason) == (after, "ended", "interrupted")
    assert capture.receive() is None
    behind.take(end)
    behind.drain()
    assert capture.finished
    assert rig.ledger.balanced()


def test_a_source_that_breaks_ends_as_failed_after_what_it_gave() -> None:
    rig = Rig(lambda: recording(2, error=SourceLostError("the file is cut", reason="codec")))
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    run_to_end(capture, behind)
    assert behind.seqs == [0, 1]
    assert [(end.seq, end.state, end.reason) for end in behind.ends] == [(2, "failed", "the file is cut")]
    assert [error.message for error in rig.errors] == ["the file is cut"]
    assert STATES[rig.ledger["state"]] == "failed"
    assert rig.ledger.balanced()


def test_a_source_that_cannot_be_opened_ends_as_failed() -> None:
    rig = Rig(lambda: ListSource([], refuse=SourceError("no such codec")))
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    run_to_end(capture, behind)
    assert [(end.seq, end.state) for end in behind.ends] == [(0, "failed")]
    assert len(rig.errors) == 1
    assert rig.ledger.balanced()
    capture.close()


def test_a_new_size_is_a_new_epoch_and_a_larger_one_a_new_pool(shm: Path) -> None:
    sizes = [(64, 48)] * 2 + [(32, 24)] * 2 + [(128, 96)] * 2
    rig = Rig(lambda: ListSource(make_picture(n, size=size) for n, size in enumerate(sizes)), slots=3)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    seen = []
    for _ in range(3):
        behind.take(frame_of(capture.receive()))
    assert rig.made == [1], "a smaller picture fits"
    behind.drain()
    behind.take(frame_of(capture.receive()))
    fifth = frame_of(capture.receive())
    behind.take(fifth)
    assert rig.made == [1, 2]
    assert rig.ledger["pool"] == 2
    assert len([name for name in names_in(shm) if "frames" in name]) == 2, "a frame of the old is under way"
    behind.drain()
    behind.take(frame_of(capture.receive()))
    assert [name.rpartition("-")[2] for name in names_in(shm) if "frames" in name] == ["2"]
    behind.drain()
    seen = [(m.header.epoch, m.header.width) for m in behind.published]
    assert seen == [(0, 64), (0, 64), (1, 32), (1, 32), (2, 128), (2, 128)]
    assert behind.pixels == list(range(6))


def test_an_epoch_of_the_source_is_an_epoch() -> None:
    pictures = [make_picture(n, epoch=n // 2 + 5) for n in range(4)]
    rig = Rig(lambda: ListSource(pictures))
    capture = rig.capture()
    assert [frame_of(capture.receive()).header.epoch for _ in range(4)] == [0, 0, 1, 1]


def test_the_longest_name_fits_a_slot() -> None:
    rig = Rig(lambda: ListSource([make_picture(0, size=(3840, 2160), pixel_format="i420")], name="x" * 64))
    rig.run += "-framewire-0123abcd-frames-" + "x" * 64
    frame = frame_of(rig.capture().receive())
    assert codec.decode(rig.attach_pool(1).leased()[0][1]) == frame
