"""What a fault of a source is: how it is set up, made and ended, and what must be told of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from tests.servers.handles import Mount, RtspServer

__all__ = [
    "BACK",
    "BACK_S",
    "CASES",
    "PASSWORD",
    "RUNNING",
    "SOON_S",
    "TOLD_S",
    "Case",
    "Scene",
    "Step",
    "case",
    "login",
    "lost",
    "serving",
    "told",
]

#: Given to every stream, whether it asks for it or not; with characters that must be quoted in a URL.
PASSWORD = "p@:/planted5e1f0c#?"

#: An event is published within so long of the fact, whatever it is.
TOLD_S = 5.0
#: What is told at once; processes wait for a core on a machine with others on it.
SOON_S = 2.0
#: Tries come 1, 3 and 7 s after a loss; one that is under way may have to run into its time first.
BACK_S = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """A change of state that must be told.

    Attributes:
        state: The new state.
        reason: The reason in one word.
        words: Words that the message holds.
        within_s: Longest time until it is published, seconds.
        after: From when that counts: from the fault, or from when it is over.
        optional: Whether it may be missing.
    """

    state: str
    reason: str = ""
    words: str = ""
    within_s: float = TOLD_S
    after: Literal["fault", "cure"] = "fault"
    optional: bool = False


@dataclass(slots=True)
class Scene:
    """A camera that stands ready, and what can be done to it.

    Attributes:
        source: Keys of the source in the config.
        fault: Makes the fault once pictures come; None where it is there from the start.
        cure: Ends the fault; None where it never ends.
        sent: How many pictures the camera has sent, where it counts them.
    """

    source: dict[str, Any]
    fault: Callable[[], object] | None = None
    cure: Callable[[], object] | None = None
    sent: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One fault.

    Attributes:
        name: To be given on the command line.
        fault: What is wrong, in an operator's words.
        made: How it is made.
        scene: Sets it up.
        steps: What must be told, in this order, and nothing else.
        watch_s: How long to go on after the last step, seconds.
        lasts_s: Least time from the fault to its end, seconds.
        counted: Counters that it must raise: ``decode_errors``, or ``late`` for what is let go because newer
            pictures are there, whether before it is decoded or after.
        flaps: Whether it may go on changing after the steps, as chance has it.
        misses: Whether pictures that the camera sent never came here.
        late_s: How old the newest record may be while pictures come, seconds.
        tells: Words that some message must hold, where what else is told is left to chance.
        exit_code: Of the run.
    """

    name: str
    fault: str
    made: str
    scene: Callable[[], AbstractContextManager[Scene]]
    steps: tuple[Step, ...]
    watch_s: float = 1.5
    lasts_s: float = 0.0
    counted: tuple[str, ...] = ()
    flaps: bool = False
    misses: bool = False
    late_s: float = 2.0
    tells: str = ""
    exit_code: int = 0


CASES: dict[str, Case] = {}

_Make = Callable[[], Iterator[Scene]]

RUNNING = Step("running")
BACK = Step("running", within_s=BACK_S, after="cure")


def case(fault: str, made: str, *steps: Step, **rest: Any) -> Callable[[_Make], _Make]:
    """Enter a fault under the name of the function that sets it up; the arguments are those of `Case`."""

    def enter(make: _Make) -> _Make:
        name = make.__name__
        CASES[name] = Case(name, fault, made, contextlib.contextmanager(make), steps, **rest)
        return make

    return enter


def told(state: str, reason: str, words: str, within_s: float = SOON_S) -> Step:
    """A change of state that is told at once."""
    return Step(state, reason, words, within_s)


#: A connection that is lost, or cannot be made.
lost = functools.partial(told, "reconnecting")


def login(url: str, **keys: Any) -> dict[str, Any]:
    """A source with a user name and the password that must show nowhere."""
    return {"url": url, "username": "viewer", "password": PASSWORD, **keys}


@contextlib.contextmanager
def serving(**mount: Any) -> Iterator[tuple[RtspServer, Callable[[], int]]]:
    """An RTSP camera, and how many pictures it has sent."""
    with RtspServer({"cam": Mount(**mount)}) as camera:
        yield camera, lambda: len(camera.sent())
