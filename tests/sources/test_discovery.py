from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.sources.discovery.onvif import ask_device, stream_uri
from pipeline.sources.discovery.probe import Device, find_devices, service_url
from pipeline.sources.discovery.soap import Account
from pipeline.sources.discovery.xmltree import clean, parse_xml
from tests.servers.certs import certificate
from tests.servers.onvif_camera import MEDIA, MEDIA2, OnvifCamera, Reply, envelope, fault, probe_match

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;&c;&c;</a>'
)
HOSTILE_XML = {
    "entity bomb": BOMB,
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "external DTD": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><a/>',
    "unknown entity": b"<a>&x;</a>",
    "too deep": b"<a>" * 500 + b"</a>" * 500,
    "too many": b"<a>" + b"<b/>" * 30_000 + b"</a>",
    "cut short": b"<a><b>",
    "no XML": b"GET / HTTP/1.1\r\n\r\n",
    "nothing": b"",
    "unknown charset": b'<?xml version="1.0" encoding="klingon"?><a/>',
    "another charset": b'<?xml version="1.0" encoding="utf-16"?><a/>',
    "wrong bytes": b'<?xml version="1.0" encoding="utf-8"?><a>\xff\xfe</a>',
    "zero bytes": b"\0" * 100,
}


@pytest.mark.parametrize("data", HOSTILE_XML.values(), ids=HOSTILE_XML)
def test_hostile_xml_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_xml(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_tree_or_refused(data: bytes) -> None:
    try:
        parse_xml(data)
    except ValueError:
        return


@given(st.text(max_size=600))
def test_what_is_shown_cannot_steer_a_terminal(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown) <= 200


def test_names_are_found_whatever_their_prefixes() -> None:
    tree = parse_xml(b'<s:A x:token="7"><q:B> two  words </q:B><B>9.5</B><C>1e99</C><D>nan</D></s:A>')
    assert tree.word("A", "B") == "two words"
    assert [node.text.strip() for node in tree.walk("B")] == ["two  words", "9.5"]
    first = tree.first("A")
    assert first is not None
    assert first.attributes == {"token": "7"}
    assert [tree.number(name) for name in ("B", "C", "D", "E")] == [None, None, None, None]


def find(camera: OnvifCamera, timeout_s: float = 5.0, **options: Any) -> list[Device]:
    return find_devices(to="127.0.0.1", port=camera.port, timeout_s=timeout_s, **options).devices


def test_a_camera_is_found() -> None:
    with OnvifCamera() as camera:
        (device,) = find(camera)
        assert (device.name, device.hardware) == ("Front door", "M-1")
        assert device.addresses == ["127.0.0.1"]
        assert device.urls == [camera.url]
        assert device.elsewhere == []


def test_a_camera_is_found_by_multicast() -> None:
    with OnvifCamera(group="239.255.255.250") as camera:
        found = find_devices(interface="127.0.0.1", port=camera.port, timeout_s=0.5)
    assert [device.name for device in found.devices] == ["Front door"]
    assert found.asked_from == ["127.0.0.1"]


def test_answers_of_one_device_are_one_device() -> None:
    several = [
        probe_match("http://127.0.0.1:80/a", "urn:uuid:1", "onvif://www.onvif.org/name/One"),
        probe_match("http://127.0.0.1:81/b", "urn:uuid:1", "onvif://www.onvif.org/name/Other"),
        probe_match("http://127.0.0.1:82/c", "urn:uuid:2"),
    ]
    with OnvifCamera(datagrams=several, group="239.255.255.250") as camera:
        one, two = find_devices(interface="127.0.0.1", port=camera.port, timeout_s=0.4).devices
    assert (one.endpoint, one.name) == ("urn:uuid:1", "One")
    assert one.urls == ["http://127.0.0.1:80/a", "http://127.0.0.1:81/b"]
    assert two.endpoint == "urn:uuid:2"


@pytest.mark.parametrize("data", [*HOSTILE_XML.values(), b"x" * 60_000, envelope("<a/>")])
def test_hostile_datagrams_do_not_hide_a_camera(data: bytes) -> None:
    good = probe_match("http://127.0.0.1/x", "urn:uuid:good")
    with OnvifCamera(datagrams=[data[:60_000], good]) as camera:
        found = find_devices(to="127.0.0.1", port=camera.port, timeout_s=5)
    assert [device.endpoint for device in found.devices] == ["urn:uuid:good"]
    assert found.ignored >= 1


def test_only_so_many_devices_are_kept() -> None:
    flood = [probe_match("http://127.0.0.1/x", f"urn:uuid:{number}") for number in range(20)]
    with OnvifCamera(datagrams=flood, group="239.255.255.250") as camera:
        found = find_devices(interface="127.0.0.1", port=camera.port, timeout_s=0.4, most=7)
    assert len(found.devices) == 7


def test_nobody_answers() -> None:
    with OnvifCamera(datagrams=[]) as camera:
        before = time.monotonic()
        assert find(camera, timeout_s=0.3) == []
        assert 0.3 <= time.monotonic() - before < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interface": "192.0.2.1"}, "--interface 192.0.2.1: this computer has no such address"),
        ({"interface": "eth0"}, "--interface eth0: this computer has no such address"),
        ({"to": "no such host"}, "--to no such host: nobody knows"),
    ],
)
def test_wrong_places_to_ask(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_devices(timeout_s=0.1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("http://10.0.0.7/onvif/device_service", "http://10.0.0.7/onvif/device_service"),
        ("https://10.0.0.7:8443/x?a=b", "https://10.0.0.7:8443/x?a=b"),
        ("http://10.0.0.7", "http://10.0.0.7/"),
        ("http://169.254.1.1:8000/x", "http://10.0.0.7:8000/x"),  # a wrong address of its own, or a victim's
        ("http://bank.example/transfer", "http://10.0.0.7/transfer"),
        ("http://user:secret@10.0.0.7/x", "http://10.0.0.7/x"),
        ("file:///etc/passwd", ""),
        ("gopher://10.0.0.7/x", ""),
        ("http://10.0.0.7:99999/x", ""),
        ("http:///x", ""),
        ("http://[::1/x", ""),
        ("http://10.0.0.7/a\r\nHost: evil", ""),
        ("http://10.0.0.7/ä", ""),
        ("http://10.0.0.7/" + "x" * 1000, ""),
    ],
)
def test_a_device_is_asked_nowhere_but_where_it_answered_from(said: str, asked: str) -> None:
    assert service_url(said, "10.0.0.7") == asked


def test_services_elsewhere_are_named_and_not_asked() -> None:
    said = "http://198.51.100.9:8080/x https://127.0.0.1/y http://127.0.0.1/z"
    with OnvifCamera(datagrams=[probe_match(said)]) as camera:
        (device,) = find(camera)
    assert device.urls == ["http://127.0.0.1:8080/x", "http://127.0.0.1/z", "https://127.0.0.1/y"]
    assert device.elsewhere == ["198.51.100.9"]


def test_streams_are_told_to_who_has_the_password() -> None:
    with OnvifCamera(user="viewer", password="p@ss<&>w0rd") as camera:
        details = ask_device(camera.url, username="viewer", password="p@ss<&>w0rd")
        assert (details.manufacturer, details.model, details.firmware) == ("Acme", "M-1", "1.2")
        main, sub = details.profiles
        assert (main.name, main.codec, main.width, main.height) == ("main", "H264", 2560, 1440)
        assert (main.fps, main.bit_rate_kbps, main.keyframe_every) == (25, 4096, 50)
        assert main.url == "rtsp://127.0.0.1:554/live"
        assert sub.width == 640
        assert details.refused == ""
        assert not any(b"w0rd" in request for request in camera.requests)


def test_login_by_http_digest() -> None:
    with OnvifCamera(user="viewer", password="s3cret", http_digest=True) as camera:
        assert len(ask_device(camera.url, username="viewer", password="s3cret").profiles) == 2
        refused = ask_device(camera.url, username="viewer", password="wrong")
        assert (refused.reason, refused.profiles) == ("auth", [])
        assert not any(b"s3cret" in request for request in camera.requests)


@pytest.mark.parametrize(
    ("username", "words"), [("viewer", "refuses the user name or password"), ("", "only to its users")]
)
def test_a_wrong_login(username: str, words: str) -> None:
    with OnvifCamera(user="viewer", password="right") as camera:
        details = ask_device(camera.url, username=username, password="wrong")
    assert details.reason == "auth"
    assert words in details.refused
    assert details.clock_offset_s is not None  # That it tells everybody.


def test_a_login_fits_the_cameras_clock() -> None:
    with OnvifCamera(user="viewer", password="s3cret", clock_offset_s=-7200) as camera:
        details = ask_device(camera.url, username="viewer", password="s3cret")
        assert details.clock_offset_s == pytest.approx(-7200, abs=2)
        told = {time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) for text in camera.created}
        now = time.mktime(time.gmtime())
    assert told
    assert all(now - moment == pytest.approx(7200, abs=10) for moment in told)


def test_the_newer_media_service_is_asked_first() -> None:
    profile = (
        '<t:Profiles token="a&quot;b"><t:Name>main</t:Name><t:Configurations><t:VideoEncoder GovLength="30">'
        "<t:Encoding>H265</t:Encoding><t:Resolution><t:Width>640</t:Width><t:Height>360</t:Height></t:Resolution>"
        "</t:VideoEncoder></t:Configurations></t:Profiles>"
    )
    with OnvifCamera() as camera:
        services = "".join(
            f"<t:Service><t:Namespace>{name}</t:Namespace><t:XAddr>{camera.base}/m</t:XAddr></t:Service>"
            for name in (MEDIA, MEDIA2)
        )
        camera.replies |= {
            "GetServices": Reply(envelope(services)),
            "GetProfiles": Reply(envelope(profile)),
            "GetStreamUri": Reply(envelope("<t:Uri>rtsp://127.0.0.1/h265</t:Uri>")),
        }
        (main,) = ask_device(camera.url).profiles
        assert (main.codec, main.keyframe_every, main.url) == ("H265", 30, "rtsp://127.0.0.1/h265")
        assert b"<ProfileToken>a&quot;b</ProfileToken>" in camera.requests[-1]
        camera.replies["GetProfiles"] = Reply(fault("no such operation"), 500)
        assert ask_device(camera.url).refused.endswith("refuses: no such operation")
        assert camera.asked[-2:] == ["GetProfiles", "GetProfiles"]


def test_an_old_camera_without_get_services() -> None:
    with OnvifCamera(replies={"GetServices": Reply(fault("Optional action not implemented"), 500)}) as camera:
        assert len(ask_device(camera.url).profiles) == 2
        assert "GetCapabilities" in camera.asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(status: int) -> None:
    with OnvifCamera() as victim, OnvifCamera() as camera:
        camera.replies["GetDeviceInformation"] = Reply(b"", status, {"Location": victim.url})
        details = ask_device(camera.url, username="viewer", password="s3cret")
        assert details.reason == "network"
        assert f"not followed ({status})" in details.refused
        assert victim.asked == []


def test_services_of_another_host_are_not_asked() -> None:
    try:
        victim = OnvifCamera(host="127.0.0.2")
    except OSError:
        pytest.skip("this system has one loopback address only")
    with victim, OnvifCamera() as camera:
        services = f"<t:Service><t:Namespace>{MEDIA}</t:Namespace><t:XAddr>{victim.url}</t:XAddr></t:Service>"
        camera.replies["GetServices"] = Reply(envelope(services))
        assert ask_device(camera.url, username="viewer", password="s3cret").profiles == []
        assert victim.asked == []
        assert ask_device(victim.url).profiles  # It would have answered.


def trickle(camera: OnvifCamera) -> Callable[[Any], None]:
    """A byte every 20 ms, each well within any timeout of a socket, until the camera is closed."""

    def write(file: Any) -> None:
        while not camera.stop_writing.wait(0.02):
            file.write(b" ")
            file.flush()

    return write


def test_an_answer_that_trickles_is_cut() -> None:
    with OnvifCamera() as camera:
        camera.replies["GetSystemDateAndTime"] = Reply(write=trickle(camera))
        before = time.monotonic()
        details = ask_device(camera.url, timeout_s=0.3)
        assert details.reason == "timeout"
        assert time.monotonic() - before < 3


def test_an_answer_without_end_is_left_after_a_mebibyte() -> None:
    def write(file: Any) -> None:
        while not camera.stop_writing.is_set():
            file.write(b" " * 65536)

    with OnvifCamera() as camera:
        camera.replies["GetSystemDateAndTime"] = Reply(b"<a>", write=write)
        details = ask_device(camera.url, timeout_s=20)
        assert (details.reason, "more than 1 MiB" in details.refused) == ("codec", True)


def wait(camera: OnvifCamera) -> None:
    camera.stop_writing.wait(30)


def test_an_answer_that_never_comes() -> None:
    with OnvifCamera() as camera:
        camera.replies["GetSystemDateAndTime"] = Reply(write=lambda _: wait(camera))
        assert ask_device(camera.url, timeout_s=0.3).reason == "timeout"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        *((Reply(data), "codec") for data in HOSTILE_XML.values()),
        (Reply(b"<a>" + b" " * (8 << 20)), "codec"),
        (Reply(b"<html>404</html>", 404), "not_found"),
        (Reply(b"no", 403), "auth"),
        (Reply(b"no", 500), "codec"),
        (Reply(b"ff\r\nabc", headers={"Transfer-Encoding": "chunked"}), "codec"),
        (Reply(b"", headers={"Content-Length": "x"}), "codec"),
        (Reply(b"<a/>", headers={"Content-Encoding": "gzip"}), "codec"),
        (Reply(b"", 401, {"WWW-Authenticate": "Bearer x"}), "auth"),
        (Reply(b"", 401, {"WWW-Authenticate": 'Digest realm="x", algorithm=FOO'}), "auth"),
    ],
)
def test_hostile_answers_are_refused(reply: Reply, reason: str) -> None:
    with OnvifCamera(replies={"GetDeviceInformation": reply}) as camera:
        details = ask_device(camera.url, username="viewer", password="s3cret", timeout_s=5)
    assert details.reason == reason
    assert details.refused
    assert details.refused.isprintable()
    assert "s3cret" not in details.refused


def test_a_certificate_that_nobody_signed() -> None:
    with OnvifCamera(tls=certificate()) as camera:
        details = ask_device(camera.url)
        assert details.reason == "tls"
        assert "certificate is refused" in details.refused
        assert len(ask_device(camera.url, tls_verify=False).profiles) == 2


def test_nobody_listens() -> None:
    with OnvifCamera() as camera:
        url = camera.url
    assert ask_device(url, timeout_s=2).reason == "network"


def test_an_account_does_not_show_its_password() -> None:
    assert "s3cret" not in repr(Account("viewer", "s3cret"))


@pytest.mark.parametrize(
    ("said", "shown", "elsewhere"),
    [
        ("rtsp://10.0.0.7:554/ch1?sub=1", "rtsp://10.0.0.7:554/ch1?sub=1", False),
        ("rtsp://admin:12345@10.0.0.7/ch1", "rtsp://10.0.0.7/ch1", False),
        ("rtsp://0.0.0.0/ch1", "rtsp://10.0.0.7/ch1", False),
        ("rtsp://203.0.113.5/ch1", "rtsp://203.0.113.5/ch1", True),
        (
            "rtsp://10.0.0.7/user=a_password=b_channel=1",
            "rtsp://10.0.0.7/user=a_password=***_channel=1",
            False,
        ),
        ("rtsp://10.0.0.7/s?token=abc&x=1", "rtsp://10.0.0.7/s?token=***&x=1", False),
        ("file:///etc/passwd", "", False),
        ("rtsp://10.0.0.7:port/x", "", False),
        ("rtsp://10.0.0.7/a b", "", False),
        ("rtsp://10.0.0.7/\x1b[2J", "", False),
        ("rtsp://10.0.0.7/***", "", False),
        ("", "", False),
    ],
)
def test_addresses_of_streams(said: str, shown: str, elsewhere: bool) -> None:
    assert stream_uri(said, "10.0.0.7") == (shown, elsewhere)
