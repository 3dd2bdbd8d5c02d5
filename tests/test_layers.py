"""The architecture, as a test: who imports whom, who loads what is heavy, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400

#: Rungs of the ladder, top first. A module imports from its own folder and from rungs below its own.
LADDER = (
    {"__main__"},
    {"cli"},
    {"batch", "web"},
    {"runtime"},
    {"stages"},
    {"tasks"},
    {"sources", "models", "sinks"},
    {"transport", "eventlog"},
    {"heads", "tracking", "analytics"},
    {"vision"},
    {"messages", "schemas"},
    {"errors"},
)
#: Beside the ladder: what each may import, and who may import it.
BESIDE = {"config": {"errors"}, "client": {"schemas", "messages", "errors"}}
USERS = {"config": {"cli", "batch", "web", "runtime"}, "client": {"cli", "batch", "web"}}

#: Folders that may name a heavy library. `cli.checks` imports by name and reports what is missing.
HEAVY = {
    "zmq": {"transport", "client"},
    "onnxruntime": {"models"},
    "onnx": {"models"},
    "av": {"sources", "sinks"},
    "supervision": {"vision"},
    "trackers": {"tasks"},
    "trackeval": {"tasks"},
    "lap": {"tracking"},
    "scipy": {"tasks"},
    "cv2": {"vision", "sources", "sinks", "heads", "models"},
    "sqlite3": {"eventlog", "sinks"},
    "paho": {"sinks"},
    "confluent_kafka": {"sinks"},
    "nats": {"sinks"},
    "redis": {"sinks"},
    "httpx": {"sinks"},
    "psycopg": {"sinks"},
    "pyarrow": {"sinks"},
    "pydantic": {"config", "web"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "python_multipart": {"web"},
    "tritonclient": {"models"},
    "pycocotools": {"tasks"},
    "matplotlib": {"tasks"},
    "yaml": {"config"},
    "typer": {"cli"},
    "rich": {"cli"},
    "prometheus_client": {"runtime"},
}

#: What importing a stage must not load.
FORBIDDEN_IN_STAGE = {
    "capture": {"onnxruntime", "supervision", "trackers", "scipy", "matplotlib", "pydantic", "yaml"},
    "preprocess": {"onnxruntime", "supervision", "trackers", "av", "scipy", "matplotlib", "pydantic", "yaml"},
    "infer": {"supervision", "trackers", "av", "scipy", "matplotlib", "pydantic", "yaml"},
    "postprocess": {
        "onnxruntime",
        "supervision",
        "trackers",
        "av",
        "scipy",
        "matplotlib",
        "pydantic",
        "yaml",
    },
    "publish": {"onnxruntime", "trackers", "pydantic", "yaml"},
}


def folder_of(module: Path) -> str:
    """``sources`` for sources/file.py, ``errors`` for errors.py, "" for the package's own __init__.py."""
    first = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports_of(module: Path) -> set[str]:
    """Dotted names of all that a module imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rung(folder: str) -> int:
    found = [index for index, folders in enumerate(LADDER) if folder in folders]
    assert found, f"pipeline/{folder} has no place on the ladder: add it to LADDER or BESIDE"
    return found[0]


def broken_rule(folder: str, target: str) -> str:
    """Which rule an import breaks, or ""."""
    if target == folder or target == "":
        return ""
    if folder in BESIDE:
        return "" if target in BESIDE[folder] else f"{folder} may import {sorted(BESIDE[folder])} only"
    if target in USERS:
        return "" if folder in USERS[target] else f"only {sorted(USERS[target])} import {target}"
    return "" if rung(target) > rung(folder) else "imports go down the ladder only"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(module: Path) -> None:
    folder = folder_of(module)
    wrong = []
    for name in sorted(imports_of(module)):
        first, _, rest = name.partition(".")
        if first == "pipeline":
            target = rest.partition(".")[0]
            target = "" if target in ("", "__version__") else target
            reason = "the package itself imports nothing" if not folder and target else ""
            reason = reason or broken_rule(folder, target)
            if reason:
                wrong.append(f"{name}: {reason}")
        elif folder not in HEAVY.get(first, {folder}):
            wrong.append(f"{name}: {first} belongs to {sorted(HEAVY[first])}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("folder", "target", "fine"),
    [
        ("stages", "vision", True),
        ("vision", "stages", False),
        ("sources", "sinks", False),
        ("stages", "config", False),
        ("runtime", "config", True),
        ("config", "messages", False),
        ("client", "transport", False),
        ("client", "messages", True),
    ],
)
def test_the_rules_themselves(folder: str, target: str, fine: bool) -> None:
    assert (broken_rule(folder, target) == "") is fine


def loaded_by(module: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after importing one."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("stage", FORBIDDEN_IN_STAGE)
def test_a_stage_loads_only_what_it_needs(stage: str) -> None:
    assert (PACKAGE / "stages" / f"{stage}.py").is_file()
    assert not loaded_by(f"pipeline.stages.{stage}") & FORBIDDEN_IN_STAGE[stage]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("pipeline", {"numpy", "cv2", "zmq", "msgspec", "pydantic"}),
        ("pipeline.messages", {"cv2", "zmq", "pydantic"}),
        ("pipeline.config", {"numpy", "cv2", "zmq", "msgspec", "av", "onnxruntime"}),
        ("pipeline.client", {"cv2", "onnxruntime", "av", "pydantic", "supervision"}),
        ("pipeline.cli", {"numpy", "cv2", "zmq", "av", "onnxruntime", "pydantic", "supervision"}),
        ("pipeline.runtime.child", {"onnxruntime", "av", "supervision", "trackers", "pydantic", "yaml"}),
    ],
)
def test_what_an_import_costs(module: str, forbidden: set[str]) -> None:
    assert not loaded_by(module) & forbidden


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in ("pipeline", "scripts", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in ("", ".py", ".sh") and "__pycache__" not in path.parts
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_file_is_too_long(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= LONGEST, f"{path} has {count} lines; split it"
