"""Plays objects through an observer: where each is at which time, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.analytics.objects import Fact, Observer, TrackedObject
from pipeline.messages import FrameHeader

WIDTH, HEIGHT = 200, 100
#: Boxes are 10 wide and 20 high; the place of an object is the middle of the lower edge.
BOX = (10, 20)


@dataclass(frozen=True)
class At:
    """An object that differs from a person with a score of 0.9."""

    x: float
    y: float
    label: str = "person"
    score: float = 0.9
    width: float = BOX[0]
    height: float = BOX[1]


#: Where an object is, or in a word why it has gone.
Place = tuple[float, float] | At | str
#: Time in ms -> objects of that frame by track id. Objects that are not named in a frame are not seen in it.
Frames = Mapping[int, Mapping[int, Place]]


def header(ms: int, *, width: int = WIDTH, height: int = HEIGHT) -> FrameHeader:
    return FrameHeader("gate", 0, ms, ms * 1_000_000, 0, ms / 1000, "container", width, height)


@dataclass
class Player:
    """One observer and the objects before it."""

    observer: Observer
    items: dict[int, TrackedObject] = field(default_factory=dict)

    def frame(self, ms: int, places: Mapping[int, Place]) -> list[Fact]:
        """One frame: who leaves, who is seen, and what is told of all that."""
        now = header(ms)
        self.observer.begin(now, None)
        facts: list[Fact] = []
        for track_id, place in places.items():
            if isinstance(place, str):
                facts += self.observer.leave(self.items.pop(track_id), place)
        for track_id, place in places.items():
            if isinstance(place, str):
                continue
            one = place if isinstance(place, At) else At(*place)
            item = self.items.setdefault(track_id, TrackedObject(track_id, now, now))
            item.last, item.label, item.score, item.frames = now, one.label, one.score, item.frames + 1
            item.box = (one.x - one.width / 2, one.y - one.height, one.x + one.width / 2, one.y)
            facts += self.observer.see(item)
        return facts + list(self.observer.finish(self.items.values()))


def play(observer: Observer, frames: Frames, say: Callable[[Fact], str]) -> dict[int, list[str]]:
    """What is told at which time, in words; frames in which nothing is are left out."""
    player = Player(observer)
    told = {ms: [say(fact) for fact in player.frame(ms, places)] for ms, places in frames.items()}
    return {ms: [words for words in facts if words] for ms, facts in told.items() if any(facts)}
