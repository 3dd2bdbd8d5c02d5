"""Every module says what it offers, and offers what it says."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pipeline"


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.stem != "__main__"}


def own_names(tree: ast.Module) -> set[str]:
    """Public functions and classes of a module, without commands that a decorator registers."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [node for node in tree.body if isinstance(node, kinds)]
    registered = [
        node for node in found for mark in node.decorator_list if ast.unparse(mark).startswith("app.")
    ]
    return {node.name for node in found if node not in registered and not node.name.startswith("_")}


def used_by_others() -> dict[str, set[str]]:
    """By module, the names that other modules of the package import from it."""
    used: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES and node.module != name:
                used.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    return used


USED = used_by_others()


@pytest.mark.parametrize("name", MODULES)
def test_all_is_exact(name: str) -> None:
    tree = tree_of(MODULES[name])
    module = import_module(name)
    listed = getattr(module, "__all__", None)
    taken = {n for n in USED.get(name, set()) if f"{name}.{n}" not in MODULES and n != "__version__"}
    if listed is None:
        # The error tree is its own list: all of its classes are public.
        assert not taken or name == "pipeline.errors", (
            f"{name} needs an __all__: others import {sorted(taken)}"
        )
        return
    assert len(set(listed)) == len(listed), "a name stands twice"
    missing = [entry for entry in listed if not hasattr(module, entry)]
    assert not missing, f"{name}.__all__ names what is not there: {missing}"
    assert taken <= set(listed), f"others import {sorted(taken - set(listed))}, which __all__ does not list"
    unlisted = own_names(tree) - set(listed)
    assert not unlisted, f"{name}: list {sorted(unlisted)} in __all__, or start them with an underscore"


def test_star_import_is_used_nowhere() -> None:
    for path in MODULES.values():
        for node in ast.walk(tree_of(path)):
            assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"), path
