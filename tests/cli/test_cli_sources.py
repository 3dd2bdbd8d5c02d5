from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.cli.sources import app
from pipeline.errors import ConfigError, SourceError
from tests.servers.handles import RtspServer
from tests.servers.onvif_camera import OnvifCamera, Reply, envelope, probe_match
from tests.sources.clips import write_clip

LOGIN = {"ONVIF_USER": "viewer", "ONVIF_PASSWORD": "s3cret"}
runner = CliRunner()


def discover(camera: OnvifCamera, *more: str, env: dict[str, str] | None = None) -> Result:
    fixed = {"ONVIF_USER": "", "ONVIF_PASSWORD": "", "COLUMNS": "200"}
    arguments = ["discover", "--to", "127.0.0.1", "--port", str(camera.port), *more]
    return runner.invoke(app, arguments, env=fixed | (env or {}), catch_exceptions=True)


def test_probe_prints_one_object(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 30, rate=10)
    result = runner.invoke(app, ["probe", str(path), "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["codec"] == "h264"
    assert found["fps_measured"] == pytest.approx(10)
    assert isinstance(found["advice"], list)
    assert "measuring" in result.stderr


def test_probe_shows_a_table(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 30, rate=60)
    result = runner.invoke(app, ["probe", str(path), "--model-px", "320"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for words in ("h264 High, 64x48", "60 measured (60 declared)", "30 pictures", "set max_fps: 15"):
        assert words in result.stdout


def test_probe_of_a_camera_shows_no_password() -> None:
    with RtspServer(auth="basic", password="p:@/") as camera:
        url = f"rtsp://viewer:${{CAM_PASSWORD}}@127.0.0.1:{camera.port}/cam"
        quoted = {"CAM_PASSWORD": "p%3A%40%2F", "COLUMNS": "200"}
        good = runner.invoke(app, ["probe", url, "--seconds", "0.6"], env=quoted)
        assert good.exit_code == 0
        assert f"rtsp://127.0.0.1:{camera.port}/cam" in good.stdout
        assert "rtcp" in good.stdout
        bad = runner.invoke(app, ["probe", url, "--json"], env=quoted | {"CAM_PASSWORD": "wr0ng"})
    assert isinstance(bad.exception, SourceError)
    assert json.loads(bad.stdout)["error"]["reason"] == "auth"
    assert "reason: auth" in bad.stderr
    for result in (good, bad):
        for secret in ("p%3A", "p:@/", "wr0ng", "viewer"):
            assert secret not in result.output + str(result.exception)


def test_exit_codes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    assert main(["sources", "probe", "rtsp://127.0.0.1:9/x", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "network"
    assert main(["sources", "probe", "/nowhere.mp4"]) == 3
    assert "reason: not_found" in capsys.readouterr().err
    assert main(["sources", "probe", "rtsp://u:${NOT_SET}@127.0.0.1/x"]) == 2
    assert "NOT_SET" in capsys.readouterr().err
    assert main(["sources", "discover", "--interface", "192.0.2.1"]) == 2


def test_discover_without_a_login() -> None:
    with OnvifCamera() as camera:
        result = discover(camera)
        assert result.exit_code == 0
        assert "Front door  M-1  127.0.0.1" in result.stdout
        assert camera.url in result.stdout
        assert "export ONVIF_USER" in result.stderr
        assert camera.asked == []


@pytest.mark.parametrize(
    ("more", "env"),
    [
        ([], LOGIN),
        (["--username", "viewer", "--password-env", "OTHER"], {"OTHER": "s3cret"}),
    ],
)
def test_discover_with_a_login(more: Sequence[str], env: dict[str, str]) -> None:
    with OnvifCamera(user="viewer", password="s3cret") as camera:
        result = discover(camera, *more, env=env)
    assert result.exit_code == 0
    assert "Acme M-1 1.2" in result.stdout
    assert "rtsp://127.0.0.1:554/live" in result.stdout
    assert "main: H264, 2560x1440, 25 fps, 4096 kbit/s, keyframe every 2 s" in result.stdout
    for secret in ("oops", "s3cret"):
        assert secret not in result.output


def test_discover_as_json() -> None:
    with OnvifCamera(clock_offset_s=3600) as camera:
        result = discover(camera, "--ask", "--json")
    (device,) = json.loads(result.stdout)["devices"]
    assert (device["name"], device["addresses"]) == ("Front door", ["127.0.0.1"])
    assert device["details"]["clock_offset_s"] == pytest.approx(3600, abs=3)
    assert [one["width"] for one in device["details"]["profiles"]] == [2560, 640]


def test_discover_as_yaml() -> None:
    with OnvifCamera(user="viewer", password="s3cret") as camera:
        result = discover(camera, "--yaml", env=LOGIN)
    assert yaml.safe_load(result.stdout)["sources"] == {
        "front_door": {
            "url": "rtsp://127.0.0.1:554/live",
            "username": "${ONVIF_USER}",
            "password": "${ONVIF_PASSWORD}",
        }
    }


def test_discover_tells_of_trouble() -> None:
    with OnvifCamera(user="viewer", password="other", clock_offset_s=-100) as camera:
        result = discover(camera, env=LOGIN)
        assert "auth: " in result.stdout
        assert "100 s behind" in result.stdout
        assert "keep ONVIF users apart" in result.stderr
    far = probe_match("http://198.51.100.9/x")
    with OnvifCamera(datagrams=[b"junk", far]) as camera:
        result = discover(camera)
        assert "says it is at 198.51.100.9, which was not asked" in result.stdout
        assert "1 answers were none" in result.stderr
    with OnvifCamera(replies={"GetStreamUri": Reply(envelope("<Uri>rtsp://203.0.113.5/x</Uri>"))}) as camera:
        assert "another host than the camera" in discover(camera, "--ask").stdout
    with OnvifCamera(datagrams=[]) as camera:
        result = discover(camera, "--timeout", "0.1", "--json")
        assert json.loads(result.stdout) == {"devices": [], "ignored": 0}
        assert "nobody answered" in result.stderr


@pytest.mark.parametrize(
    ("more", "env", "message"),
    [
        (["--json", "--yaml"], {}, "cannot be printed both"),
        (["--username", "viewer"], {}, "ONVIF_PASSWORD holds no password"),
    ],
)
def test_usage(more: Sequence[str], env: dict[str, str], message: str) -> None:
    with OnvifCamera() as camera:
        result = discover(camera, *more, env=env)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_hostile_names_do_not_reach_the_terminal() -> None:
    scopes = "onvif://www.onvif.org/name/%1b%5b2J[bold]%9b onvif://www.onvif.org/hardware/%e2%80%aex%0d%0ay"
    with OnvifCamera(datagrams=[probe_match("http://127.0.0.1/x", "urn:uuid:&#x9b;", scopes)]) as camera:
        for more in ([], ["--json"], ["--yaml"]):
            output = discover(camera, *more).stdout
            assert all(char.isprintable() or char == "\n" for char in output)
        assert "[2J[bold]" in discover(camera).stdout
