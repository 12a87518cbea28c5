"""Downloads from real servers on this machine that are slow, silent, wrong or endless."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from datasets import download

BODY = bytes(range(256)) * 4000


def head(request: BaseHTTPRequestHandler, length: int | None, status: int = 200) -> None:
    request.send_response(status)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


@pytest.mark.parametrize("sent", [len(BODY), 5000])
def test_a_whole_file_arrives_and_of_a_truncated_one_the_received_bytes(sent: int, serve: Callable[..., str]) -> None:
    """The caller checks the digest."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        head(request, len(BODY))
        request.wfile.write(BODY[:sent])
        request.close_connection = True

    assert download.from_url(serve(answer), len(BODY)) == BODY[:sent]


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
def test_a_silent_server_is_given_up_after_the_timeout(
    silence: str, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if silence != "before the head":
            head(request, len(BODY))
        if silence == "in the body":
            request.wfile.write(BODY[:1000])
        over.wait(10)

    assert download.TIMEOUT < 10
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    started = time.monotonic()
    with pytest.raises(OSError, match=r"no answer for 0\.5 s|timed out"):
        download.from_url(serve(answer), len(BODY))
    assert time.monotonic() - started < 3
    over.set()


def test_a_refusal_is_an_error(serve: Callable[..., str]) -> None:
    with pytest.raises(OSError, match="Forbidden"):
        download.from_url(serve(lambda request: head(request, 0, status=403)), len(BODY))
    with pytest.raises(OSError, match="closed connection"):
        download.from_url(serve(lambda _: None), len(BODY))


def test_an_endless_answer_is_cut_off(serve: Callable[..., str]) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        head(request, None)
        while True:
            request.wfile.write(BODY)

    payload = download.from_url(serve(answer), 3 * len(BODY))
    assert 3 * len(BODY) < len(payload) <= 3 * len(BODY) + download.CHUNK


def test_without_a_server_the_message_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(OSError, match="refused"):
        download.from_url("http://127.0.0.1:9/ml-100k.zip", 10)
    with pytest.raises(OSError, match=r"\w"):
        download.from_url("http://no-such-host.invalid/ml-100k.zip", 10)


def only_index(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip use this index only, independently of this machine's settings."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.long
def test_a_silent_package_index_is_given_up_after_the_timeout(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 3.0)
    over = threading.Event()
    only_index(serve(lambda _: over.wait(30) and None), monkeypatch)
    started = time.monotonic()
    with pytest.raises(OSError, match=r"no answer for 3 s|No matching distribution|timed out"):
        download.from_package_index("recbole==1.2.1", "x.whl", 100, "0" * 64)
    assert time.monotonic() - started < 9
    over.set()


def test_of_an_index_without_the_package_the_message_is_pips(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_index(serve(lambda request: head(request, 0, status=404)), monkeypatch)
    with pytest.raises(OSError, match=r"No matching distribution found for recbole==1\.2\.1"):
        download.from_package_index("recbole==1.2.1", "x.whl", 100, "0" * 64)


def test_pip_downloads_one_checked_wheel_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
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
