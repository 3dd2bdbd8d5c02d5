"""Talk to a running pipeline: subscribe to its frames and events, push pictures into it.

::

    from pipeline.client import Pusher, Subscriber

    with Subscriber("tcp://127.0.0.1:5556", types=["start"], labels=["person"]) as events:
        for event in events:
            print(event.source, event.label, event.record["at"])

    with Pusher("tcp://127.0.0.1:5570") as pusher:
        pusher.send(picture)  # a (height, width, 3) array in BGR

Imports neither OpenCV nor ONNX Runtime, PyAV or supervision, so it costs a service next to nothing.
"""

from __future__ import annotations

from pipeline.client.pusher import Pusher
from pipeline.client.received import Event, Received, parse_message
from pipeline.client.start import Place
from pipeline.client.subscriber import Subscriber

__all__ = ["Event", "Place", "Pusher", "Received", "Subscriber", "parse_message"]
