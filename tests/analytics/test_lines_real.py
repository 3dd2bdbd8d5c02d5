"""Lines among the people of a real recording, with their true tracks: frames dropped and ids lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipeline.analytics.lines import Lines
from pipeline.analytics.objects import Box, TrackedObject
from pipeline.messages import Line, Point, Scene
from tests.analytics.playing import header

WIDTH, HEIGHT = 768, 576
LINES = (Line((0.5, 0.1), (0.5, 1.0)), Line((0.2, 0.9), (0.8, 0.3)), Line((0.1, 0.55), (0.9, 0.55)))
People = dict[int, dict[int, Box]]


@pytest.fixture(scope="module")
def people(assets: Path) -> People:
    """Boxes by frame and track id, ten frames a second."""
    found: People = defaultdict(dict)
    for row in (assets / "mot/MOT15-train/PETS09-S2L1/gt/gt.txt").read_text("utf-8").splitlines():
        frame, track_id, x, y, w, h = map(float, row.split(",")[:6])
        found[int(frame)][int(track_id)] = (x, y, x + w, y + h)
    return found


def crossed(
    line: Line,
    people: People,
    frames: Iterable[int],
    id_at: Callable[[int, int], int] = lambda frame, track_id: track_id,
    *,
    handover_s: float = 1.0,
) -> list[tuple[int, int, str]]:
    """Frame, id and direction of each crossing."""
    lines = Lines(Scene(lines={"line": line}), handover_s=handover_s)
    items: dict[int, TrackedObject] = {}
    found = []
    for frame in frames:
        now = header(frame * 100, width=WIDTH, height=HEIGHT)
        lines.begin(now, None)
        facts = []
        for gone in [item for item in items.values() if now.pts_ns - item.last.pts_ns >= 2e9]:
            facts += lines.leave(items.pop(gone.track_id), "lost")
        for true_id, box in people[frame].items():
            track_id = id_at(frame, true_id)
            item = items.setdefault(track_id, TrackedObject(track_id, now, now, label="person", score=0.9))
            item.last, item.box = now, box
            facts += lines.see(item)
        facts += lines.finish(items.values())
        found += [(frame, fact.item.track_id, fact.fields["direction"]) for fact in facts if fact.item]
    return found


def plainly_crossed(line: Line, people: People) -> Counter[str]:
    """By hand: every step of every person whose way and the line cut each other, without a margin."""

    def turn(a: Point, b: Point, c: Point) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    start, end = ((x * WIDTH, y * HEIGHT) for x, y in (line.start, line.end))
    last: dict[int, Point] = {}
    found: Counter[str] = Counter()
    for frame in sorted(people):
        for track_id, (x1, _, x2, y2) in people[frame].items():
            now = ((x1 + x2) / 2, y2)
            was = last.get(track_id, now)
            last[track_id] = now
            parted = turn(start, end, was) * turn(start, end, now) < 0
            if parted and turn(was, now, start) * turn(was, now, end) < 0:
                found[line.left if turn(start, end, now) < 0 else line.right] += 1
    return found


@pytest.mark.parametrize("line", LINES)
def test_each_crossing_is_counted_once(people: People, line: Line) -> None:
    truth = plainly_crossed(line, people)
    found = crossed(line, people, sorted(people))
    assert Counter(direction for _, _, direction in found) == truth
    assert sum(truth.values()) > 20
    assert len({(track_id, frame) for frame, track_id, _ in found}) == len(found)


@pytest.mark.parametrize("line", LINES)
def test_ids_that_are_lost_at_every_crossing_are_counted_all_the_same(people: People, line: Line) -> None:
    found = crossed(line, people, sorted(people))

    def id_at(frame: int, track_id: int) -> int:
        """Another with each crossing."""
        return track_id + 1000 * sum(one == track_id and at <= frame for at, one, _ in found)

    again = crossed(line, people, sorted(people), id_at)
    assert [(frame, direction) for frame, _, direction in again] == [(at, side) for at, _, side in found]
    assert crossed(line, people, sorted(people), id_at, handover_s=0.0) == []


@pytest.mark.parametrize("line", LINES[1:])
@pytest.mark.parametrize("step", [3, 5, 10])
def test_dropped_frames_lose_no_crossing(people: People, line: Line, step: int) -> None:
    """Down to one frame a second. Beside the first line some are seen too briefly for that."""
    found = crossed(line, people, range(1, max(people) + 1, step))
    assert Counter(direction for _, _, direction in found) == plainly_crossed(line, people)
