"""ONVIF: words that a VMS searches by, and a file that can be closed wherever it was cut."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.sinks.onvif import OnvifSink, frame_element
from tests.sinks.builders import SPEC, make_header, make_item

TT = "{http://www.onvif.org/ver10/schema}"


def element(label: str) -> ElementTree.Element:
    item = make_item(make_header())
    assert item.frame is not None
    found = item.frame["detections"][0] | {"label": label}
    text = frame_element(item.frame | {"detections": [found]})
    return ElementTree.fromstring(f'<r xmlns:tt="{TT[1:-1]}">{text}</r>')


@pytest.mark.parametrize(
    ("label", "classes", "vehicle"),
    [
        ("person", ["Human", "person"], None),
        ("truck", ["Vehicle", "truck"], "Truck"),
        ("dog", ["Animal", "dog"], None),
        ("pallet <1>", ["pallet <1>"], None),
    ],
)
def test_classes_are_those_of_onvif_where_there_are_any(
    label: str, classes: list[str], vehicle: str | None
) -> None:
    root = element(label)
    appearance = next(root.iter(f"{TT}Appearance"))
    assert [child.tag.removeprefix(TT) for child in appearance][:2] == ["Shape", "Class"]
    assert [kind.text for kind in appearance.findall(f"{TT}Class/{TT}Type")] == classes
    assert appearance.findtext(f"{TT}VehicleInfo/{TT}Type") == vehicle


def test_it_can_be_closed_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "o.xml"
    first = OnvifSink(path, ("gate",))
    first.open(SPEC)
    for seq in range(2):
        first.write(make_item(make_header(seq)))
    first.close()
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 0x0A]
    for size in (*range(0, ends[0], 40), *range(ends[0], len(whole), 97), *ends, len(whole) - 1):
        path.write_bytes(whole[:size])
        again = OnvifSink(path, ("gate",), resume=True)
        again.open(SPEC)
        for seq in range(3):
            again.write(make_item(make_header(seq)))
        again.close()
        root = ElementTree.parse(path).getroot()
        assert len(root.findall(f"{TT}VideoAnalytics/{TT}Frame")) == 3, f"cut at {size} of {len(whole)}"
        assert path.read_bytes().startswith(whole[: ends[2]])
