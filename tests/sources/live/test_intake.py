"""What is decoded of a live stream, and how what is not is counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from pipeline.sources.live.avlog import Line
from pipeline.sources.live.intake import Coded, Intake

MS = 1_000_000
MISSED = [Line(24, "rtsp", "RTP: missed 1 packets")]


def feed(
    intake: Intake,
    kinds: str,
    *,
    start: int = 0,
    late_ms: int = 0,
    waited: bool = True,
    timed: bool = True,
    lines: Sequence[Line] = (),
) -> str:
    """What is decoded (d) of keyframes (K) and others (p), 40 ms apart, each so late."""
    out = ""
    for number, kind in enumerate(kinds, start):
        coded = Coded(
            head=b"",
            time_ns=number * 40 * MS if timed else None,
            arrival_ns=(number * 40 + late_ms) * MS,
            waited=waited,
            keyframe=kind == "K",
            corrupt=False,
        )
        out += "d" if intake.wants(coded, lines) else "."
    return out


def test_before_the_first_keyframe() -> None:
    intake = Intake("vp9")
    assert feed(intake, "pppKpp") == "...ddd"
    assert (intake.skipped, intake.damaged) == (3, 0)
    assert intake.keyframe_interval_s is None


def test_after_a_loss() -> None:
    intake = Intake("vp9")
    assert feed(intake, "Kpp") == "ddd"
    assert feed(intake, "p", start=3, lines=MISSED) == "."
    assert feed(intake, "ppKp", start=4) == "..dd"
    assert (intake.skipped, intake.damaged) == (0, 3)


def test_the_first_after_a_loss_begins_anew() -> None:
    intake = Intake("vp9")
    feed(intake, "K")
    begins = [intake.fresh]
    feed(intake, "p", start=1)
    begins.append(intake.fresh)
    assert not intake.decoded(0, [], failed=True)
    assert feed(intake, "pK", start=2) == ".d"
    begins.append(intake.fresh)
    assert begins == [True, False, True]
    assert intake.damaged == 2


def test_asleep_nothing_is_decoded_and_awake_again_at_a_keyframe() -> None:
    awake = threading.Event()
    awake.set()
    intake = Intake("vp9", awake=awake.is_set)
    assert feed(intake, "Kpp") == "ddd"
    awake.clear()
    assert (feed(intake, "pKp", start=3), intake.idle) == ("...", True)
    awake.set()
    assert (feed(intake, "ppKp", start=6), intake.idle) == ("..dd", False)
    assert (intake.skipped, intake.damaged) == (5, 0)
    assert intake.keyframe_interval_s == 0.16


def test_a_stream_that_lags_is_skipped_up_to_a_keyframe_in_time() -> None:
    intake = Intake("vp9", max_age_s=1.0)
    assert feed(intake, "Kppp") == "dddd"
    # A stall of 2 s: what comes then comes at once, and is read ever faster.
    assert feed(intake, "pKpp", start=4, late_ms=2000, waited=False) == "...."
    assert feed(intake, "pKpp", start=8, late_ms=900, waited=False) == ".ddd"
    assert (intake.skipped, intake.damaged) == (5, 0)


def test_one_that_must_be_waited_for_is_decoded_however_late() -> None:
    intake = Intake("vp9", max_age_s=1.0)
    feed(intake, "Kppp")
    assert feed(intake, "pKpp" * 5, start=4, late_ms=5000).endswith("d" * 12)


def test_without_timestamps_what_lies_about_is_passed_over() -> None:
    intake = Intake("mjpeg")
    assert feed(intake, "KKKKKK", timed=False) == "dddddd"
    assert feed(intake, "KKKKKK", timed=False, waited=False) == "ddd..."
    assert feed(intake, "K", timed=False) == "d"
    assert intake.skipped == 3


def test_a_highest_rate_spares_decoding() -> None:
    intake = Intake("mjpeg", max_fps=5)  # of 25
    assert feed(intake, "K" * 50).count("d") <= 14
    assert intake.skipped >= 36
    assert intake.damaged == 0


def test_keyframes_alone_lead_to_waiting_for_the_next() -> None:
    intake = Intake("vp9", max_fps=5)  # a keyframe each 0.2 s
    taken = feed(intake, "Kpppp" * 10)
    assert taken[:15] == "d" * 15
    assert taken[-20:] == "d...." * 4
    assert intake.damaged == 0


def test_a_picture_that_came_out_damaged() -> None:
    intake = Intake("vp9")
    feed(intake, "Kp")
    intake.leave_out_damaged()
    assert not intake.trusted
    assert feed(intake, "pK", start=2) == ".d"
    assert (intake.skipped, intake.damaged) == (0, 2)


@pytest.mark.parametrize(
    ("kinds", "patience_s"),
    [
        ("", 30.0),
        ("Kpppp", 30.0),  # how often keyframes come is not known yet
        ("Kp" * 2, 4.0),
        ("K" + 24 * "p" + "K", 4.0),  # every second
        ("K" + 99 * "p" + "K", 10.0),  # every four
        ("K" + 499 * "p" + "K", 30.0),  # every twenty
    ],
)
def test_how_long_no_picture_is_bearable(kinds: str, patience_s: float) -> None:
    intake = Intake("vp9")
    feed(intake, kinds)
    assert intake.patience_ns == patience_s * 1e9
