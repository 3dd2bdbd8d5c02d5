"""The models behind the service, the threads that run them, and how many requests may wait for those."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, FramewireError
from pipeline.messages import ModelSpec, Task
from pipeline.sources.images import decode_image
from pipeline.tasks.analyzer import Analyzer
from pipeline.tasks.reading import Found, Reader
from pipeline.tasks.records import found_record
from pipeline.web.problems import Problem

__all__ = ["Service"]

_NEEDS: dict[Task, tuple[str, ...]] = {
    "classify": ("classifier",),
    "localize": ("detector",),
    "detect": ("detector",),
    "tag": ("detector", "classifier"),
}


class Service:
    """Opened models, each once for every worker thread, and a bound on the requests under way.

    Args:
        models: Models to open (see `pipeline.models.base.build_runner`): a detector, a classifier, or one of
            each; of two of a kind the first is used.
        device: ``auto``, ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``.
        workers: Threads that look at pictures, each with models of its own.
        threads: Threads of one inference on the CPU; None: 1 with several workers, else as in `Analyzer`.
        queue_limit: Requests that may wait for a worker; more are refused.
        timeout_s: Longest time that a request waits for its answer.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        device: str = "auto",
        workers: int = 1,
        threads: int | None = None,
        queue_limit: int = 16,
        timeout_s: float = 30.0,
    ) -> None:
        self.specs: dict[str, ModelSpec] = {}
        self.timeout_s = timeout_s
        self._models = tuple(models)
        each = threads or (1 if workers > 1 else None)
        self._options: dict[str, Any] = {"device": device, "threads": each, "task": "tag"}
        self._workers = workers
        self._limit = workers + queue_limit
        self._room = threading.Semaphore(self._limit)
        self._free: dict[str, queue.SimpleQueue[Analyzer]] = {}
        self._opened: list[Analyzer] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="look")
        self._futures: set[Future[dict[str, Any]]] = set()
        self._requests = 0

    def open(self) -> None:
        """Load the models, once for every worker.

        Raises:
            FramewireError: one cannot be loaded.
        """
        try:
            for name in self._models:
                self._open(name)
        except FramewireError:
            self.close()
            raise

    def close(self, wait_s: float = 10.0) -> bool:
        """Free the models; what is under way is finished or fails, what waits is dropped.

        Args:
            wait_s: Longest time to wait for that; nothing stops a decoder that goes on and on.

        Returns:
            Whether all has ended. If not, threads are left that keep the process from ending by itself.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        for analyzer in self._opened:
            analyzer.close()
        _, busy = wait(self._futures.copy(), wait_s)
        if not busy:
            self._pool.shutdown()
        return not busy

    @property
    def requests(self) -> int:
        """Requests under way."""
        return self._requests

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place for one request, from before its body is read until it is answered.

        Raises:
            Problem: 503, there is none.
        """
        if not self._room.acquire(blocking=False):
            raise Problem(
                503, f"{self._limit} requests are under way, the most that are taken at once",
                hint="try again in a second", headers={"Retry-After": "1"},
            )  # fmt: skip
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._room.release()

    def reader(self, task: Task, **options: Any) -> Reader:
        """What a request asks for.

        Args:
            task: The task.
            options: As for `Reader`.

        Raises:
            Problem: 422 an option is wrong, 501 there is no model for the task.
        """
        kind = next((kind for kind in _NEEDS[task] if kind in self.specs), None)
        if kind is None:
            wanted = _NEEDS[task][0]
            option = "--classifier" if wanted == "classifier" else "--model"
            raise Problem(501, f"this service has no {wanted}", hint=f"start it with {option} NAME")
        try:
            return Reader(self.specs[kind], task=task, **options)
        except ConfigError as error:
            raise Problem(422, error.message, hint=error.hint) from error

    async def look(self, data: bytes, reader: Reader) -> dict[str, Any]:
        """Decode a picture and run the model, in a worker thread.

        Args:
            data: The file, its header already checked.
            reader: What is asked.

        Returns:
            The answer: see `pipeline.web.answers`.

        Raises:
            Problem: 422 it cannot be decoded, 504 not in time.
            ModelError: the network failed.
        """
        job = _Job(data, time.monotonic())
        future = self._pool.submit(self._run, job, reader)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout_s)
        except TimeoutError as error:
            raise Problem(
                504, f"no answer within {self.timeout_s:g} s", headers={"Retry-After": "1"}
            ) from error
        finally:
            job.data = b""  # a job that is cancelled stays in the queue until a worker comes by

    def _open(self, name: str) -> None:
        # One after the other: a model that has to be fetched is fetched once.
        opened = []
        for _ in range(self._workers):
            analyzer = Analyzer(name, **self._options)
            self._opened.append(analyzer)
            analyzer.open()
            opened.append(analyzer)
        kind = opened[0].spec.kind
        if kind in self.specs:
            raise ConfigError(
                f"{self.specs[kind].name} and {name} are both a {kind}; one is enough",
                hint="give --model a detector and --classifier a classifier",
            )
        self.specs[kind] = opened[0].spec
        self._free[kind] = queue.SimpleQueue()
        for analyzer in opened:
            self._free[kind].put(analyzer)

    def _run(self, job: _Job, reader: Reader) -> dict[str, Any]:
        began = time.monotonic()
        bgr = decode_image(job.data)
        decoded = time.monotonic()
        if bgr is None:
            raise Problem(422, "the picture is damaged, cut short, or cannot be decoded")
        found = self._found(bgr, reader)
        height, width = bgr.shape[:2]
        spec = reader.spec
        steps = {"wait": began - job.made, "decode": decoded - began, "inference": time.monotonic() - decoded}
        answer: dict[str, Any] = {"task": reader.task, "model": spec.name, "provider": spec.provider}
        answer |= {"width": width, "height": height}
        answer |= found_record(found, spec, reader.task, width, height)
        return answer | {"latency_ms": {name: round(1000 * taken, 2) for name, taken in steps.items()}}

    def _found(self, bgr: NDArray[np.uint8], reader: Reader) -> Found:
        free = self._free[reader.spec.kind]
        analyzer = free.get_nowait()  # there are as many as threads
        try:
            return analyzer.read(bgr, reader)
        finally:
            free.put(analyzer)


class _Job:
    """A picture that waits for a worker."""

    def __init__(self, data: bytes, made: float) -> None:
        self.data = data
        self.made = made
