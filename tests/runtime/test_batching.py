"""When a batch goes and what is in it, in tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.runtime.batching import BatchPolicy, Decision, Waiting
from tests.helpers import MS
from tests.runtime.cameras import Service, cpu, gpu, measured, policy_of


def beat(policy: BatchPolicy, source: str, interval_ms: float, last_ms: float, *, count: int = 5) -> None:
    """Let a source arrive ``count`` times at that interval, the last one at ``last_ms``."""
    for back in reversed(range(count)):
        policy.arrived(source, int((last_ms - back * interval_ms) * MS))


def frames(*sources: str) -> list[Waiting]:
    """One frame of each name given, captured in this order."""
    return [Waiting(source, at) for at, source in enumerate(sources)]


# --- how many go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "ready", "count"),
    [
        (cpu, 1, 1), (cpu, 2, 1), (cpu, 8, 1), (cpu, 16, 1),
        (gpu, 1, 1), (gpu, 2, 2), (gpu, 5, 5), (gpu, 8, 8),
        # More than fit: 8 + 8 and 8 + 4 take 72 and 64 ms, 6 + 6 would take 72.
        (gpu, 16, 8), (gpu, 12, 8),
        # 5 % is not worth holding the first ones back for; a third is.
        (lambda n: 15 * n * 0.95 if n > 1 else 15, 8, 1),
        (lambda n: 15 * n * 0.66 if n > 1 else 15, 8, 2),
    ],
)  # fmt: skip
def test_a_batch_is_as_large_as_clears_what_waits(service: Service, ready: int, count: int) -> None:
    decision = policy_of(service).decide(frames(*(f"cam{n}" for n in range(ready))), 0)
    assert len(decision.picks) == count


def test_nothing_waits_and_nothing_is_decided() -> None:
    assert policy_of(gpu).decide([], 5) == Decision()


def test_a_limit_that_was_never_measured_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a batch of 9 was never measured, only \[1, 2, 4, 8\]"):
        BatchPolicy(9, measured(gpu, 8))
    with pytest.raises(ValueError, match="a batch of 0"):
        BatchPolicy(0)


# --- what it learns --------------------------------------------------------------------------------------


def test_other_sizes_take_as_long_as_the_one_that_they_are_padded_to() -> None:
    policy = policy_of(gpu)
    assert [policy.service_ns(count) / MS for count in range(1, 9)] == [22, 24, 28, 28, 36, 36, 36, 36]
    policy.served(3, 128 * MS)
    assert policy.service_ns(4) == policy.service_ns(3) == 48 * MS
    assert policy.service_ns(2) == 24 * MS


def test_nothing_measured_means_that_every_size_is_tried_and_then_known() -> None:
    policy, ready = BatchPolicy(4), frames("a", "b", "c", "d")
    sizes = []
    for _ in range(60):
        count = len(policy.decide(ready, 0).picks)
        sizes.append(count)
        policy.served(count, count * 15 * MS)
    assert set(sizes) == {1, 2, 3, 4}
    assert sizes[-1] == 1, "where nothing is gained, one by one in the end"


def test_a_size_that_was_slow_once_is_tried_again() -> None:
    policy, ready = policy_of(gpu, 2), frames("a", "b")
    policy.served(2, 2000 * MS)
    sizes = []
    for _ in range(200):
        count = len(policy.decide(ready, 0).picks)
        sizes.append(count)
        policy.served(count, int(gpu(count) * MS))
    assert sizes[0] == 1
    assert sizes[-1] == 2


def test_the_estimates_follow_the_machine() -> None:
    policy = policy_of(gpu)
    for _ in range(50):
        policy.served(8, 90 * MS)
    assert policy.service_ns(8) == pytest.approx(90 * MS, rel=0.01)


# --- waiting ---------------------------------------------------------------------------------------------

#: (interval of another source, how long ago it was heard, in ms) -> how long one frame waits for it, or None.
WAITS: list[tuple[str, float, float, float | None]] = [
    ("due in 3 ms", 40, 37, 3),
    ("due in 8.5 ms: less than half of what is saved", 40, 31.5, 8.5),
    ("due in 9.5 ms: more than that", 40, 30.5, None),
    ("due now", 40, 40, 0),
    ("late", 40, 41, None),
    ("silent for one and a half intervals", 40, 60, None),
    ("silent for long", 40, 4000, None),
    ("another beat altogether", 1000, 100, None),
]


@pytest.mark.parametrize(("interval", "ago", "until"), [w[1:] for w in WAITS], ids=[w[0] for w in WAITS])
def test_one_frame_waits_for_a_source_that_is_due(interval: float, ago: float, until: float | None) -> None:
    now = 10_000.0
    policy = policy_of(gpu)
    beat(policy, "yard", interval, now - ago)
    decision = policy.decide(frames("gate"), int(now * MS))
    if until:
        assert decision == Decision((), int((now + until) * MS))
    else:
        assert decision == Decision((0,))


@pytest.mark.parametrize("due", [0.1, 1, 3, 7])
def test_where_nothing_is_gained_nothing_is_waited_for(due: float) -> None:
    policy = policy_of(cpu)
    beat(policy, "yard", 40, 1000 - 40 + due)
    assert policy.decide(frames("gate"), 1000 * MS).picks == (0,)


def test_it_goes_when_time_is_up_and_when_the_batch_is_full() -> None:
    policy = policy_of(gpu, 2)
    beat(policy, "yard", 40, 963)
    assert policy.decide(frames("gate"), 1000 * MS) == Decision((), 1003 * MS)
    assert policy.decide(frames("gate", "yard"), 1001 * MS).picks == (0, 1)
    policy = policy_of(gpu, 2)
    beat(policy, "yard", 40, 963)
    assert policy.decide(frames("gate"), 1000 * MS).picks == ()
    assert policy.decide(frames("gate"), 1004 * MS).picks == (0,)


def test_several_are_waited_for_when_they_come_together() -> None:
    policy = policy_of(gpu)
    for number in range(6):
        beat(policy, f"cam{number}", 40, 962 + number)
    decision = policy.decide(frames("gate"), 1000 * MS)
    assert decision.until_ns == 1007 * MS


@pytest.mark.parametrize(
    ("name", "arrivals"),
    [
        ("heard twice", [920, 960]),
        ("no rhythm", [700, 830, 840, 950, 963]),
        ("away for long, and only just back", [0, 40, 80, 963]),
    ],
)
def test_a_source_without_rhythm_is_not_waited_for(name: str, arrivals: Sequence[int]) -> None:
    policy = policy_of(gpu)
    for at in arrivals:
        policy.arrived("yard", at * MS)
    assert policy.decide(frames("gate"), 1000 * MS).picks == (0,), name


def test_one_that_has_ended_is_not_waited_for_nor_is_any_when_no_more_comes() -> None:
    policy = policy_of(gpu)
    beat(policy, "yard", 40, 963)
    assert policy.decide(frames("gate"), 1000 * MS, more=False).picks == (0,)
    assert policy.decide(frames("gate"), 1000 * MS).picks == ()
    policy.ended("yard")
    assert policy.decide(frames("gate"), 1000 * MS).picks == (0,)


def test_a_ragged_rhythm_gets_some_patience() -> None:
    policy, at = policy_of(gpu), 0.0
    for step in [40, 41, 39, 40, 41, 39] * 5:
        at += step
        policy.arrived("yard", int(at * MS))
    decision = policy.decide(frames("gate"), int((at + 37) * MS))
    assert at + 41 < decision.until_ns / MS < at + 45


def ragged(policy: BatchPolicy, *steps: float) -> float:
    """Let a source arrive after each of these steps, again and again; when it came last, in ms."""
    at = 0.0
    for step in steps * 20:
        at += step
        policy.arrived("yard", int(at * MS))
    return at


def test_its_usual_error_counts_as_time_to_wait() -> None:
    """Due in 8.6 ms it would be worth it, give or take 1 ms it is not."""
    for steps, waits in (((40,), True), ((39, 41), False)):
        policy = policy_of(gpu)
        at = ragged(policy, *steps)
        assert (policy.decide(frames("gate"), int((at + 31.4) * MS)).picks == ()) == waits


def test_one_that_is_too_ragged_has_no_rhythm() -> None:
    for steps, waits in (((34, 46), True), ((20, 60), False)):
        policy = policy_of(lambda count: 200 + count)
        at = ragged(policy, *steps)
        assert (policy.decide(frames("gate"), int((at + 38) * MS)).picks == ()) == waits


def test_one_that_is_ragged_is_silent_after_one_and_a_half_intervals_all_the_same() -> None:
    policy = policy_of(lambda count: 200 + count)
    at = ragged(policy, 31, 49)
    assert policy.decide(frames("gate"), int((at + 52) * MS)).picks == ()
    assert policy.decide(frames("gate"), int((at + 63) * MS)).picks == (0,)


def test_frames_that_overtook_each_other_do_no_harm() -> None:
    policy = policy_of(gpu)
    for at in (0, 40, 39, 80, 79, 120, 160):
        policy.arrived("yard", at * MS)
    assert policy.decide(frames("gate"), 198 * MS) == Decision((), 200 * MS)


# --- who goes --------------------------------------------------------------------------------------------


def test_sources_take_turns_and_each_sends_its_oldest() -> None:
    policy = policy_of(gpu, 4)
    waiting = [Waiting("fast", at) for at in (3, 1, 2, 0, 4, 5)] + [Waiting("slow", 9), Waiting("slower", 10)]
    first = policy.decide(waiting, 0).picks
    assert [waiting[at] for at in first] == [
        Waiting("fast", 0), Waiting("slow", 9), Waiting("slower", 10), Waiting("fast", 1)
    ]  # fmt: skip
    left = [w for at, w in enumerate(waiting) if at not in first] + [Waiting("slow", 11)]
    second = policy.decide(left, 0).picks
    assert left[second[0]] == Waiting("slow", 11), "its turn was longest ago"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=30), st.integers(1, 8))
def test_nobody_starves(names: list[str], limit: int) -> None:
    """Of n sources that always have a frame waiting, each is picked within n picks."""
    policy = BatchPolicy(limit, {limit: MS})
    sources, order = sorted(set(names)), []
    for _ in range(20):
        waiting = frames(*names)
        picks = policy.decide(waiting, 0, more=False).picks
        assert len(set(picks)) == len(picks) <= limit
        order += [waiting[at].source for at in picks]
    several = [s for s in sources if names.count(s) >= limit]
    for at in range(len(order) - 2 * len(sources)):
        assert set(several) <= set(order[at : at + 2 * len(sources)])


def test_a_camera_that_falls_silent_holds_nobody_up() -> None:
    policy, waits = policy_of(gpu), []
    beat(policy, "dead", 40, 1000)
    for n, now in enumerate(itertools.islice(itertools.count(1038, 100), 20)):
        policy.arrived("gate", now * MS)
        decision = policy.decide(frames("gate"), now * MS)
        if not decision.picks:
            waits.append(n)
            assert decision.until_ns <= (now + 3) * MS
            assert policy.decide(frames("gate"), decision.until_ns + MS).picks
    assert waits == [0], "once, and never again"
