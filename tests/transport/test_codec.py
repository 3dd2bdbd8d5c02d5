"""Messages to bytes and back; what comes off a wire never does worse than `MessageError`."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MessageError
from pipeline.messages import (
    WIRE_VERSION,
    Attribute,
    Blob,
    Classes,
    Clock,
    Detections,
    EndOfStream,
    Event,
    Frame,
    FrameHeader,
    LetterboxMap,
    Lost,
    Message,
    ModelInput,
    ModelOutput,
    Result,
    Span,
)
from pipeline.transport import codec
from pipeline.transport.base import Delivery
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import make_detections, make_frame, make_result, no_view

QUICK = settings(deadline=None, max_examples=40)

_text = st.text(max_size=20)
_count = st.integers(0, 2**62)
_real = st.floats(allow_nan=False, allow_infinity=False)
_f32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
headers = st.builds(
    FrameHeader, source=_text, epoch=_count, seq=_count, pts_ns=_count, captured_ns=_count, captured_at=_real,
    clock=st.sampled_from(get_args(Clock)), width=_count, height=_count,
)  # fmt: skip
spans = st.lists(st.builds(Span, _text, _count, _count, _count), max_size=3).map(tuple)
blobs = st.builds(
    Blob, st.lists(st.integers(0, 4096), max_size=4).map(tuple), st.sampled_from(["uint8", "float32"]),
    _text, _count, _count, _count,
)  # fmt: skip
blob_tuples = st.lists(blobs, max_size=3).map(tuple)
frames = st.builds(
    Frame, headers, spans, blobs, blob_tuples, st.sampled_from(["bgr24", "i420"])
)  # fmt: skip
letterboxes = st.builds(LetterboxMap, _real, _real, _real, _real, _count, _count)
events = st.lists(
    st.builds(
        Event, st.sampled_from(["start", "update", "end", "source"]), _text, _real,
        label=st.none() | _text, track_id=st.none() | _count, confidence=st.none() | _real,
        box_xyxy=st.none() | st.tuples(_real, _real, _real, _real),
        latency_ms=st.none() | st.dictionaries(_text, _real, max_size=2),
    ),
    max_size=2,
).map(tuple)  # fmt: skip


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    count = draw(st.integers(0, 4))

    def column(kind: st.SearchStrategy[Any], width: int = 1) -> list[Any]:
        return draw(st.lists(kind, min_size=count * width, max_size=count * width))

    ids = st.integers(-(2**31), 2**31 - 1)
    tracks = column(st.integers(-1, 2**62)) if draw(st.booleans()) else None
    return Detections(column(_f32, 4), column(_f32), column(ids), tracks)


classes = st.builds(Classes, st.lists(_count).map(tuple), st.lists(_real).map(tuple))
attributes = st.lists(st.builds(Attribute, _count, _text, _text, _real), max_size=2).map(tuple)
results = st.builds(
    Result, headers, spans, st.none() | frames, st.sampled_from(["ok", "failed"]), detections(),
    _text, _text, st.none() | classes, attributes, events, st.booleans(),
)  # fmt: skip
messages: st.SearchStrategy[Message] = st.one_of(
    frames,
    st.builds(ModelInput, frames, spans, letterboxes, blobs),
    st.builds(ModelOutput, frames, spans, letterboxes, blob_tuples),
    results,
    st.builds(Lost, headers, spans, st.none() | frames, _text, _text),
    st.builds(EndOfStream, _text, _count, _count, st.sampled_from(["ended", "failed"]), _text, _real, events),
)


@given(messages)
@QUICK
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(results)
@QUICK
def test_a_decoded_message_is_as_strict_as_a_made_one(result: Result) -> None:
    back = codec.decode(codec.encode(result))
    assert isinstance(back, Result)
    columns = (back.detections.boxes_xyxy, back.detections.scores, back.detections.class_ids)
    assert [c.dtype for c in columns] == [np.float32, np.float32, np.int32]
    assert not any(c.flags.writeable for c in columns)


@pytest.mark.parametrize("version", [0, WIRE_VERSION + 1, 255])
def test_another_version_is_refused_and_said(version: int) -> None:
    data = bytes([version]) + codec.encode(make_frame())[1:]
    with pytest.raises(
        MessageError, match=f"wire version {version}, this side speaks {WIRE_VERSION}"
    ) as raised:
        codec.decode(data)
    assert "same framewire version" in raised.value.hint


@pytest.mark.parametrize("data", [b"", b"\x01"])
def test_too_short(data: bytes) -> None:
    with pytest.raises(MessageError, match="too short"):
        codec.decode(data)


@given(st.binary(max_size=200), st.booleans())
@settings(deadline=None, max_examples=200)
def test_random_bytes(data: bytes, versioned: bool) -> None:
    refused_or_decoded(bytes([WIRE_VERSION]) * versioned + data)


@given(messages, st.data())
@settings(deadline=None, max_examples=60)
def test_truncated_and_damaged_messages(message: Message, data: st.DataObject) -> None:
    whole = codec.encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MessageError):
        codec.decode(whole[:cut])
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(1, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    refused_or_decoded(bytes(damaged))


def refused_or_decoded(data: bytes) -> None:
    try:
        codec.decode(data)
    except MessageError:
        return


DEEP = b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa4type\xa6result\xa1z" + DEEP,
        b"\x82\xa4type\xa6result\xaadetections" + DEEP,
        b"\x82\xa4type\xa6result\xaadetections\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa6result\xa5spans\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa6result\xa1z\xdf\xff\xff\xff\xff",
    ],
    ids=["deep unknown field", "deep detections", "4e9 detections", "4e9 spans", "4e9 unknown keys"],
)
def test_hostile_bodies(body: bytes) -> None:
    with pytest.raises(MessageError):
        codec.decode(bytes([WIRE_VERSION]) + body)


@pytest.mark.parametrize(
    "columns",
    [
        [b"\0" * 15, b"\0" * 4, b"\0" * 4, None],
        [b"\0" * 16, b"\0" * 8, b"\0" * 4, None],
        [b"\0" * 16, b"\0" * 4, b"\0" * 4],
        [np.float32("nan").tobytes() * 4, b"\0" * 4, b"\0" * 4, None],
        ["text", b"\0" * 4, b"\0" * 4, None],
        [1, 2, 3, 4],
        7,
    ],
)
def test_detections_that_do_not_fit_together(columns: object) -> None:
    plain = msgspec.msgpack.decode(codec.encode(make_result())[1:])
    body = msgspec.msgpack.encode(plain | {"detections": columns})
    with pytest.raises(MessageError):
        codec.decode(bytes([WIRE_VERSION]) + body)


def test_unknown_fields_of_a_newer_peer_are_ignored() -> None:
    frame = make_frame(3)
    plain = msgspec.msgpack.decode(codec.encode(frame)[1:])
    plain["colour_space"] = {"matrix": 6}
    plain["header"]["gps"] = [1.0, 2.0]
    plain["lease"].append("new last field")
    assert codec.decode(bytes([WIRE_VERSION]) + msgspec.msgpack.encode(plain)) == frame


def test_what_cannot_travel_is_a_mistake_of_ours() -> None:
    result = msgspec.structs.replace(make_result(), reason=object())
    with pytest.raises(TypeError, match="object does not travel"):
        codec.encode(result)


def test_payload_is_what_the_receiver_reads() -> None:
    one, two = Blob((1,), "uint8", "p", 0), Blob((2,), "uint8", "p", 1)
    frame = make_frame(pixels=(one, two))
    box = LetterboxMap(1, 1, 0, 0, 1, 1)
    assert codec.payload(frame) == (one, two)
    assert codec.payload(ModelInput(frame, (), box, one)) == (one,)
    assert codec.payload(ModelOutput(frame, (), box, (two,))) == (two,)
    assert codec.payload(make_result(frame=frame)) == ()
    assert codec.payload(Lost(frame.header, (), frame, "", "")) == ()
    assert codec.payload(EndOfStream("gate", 0, 0, "ended", "", 0.0)) == ()


def pool_with(*arrays: np.ndarray[Any, Any]) -> tuple[Pools, tuple[Blob, ...]]:
    pools = Pools()
    pool = pools.add(SlotPool.in_memory("p", len(arrays), max(a.nbytes for a in arrays)))
    made = []
    for array in arrays:
        with pool.writing() as slot:
            pool.array(slot, array.shape, array.dtype.name)[...] = array
            made.append(pool.blob(slot, array.shape, array.dtype.name))
    return pools, tuple(made)


@pytest.mark.parametrize("kind", ["frame", "input", "output"])
def test_inline_arrays_come_out_identical(kind: str) -> None:
    random = np.random.default_rng(0)
    arrays: list[np.ndarray[Any, Any]] = [
        random.integers(0, 255, (5, 7, 3)).astype(np.uint8),
        random.random((1, 4, 6)).astype(np.float32),
    ]
    pools, made = pool_with(*arrays)
    box = LetterboxMap(1, 1, 0, 0, 7, 5)
    message: Message = make_frame(pixels=made)
    if kind == "input":
        arrays = arrays[:1]
        message = ModelInput(make_frame(), (), box, made[0])
    elif kind == "output":
        message = ModelOutput(make_frame(), (), box, made)
    moved, parts = codec.inline(message, pools.view)
    back = codec.decode(codec.encode(moved))
    raw = tuple(bytes(part) for part in parts)
    view = Delivery(back, 0, None, raw).viewer(no_view)
    for blob, array in zip(codec.payload(back), arrays, strict=True):
        assert blob.pool == ""
        np.testing.assert_array_equal(view(blob), array)


def test_inline_leaves_messages_without_arrays_alone() -> None:
    for message in (make_result(), EndOfStream("gate", 0, 0, "ended", "", 0.0)):
        assert codec.inline(message, no_view) == (message, [])


def test_a_viewer_falls_back_to_the_pools() -> None:
    pools, (blob,) = pool_with(np.arange(6, dtype=np.float32))
    assert Delivery(make_frame(), 0).viewer(pools.view) == pools.view
    mixed = Delivery(make_frame(), 0, None, (b"\1\2",)).viewer(pools.view)
    assert mixed(blob).tolist() == [0, 1, 2, 3, 4, 5]
    assert mixed(Blob((2,), "uint8", "", 0)).tolist() == [1, 2]


def test_equality_of_detections_is_what_the_round_trip_relies_on() -> None:
    assert make_detections(3) == make_detections(3)
    assert make_detections(3) != make_detections(3, tracked=True)
