"""Metadata as ONVIF cameras send it: a ``tt:MetadataStream`` for each source.

Elements and coordinates: ONVIF Analytics Service Specification 21.06, section "Scene Description", and the
schema ``http://www.onvif.org/ver10/schema``: x and y from -1 to 1, y upwards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pipeline.errors import SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile, of_source
from pipeline.sinks.base import Publication, Resume

__all__ = ["OnvifSink", "frame_element"]

_HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?><tt:MetadataStream xmlns:tt="http://www.onvif.org/ver10/schema">\n'
)
_FOOTER = "</tt:MetadataStream>\n"
_SEQ = re.compile(rb"<!-- seq (\d+) -->\n$")
# XML 1.0 has no such characters, escaped or not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_VEHICLES = {name.lower(): name for name in ("Bicycle", "Bus", "Car", "Motorcycle", "Truck")}
#: ONVIF's words for labels of COCO, by which a VMS searches.
_CLASSES = {
    "person": "Human",
    **dict.fromkeys((*_VEHICLES, "train", "airplane", "boat"), "Vehicle"),
    **dict.fromkeys(
        ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"), "Animal"
    ),
}


def frame_element(frame: dict[str, Any]) -> str:
    """A frame record as one line of XML: ``tt:VideoAnalytics`` with a ``tt:Frame`` and its objects.

    ``ObjectId`` is the track; an object without one has none. Boxes are normalised to -1..1, y upwards. The
    class is ONVIF's word where there is one (``Human``, ``Vehicle``, ``Animal``), then the label itself.
    """
    objects = "".join(_object(found) for found in frame["detections"])
    time = quoteattr(frame["captured_at"])
    return (
        f"<tt:VideoAnalytics><tt:Frame UtcTime={time}>{objects}</tt:Frame></tt:VideoAnalytics>"
        f"<!-- seq {frame['seq']} -->\n"
    )


def _object(found: dict[str, Any]) -> str:
    x1, y1, x2, y2 = found["box_normalized"]
    left, top, right, bottom = 2 * x1 - 1, 1 - 2 * y1, 2 * x2 - 1, 1 - 2 * y2
    number = f' ObjectId="{found["track_id"]}"' if "track_id" in found else ""
    likelihood = f'<tt:Type Likelihood="{found["confidence"]:.4f}">'
    words = [word for word in (_CLASSES.get(found["label"]), found["label"]) if word is not None]
    types = "".join(f"{likelihood}{escape(_FORBIDDEN.sub('?', word))}</tt:Type>" for word in words)
    vehicle = _VEHICLES.get(found["label"])
    info = f"<tt:VehicleInfo>{likelihood}{vehicle}</tt:Type></tt:VehicleInfo>" if vehicle else ""
    return (
        f"<tt:Object{number}><tt:Appearance><tt:Shape>"
        f'<tt:BoundingBox left="{left:.6f}" top="{top:.6f}" right="{right:.6f}" bottom="{bottom:.6f}"/>'
        f'<tt:CenterOfGravity x="{(left + right) / 2:.6f}" y="{(top + bottom) / 2:.6f}"/>'
        f"</tt:Shape><tt:Class>{types}</tt:Class>{info}</tt:Appearance></tt:Object>"
    )


class OnvifSink:
    """A line of XML for each frame that succeeded, between the first line and the last, which `close` writes.

    What is cut anywhere is whole again with ``</tt:MetadataStream>`` after its last whole line.

    Args:
        path: The file; with several sources ``metadata.xml`` becomes ``metadata-<source>.xml``.
        sources: Names of all sources of the run.
        resume: Continue the files of the same run; otherwise existing ones are replaced.
    """

    def __init__(
        self, path: str | os.PathLike[str], sources: Sequence[str] = (), resume: bool = False
    ) -> None:
        self._path, self._sources, self._resume = path, tuple(sources), resume
        self._files: dict[str, AppendFile] = {}
        self._next_seq: dict[str, int] = {}

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue the files.

        Raises:
            SinkError: one cannot be written, or holds lines that are not ours.
        """
        for source in self._sources:
            self._file(source)
        return Resume(dict(self._next_seq))

    def write(self, item: Publication) -> None:
        """Append one frame.

        Raises:
            SinkError: the file cannot be written.
        """
        frame = item.frame
        if frame is None or frame["status"] != "ok":
            return
        file = self._file(frame["source"])
        if frame["seq"] >= self._next_seq.get(frame["source"], 0):
            file.append(frame_element(frame).encode())

    def close(self) -> list[str]:
        """Write the last lines, close the files and name them.

        Raises:
            SinkError: a file cannot be written.
        """
        names = []
        for file in self._files.values():
            file.append(_FOOTER.encode())
            names += file.close()
        self._files.clear()
        return names

    def _file(self, source: str) -> AppendFile:
        file = self._files.get(source)
        if file is None:
            several = self._sources if source in self._sources else (*self._sources, source)
            file = AppendFile(
                of_source(self._path, source, several), resume=self._resume, header=_HEADER.encode()
            )
            ends: list[int] = []

            def known(number: int, line: bytes) -> None:
                if line == _FOOTER.encode():  # It was killed when it had closed the file.
                    ends.append(file.size)
                    return
                match = _SEQ.search(line)
                if match is None:
                    raise SinkError(
                        f"{file.path}:{number} is no line of framewire's ONVIF metadata",
                        hint="name another file, or move this one away",
                    )
                self._next_seq[source] = max(self._next_seq.get(source, 0), int(match[1]) + 1)

            file.open(known)
            self._files[source] = file
            if ends:
                file.cut(ends[0])
        return file
