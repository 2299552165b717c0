"""What bounds a connection, over real sockets: the server of one worker in a thread, whose seconds the test counts."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import pytest

from nightloom.serving.api.guard import BIGGEST_BODY
from nightloom.serving.api.keys import Keys
from nightloom.serving.api.pace import FEWEST, STANDING
from nightloom.serving.app import create_app
from nightloom.serving.server import protocol
from nightloom.serving.server.protocol import BIGGEST_HEAD, IDLE, PART, SLOWEST
from nightloom.serving.server.sockets import age, bound
from nightloom.serving.server.worker import Worker
from nightloom.serving.settings import Settings
from tests.service_app import event, name_champion
from tests.waiting import HANGS_SECONDS, until

SECONDS = HANGS_SECONDS
ASK = b'{"user_id": "u1", "k": 3}'


class Connection:
    """A client's plain socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(b"".join(parts))

    def ask(self, path: str, body: bytes | None = None, *headers: bytes, method: str | None = None) -> None:
        """Send a request."""
        self.send(head(path, None if body is None else len(body), *headers, method=method), body or b"")

    def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        first, _, self._read = self._read.partition(b"\r\n\r\n")
        line, *lines = first.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        length = int(headers.get("content-length", 0)) if body else 0
        while len(self._read) < length:
            self._more()
        said, self._read = self._read[:length], self._read[length:]
        return int(line.split(" ")[1]), headers, said

    def is_over(self) -> bool:
        """Whether the server has closed; waits for it."""
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        found = self.socket.recv(1 << 16)
        assert found, f"the server has closed after {self._read!r}"
        self._read += found


def head(path: str, length: int | None = None, *headers: bytes, method: str | None = None) -> bytes:
    """A request without its body."""
    lines = [f"{method or ('GET' if length is None else 'POST')} {path} HTTP/1.1".encode(), b"host: shop", *headers]
    if length is not None:
        lines += [b"content-type: application/json", b"content-length: %d" % length]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Serving:
    """The server of one worker.

    Args:
        home: the service's folder, which names the champion.
        said: more settings.
    """

    def __init__(self, home: Path, **said: Any) -> None:
        self.app = create_app(Settings(home, home / "shop.db", **said), Keys({}))
        listener = bound("127.0.0.1", 0)
        self.port = int(listener.getsockname()[1])
        self._serving = get_context("spawn").Event()
        self.server = Worker(self.app, listener, self._serving)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._serving.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve()

        with asyncio.Runner(loop_factory=self.server.config.get_loop_factory()) as runner:
            runner.run(serve())

    def connect(self) -> Connection:
        """A connection that the server has taken."""
        found = Connection(self.port)
        found.ask("/healthz")
        assert found.answer()[0] == 200
        return found

    def wait(self, seconds: int) -> None:
        """Let so many seconds go by."""
        for _ in range(seconds):
            self.within(lambda: [connection.tick() for connection in self.server._connections()])

    def within(self, what: Callable[[], object]) -> None:
        """Do something in the server's thread."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (what(), done.set()))
        assert done.wait(SECONDS)

    def seconds(self) -> list[int]:
        """For how long each request that has not come whole has been waited for."""
        found = list[int]()
        self.within(lambda: found.extend(one._ticks for one in self.server._connections() if one._in_message))
        return found

    def until(self, right: Callable[[], bool]) -> None:
        """Wait until the server has read something."""
        until(right, 0)


@pytest.fixture(scope="module")
def serving(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("server")
    name_champion(home, made)
    with Serving(home) as found:
        yield found


def test_connections_are_kept_and_answers_come_in_order(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/recommend", len(ASK)), ASK, head("/version"), head("/nothing"), head("/recommend", len(ASK)), ASK)
        found = [client.answer() for _ in range(4)]
        assert [status for status, _, _ in found] == [200, 200, 404, 200]
        assert [len(json.loads(body)["items"]) for _, _, body in (found[0], found[3])] == [3, 3]
        client.ask("/healthz", None, b"connection: close")
        assert client.answer()[1]["connection"] == "close"
        assert client.is_over()
    with Connection(serving.port) as old:
        old.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert old.answer()[0] == 200
        assert old.is_over()


def test_a_head_that_comes_slowly_is_refused_in_time(serving: Serving) -> None:
    with serving.connect() as client, serving.connect() as other:
        client.send(b"G")
        serving.until(lambda: serving.seconds() == [0])
        for part in (b"ET", b" /he", b"althz"):  # none of them is a new beginning
            serving.wait(3)
            client.send(part)
        serving.wait(SLOWEST - 9)
        assert serving.seconds() == [SLOWEST]
        other.ask("/healthz")
        assert other.answer()[0] == 200
        serving.wait(1)
        status, headers, body = client.answer()
        assert (status, headers["content-type"], headers["connection"]) == (408, "application/problem+json", "close")
        assert json.loads(body)["status"] == 408
        assert client.is_over()


def test_a_body_that_comes_slowly_takes_no_place_and_is_refused_in_time(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/recommend", len(ASK)), ASK[:5])
        serving.until(lambda: serving.seconds() == [0])
        assert serving.app.admission._now == 0
        serving.wait(SLOWEST)
        client.send(ASK[5:])
        assert client.answer()[0] == 200, "it was in time"
        client.send(head("/recommend", len(ASK)), ASK[:5])
        serving.until(lambda: serving.seconds() == [0])
        serving.wait(SLOWEST + 1)
        assert client.answer()[0] == 408
        assert client.is_over()


def test_a_large_body_that_comes_slowly_gives_its_place_back(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/events", BIGGEST_BODY), b"[" + b" " * (100 << 10))
        serving.until(lambda: serving.app.admission._now == 1)
        serving.wait(SLOWEST - 2)
        client.send(b" " * PART)
        serving.until(lambda: serving.seconds() == [0])
        serving.wait(SLOWEST + 1)
        assert client.answer()[0] == 408
        assert client.is_over()
    serving.until(lambda: not serving.app.admission._now)


def test_events_in_bulk_may_come_as_slowly_as_one_part_in_ten_seconds(serving: Serving) -> None:
    lines = [json.dumps(event(f"slow{number}", "u1", "i1")).encode() + b"\n" for number in range(4)]
    with serving.connect() as client:
        client.send(
            head("/bulk/events", None, b"content-type: application/x-ndjson", b"content-length: %d" % sum(map(len, lines)), method="POST")
        )
        for line in lines[:-1]:
            client.send(line)
            serving.until(lambda: serving.seconds() == [0])
            serving.wait(SLOWEST - 1)
        client.send(lines[-1])
        status, _, body = client.answer()
        assert (status, json.loads(body)["stored"]) == (200, 4)


def test_events_in_bulk_that_come_slower_are_refused(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with serving.connect() as client:
        client.send(head("/bulk/events", None, b"content-type: application/x-ndjson", b"content-length: 999", method="POST"), b"{")
        serving.until(lambda: serving.app.admission._now == 1)
        serving.until(lambda: serving.seconds() == [0])
        serving.wait(SLOWEST + 1)
        assert client.answer()[0] == 408
        assert client.is_over()
    serving.until(lambda: not serving.app.admission._now)
    assert serving.app.metrics.requests['method="POST",path="/bulk/events",status="408"'] == 1
    assert "Traceback" not in caplog.text


def test_who_asks_nothing_is_let_go_after_half_a_minute(serving: Serving) -> None:
    with Connection(serving.port) as silent, serving.connect() as client:
        serving.wait(IDLE - 1)
        client.send(b"\r\n")  # which is no request
        client.ask("/healthz")
        assert client.answer()[0] == 200
        serving.wait(2)
        assert silent.is_over()
        client.ask("/healthz")
        assert client.answer()[0] == 200


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_large_heads_are_refused(serving: Serving, end: bytes) -> None:
    with serving.connect() as client:
        client.send(head("/healthz", None, b"x-large: " + b"x" * (BIGGEST_HEAD + 1000)))
        assert client.answer()[0] == 431
    with serving.connect() as client:
        client.send(b"GET /healthz HTTP/1.1\r\nhost: shop\r\nx-large: ", b"x" * 100)
        serving.until(lambda: serving.seconds() == [0])
        client.send(b"x" * (BIGGEST_HEAD + 1000), end)
        status, headers, _ = client.answer()
        assert (status, headers["content-type"]) == (431, "application/problem+json")
        assert client.is_over()
    with serving.connect() as client:
        client.ask("/healthz", None, b"x-large: " + b"x" * (BIGGEST_HEAD - 1000))
        assert client.answer()[0] == 200


def test_a_large_body_is_no_large_head(serving: Serving) -> None:
    with serving.connect() as client:
        client.ask("/recommend", ASK + b" " * 2 * BIGGEST_HEAD)
        assert client.answer()[0] == 200


def test_who_reads_nothing_is_let_go(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/openapi.json") * 400)  # some 20 MB of answers
        serving.until(lambda: any(one.flow.write_paused for one in serving.server._connections()))
        serving.wait(IDLE + 1)
        serving.until(lambda: not any(one.flow.write_paused for one in serving.server._connections()))


def test_what_is_no_http_is_refused(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(b"HELLO shop\r\n\r\n")
        status, headers, _ = client.answer()
        assert (status, headers["content-type"], headers["x-content-type-options"]) == (400, "application/problem+json", "nosniff")
        assert client.is_over()


def test_a_client_may_ask_before_it_sends_its_body(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/recommend", len(ASK), b"expect: 100-continue"))
        assert client.answer()[0] == 100
        client.send(ASK)
        assert client.answer()[0] == 200


def test_another_protocol_is_not_changed_over_to(serving: Serving) -> None:
    """As Java's client asks of every service, with its first request."""
    asked = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk")
    with serving.connect() as client:
        client.ask("/version", None, *asked)
        assert client.answer()[0] == 200
        client.ask("/recommend", ASK, *asked)
        status, _, body = client.answer()
        assert (status, len(json.loads(body)["items"])) == (200, 3), "the body is the request's"
        client.send(head("/recommend", len(ASK), *asked))
        serving.until(lambda: serving.seconds() == [0])
        client.send(ASK, head("/version"))
        assert [client.answer()[0] for _ in range(2)] == [200, 200]
        client.send(head("/version", None, *asked) * 2_000)
        assert {client.answer()[0] for _ in range(2_000)} == {200}
        client.ask("/version", None, b"connection: upgrade, close", b"upgrade: h2c")
        assert client.answer()[1]["connection"] == "close"
        assert client.is_over()
    with serving.connect() as client:
        client.send(b"CONNECT shop:443 HTTP/1.1\r\nhost: shop:443\r\n\r\n")
        assert client.answer()[0] == 400


def test_what_came_before_a_fault_is_answered_first(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    good = head("/recommend", len(ASK)) + ASK
    for bad, refused in (
        (b"HELLO shop\r\n\r\n", 400),
        (head("/healthz", None, b"x-large: " + b"x" * 2 * BIGGEST_HEAD), 431),
        (head("/healthz?" + "x" * 70_000), 414),
        (head("/recommend", None, b"transfer-encoding: chunked", method="POST") + b"5\r\nabcdefgh\r\n", 400),
    ):
        with serving.connect() as client:
            client.send(good * 3, bad)
            assert [client.answer()[0] for _ in range(4)] == [200, 200, 200, refused]
            assert client.is_over()
    serving.until(lambda: not serving.app.admission._now)
    assert "Traceback" not in caplog.text


def test_who_sends_nothing_more_is_answered(serving: Serving) -> None:
    bodies = [json.dumps({"events": [event(f"half{number}", "u1", "i1")]}).encode() for number in range(3)]
    with serving.connect() as client:
        client.send(*(head("/events", len(body)) + body for body in bodies), head("/events", 99), b"{")
        client.socket.shutdown(socket.SHUT_WR)
        assert [json.loads(client.answer()[2])["stored"] for _ in bodies] == [1, 1, 1]
        assert client.is_over(), "the last one did not come whole"
    with serving.connect() as client:
        client.send(head("/events", 99), b"{")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_over()


def test_requests_are_read_as_fast_as_they_are_answered(serving: Serving) -> None:
    piece = head("/healthz") * 5_000
    sizes, sent = [], 4
    with serving.connect() as client:
        sender = threading.Thread(target=lambda: [client.send(piece) for _ in range(sent)])
        sender.start()
        for number in range(sent * 5_000):
            assert client.answer()[0] == 200
            if number % 500 == 0:
                serving.within(lambda: sizes.append(max(len(one.pipeline) for one in serving.server._connections())))
        sender.join(SECONDS)
    assert 0 < max(sizes) < 10_000, "what the system hands over at a time"


@pytest.mark.parametrize("piece", [b"a: b\r\n", b"b"])
def test_what_stands_behind_a_body_is_no_head_and_has_its_bounds(serving: Serving, piece: bytes) -> None:
    begin = head("/recommend", None, b"content-type: application/json", b"transfer-encoding: chunked", method="POST")
    begin += b"%x\r\n%s\r\n0\r\nx-request-id: mine\r\n" % (len(ASK), ASK)
    with serving.connect() as client:
        client.send(begin, b"\r\n")
        status, headers, _ = client.answer()
        assert (status, headers["x-request-id"] == "mine") == (200, False)
        client.send(begin, b"a: ", piece * (2 * BIGGEST_HEAD // len(piece)))
        assert client.answer()[0] == 431


def test_who_does_not_read_takes_no_place(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/openapi.json") * 400)
        serving.until(lambda: any(one._unread for one in serving.server._connections()))
        assert serving.app.admission._now == 0
        assert {client.answer()[0] for _ in range(400)} == {200}


def test_who_waits_with_a_body_takes_no_place(serving: Serving) -> None:
    with serving.connect() as client:
        client.send(head("/recommend", len(ASK), b"expect: 100-continue"))
        assert client.answer()[0] == 100
        assert serving.app.admission._now == 0
        client.send(ASK)
        assert client.answer()[0] == 200
    with serving.connect() as client:  # what is refused anyway is not waited for
        client.send(head("/events", 2 * BIGGEST_BODY, b"expect: 100-continue"))
        assert client.answer()[0] == 413


def test_who_is_refused_by_the_server_is_told_a_request_id_and_counted(serving: Serving) -> None:
    name = 'method="",path="other",status="400"'
    before = serving.app.metrics.requests[name]
    with serving.connect() as client:
        client.send(b"HELLO shop\r\n\r\n")
        assert client.answer()[1]["x-request-id"]
    assert serving.app.metrics.requests[name] == before + 1


def test_a_crowd_is_told_to_come_back_before_it_is_read(home: Path) -> None:
    with Serving(home, at_once=4) as serving, ExitStack() as open_ones:
        clients = [open_ones.enter_context(serving.connect()) for _ in range(20)]
        come, go_on = threading.Event(), threading.Event()
        serving.loop.call_soon_threadsafe(lambda: (come.set(), go_on.wait(SECONDS)))  # they all send while the worker stands still
        assert come.wait(SECONDS)
        for number, client in enumerate(clients):
            body = json.dumps({"events": [event(f"e{number}", "u1", "i1")]}).encode()
            client.ask("/events", body, b"x-request-id: mine-%d" % number)
        go_on.set()
        found = [client.answer() for client in clients]
        statuses = [status for status, _, _ in found]
        assert (statuses.count(200), statuses.count(429)) == (4, 16)
        for number, (status, headers, body) in enumerate(found):
            assert headers["x-request-id"] == f"mine-{number}"
            if status == 429:
                assert (headers["retry-after"], headers["content-type"]) == ("1", "application/problem+json")
                assert json.loads(body)["status"] == 429
        for client in clients:  # the connections are kept
            client.ask("/users/u1?limit=5")
            assert client.answer()[0] == 200
        clients[0].ask("/metrics")
        assert "nightloom_rejected_total 16" in clients[0].answer()[2].decode()


def test_of_a_crowd_those_are_answered_who_came_last(home: Path) -> None:
    """Whoever came first has waited for as long as the worker stood still."""
    with Serving(home, at_once=4) as serving, ExitStack() as open_ones:
        clients = [open_ones.enter_context(serving.connect()) for _ in range(20)]
        come, go_on = threading.Event(), threading.Event()
        serving.loop.call_soon_threadsafe(lambda: (come.set(), go_on.wait(SECONDS)))
        assert come.wait(SECONDS)
        for client in clients[:-1]:
            client.ask("/recommend", ASK)
        clients[0].socket.close()  # who has gone is turned away like the others
        clients[-1].send(head("/recommend", len(ASK)), ASK, head("/healthz"))  # what comes behind it is answered after it
        go_on.set()
        assert [client.answer()[0] for client in clients[1:]] == [429] * 15 + [200] * 4
        assert clients[-1].answer()[0] == 200
        assert not serving.app.admission.waiting
        for client in clients[1:]:
            client.ask("/recommend", ASK)
            assert client.answer()[0] == 200


def stand_still(serving: Serving, ask: Callable[[], object]) -> None:
    """Have clients ask while the worker stands still: it reads all of it at once then."""
    come, go_on = threading.Event(), threading.Event()
    serving.loop.call_soon_threadsafe(lambda: (come.set(), go_on.wait(SECONDS)))
    assert come.wait(SECONDS)
    ask()
    go_on.set()


def test_who_has_not_sent_a_body_takes_no_place_of_one_who_has(home: Path) -> None:
    with Serving(home, at_once=1) as serving, serving.connect() as whole, serving.connect() as slow:
        asks = head("/recommend", len(ASK), b"expect: 100-continue")
        stand_still(serving, lambda: (whole.ask("/recommend", ASK), slow.send(asks)))
        assert slow.answer()[0] == 429
        assert whole.answer()[0] == 200
        assert serving.app.admission._now == 0


def test_who_is_refused_while_a_request_of_theirs_waits_is_nobody_else_s_fault(home: Path) -> None:
    """Of a large body the beginning is handed on, and what comes then may be no HTTP."""
    chunked = head("/recommend", None, b"content-type: application/json", b"transfer-encoding: chunked", method="POST")
    with Serving(home, at_once=1) as serving, serving.connect() as faulty, serving.connect() as other:
        most, rest = b" " * (60 << 10), b" " * (10 << 10)
        faulty.send(chunked, b"%x\r\n" % len(most + rest), most)
        serving.until(lambda: any(one._whole and len(one._whole.body) == len(most) for one in serving.server._connections()))
        stand_still(serving, lambda: (faulty.send(rest, b"\r\nno size\r\n"), other.ask("/recommend", ASK)))
        assert faulty.answer()[0] == 400
        assert faulty.is_over()
        assert other.answer()[0] == 200
        other.ask("/recommend", ASK)
        assert other.answer()[0] == 200
        assert not serving.app.admission.waiting


def test_who_sends_many_requests_at_once_makes_others_wait_for_one_of_them(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They came together: none of them is newer than what others ask meanwhile."""
    many = 30
    with Serving(home) as serving, serving.connect() as client, serving.connect() as greedy:
        caplog.set_level("INFO", "nightloom.access")
        each = (head("/recommend", len(ASK), b"x-request-id: greedy-%d" % number) + ASK for number in range(many))
        stand_still(serving, lambda: (client.ask("/recommend", ASK, b"x-request-id: one"), greedy.send(*each)))
        assert client.answer()[0] == 200
        assert [greedy.answer()[0] for _ in range(many)] == [200] * many
        answered = [json.loads(record.message)["id"] for record in caplog.records if record.name == "nightloom.access"]
        assert answered.index("one") <= 1


def test_who_goes_while_a_request_of_theirs_waits_leaves_no_trace(home: Path) -> None:
    """The system says nothing of a socket that is closed."""
    with Serving(home) as serving, ExitStack() as open_ones:
        clients = [open_ones.enter_context(serving.connect()) for _ in range(FEWEST)]
        whole = head("/recommend", len(ASK)) + ASK

        def come_and_go() -> None:
            serving.app.admission.pace._calm -= 2 * STANDING  # a crowd stays
            serving.app.admission.pace.seconds = SECONDS  # and nobody is late
            for number, connection in enumerate(serving.server._connections()):
                connection.data_received(whole)
                if not number:
                    connection.transport.abort()

        serving.within(come_and_go)
        found = list[int]()
        for client in clients:
            try:
                found.append(client.answer()[0])
            except (AssertionError, ConnectionResetError):
                assert client.is_over()
        assert found == [200] * (FEWEST - 1)
        admission = serving.app.admission
        assert (admission._now, admission.pace.now, len(admission.waiting)) == (0, 0, 0)


def test_how_long_ago_a_request_came_is_the_system_s_to_say() -> None:
    """Also where the worker has not looked at it yet, and where it has."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Connection(listener.getsockname()[1]) as client:
        taken, _ = listener.accept()
        with taken:
            client.send(b"a")
            time.sleep(0.1)
            assert 0.05 < age(taken) < SECONDS
            taken.recv(1)
            assert age(taken) > 0.05
            began = time.monotonic()
            client.send(b"b")
            taken.recv(1)
            assert age(taken) <= time.monotonic() - began + 0.01, "but for a step of the system's clock"


def test_where_nothing_is_taken_health_is_still_told_and_bodies_are_passed_over(home: Path) -> None:
    with Serving(home) as serving, serving.connect() as client:
        serving.app.admission._at_once = 0
        client.send(head("/recommend", len(ASK)), ASK[:5])
        serving.until(lambda: serving.seconds() == [0])
        client.send(ASK[5:], head("/recommend", len(ASK)), ASK)
        assert [client.answer()[0] for _ in range(2)] == [429, 429]
        client.ask("/items", None, method="HEAD")
        assert client.answer(body=False)[0] == 429
        client.send(head("/items") * 2_000)
        assert {client.answer()[0] for _ in range(2_000)} == {429}
        client.ask("/healthz")
        assert client.answer()[0] == 200


def test_more_connections_than_a_worker_holds_are_told_to_come_back(home: Path) -> None:
    with Serving(home, connections=3) as serving, ExitStack() as open_ones:
        clients = [open_ones.enter_context(serving.connect()) for _ in range(3)]
        with Connection(serving.port) as one_more:
            status, headers, _ = one_more.answer()
            assert (status, headers["retry-after"], headers["connection"]) == (429, "1", "close")
            assert one_more.is_over()
        clients.pop().socket.close()
        serving.until(lambda: len(serving.server.server_state.connections) < 3)
        clients.append(open_ones.enter_context(serving.connect()))
        for client in clients:
            client.ask("/healthz")
            assert client.answer()[0] == 200


def test_who_has_asked_before_the_end_is_answered(home: Path) -> None:
    with Serving(home) as serving, serving.connect() as idle, serving.connect() as client:
        come, go_on = threading.Event(), threading.Event()
        serving.loop.call_soon_threadsafe(lambda: (come.set(), go_on.wait(SECONDS)))
        assert come.wait(SECONDS)
        serving.server.should_exit = True
        client.ask("/recommend", ASK)
        new = Connection(serving.port)
        new.ask("/recommend", ASK)
        go_on.set()
        assert client.answer()[0] == 200
        with new:
            assert new.answer()[0] == 200
        assert client.is_over()
        assert idle.is_over()


def test_a_body_that_comes_slowly_is_refused_in_time_while_the_worker_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SLOWEST", 1)
    with Serving(home) as serving, serving.connect() as client:
        client.send(head("/recommend", len(ASK)), ASK[:5])
        serving.until(lambda: len(serving.seconds()) == 1)
        serving.server.should_exit = True
        assert client.answer()[0] == 408
        assert client.is_over()
