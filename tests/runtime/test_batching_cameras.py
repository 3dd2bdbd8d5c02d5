"""The policy against cameras that are simulated: what it bounds, and what it gains."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.runtime.batching import BatchPolicy
from tests.runtime.cameras import Run, Service, cpu, gpu, measured, policy_of

services = st.builds(
    lambda start, each: lambda count: start + each * count, st.floats(0, 50), st.floats(0.1, 20)
)
cameras = st.lists(st.tuples(st.floats(1, 100), st.floats(0, 100)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    service=services, limit=st.integers(1, 12), known=st.booleans(), rates=cameras, seed=st.integers(0, 99)
)
def test_never_too_many_never_too_long_never_nobody(
    service: Service, limit: int, known: bool, rates: list[tuple[float, float]], seed: int
) -> None:
    """Within the limit, each frame once, no wait over half of a service time, and all sources get through."""
    sources = [(f"cam{at}", fps, phase) for at, (fps, phase) in enumerate(rates)]
    policy = BatchPolicy(limit, measured(service, limit) if known else None)
    run = Run(sources, service, policy, seconds=1.5, limit=limit, seed=seed, jitter_ms=5).play()
    assert sum(run.sizes) == len(run.latencies_ms) == run.admitted
    assert max(run.sizes) <= limit
    for waited_ms, alone_ms in run.waits:
        assert waited_ms <= alone_ms / 2 + 1e-3
    assert set(run.served) == {name for name, _, _ in sources}


SCENES: dict[str, list[tuple[str, float, float]]] = {
    "8 at 10 fps in step": [(f"cam{n}", 10, n * 0.4) for n in range(8)],
    "8 at 10 fps spread out": [(f"cam{n}", 10, n * 12.5) for n in range(8)],
    "8 at 15 fps drifting": [(f"cam{n}", 15 + n * 0.03, n * 5) for n in range(8)],
    "8 at 25 fps drifting": [(f"cam{n}", 25 + n * 0.01, n * 5) for n in range(8)],
    "2 at 10 fps, a pair": [("a", 10, 0), ("b", 10, 3)],
    "1 at 60 fps": [("a", 60, 0)],
    "1 at 60 and 3 at 5 fps": [("fast", 60, 0), *((f"cam{n}", 5.0, n * 37.0) for n in range(3))],
}


@pytest.mark.parametrize("scene", SCENES)
def test_on_a_gpu_it_beats_one_by_one_and_full_batches(scene: str) -> None:
    sources = SCENES[scene]
    ours = Run(sources, gpu, policy_of(gpu)).play()
    greedy = Run(sources, gpu, policy_of(gpu), more=False).play()
    single = Run(sources, gpu, policy_of(gpu, 1), limit=1).play()
    full = Run(sources, gpu, None).play()
    wanted = sum(fps for _, fps, _ in sources)
    assert ours.dropped == greedy.dropped == 0
    if wanted > 46:
        assert single.dropped > 0.02 * wanted * single.seconds, "one by one does not do"
    assert ours.mean <= 1.01 * greedy.mean, "waiting is never worse than going at once, on average"
    assert ours.p99 <= 1.15 * greedy.p99
    assert ours.p99 < full.p99 or "in step" in scene or "25" in scene
    assert ours.mean < 0.7 * full.mean or "8 at" in scene


def test_cameras_in_step_are_worth_waiting_for() -> None:
    """The first of eight would go alone, and the other seven wait for it."""
    sources = SCENES["8 at 10 fps in step"]
    ours = Run(sources, gpu, policy_of(gpu)).play()
    greedy = Run(sources, gpu, policy_of(gpu), more=False).play()
    assert ours.mean < 0.8 * greedy.mean
    assert statistics.mean(ours.sizes) > 7


@pytest.mark.parametrize("scene", SCENES)
def test_on_a_cpu_it_never_waits_and_never_batches(scene: str) -> None:
    ours = Run(SCENES[scene], cpu, policy_of(cpu)).play()
    assert set(ours.sizes) == {1}
    assert {waited for waited, _ in ours.waits} == {0.0}
    served = list(ours.served.values())
    if scene == "8 at 25 fps drifting":
        assert max(served) - min(served) <= 2, "overloaded, each gets its share"


def test_a_slow_camera_keeps_its_rate_beside_a_fast_one() -> None:
    sources = [("fast", 200.0, 0.0), *((f"cam{n}", 5.0, n * 37.0) for n in range(3))]
    for service in (gpu, cpu):
        run = Run(sources, service, policy_of(service)).play()
        assert run.dropped > 100, "it is overloaded"
        for name in ("cam0", "cam1", "cam2"):
            assert run.served[name] == 100
