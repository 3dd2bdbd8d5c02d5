"""One picture as a file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.sinks.picture import write_picture

PICTURE = np.random.default_rng(0).integers(0, 255, (9, 13, 3), np.uint8)


def test_a_png_holds_every_pixel_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.png"
    write_picture(path, PICTURE)
    write_picture(path, PICTURE)
    np.testing.assert_array_equal(cv2.imread(str(path)), PICTURE)
    assert [one.name for one in path.parent.iterdir()] == ["c.png"]


@pytest.mark.parametrize(
    ("name", "width", "words"),
    [
        ("a.xyz", 13, "cannot encode"),
        ("a.jpg", 70_000, "cannot encode"),
        ("file/a.png", 13, "cannot write"),
        ("folder.png", 13, "cannot write"),
    ],
)
def test_what_cannot_be_written(name: str, width: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SinkError, match=words):
        write_picture(tmp_path / name, np.zeros((1, width, 3), np.uint8))
    assert {one.name for one in tmp_path.iterdir()} == {"file", "folder.png"}
