"""A graphics card decodes only where it truly does; else the processor does, and it is said why."""

from __future__ import annotations

from typing import cast

import av
import pytest
from av.codec.hwaccel import hwdevices_available
from av.video.codeccontext import VideoCodecContext

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.live import decoders
from pipeline.sources.live.decoders import check_decode, choose_decoder, configure, probe_device


def context(codec: str = "h264") -> VideoCodecContext:
    return cast(VideoCodecContext, av.CodecContext.create(codec, "r"))


def test_no_such_decoder() -> None:
    with pytest.raises(ConfigError, match=r"sources\.gate\.decode: there is no decoder 'gpu'") as caught:
        check_decode("gate", "gpu")
    assert "auto, cpu" in caught.value.hint


def test_a_device_that_ffmpeg_was_built_without() -> None:
    missing = next((name for name in decoders.DEVICES if name not in hwdevices_available()), None)
    if missing is None:
        pytest.skip("this FFmpeg was built with all of them")
    with pytest.raises(ConfigError, match=f"built without {missing}"):
        check_decode("gate", missing)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_what_is_always_there(name: str) -> None:
    check_decode("gate", name)


def test_cpu_asks_no_device() -> None:
    plain = context()
    choice = choose_decoder("gate", "cpu", plain, probe=lambda *_: pytest.fail("asked"))
    assert (choice.name, choice.context, choice.refusals) == ("cpu", plain, ())


def test_auto_falls_back_and_says_why() -> None:
    plain = context()
    choice = choose_decoder("gate", "auto", plain, probe=lambda device, _: f"no {device} here")
    assert (choice.name, choice.context) == ("cpu", plain)
    assert len(choice.refusals) == 3
    assert choice.refusals[0].startswith("cuda: ")


def test_a_device_that_was_asked_for_and_does_not_work() -> None:
    with pytest.raises(SourceError, match="h264 cannot be decoded by cuda: no driver") as caught:
        choose_decoder("gate", "nvdec", context(), probe=lambda *_: "no driver")
    assert caught.value.reason == "codec"
    assert "NVIDIA" in caught.value.hint


@pytest.mark.parametrize("device", sorted(set(hwdevices_available()) & set(decoders.DEVICES)))
@pytest.mark.parametrize("codec", ["h264", "hevc", "mjpeg", "vp9"])
def test_each_device_is_tried_and_works_or_says_why_not(device: str, codec: str) -> None:
    """Without the hardware this proves the refusals; with it, that its picture is right."""
    why = probe_device(device, codec)
    if why:
        assert why.startswith(("there is none", "it does not decode", "it gives no picture"))


@pytest.mark.parametrize("codec", ["h264", "hevc", "mjpeg"])
def test_the_sample_tells_right_from_wrong(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoders._compare(context(codec), codec) == ""
    right = decoders._decoded
    calls = []

    def blue_and_red_swapped(decoder: VideoCodecContext, name: str) -> object:
        calls.append(name)
        image = right(decoder, name)
        assert image is not None
        return image[:, :, ::-1] if len(calls) == 1 else image

    monkeypatch.setattr(decoders, "_decoded", blue_and_red_swapped)
    assert decoders._compare(context(codec), codec) == "its picture is wrong"


def test_a_decoder_that_gives_nothing() -> None:
    assert decoders._compare(context("hevc"), "h264").startswith(
        ("it gives no picture", "it does not decode")
    )


def test_settings() -> None:
    h264, mjpeg = context(), context("mjpeg")
    configure(h264, 2)
    configure(mjpeg, 1)
    assert (h264.thread_type.name, h264.thread_count) == ("SLICE", 2)
    assert h264.flags & av.codec.context.Flags.low_delay
    assert (h264.options, mjpeg.options) == ({}, {"err_detect": "explode"})
