"""download.py against real servers on this machine: slow, silent, wrong, endless, interrupted."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets import download

BODY = bytes(range(256)) * 4000


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """Start a server on loopback that answers as told; gives its address. Silent ones are let go at the end."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/ml-100k.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.socket.close()


def head(request: BaseHTTPRequestHandler, length: int | None, status: int = 200) -> None:
    request.send_response(status)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


def test_a_whole_file_arrives(serve: Callable[..., str]) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        head(request, len(BODY))
        request.wfile.write(BODY)

    assert download.from_url(serve(answer), len(BODY)) == BODY


@pytest.mark.parametrize("bytes_a_second", [100, 100_000])
def test_a_slow_answer_is_waited_for_and_a_trickle_is_not(
    bytes_a_second: int, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(download, "SLOWEST", 10_000)
    body = b"x" * bytes_a_second

    def answer(request: BaseHTTPRequestHandler) -> None:
        head(request, len(body))
        for tenth in range(10):
            request.wfile.write(body[tenth::10])
            time.sleep(0.1)

    if bytes_a_second > download.SLOWEST:
        assert download.from_url(serve(answer), len(body)) == body
    else:
        with pytest.raises(OSError, match=r"no answer for 0\.5 s, or a trickle"):
            download.from_url(serve(answer), len(body))


@pytest.mark.parametrize("silence", ["before the head", "after the head", "in the body"])
def test_silence_costs_patience_and_no_more(
    silence: str, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    over = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if silence != "before the head":
            head(request, len(BODY))
        if silence == "in the body":
            request.wfile.write(BODY[:1000])
        over.wait(10)

    started = time.monotonic()
    with pytest.raises(OSError, match=r"no answer for 0\.5 s|timed out"):
        download.from_url(serve(answer), len(BODY))
    assert time.monotonic() - started < 3
    over.set()


def test_patience_is_below_ten_seconds() -> None:
    assert download.TIMEOUT < 10


def test_a_refusal_is_an_error(serve: Callable[..., str]) -> None:
    with pytest.raises(OSError, match="Forbidden"):
        download.from_url(serve(lambda request: head(request, 0, status=403)), len(BODY))
    with pytest.raises(OSError, match="closed connection"):
        download.from_url(serve(lambda _: None), len(BODY))


def test_a_truncated_answer_is_never_longer_than_what_came(serve: Callable[..., str]) -> None:
    """Whether a short body shows is up to the caller's check of what came."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        head(request, len(BODY))
        request.wfile.write(BODY[:5000])
        request.close_connection = True

    assert download.from_url(serve(answer), len(BODY)) == BODY[:5000]


def test_an_endless_answer_is_cut(serve: Callable[..., str]) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        head(request, None)
        while True:
            request.wfile.write(BODY)

    payload = download.from_url(serve(answer), 3 * len(BODY))
    assert 3 * len(BODY) < len(payload) <= 3 * len(BODY) + download.CHUNK


def test_no_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(OSError, match="refused"):
        download.from_url("http://127.0.0.1:9/ml-100k.zip", 10)
    with pytest.raises(OSError, match=r"\w"):
        download.from_url("http://no-such-host.invalid/ml-100k.zip", 10)


def only_index(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip know no other index, whatever this machine's settings are."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.long
def test_a_silent_package_index_costs_patience(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 3.0)
    over = threading.Event()
    only_index(serve(lambda _: over.wait(30) and None), monkeypatch)
    started = time.monotonic()
    with pytest.raises(OSError, match=r"no answer for 3 s|No matching distribution|timed out"):
        download.from_package_index("recbole==1.2.1", "x.whl", 100, "0" * 64)
    assert time.monotonic() - started < 9
    over.set()


def test_an_index_without_the_package_is_reported_in_pips_words(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_index(serve(lambda request: head(request, 0, status=404)), monkeypatch)
    with pytest.raises(OSError, match=r"No matching distribution found for recbole==1\.2\.1"):
        download.from_package_index("recbole==1.2.1", "x.whl", 100, "0" * 64)


def test_pip_is_asked_for_one_checked_wheel_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def popen(command: list[str], **_: object) -> None:
        wanted = next(option for option in command if option.startswith("--requirement="))
        asked.append([*command[1:], Path(wanted.partition("=")[2]).read_text()])
        raise OSError("not run")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(OSError, match="not run"):
        download.from_package_index("recbole==1.2.1", "x.whl", 100, "ab" * 32)
    (command,) = asked
    assert command[:3] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--retries=0"} <= set(command)
    assert command[-1] == f"recbole==1.2.1 --hash=sha256:{'ab' * 32}\n"
