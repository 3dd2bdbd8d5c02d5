from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.models.threads import Cores, threads_for, usable_cores

EIGHT = Cores(8, "8 cores")


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "count", "why"),
    [
        ({}, 4, "4 of 8 cores are allowed"),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 4, "are allowed"),
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
            1.5,
            "quota is 1.5 of 4",
        ),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n",
            },
            2,
            "quota is 2 of 4",
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "900000 100000\n"}, 4, "are allowed"),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n3:memory:/y\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            0.5,
            "quota is 0.5",
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            4,
            "are allowed",
        ),
        (
            {"proc/self/cgroup": "nonsense\n\n0::/../..\n", "sys/fs/cgroup/cpu.max": "x y z\n"},
            4,
            "are allowed",
        ),
    ],
)
def test_usable_cores(
    files: dict[str, str], count: float, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    cores = usable_cores(machine(tmp_path, files))
    assert cores.count == count
    assert why in cores.why


def test_this_machine_has_some() -> None:
    assert 0 < usable_cores().count <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("threads", "replicas", "cores", "expected", "why"),
    [
        (None, 1, Cores(1, "1 core"), 1, "1 in 1 session"),
        (None, 1, Cores(0.5, "quota"), 1, "(quota)"),
        (None, 1, Cores(2, "2 cores"), 1, "the cores but one"),
        (None, 1, Cores(3.9, "quota"), 2, "the cores but one"),
        (None, 1, EIGHT, 4, "at most 4"),
        (None, 3, EIGHT, 1, "1 each in 3 sessions"),
        (2, 3, EIGHT, 2, "2 as asked for, in 3 sessions (8 cores)"),
        (4, 3, EIGHT, 4, "12 threads on 8 cores"),
    ],
)
def test_threads_for(threads: int | None, replicas: int, cores: Cores, expected: int, why: str) -> None:
    share = threads_for(threads, replicas=replicas, cores=cores)
    assert share.threads == expected
    assert why in share.why
    assert threads_for(threads, replicas=replicas).threads >= 1


@pytest.mark.parametrize(("threads", "replicas"), [(0, 1), (None, 0)])
def test_counts_from_one(threads: int | None, replicas: int) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        threads_for(threads, replicas=replicas)
