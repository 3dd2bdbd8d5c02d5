"""The sections of a config and the rules between them. Plain data: no files, no network, no devices."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.fields import Count, Fraction, Label, Seconds, Section, SourceName, Switch, Text, listed
from pipeline.config.metrics import Metrics
from pipeline.config.publish import Sink
from pipeline.config.source import Source, as_source

__all__ = [
    "STAGES",
    "Cascade",
    "Config",
    "Events",
    "InferStage",
    "Model",
    "PublishStage",
    "Restart",
    "Run",
    "Stage",
    "Stages",
    "Track",
]

#: The five stages, in pipeline order.
STAGES = ("capture", "preprocess", "infer", "postprocess", "publish")
_ADDRESS = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")


def _replicas(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise ValueError("must be a whole number from 1 to 64, or auto")
    return value


def _size(value: Any) -> Any:
    sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
    try:
        size = tuple(side if isinstance(side, bool) else int(side) for side in sides)
    except (TypeError, ValueError):
        size = ()
    good = len(size) == 2 and all(side in range(32, 4097, 32) and not isinstance(side, bool) for side in size)
    if not good:
        raise ValueError("must be one or two multiples of 32, such as 416 or [416, 256]")
    return size


class Model(Section):
    """Which model runs, on what, and what it reports."""

    name: Text = Field(
        default="default",
        description="A name from `framewire models list`, the path of an ONNX file, or oip://HOST:PORT/MODEL.",
    )
    task: Literal["classify", "localize", "detect", "tag"] = Field(
        default="detect",
        description="detect: all objects; localize: the one with the highest evidence; "
        "classify: classes of the whole frame; tag: labels with percents.",
    )
    top_k: Annotated[Count, Field(le=1000)] = Field(
        default=5, description="For classify and tag: how many classes of a frame, at most."
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt", "openvino"] = Field(
        default="auto",
        description="Where it runs; auto takes the best that works, any other fails at start if missing.",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto", description="auto: as the file was saved; fp16 wants tensorrt, bf16 openvino."
    )
    confidence: Fraction = Field(default=0.4, description="Detections with a lower score are left out, 0..1.")
    nms_iou: Fraction | None = Field(
        default=None,
        description="Boxes of one class that overlap more are one object, 0..1; left out: the model's own.",
    )
    classes: Annotated[tuple[Label, ...], Field(min_length=1), listed("[person, car]")] | None = Field(
        default=None, description="Labels to report; left out: all that the model knows."
    )
    input_size: (
        Annotated[tuple[int, int], BeforeValidator(_size, json_schema_input_type=int | tuple[int, int])]
        | None
    ) = Field(
        default=None,
        description="Pixels, one number or [width, height], for a model that leaves its size open.",
    )
    threads: Count | None = Field(
        default=None,
        description="Threads of one inference session; left out: one with replicas, else the cores but one.",
    )

    @field_validator("classes")
    @classmethod
    def _no_class_twice(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = sorted({label for label in value or () if (value or ()).count(label) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice; name each label once")
        return value


class Track(Section):
    """How objects are followed from frame to frame."""

    algorithm: Literal["bytetrack", "none"] = Field(
        default="bytetrack",
        description="The tracker; none gives detections without ids and no object events.",
    )
    smoothing_s: Seconds = Field(
        default=0.0, description="For localize: how slowly the box follows, seconds; 0 for not at all."
    )
    lost_after_s: Seconds = Field(
        default=2.0, description="An object that is not seen for this long has ended, seconds of video."
    )


class Cascade(Section):
    """A classifier that looks at the objects of the model, and gives them an attribute of its name."""

    model: Text = Field(description="A classifier: a name from `framewire models list`, or an ONNX file.")
    labels: Annotated[tuple[Label, ...], Field(min_length=1), listed("[car, truck]")] | None = Field(
        default=None, description="Labels of the objects that it looks at; left out: all."
    )
    every_s: Seconds = Field(
        default=1.0, description="Shortest time between two looks at one object, seconds of video."
    )
    min_side: Count = Field(
        default=16, description="Objects with a shorter side than this many pixels are not looked at."
    )
    margin: Fraction = Field(
        default=0.05, description="The crop is larger than the box by this share, on each side, 0..1."
    )
    confidence: Fraction = Field(default=0.3, description="A look that scores less does not count, 0..1.")

    def options(self) -> dict[str, Any]:
        """All but the model, as keyword arguments."""
        return self.model_dump(exclude={"model"})


class Events(Section):
    """When life-cycle events are published."""

    update_interval_s: Seconds = Field(
        default=1.0, description="A tracked object gives an update event this often, seconds of video."
    )


class Stage(Section):
    """How one stage is run."""

    replicas: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="How many processes run this stage."
    )

    @field_validator("replicas", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if value == "auto":
            raise ValueError("must be a whole number from 1 to 64; only infer takes auto")
        return _replicas(value)


class PublishStage(Section):
    """How results are published: always by one process, which numbers the events without gaps."""

    replicas: Literal[1] = Field(default=1, description="Always 1.")

    @field_validator("replicas", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, bool) or value not in (1, "1"):
            raise ValueError("must be 1, because event numbers are without gaps; leave it out")
        return 1


class InferStage(Section):
    """How inference is run."""

    replicas: Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], BeforeValidator(_replicas)] = (
        Field(
            default="auto", description="How many processes run inference; auto decides by device and cores."
        )
    )
    address: Text = Field(
        default="ipc",
        description="ipc on this host, or tcp://HOST:PORT, pixels inline; each replica the next port.",
    )
    batch: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Frames of all sources in one inference at most; on a CPU more than 1 gains nothing.",
    )

    @field_validator("batch", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would take `true` for 1
            raise ValueError("must be a whole number from 1 to 64")
        return value

    @field_validator("address")
    @classmethod
    def _ipc_or_tcp(cls, value: str) -> str:
        match = _ADDRESS.fullmatch(value)
        if value != "ipc" and not (match and 1 <= int(match[1]) <= 65535):
            raise ValueError("must be ipc, or tcp://HOST:PORT such as tcp://127.0.0.1:5601")
        return value


class Stages(Section):
    """Processes per stage. Capture is not here: it runs once per source."""

    preprocess: Stage = Field(default_factory=Stage, description="Frame to model input.")
    infer: InferStage = Field(default_factory=InferStage, description="Model input to raw model output.")
    postprocess: Stage = Field(
        default_factory=Stage,
        description="Raw output to tracked objects; each source stays with one replica.",
    )
    publish: PublishStage = Field(
        default_factory=PublishStage, description="Results to subscribers and files."
    )


class Restart(Section):
    """What happens when a stage process dies."""

    budget: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5, description="Restarts allowed within window_s; 0: none."
    )
    window_s: Seconds = Field(default=60.0, description="The time over which restarts are counted, seconds.")
    backoff_s: Seconds = Field(
        default=0.1, description="Wait before the first restart, seconds; doubles with each."
    )
    backoff_max_s: Seconds = Field(default=5.0, description="Longest wait before a restart, seconds.")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.backoff_max_s < self.backoff_s:
            raise ValueError("has a backoff_max_s below its backoff_s; write a larger backoff_max_s")
        return self


class Run(Section):
    """One run: how long, how fast, and what it leaves behind."""

    out: Text | None = Field(
        default=None, description="Folder for detections, events, summary and pictures; left out: none."
    )
    annotate: Switch = Field(default=False, description="Write annotated.mp4 to the out folder.")
    contact_sheet: Switch = Field(default=False, description="Write contact-sheet.png to the out folder.")
    realtime: Switch = Field(
        default=False,
        description="Play files at their own speed and drop frames that come too late, as a camera would.",
    )
    duration_s: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None,
        description="Stop after this long, seconds; left out: at the end of the files, or never.",
    )
    slots: Annotated[Count, Field(ge=2, le=1024)] = Field(
        default=8,
        description="Frames of one source that may be under way at once; each takes a slot of shared memory.",
    )
    restart: Restart = Field(default_factory=Restart, description="What happens when a stage process dies.")
    stop_timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=15.0, description="An ordered stop may take this long before processes are killed, seconds."
    )

    @model_validator(mode="after")
    def _somewhere_to_write(self) -> Self:
        wanted = [key for key in ("annotate", "contact_sheet") if getattr(self, key)]
        if wanted and self.out is None:
            raise ValueError(f"has {wanted[0]} but no folder to write to; add out: DIR (or type --out DIR)")
        return self


_GROUPS_EXAMPLE = "[[preprocess, infer], [postprocess, publish]]"


class Config(Section):
    """Everything that a run needs to know."""

    sources: dict[
        SourceName, Annotated[Source, BeforeValidator(as_source, json_schema_input_type=str | int | Source)]
    ] = Field(
        default_factory=dict, description="Where frames come from, by name; a plain path or URL is enough."
    )
    model: Model = Field(default_factory=Model, description="Which model runs, on what, and what it reports.")
    preprocess: Literal["fast", "exact"] = Field(
        default="fast",
        description="fast scales before colour conversion; exact converts the full-size frame first.",
    )
    track: Track = Field(default_factory=Track, description="How objects are followed from frame to frame.")
    cascades: dict[Label, Cascade] = Field(
        default_factory=dict, description="Classifiers that look at the objects, by name of the attribute."
    )
    events: Events = Field(default_factory=Events, description="When life-cycle events are published.")
    stages: Stages = Field(
        default_factory=Stages, description="How many processes run each stage, and where."
    )
    groups: Annotated[
        tuple[
            Annotated[
                tuple[Literal["capture", "preprocess", "infer", "postprocess", "publish"], ...],
                Field(min_length=1),
                listed("[preprocess, infer]"),
            ],
            ...,
        ],
        listed(_GROUPS_EXAMPLE),
    ] = Field(default=(), description="Neighbouring stages that share one process, for small machines.")
    publish: Annotated[tuple[Sink, ...], listed("[{jsonl: events.jsonl}]")] = Field(
        default=(), description="Where results go, beside the files in run.out."
    )
    metrics: Metrics = Field(default_factory=Metrics, description="Numbers of the run for Prometheus.")
    run: Run = Field(default_factory=Run, description="How long a run takes and what it leaves behind.")

    @model_validator(mode="after")
    def _cascades_fit(self) -> Self:
        if self.cascades and self.model.task == "classify":
            raise ValueError(
                "has cascades, but model.task classify finds no objects to look at; write detect or tag"
            )
        return self

    @model_validator(mode="after")
    def _smoothing_fits(self) -> Self:
        alone, followed = self.model.task == "localize", self.track.algorithm != "none"
        if self.track.smoothing_s > 0 and not (alone and followed):
            which = (
                "track.algorithm none follows nothing" if alone else "only localize follows a single object"
            )
            raise ValueError(f"has track.smoothing_s, but {which}; leave it out, or change the other")
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        seen: set[str] = set()
        for group in self.groups:
            places = [STAGES.index(stage) for stage in group]
            shown = f"groups: [{', '.join(group)}]"
            if places != list(range(places[0], places[0] + len(places))):
                raise ValueError(f"{shown} is not a row of neighbours; keep the order {', '.join(STAGES)}")
            twice = seen.intersection(group)
            if twice:
                raise ValueError(f"{shown} names {min(twice)} again; a stage belongs to one group")
            seen.update(group)
            self._replicas_agree(group, shown)
            if "infer" in group[1:] and self.stages.infer.address != "ipc":
                raise ValueError(
                    f"{shown} hides stages.infer.address; infer must come first, or use address: ipc"
                )
        return self

    def _replicas_agree(self, group: tuple[str, ...], shown: str) -> None:
        given = self._given(group)
        if len(set(given.values())) > 1:
            found = ", ".join(f"{stage} {count}" for stage, count in given.items())
            why = {
                "publish": ", and publish is always one, because event numbers are without gaps",
                "capture": ", and capture has one process for each source already",
            }.get(next((stage for stage in ("publish", "capture") if stage in group), ""), "")
            raise ValueError(
                f"{shown} shares a process, so its replicas must be equal ({found}{why}); give one number"
            )

    def _given(self, group: tuple[str, ...]) -> dict[str, int | Literal["auto"]]:
        """The replicas that the stages of a group were given, or have by nature."""
        given: dict[str, int | Literal["auto"]] = {}
        for stage in group:
            if stage in ("capture", "publish"):
                given[stage] = 1
            elif "replicas" in self._of(stage).model_fields_set:
                given[stage] = self._of(stage).replicas
        return given

    def _of(self, stage: str) -> Stage | InferStage:
        section: Stage | InferStage = getattr(self.stages, stage)
        return section

    def placement(self) -> tuple[tuple[str, ...], ...]:
        """The stages of each kind of process, in pipeline order; capture is one process per source."""
        first: dict[str, tuple[str, ...]] = {group[0]: group for group in self.groups}
        inside: set[str] = {stage for group in self.groups for stage in group[1:]}
        return tuple(first.get(stage, (stage,)) for stage in STAGES if stage not in inside)

    def replicas(self, stage: str) -> int | Literal["auto"]:
        """How many processes run a stage; in a group, what one member says counts for all.

        1 for capture, which runs once per source whatever shares its process.
        """
        group = next((group for group in self.groups if stage in group), (stage,))
        given = list(self._given(group).values())
        return given[0] if given else self._of("infer" if "infer" in group else stage).replicas
