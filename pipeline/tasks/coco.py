"""COCO annotations as truth: read, checked before anything runs, and matched to a model's labels by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SourceError, SourceNotFoundError
from pipeline.sources.images import decode_image

__all__ = ["Match", "Truth", "TruthPicture", "load_truth", "match_labels", "read_picture"]

#: Names of missing files and labels that an error lists.
_SHOWN = 5


@dataclass(frozen=True)
class TruthPicture:
    """One annotated picture.

    Attributes:
        image_id: Its id in the annotations.
        path: Where its file lies.
        width: Annotated width in pixels.
        height: Annotated height in pixels.
    """

    image_id: int
    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class Truth:
    """Annotations of some pictures.

    Attributes:
        pictures: The pictures, in the order of the file.
        categories: Category id by name.
        annotations: COCO annotations of these pictures, ``area`` and ``iscrowd`` filled in where missing.
    """

    pictures: tuple[TruthPicture, ...]
    categories: Mapping[str, int]
    annotations: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Match:
    """Which labels of a model are which categories.

    Attributes:
        category_ids: Category id by class id of the model; None for a label that is no category.
        shared: Names that both sides know, in the order of the categories.
        only_truth: Categories that the model does not know.
        only_model: Labels that are no category.
    """

    category_ids: tuple[int | None, ...]
    shared: tuple[str, ...]
    only_truth: tuple[str, ...]
    only_model: tuple[str, ...]


def load_truth(annotations: Path, images: Path, limit: int | None = None) -> Truth:
    """Read a COCO annotation file and find its pictures.

    Args:
        annotations: COCO JSON with ``images``, ``annotations`` and ``categories``.
        images: Folder below which the ``file_name`` of each picture lies.
        limit: Take only so many pictures, the first of the file.

    Raises:
        ConfigError: the file is not JSON, or not such annotations; says which entry is wrong.
        SourceNotFoundError: the file, the folder or a picture is not there.
    """
    if not images.is_dir():
        raise SourceNotFoundError(f"{images} is no folder of images", hint="name one with --images DIR")
    document = _document(annotations)
    where = str(annotations)
    categories: dict[str, int] = {}
    for index, entry in enumerate(document["categories"]):
        category_id, name = _field(entry, "id", int, where, "categories", index), entry.get("name")
        if not isinstance(name, str) or name in categories or category_id in categories.values():
            raise _wrong(where, "categories", index, f"has no name of its own: {name!r}")
        categories[name] = category_id
    pictures: dict[int, TruthPicture] = {}
    for index, entry in enumerate(document["images"][:limit]):
        image_id = _field(entry, "id", int, where, "images", index)
        file_name = _field(entry, "file_name", str, where, "images", index)
        width, height = (_field(entry, side, int, where, "images", index) for side in ("width", "height"))
        if image_id in pictures:
            raise _wrong(where, "images", index, f"has the id {image_id} of another one")
        pictures[image_id] = TruthPicture(image_id, images / file_name, width, height)
    if not pictures or not categories:
        raise ConfigError(f"{where} names no pictures, or no categories", hint="there is nothing to measure")
    known = {entry.get("id") for entry in document["images"] if isinstance(entry, dict)}
    rows = [
        row
        for index, entry in enumerate(document["annotations"])
        if (row := _annotation(entry, where, index, known, set(categories.values())))["image_id"] in pictures
    ]
    for row_id, row in enumerate(rows, 1):
        row["id"] = row_id  # pycocotools takes the id 0 for no match
    missing = [str(picture.path) for picture in pictures.values() if not picture.path.is_file()]
    if missing:
        raise SourceNotFoundError(
            f"{len(missing)} of {len(pictures)} pictures of {where} are not in {images}: {_some(missing)}",
            hint="name their folder with --images, or measure only the first with --limit",
        )
    return Truth(tuple(pictures.values()), categories, tuple(rows))


def match_labels(labels: Sequence[str], truth: Truth, model: str) -> Match:
    """Match a model's labels to the categories of the truth, by name.

    Args:
        labels: Labels by class id.
        truth: The annotations.
        model: Name of the model, for the error.

    Raises:
        ConfigError: they share no name, or two class ids have the same one.
    """
    names = [name for name in labels if name in truth.categories]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"the model {model} has several classes of the name {_some(twice)}",
            hint="give each its own name in the labels of its card",
        )
    only_truth = tuple(name for name in truth.categories if name not in names)
    only_model = tuple(name for name in labels if name not in truth.categories)
    if not names:
        raise ConfigError(
            f"no label of the model {model} is a category of the annotations: it knows {_some(only_model)}; "
            f"they have {_some(only_truth)}",
            hint='give the names of the annotations in its card: {"labels": ["person", ...]}',
        )
    shared = tuple(name for name in truth.categories if name in names)
    return Match(tuple(truth.categories.get(name) for name in labels), shared, only_truth, only_model)


def read_picture(picture: TruthPicture) -> NDArray[np.uint8]:
    """Decode one picture to BGR.

    Returns:
        uint8 (height, width, 3) of the annotated size.

    Raises:
        SourceError: it cannot be read, is damaged, or is of another size than annotated.
    """
    try:
        bgr = decode_image(picture.path.read_bytes())
    except OSError as error:
        raise SourceError(f"{picture.path} cannot be read: {error.strerror}") from error
    if bgr is None:
        raise SourceError(f"{picture.path} is no whole image", hint="fetch it again")
    height, width = bgr.shape[:2]
    if (width, height) != (picture.width, picture.height):
        turned = (height, width) == (picture.width, picture.height)
        raise SourceError(
            f"{picture.path} is {width}x{height}, annotated as {picture.width}x{picture.height}",
            hint="its EXIF data turns it, and the boxes were drawn on it unturned: remove that data"
            if turned
            else "the annotations belong to other files of these names: name their folder with --images",
        )
    return bgr


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no file {path}", hint="name one with --annotations") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not JSON: {error}", hint="it is damaged or of another format; fetch it again"
        ) from error
    parts = ("images", "annotations", "categories")
    lacking = [
        part for part in parts if not isinstance(document, dict) or not isinstance(document.get(part), list)
    ]
    if lacking:
        raise ConfigError(
            f"{path} is not in COCO's format: it has no list {' and no list '.join(lacking)}",
            hint="detection annotations are needed, such as instances_val2017.json",
        )
    return dict(document)


def _annotation(entry: Any, where: str, index: int, images: set[Any], categories: set[int]) -> dict[str, Any]:
    """One annotation as pycocotools wants it."""
    image_id = _field(entry, "image_id", int, where, "annotations", index)
    category_id = _field(entry, "category_id", int, where, "annotations", index)
    if image_id not in images or category_id not in categories:
        name = "an image" if image_id not in images else "a category"
        raise _wrong(where, "annotations", index, f"belongs to {name} that the file does not have")
    box = entry.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(side, int | float) and math.isfinite(side) for side in box)
        or min(box[2:]) < 0
    ):
        raise _wrong(where, "annotations", index, f"has the bbox {box!r}, not [x, y, width, height]")
    area = entry.get("area", box[2] * box[3])
    if not isinstance(area, int | float) or not math.isfinite(area):
        raise _wrong(where, "annotations", index, f"has the area {area!r}, which is no number")
    crowd = int(bool(entry.get("iscrowd", 0)))
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "area": area, "iscrowd": crowd}


def _field(entry: Any, name: str, kind: type[Any], where: str, part: str, index: int) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(where, part, index, f"has no {name}, or not {'a number' if kind is int else 'a text'}")
    return value


def _wrong(where: str, part: str, index: int, problem: str) -> ConfigError:
    return ConfigError(
        f"{where}: {part}[{index}] {problem}",
        hint="the file is damaged or not in COCO's format; export it again",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more
