"""Subscribe to frames and events of a running pipeline.

::

    from pipeline.client import Subscriber

    with Subscriber("tcp://127.0.0.1:5556", types=["start"], labels=["person"]) as events:
        for event in events:
            print(event.source, event.label, event.record["at"])

Imports neither OpenCV nor ONNX Runtime, PyAV or supervision, so it costs a service next to nothing.
"""

from __future__ import annotations

from pipeline.client.subscriber import Received, Subscriber, parse_message

__all__ = ["Received", "Subscriber", "parse_message"]
