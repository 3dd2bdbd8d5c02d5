"""Forms, and pictures that must not be decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from pipeline.web.bodies import check_picture, form_picture
from pipeline.web.problems import Problem
from tests.web.test_headers import SCAN, bomb, encoded

BOUNDARY = b"x-y-z"


def form(*parts: tuple[str, bytes], end: bytes = b"--x-y-z--\r\n") -> bytes:
    heads = '--x-y-z\r\nContent-Disposition: form-data; name="{}"; filename="a b.jpg"\r\n\r\n'
    return b"".join(heads.format(name).encode() + data + b"\r\n" for name, data in parts) + end


@given(st.binary(max_size=300))
def test_a_form_gives_back_any_bytes(data: bytes) -> None:
    if b"--x-y-z" not in data:
        assert form_picture(form(("image", data)), BOUNDARY) == data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(), "no field image"),
        (form(("image", b"a"), ("image", b"b")), "two or more"),
        (form(("image", b"a"), ("confidence", b"0.1")), "'confidence'"),
        (form(("image", b"a"), end=b""), "ends early"),
        (form(("image", b"a"), end=b"--x-y-z"), "ends early"),
        (b"no form at all", "cannot be read"),
        (b"", "ends early"),
        (form(*[("image", b"")] * 9), "more than 4"),
    ],
)
def test_forms_that_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(Problem, match=words) as caught:
        form_picture(body, BOUNDARY)
    assert caught.value.status == 400


def test_a_boundary_that_the_parser_refuses() -> None:
    with pytest.raises(Problem, match="cannot be read") as caught:
        form_picture(form(("image", b"a")), b"x" * 300)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"", 400, id="empty"),
        pytest.param(b"%PDF-1.7", 415, id="another type"),
        pytest.param(b"GIF89a" + bytes(20), 415, id="another format"),
        pytest.param(encoded(".png")[:18], 422, id="no header"),
        pytest.param(encoded(".jpg")[:20], 422, id="cut before its frame"),
        pytest.param(bomb(30_000, 30_000), 413, id="bomb"),
        pytest.param(encoded(".png", 101, 100), 413, id="a little too large"),
        pytest.param(encoded(".png", 100, 100), 0, id="just right"),
        pytest.param(encoded(".jpg", 99, 99)[:-2] + SCAN * 63, 0, id="many scans"),
        pytest.param(encoded(".jpg", 99, 99)[:-2] + SCAN * 64, 422, id="too many scans"),
    ],
)
def test_what_must_not_be_decoded(data: bytes, status: int) -> None:
    if not status:
        check_picture(data, 10_000)
        return
    with pytest.raises(Problem) as caught:
        check_picture(data, 10_000)
    assert caught.value.status == status
