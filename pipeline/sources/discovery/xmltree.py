"""XML from strangers: a small tree, or a refusal. No entities, no DTD, bounded in size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

__all__ = ["Node", "clean", "parse_xml"]

_DEEPEST = 64
_MOST_NODES = 20_000
_LONGEST = 200


@dataclass(slots=True)
class Node:
    """An element.

    Attributes:
        name: Its name without the namespace's prefix: devices get prefixes wrong more often than names.
        attributes: Value by name, without prefixes.
        text: The text that stands directly in it.
        children: The elements in it, in order.
    """

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def walk(self, name: str) -> Iterator[Node]:
        """All elements of that name below this one, in document order."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.walk(name)

    def first(self, *path: str) -> Node | None:
        """The first element that a path of names leads to, however deep each lies; None for none."""
        node: Node | None = self
        for name in path:
            node = next(node.walk(name), None) if node else None
        return node

    def word(self, *path: str) -> str:
        """The text there, fit to be shown; empty for none."""
        node = self.first(*path)
        return clean(node.text) if node else ""

    def number(self, *path: str, most: float = 1e9) -> float | None:
        """The number there, from 0 to ``most``; None when there is none."""
        text = self.word(*path)
        try:
            value = float(text)
        except ValueError:
            return None
        return value if 0 <= value <= most else None


def parse_xml(data: bytes) -> Node:
    """A document as a tree.

    Args:
        data: The document, of a size that the caller has bounded.

    Raises:
        ValueError: it is no XML, in an unknown encoding, too deep or too large, or has a DTD, which SOAP
            forbids and without which there are no entities.
    """
    root = Node("")
    stack = [root]
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(stack) > _DEEPEST or count > _MOST_NODES:
            raise ValueError("the document is too deep or has too many elements")
        node = Node(_local(name), {_local(key): value for key, value in attributes.items()})
        stack[-1].children.append(node)
        stack.append(node)

    def end(_name: str) -> None:
        stack.pop()

    def text(piece: str) -> None:
        stack[-1].text += piece

    def doctype(*_: object) -> None:
        raise ValueError("the document has a DTD")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"this is no XML: {error}") from error
    return root


def clean(text: str) -> str:
    """One line of at most 200 characters that can be shown on a terminal, whatever a stranger put in."""
    line = " ".join(text[: 4 * _LONGEST].split())
    return "".join(char for char in line if char.isprintable())[:_LONGEST]


def _local(name: str) -> str:
    return name.rpartition(":")[2]
