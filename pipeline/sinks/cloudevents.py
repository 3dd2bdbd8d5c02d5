"""Events as CloudEvents 1.0 (https://github.com/cloudevents/spec). Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["BATCH", "ONE", "cloud_event"]

#: Media types of one event and of an array of them, structured mode.
ONE = "application/cloudevents+json; charset=UTF-8"
BATCH = "application/cloudevents-batch+json; charset=UTF-8"


def cloud_event(record: dict[str, Any], log_id: str) -> dict[str, Any]:
    """The envelope of an event record.

    ``source`` and ``id`` together tell it from all others, as the specification wants it; ``id`` is made of
    the event log and the number, so what is sent again has the same. ``sequence`` is the extension of that
    name: a string whose order is that of the events.

    Args:
        record: The record.
        log_id: Id of the event log.
    """
    event = {
        "specversion": "1.0",
        "id": f"{log_id}-{record['sequence']}",
        "source": f"/framewire/{quote(record['source'], safe='')}",
        "type": "framewire." + record["schema"].removeprefix("framewire.").replace("/", ".v"),
        "time": record["at"],
        "datacontenttype": "application/json",
        "sequence": f"{record['sequence']:020d}",
    }
    subject = record.get("object_id") or record.get("zone")
    if subject:
        event["subject"] = subject
    return event | {"data": record}
