"""The sections of a config and the rules between them. Plain data: no files, no network, no devices."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.config.clips import Clips
from pipeline.config.eventlog import EventLog
from pipeline.config.fields import Count, Fraction, Label, Seconds, Section, SourceName, Text, listed
from pipeline.config.metrics import Metrics
from pipeline.config.privacy import Privacy
from pipeline.config.publish import Sink
from pipeline.config.run import Run
from pipeline.config.scene import Ground, Line, Mask, Zone, check_sources, problem_at, scene_of
from pipeline.config.sinks.base import DeliveredSink
from pipeline.config.source import Source, as_source
from pipeline.config.stages import STAGES, InferStage, Stage, Stages
from pipeline.config.track import Closing, Track

__all__ = ["Cascade", "Config", "Events", "Model"]


def _closing(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, dict | Closing):
        return value
    raise ValueError("must be true, or {notice_s: …}; write true")


def _clips(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, dict | Clips):
        return value
    raise ValueError("must be true, or {types: [start]}; write true")


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
    zones: dict[SourceName, dict[SourceName, Zone]] = Field(
        default_factory=dict, description="Areas in which objects are counted and timed, by source and name."
    )
    lines: dict[SourceName, dict[SourceName, Line]] = Field(
        default_factory=dict, description="Lines whose crossing is an event, by source and name."
    )
    masks: dict[SourceName, dict[SourceName, Mask]] = Field(
        default_factory=dict, description="Areas not to be looked at, or not shown, by source and name."
    )
    ground: dict[SourceName, Ground] = Field(
        default_factory=dict, description="Where four points of the picture are on the ground, by source."
    )
    privacy: Privacy | None = Field(
        default=None, description="Objects that no picture may show; left out: all are shown."
    )
    closing: Annotated[
        Closing | None, BeforeValidator(_closing, json_schema_input_type=bool | Closing | None)
    ] = Field(
        default=None,
        description="Tell what moving cameras will reach; true takes the usual times, left out: nothing.",
    )
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
    clips: Annotated[Clips | None, BeforeValidator(_clips)] = Field(
        default=None, description="Video of each event, cut out of what the source sends; true: as it comes."
    )
    event_log: EventLog = Field(
        default_factory=EventLog, description="Where every event is kept, and for how long."
    )
    metrics: Metrics = Field(default_factory=Metrics, description="Numbers of the run for Prometheus.")
    run: Run = Field(default_factory=Run, description="How long a run takes and what it leaves behind.")

    @field_validator("zones", "lines", "masks", "ground")
    @classmethod
    def _of_a_source(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        check_sources(value, info.data.get("sources", {}))
        return value

    @field_validator("lines")
    @classmethod
    def _own_names(
        cls, value: dict[str, dict[str, Line]], info: ValidationInfo
    ) -> dict[str, dict[str, Line]]:
        for source, lines in value.items():
            twice = [name for name in lines if name in info.data.get("zones", {}).get(source, {})]
            if twice:
                raise problem_at((source, twice[0]), "has the name of a zone; give the line another")
        return value

    @field_validator("publish")
    @classmethod
    def _sinks_have_names(cls, value: tuple[Sink, ...]) -> tuple[Sink, ...]:
        seen: set[str] = set()
        for at, sink in enumerate(value):
            if not isinstance(sink, DeliveredSink):
                continue
            name = sink.name or sink.kind
            if name in seen:
                raise problem_at((at,), f"is called {name} like another sink; give it a name: of its own")
            seen.add(name)
        return value

    @model_validator(mode="after")
    def _drawings_fit(self) -> Self:
        for key in ("zones", "lines"):
            if not any(getattr(self, key).values()):
                continue
            if self.model.task == "classify":
                raise problem_at((key,), "is there, but model.task classify finds no objects; write detect")
            if self.track.algorithm == "none":
                raise problem_at(
                    (key,), "is there, but track.algorithm none follows nothing; write algorithm: auto"
                )
        return self

    @model_validator(mode="after")
    def _privacy_fits(self) -> Self:
        if self.privacy is None:
            return self
        if self.model.task == "classify":
            raise problem_at(
                ("privacy",), "is there, but model.task classify finds no objects to hide; write detect"
            )
        unseen = [label for label in self.privacy.labels if label not in (self.model.classes or (label,))]
        if unseen:
            raise problem_at(
                ("privacy", "labels"),
                f"names {unseen[0]}, which model.classes leaves out, so that it would be shown; add it there",
            )
        return self

    @model_validator(mode="after")
    def _closing_fits(self) -> Self:
        if self.closing is None:
            return self
        if self.model.task == "classify" or self.track.algorithm == "none":
            raise problem_at(("closing",), "is there, but nothing is followed; write detect and track: auto")
        if self.sources and not any(source.moving for source in self.sources.values()):
            raise problem_at(
                ("closing",), "is there, but no source has a moving camera; add moving: true to the source"
            )
        return self

    @model_validator(mode="after")
    def _clips_fit(self) -> Self:
        if self.clips is None:
            return self
        if self.run.out is None:
            raise problem_at(("clips",), "is there, but no folder to write to; add run: {out: DIR}")
        hidden = self.privacy is not None or any(self.masks.values())
        if hidden and not self.clips.unmasked:
            raise problem_at(
                ("clips",), "would show what privacy and masks hide; leave it out, or add unmasked: true"
            )
        return self

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

    def scene(self, name: str) -> dict[str, Any]:
        """What is drawn for a source, as plain data that converts to a `pipeline.messages.Scene`.

        Args:
            name: Name of the source; of one that nothing is drawn for the scene is empty.
        """
        return scene_of(
            self.zones.get(name, {}),
            self.lines.get(name, {}),
            self.masks.get(name, {}),
            self.ground.get(name),
            moving=name in self.sources and self.sources[name].moving,
        )
