"""Models, worker threads, and the bound on what waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")

from pipeline.errors import ConfigError, ModelError
from pipeline.messages import Task
from pipeline.vision.palette import BACKGROUND, PALETTE
from pipeline.web.problems import Problem
from pipeline.web.service import Service
from tests.web.test_headers import encoded

TASKS: tuple[Task, ...] = ("detect", "localize", "classify", "tag")


def picture() -> bytes:
    """A red rectangle of 200x200 at 40,40 in 640x384, as PNG."""
    scene = np.full((384, 640, 3), BACKGROUND, np.uint8)
    scene[40:240, 40:240] = PALETTE[0]
    done, data = cv2.imencode(".png", scene)
    assert done
    return data.tobytes()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service(["fake", "fake?task=classify"], workers=2, queue_limit=1)
    found.open()
    yield found
    found.close()


def test_all_tasks(service: Service) -> None:
    async def all_of_them() -> list[dict[str, Any]]:
        readers = [service.reader(task, classes=["red"]) for task in TASKS]
        return await asyncio.gather(*(service.look(picture(), reader) for reader in readers * 3))

    found = asyncio.run(all_of_them())
    assert [one["task"] for one in found] == ["detect", "localize", "classify", "tag"] * 3
    detect, localize, classify, tag = found[-4:]
    np.testing.assert_allclose(detect["detections"][0]["box_xyxy"], [40, 40, 240, 240], atol=3)
    assert localize["object"] == detect["detections"][0]
    assert classify["classes"][0]["label"] == "red"
    assert tag["tags"] == {"auto": {"red": 100}}
    assert all(min(one["latency_ms"].values()) >= 0 for one in found)


def test_no_more_requests_than_there_is_room_for(service: Service) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(service.admitted())
        assert service.requests == 3
        with pytest.raises(Problem, match="3 requests") as caught, service.admitted():
            pass
        assert caught.value.status == 503
        assert caught.value.headers["Retry-After"] == "1"
    with pytest.raises(ZeroDivisionError), service.admitted():
        _ = 1 / 0
    assert service.requests == 0
    with service.admitted():
        assert service.requests == 1


@pytest.mark.parametrize(
    ("models", "task", "options", "status"),
    [
        (["fake"], "classify", {}, 501),
        (["fake?task=classify"], "detect", {}, 501),
        (["fake?task=classify"], "tag", {}, 0),
        (["fake"], "detect", {"classes": ["grean"]}, 422),
    ],
)
def test_what_it_cannot_do(models: list[str], task: Any, options: dict[str, Any], status: int) -> None:
    service = Service(models)
    service.open()
    try:
        if not status:
            service.reader(task, **options)
            return
        with pytest.raises(Problem) as caught:
            service.reader(task, **options)
        assert caught.value.status == status
    finally:
        service.close()


def test_a_picture_that_cannot_be_decoded(service: Service) -> None:
    with pytest.raises(Problem, match="damaged") as caught:
        asyncio.run(service.look(encoded(".jpg")[:-40], service.reader("detect")))
    assert caught.value.status == 422


def test_a_model_that_fails_and_goes_on() -> None:
    service = Service(["fake?fail_every=2"])
    service.open()

    async def three() -> list[Any]:
        reader = service.reader("detect")
        return [
            await asyncio.gather(service.look(picture(), reader), return_exceptions=True) for _ in range(3)
        ]

    try:
        (first,), (second,), (third,) = asyncio.run(three())
    finally:
        service.close()
    assert first["detections"]
    assert isinstance(second, ModelError)
    assert third["detections"]


def test_an_answer_that_does_not_come_in_time() -> None:
    service = Service(["fake?ms=30000"], timeout_s=0.1)
    service.open()

    async def two() -> list[Any]:
        reader = service.reader("detect")
        # The second is still in the queue when it is given up.
        looks = (service.look(picture(), reader) for _ in range(2))
        return list(await asyncio.gather(*looks, return_exceptions=True))

    try:
        found = asyncio.run(two())
    finally:
        service.close()  # ends the wait of the first
    assert [one.status for one in found] == [504, 504]


def test_the_end_does_not_wait_for_a_decoder_that_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, over = threading.Event(), threading.Event()

    def decode(_: bytes) -> None:
        began.set()
        assert over.wait(30)

    monkeypatch.setattr("pipeline.web.service.decode_image", decode)

    async def stop_meanwhile() -> tuple[bool, bool, Any]:
        look = asyncio.create_task(service.look(b"", service.reader("detect")))
        assert await asyncio.to_thread(began.wait, 30)
        early = service.close(0.0)
        over.set()
        await asyncio.wait([look])
        return early, service.close(), look.exception()

    early, late, found = asyncio.run(stop_meanwhile())
    assert not early
    assert late
    assert found.status == 422


def test_two_models_of_a_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="both a detector"):
        Service(["fake", "fake?ms=1"]).open()
    with pytest.raises(ModelError, match="no model"):
        Service(["fake", "nothing"]).open()
