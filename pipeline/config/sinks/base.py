"""What all kinds of sink share, and what those share that are delivered from the event log."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from pipeline.config.fields import Count, Label, Seconds, Section, SourceName, Text, listed

__all__ = ["DELIVERY", "DeliveredSink", "SinkSection"]


class SinkSection(Section):
    """One entry of ``publish:``; the first field's key in YAML is the kind."""

    model_config = ConfigDict(serialize_by_alias=True)
    kind: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """The fields as keyword arguments of the sink's constructor."""
        return self.model_dump(by_alias=False)


class DeliveredSink(SinkSection):
    """A sink that gets events from the event log: in order, at least once, when its server can take them."""

    name: SourceName | None = Field(
        default=None,
        description="What this sink is called in metrics and in the event log; left out: its kind.",
    )
    types: Annotated[tuple[Text, ...], listed("[start, end]")] = Field(
        default=(), description="Only events of these types; left out: all."
    )
    sources: Annotated[tuple[SourceName, ...], listed("[gate]")] = Field(
        default=(), description="Only events of these sources; left out: all."
    )
    labels: Annotated[tuple[Label, ...], listed("[person]")] = Field(
        default=(), description="Only events of objects with these labels; left out: all, and those of none."
    )
    zones: Annotated[tuple[Text, ...], listed("[driveway]")] = Field(
        default=(), description="Only events in or at these zones; left out: all."
    )
    attempts: Count = Field(
        default=5,
        description="How often an event that the server refuses is sent before it becomes a dead letter.",
    )
    retry_max_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=60.0, description="Longest wait between two attempts, seconds; the first is half a second."
    )
    drain_s: Seconds = Field(
        default=5.0,
        description="How long the end of a run waits for what is not delivered yet, seconds; the rest waits "
        "in the event log for the next run.",
    )

    def options(self) -> dict[str, Any]:
        """The fields as keyword arguments of the connector's constructor."""
        return {key: value for key, value in super().options().items() if key not in DELIVERY}

    def delivery(self) -> dict[str, Any]:
        """The fields as keyword arguments of `pipeline.sinks.delivery.Delivery`."""
        chosen = {key: value for key, value in super().options().items() if key in DELIVERY}
        return chosen | {"name": self.name or self.kind}


#: Fields that are the delivery's, and not the connector's.
DELIVERY = frozenset(DeliveredSink.model_fields)
