"""Every socket that is bound, and strangers: nothing that is sent stops it, and the next client is served."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.errors import FramewireError
from pipeline.runtime.admin import AdminServer
from pipeline.runtime.control import decode_command, decode_report
from pipeline.sinks.replay import SCHEMA as REPLAY
from pipeline.transport.codec import decode, encode
from pipeline.transport.control import Asker, ControlClient, ControlServer, Doorbell, Replier, Ringer
from pipeline.transport.push import SCHEMA as PUSH
from tests.helpers import make_frame
from tests.transport.targets import (
    GREETING,
    HANDSHAKE,
    LIMIT_MS,
    Link,
    Pub,
    Push,
    Stream,
    Target,
    frame,
)  # fmt: skip

PACKAGE = Path(__file__).resolve().parents[2] / "pipeline"
QUIETLY = settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    made = {"push": Push(), "link": Link(), "pub": Pub(), "replay": Stream(tmp_path_factory.mktemp("log"))}
    for target in made.values():
        target.open()
    yield made
    for target in made.values():
        target.close()
        target.clients.term()
        target.context.term()


@pytest.fixture(params=["push", "link", "pub", "replay"])
def target(request: pytest.FixtureRequest, targets: dict[str, Target]) -> Target:
    return targets[request.param]


NOISE = st.binary(max_size=200) | st.sampled_from(
    [GREETING, HANDSHAKE, b"GET / HTTP/1.1\r\n\r\n", b"\x04\x00", b"\x06" + b"\xff" * 8, b"\x01\x00" * 50]
)


@given(noise=st.lists(NOISE, min_size=1, max_size=5), began=st.sampled_from([b"", GREETING, HANDSHAKE]))
@QUIETLY
def test_bytes_of_any_kind(target: Target, noise: list[bytes], began: bytes) -> None:
    with target.raw() as stranger, contextlib.suppress(ConnectionError):  # it may hang up on us
        stranger.sendall(began)
        for piece in noise:
            stranger.sendall(piece)
            target.turn()
    target.served()


def test_many_that_connect_and_say_nothing_or_half_a_word(target: Target) -> None:
    with contextlib.ExitStack() as open_:
        strangers = [open_.enter_context(target.raw()) for _ in range(150)]
        for at, stranger in enumerate(strangers):
            stranger.sendall(HANDSHAKE[: at % len(HANDSHAKE)])
        with target.raw() as slow, contextlib.suppress(ConnectionError):
            for byte in HANDSHAKE + frame(b"x"):  # a byte at a time, others being served meanwhile
                slow.sendall(bytes([byte]))
                target.turn()
            target.served()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20)
    | st.datetimes(timezones=st.sampled_from([UTC, None]))
    | st.sampled_from([PUSH, REPLAY, "events", "0001-01-01T00:00:00+14:00", 2**62, 253_402_300_799]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ["from", "since", "log", "until", "limit", "sources", "types", "labels", "zones", "format", "width", "x"]
)
MAPS = st.dictionaries(KEYS, VALUES, max_size=6)
DEEP = [
    b'{"schema": ' + b"[" * 30_000,
    b"\x81\xa6schema" + b"\x91" * 30_000 + b"\xc0",
    b"\xdf\xff\xff\xff\xff",
]


@given(asked=st.lists(st.tuples(MAPS, st.sampled_from(["events", "latest", 7]), st.booleans()), max_size=6))
@settings(QUIETLY, max_examples=40)
def test_questions_with_anything_in_them_are_answered_or_counted(
    targets: dict[str, Target], asked: list[tuple[dict[str, Any], Any, bool]]
) -> None:
    target = targets["replay"]
    assert isinstance(target, Stream)
    before = target.answering.answered + target.answering.malformed
    with target.client() as peer:
        for number, (fields, do, plain) in enumerate(asked):
            encode_ = msgspec.json.encode if plain else msgspec.msgpack.encode
            peer.send(encode_({"schema": REPLAY, "id": number, "do": do, **fields}))
            assert peer.poll(LIMIT_MS), "what is understood is answered, right or wrong"
            raw = peer.recv_multipart()
            read: Any = msgspec.json.decode if raw[0][:1] == b"{" else msgspec.msgpack.decode
            header = read(raw[0])
            assert (header["id"], header["count"]) == (number, len(raw) - 1)
            assert ("error" in header) or header["to"] >= header["from"]
    counted = target.answering  # a moment after the answer is sent
    target.until(lambda: counted.answered + counted.malformed == before + len(asked))


@given(
    sent=st.lists(
        st.lists(st.binary(max_size=30) | st.sampled_from(DEEP), min_size=1, max_size=4), max_size=4
    )
)
@QUIETLY
def test_messages_of_any_kind(target: Target, sent: list[list[bytes]]) -> None:
    if target.address and isinstance(target, Pub):
        return  # its clients send subscriptions: below
    with target.client() as peer:
        for parts in [*sent, [b"\x80"] * 100, [b""] * 3]:
            peer.send_multipart(parts)
        for _ in range(5):
            target.turn()
    target.served()


@pytest.mark.parametrize("name", ["push", "replay"])
def test_what_is_no_message_is_counted(targets: dict[str, Target], name: str) -> None:
    target = targets[name]
    counts: dict[str, Callable[[], int]] = {
        "push": lambda: targets["push"].malformed,  # type: ignore[attr-defined]
        "replay": lambda: targets["replay"].answering.malformed,  # type: ignore[attr-defined]
    }
    with target.client() as peer:
        before = counts[name]()
        for parts in ([b"\xc1"], [b"{}"], [b"x"] * 50, *([deep] for deep in DEEP)):
            peer.send_multipart(parts)
        target.until(lambda: counts[name]() == before + 6)
    target.served()


@given(topics=st.lists(st.binary(max_size=300), max_size=8))
@QUIETLY
def test_subscriptions_to_anything(targets: dict[str, Target], topics: list[bytes]) -> None:
    target = targets["pub"]
    with target.client(zmq.XSUB) as peer:
        for topic in [*topics, b"a" * 900]:
            for head in (b"\x01", b"\x00", b"\x02"):
                peer.send(head + topic)
        target.turn()
    target.served()


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_one_who_asks_and_never_reads_costs_a_few_replies(targets: dict[str, Target]) -> None:
    """Its own end is a bare TCP socket, so that only the server's memory is measured."""
    target = targets["replay"]
    assert isinstance(target, Stream)
    target.served()
    question = msgspec.msgpack.encode({"schema": REPLAY, "id": 1, "do": "events", "from": 0})
    with target.raw() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.sendall(HANDSHAKE)
        before, answered = _rss(), target.answering.answered
        greedy.sendall(frame(question) * 100)  # 1 MB each
        target.until(lambda: target.answering.answered >= answered + 100)
        assert _rss() - before < 40 * 2**20
        target.served()


def test_a_producer_that_ignores_its_credits_holds_nothing_but_them(targets: dict[str, Target]) -> None:
    target = targets["link"]
    assert isinstance(target, Link)
    with target.client() as peer:
        peer.send_multipart([b"H", bytes(4)])
        target.until(lambda: peer.poll(2))
        (incarnation,) = struct.unpack_from("<Q", peer.recv_multipart()[1])
        before = target.inlet.stats.malformed
        for at in range(3000):
            peer.send_multipart([b"D", struct.pack("<QQ", incarnation, at), encode(make_frame(at))])
        handled = 2  # what the window lets wait

        def all_in() -> bool:
            target.inlet.pump()
            assert target.inlet.waiting() <= handled
            return target.inlet.stats.malformed == before + 3000 - handled

        for _ in range(LIMIT_MS // 2):
            if all_in():
                break
            target.inlet.socket.poll(2)
        else:
            raise AssertionError("they were not refused")
    target.until(lambda: not target.inlet.waiting())
    target.served()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.term()


@pytest.fixture
def ends(context: zmq.Context[Any]) -> Iterator[contextlib.ExitStack]:
    """What is put in here is closed before the context ends, also when a test fails."""
    with contextlib.ExitStack() as stack:
        yield stack


def _heard(request: dict[str, Any]) -> dict[str, Any]:
    return {"heard": sorted(request)}


ANYTHING = st.binary(max_size=60) | VALUES.map(msgspec.msgpack.encode)


@given(body=ANYTHING | st.sampled_from(DEEP))
@settings(QUIETLY, max_examples=200)
def test_bodies_that_are_none_of_ours(body: bytes) -> None:
    for read in (decode, decode_report, decode_command):
        with contextlib.suppress(FramewireError):
            read(body)


@pytest.mark.parametrize("body", [b"\xa1\xff", b"\x81\xa1\xff\x01", b"\x81\xa2do\xa1\xff", b"", *DEEP])
def test_what_the_admin_socket_of_a_run_is_told(
    tmp_path: Path, context: zmq.Context[Any], ends: contextlib.ExitStack, body: bytes
) -> None:
    server = ends.enter_context(contextlib.closing(AdminServer(str(tmp_path), _heard)))
    asker = ends.enter_context(contextlib.closing(Asker(context, f"ipc://{tmp_path}/admin")))
    for sent in (body, msgspec.msgpack.encode({"do": "list"})):
        asker._socket.send(sent)
        for _ in range(LIMIT_MS // 5):
            server.serve()
            if asker._socket.poll(5):
                break
        heard = msgspec.msgpack.decode(asker._socket.recv())
    assert heard == {"ok": True, "heard": ["do"]}


@given(sent=st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=4), max_size=6))
@QUIETLY
def test_control_sockets(tmp_path: Path, sent: list[list[bytes]]) -> None:
    with contextlib.ExitStack() as ends:
        context: zmq.Context[Any] = zmq.Context()
        ends.callback(context.term)

        def made(end: Any) -> Any:
            return ends.enter_context(contextlib.closing(end))

        server = made(ControlServer(context, f"ipc://{tmp_path}/control"))
        replier = made(Replier(context, f"ipc://{tmp_path}/reply"))
        bell = made(Doorbell(context, f"ipc://{tmp_path}/bell"))
        client = made(ControlClient(context, f"ipc://{tmp_path}/control", "infer-0"))
        asker = made(Asker(context, f"ipc://{tmp_path}/reply"))
        ringer = made(Ringer(context))
        ringer.ring(f"ipc://{tmp_path}/bell")
        for parts in sent:
            client.socket.send_multipart(parts)
            asker._socket.send_multipart(parts)
            next(iter(ringer._sockets.values())).send_multipart(parts)
        client.send(b"last")
        asker._socket.send(b"last")
        heard: Any = None
        for _ in range(len(sent) + 1):
            heard = server.receive(LIMIT_MS / 1000)
        assert heard == ("infer-0", b"last")
        while replier._socket.poll(LIMIT_MS) and (heard := replier.receive() or heard) != b"last":
            pass
        replier.reply(b"done")
        assert asker._socket.poll(LIMIT_MS)
        bell.silence()


ALLOWED = "insecure: true"
ELSEWHERE = ("0.0.0.0", "10.0.0.7", "[::]", "cam.example")


@pytest.mark.parametrize(
    ("config", "port", "way_out"),
    [
        ("publish: [{{zmq: 'tcp://{host}:5556'{more}}}]", "publish[0].zmq", ALLOWED),
        ("publish: [{{zmq: 'tcp://{host}:5556'{more}}}]", "publish[0].zmq", "keys: folder"),
        ("publish: [{{zmq: 'tcp://lo:1', replay: 'tcp://{host}:5557'{more}}}]", "publish[0]", ALLOWED),
        ("sources: {{a: {{url: 'push+tcp://{host}:5570'{more}}}}}", "sources.a", ALLOWED),
        ("stages: {{infer: {{address: 'tcp://{host}:5601'{more}}}}}", "stages.infer", ALLOWED),
        ("metrics: {{listen: '{host}:9464'{more}}}", "metrics", ALLOWED),
    ],
)  # fmt: skip
def test_what_other_hosts_can_reach_takes_keys_or_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str, port: str, way_out: str
) -> None:
    path = tmp_path / "c.yaml"
    for host in ELSEWHERE:
        path.write_text(config.format(host=host, more=""))
        assert main(["validate", str(path)]) == 2
        said = capsys.readouterr().err
        assert "other hosts" in said
        assert port in said
        assert ALLOWED in said
        path.write_text(config.format(host=host, more=f", {way_out}"))
        assert main(["validate", str(path)]) == 0
    for host in ("127.0.0.1", "localhost", "[::1]"):
        path.write_text(config.format(host=host, more=""))
        assert main(["validate", str(path)]) == 0
    capsys.readouterr()


#: What makes code of data, or objects of any class.
EVIL = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}


def test_nothing_that_is_read_becomes_code() -> None:
    found: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            bad = set(names) & EVIL
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                bad |= {called} & CALLS
                words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
                    loader = words.get("Loader", ast.unparse(node.args[1]) if len(node.args) > 1 else "")
                    bad |= set() if "Safe" in loader or _is_safe(path, loader) else {called}
                bad |= {called} if words.get("allow_pickle", "False") != "False" else set()
                bad |= {called} if words.get("shell", "False") != "False" else set()
            found += [f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}" for name in sorted(bad)]  # type: ignore[attr-defined]
    assert not found


def _is_safe(path: Path, loader: str) -> bool:
    """Whether a loader is a class of that file that is made of a safe one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == loader:
            return any("Safe" in ast.unparse(base) for base in node.bases)
    return False
