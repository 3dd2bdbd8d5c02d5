"""Which packets of a live stream are decoded: wanted ones, in time, built on what came whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.sources.live.avlog import Line
from pipeline.sources.live.clocks import Backlog
from pipeline.sources.live.damage import Trust
from pipeline.sources.live.thinning import INTRA_ONLY, Disposables, Thinning

__all__ = ["HEAD_BYTES", "Coded", "Intake"]

#: The first slice header of a picture lies within so many bytes, parameter sets and messages included.
HEAD_BYTES = 4096

_NO_PICTURE_NS = 4_000_000_000
_NO_KEYFRAME_NS = 30_000_000_000
_UNWAITED_MAX = 4


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded picture, as far as deciding about it needs.

    Attributes:
        head: The first `HEAD_BYTES` of it.
        time_ns: Its timestamp in nanoseconds; None without one.
        arrival_ns: Monotonic time at which it was read.
        waited: Whether it had to be waited for.
        keyframe: Whether decoding can begin with it.
        corrupt: Whether the demuxer says that it is damaged.
    """

    head: bytes
    time_ns: int | None
    arrival_ns: int
    waited: bool
    keyframe: bool
    corrupt: bool


class Intake:
    """Decides packet by packet, and counts what is not decoded.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: Parameter sets that came beside the stream.
        max_fps: Highest rate that is wanted; None for all.
        max_age_s: A stream that lags by more is left undecoded up to its next keyframe.
        awake: False while no pictures are wanted.

    Attributes:
        skipped: Pictures not decoded on purpose, or because the stream was joined between keyframes.
        damaged: Pictures left out because they, or what they are built on, did not come whole.
        keyframe_interval_s: Time between the last two keyframes; None before them.
        fresh: Whether the last packet that was let in begins anew, with nothing before it.
    """

    def __init__(
        self,
        codec: str,
        extradata: bytes = b"",
        *,
        max_fps: float | None = None,
        max_age_s: float = 1.0,
        awake: Callable[[], bool] = lambda: True,
    ) -> None:
        self.skipped = 0
        self.damaged = 0
        self.keyframe_interval_s: float | None = None
        self.fresh = True
        self._intra_only = codec in INTRA_ONLY
        self._trust = Trust(codec, extradata)
        self._disposables = Disposables(codec, self._trust.length_size)
        self._thinning = Thinning(max_fps, self._intra_only) if max_fps else None
        self._backlog = Backlog()
        self._max_age_ns = max_age_s * 1e9
        self._awake = awake
        self._asleep = False
        self._unwaited = 0
        self._our_doing = True
        self._key_ns: int | None = None

    @property
    def trusted(self) -> bool:
        """Whether what is decoded now is built on what came whole."""
        return not self._trust.waiting

    @property
    def patience_ns(self) -> int:
        """How long no picture at all is bearable: some keyframes, or as rarely as a camera may send them."""
        if self.keyframe_interval_s is None:
            return _NO_KEYFRAME_NS
        return min(_NO_KEYFRAME_NS, max(_NO_PICTURE_NS, round(2.5e9 * self.keyframe_interval_s)))

    @property
    def idle(self) -> bool:
        """Whether it is our own wish that nothing is decoded now."""
        return self._asleep

    def wants(self, coded: Coded, lines: Sequence[Line]) -> bool:
        """Whether to decode a packet.

        Args:
            coded: The packet.
            lines: What FFmpeg logged while it was read.
        """
        trust = self._trust
        keyframe = coded.keyframe or self._intra_only
        waiting_before = trust.waiting
        trust.packet(coded.head, keyframe, coded.corrupt, lines)
        if trust.waiting and not waiting_before:
            self._our_doing = False
        late = self._late(coded, keyframe)
        self._asleep = not self._awake()
        if late or self._asleep:
            self._leave_out()
        if trust.waiting:
            self._count()
            return False
        if self._spare(coded, keyframe):
            self.skipped += 1
            return False
        self.fresh = waiting_before
        return True

    def decoded(self, frames: int, lines: Sequence[Line], failed: bool) -> bool:
        """Hear what the decoder did with a packet; whether its pictures can be trusted.

        Args:
            frames: How many pictures it gave.
            lines: What it logged.
            failed: Whether it refused the packet.
        """
        if failed:
            self._trust.broken()
        if self._trust.decoded(lines):
            return True
        self._our_doing = False
        self.damaged += max(frames, 1)
        return False

    def leave_out_damaged(self) -> None:
        """A picture came out damaged, or one of its successors did: nothing is trusted until a keyframe."""
        self._trust.broken()
        self._our_doing = False
        self.damaged += 1

    def restart(self) -> None:
        """The stream's timestamps start anew."""
        self._backlog.restart()
        self._key_ns = None

    def _late(self, coded: Coded, keyframe: bool) -> bool:
        """Measure the times of a packet; whether it comes too late to be worth decoding."""
        time_ns = coded.time_ns
        self._unwaited = 0 if coded.waited else self._unwaited + 1
        if time_ns is None:
            if self._thinning is not None and self._intra_only:
                self._thinning.measure(coded.arrival_ns, keyframe)
            # Without timestamps: when several in a row had been lying there, newer ones are to be had.
            return self._intra_only and self._unwaited >= _UNWAITED_MAX
        if self._thinning is not None:
            self._thinning.measure(time_ns, keyframe)
        if keyframe:
            if self._key_ns is not None and time_ns > self._key_ns:
                self.keyframe_interval_s = (time_ns - self._key_ns) / 1e9
            self._key_ns = time_ns
        return self._backlog.of(time_ns, coded.arrival_ns, coded.waited) > self._max_age_ns

    def _spare(self, coded: Coded, keyframe: bool) -> bool:
        """Whether enough pictures come without this one."""
        time_ns = coded.arrival_ns if coded.time_ns is None else coded.time_ns
        if self._thinning is None or (coded.time_ns is None and not self._intra_only):
            return False
        disposable = self._disposables.is_disposable(coded.head, keyframe)
        if not self._thinning.skip(time_ns, keyframe=keyframe, disposable=disposable):
            return False
        if not disposable and not self._intra_only:
            self._leave_out()
        return True

    def _leave_out(self) -> None:
        """What follows cannot be decoded without this one; that is our doing and no error."""
        if not self._trust.waiting:
            self._trust.broken()
            self._our_doing = True

    def _count(self) -> None:
        if self._our_doing:
            self.skipped += 1
        else:
            self.damaged += 1
