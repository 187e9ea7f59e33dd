"""The judge against a real server of the chat-completions API that can misbehave."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmalign.rewards.judge import JudgeOptions, OpenAIJudge

Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers


def said(text: Any) -> Answer:
    body = {
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    return 200, json.dumps(body).encode(), {}


class Server(ThreadingHTTPServer):
    """Answers chats as ``behave(request body, attempt number)`` says; None hangs up."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Callable[[dict[str, Any], int], Answer | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.now = self.most = 0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            attempt = sum(known == body for known in server.requests)
            server.requests.append(body)
            server.headers.append(dict(self.headers))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            answer = server.behave(body, attempt) if self.path == "/v1/chat/completions" else None
        finally:
            with server.lock:
                server.now -= 1
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        status, content, headers = answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            pass  # the client, or we, hung up

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(behave: Callable[[dict[str, Any], int], Answer | None]) -> Server:
        server = Server(behave)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def judge(server: Server, **options: Any) -> OpenAIJudge:
    address = f"http://127.0.0.1:{server.server_port}/v1"
    return OpenAIJudge(model="m", base_url=address, **{"backoff_s": 0.01, **options})


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def echo(body: dict[str, Any], attempt: int) -> Answer:
    return said(f"re: {body['messages'][-1]['content']}")


def test_answers_come_back_in_order(serve: Any) -> None:
    with judge(serve(echo)) as asked:
        assert asked([chat("a"), chat("b"), chat("c")]) == ["re: a", "re: b", "re: c"]
        stats = asked.stats()
    assert (stats.asked, stats.answered, stats.failed, stats.retries) == (3, 3, 0, 0)
    assert (stats.prompt_tokens, stats.completion_tokens) == (9, 6)
    assert stats.seconds > 0


def test_the_options_and_the_key_are_sent(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    server = serve(echo)
    with judge(server, seed=7, max_tokens=5, temperature=0.3, api_key_env="MY_KEY") as asked:
        asked([chat("a")])
    sent = server.requests[0]
    assert sent == {
        "model": "m", "messages": chat("a"), "temperature": 0.3, "max_tokens": 5, "seed": 7,
    }  # fmt: skip
    assert server.headers[0]["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((429, b"slow down", {"Retry-After": "0.01"}), id="429"),
        pytest.param((500, b"oops", {}), id="500"),
        pytest.param((503, b"", {}), id="503"),
        pytest.param(None, id="a dropped connection"),
        pytest.param((200, b"<html>", {}), id="no JSON"),
        pytest.param((200, b'{"choices": []}', {}), id="no choice"),
        pytest.param((200, b"[1]", {}), id="no object"),
    ],
)
def test_a_passing_fault_is_tried_again(serve: Any, fault: Answer | None) -> None:
    server = serve(lambda body, attempt: fault if attempt < 2 else echo(body, attempt))
    with judge(server, retries=3) as asked:
        assert asked([chat("a")]) == ["re: a"]
        assert asked.stats().retries == 2
    assert len(server.requests) == 3


def test_a_lasting_fault_is_no_answer_and_is_asked_again_next_time(serve: Any) -> None:
    server = serve(lambda body, attempt: (500, b"broken", {}) if attempt < 3 else said("well"))
    with judge(server, retries=2) as asked:
        assert asked([chat("a")]) == [None]
        assert asked.stats().failed == 1
        assert "status 500: broken" in asked.stats().last_error
        assert asked([chat("a")]) == ["well"]


def test_a_slow_server_is_left_and_asked_again(serve: Any) -> None:
    awake = threading.Event()

    def behave(body: dict[str, Any], attempt: int) -> Answer:
        if attempt == 0:
            awake.wait(60)
        return echo(body, attempt)

    with judge(serve(behave), timeout_s=1.0) as asked:
        assert asked([chat("a")]) == ["re: a"]
        assert not awake.is_set() and asked.stats().retries >= 1
    awake.set()


def test_a_chat_the_server_does_not_take_fails_alone(serve: Any) -> None:
    def behave(body: dict[str, Any], attempt: int) -> Answer:
        long = len(body["messages"][0]["content"]) > 10
        return (400, b"too long", {}) if long else echo(body, attempt)

    server = serve(behave)
    with judge(server) as asked:
        assert asked([chat("a" * 11), chat("b")]) == [None, "re: b"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_is_an_error_that_says_what_to_check(
    serve: Any, status: int
) -> None:
    with judge(serve(lambda body, attempt: (status, b"no such model", {}))) as asked:
        with pytest.raises(RuntimeError, match=f"answers {status}: 'no such model'; check model"):
            asked([chat("a")])


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_an_empty_answer_is_none(serve: Any, content: str | None) -> None:
    with judge(serve(lambda body, attempt: said(content)), retries=0) as asked:
        assert asked([chat("a")]) == [None]


def test_no_more_requests_are_under_way_than_allowed(serve: Any) -> None:
    def behave(body: dict[str, Any], attempt: int) -> Answer:
        time.sleep(0.03)
        return echo(body, attempt)

    server = serve(behave)
    with judge(server, concurrency=3) as asked, ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(asked, [chat(f"{n}-{k}") for k in range(4)]) for n in range(4)]
        assert all(len(job.result()) == 4 for job in jobs)
    assert server.most == 3
    assert len(server.requests) == 16


def test_equal_chats_are_asked_for_once(serve: Any) -> None:
    server = serve(echo)
    with judge(server) as asked:
        assert asked([chat("a")] * 5) == ["re: a"] * 5
        assert asked([chat("a")]) == ["re: a"]
        assert (asked.stats().asked, asked.stats().cached) == (6, 5)
    assert len(server.requests) == 1


def test_answers_on_disk_outlive_the_judge_and_belong_to_their_question(
    serve: Any, tmp_path: Path
) -> None:
    server = serve(echo)
    folder = str(tmp_path / "cache")
    with judge(server, cache_dir=folder) as asked:
        asked([chat("a")])
    with judge(server, cache_dir=folder) as asked:
        assert asked([chat("a")]) == ["re: a"]
        assert asked.stats().cached == 1
    assert len(server.requests) == 1
    with judge(server, cache_dir=folder, temperature=0.5) as asked:
        asked([chat("a")])
    assert len(server.requests) == 2


def test_a_broken_file_on_disk_is_asked_again(serve: Any, tmp_path: Path) -> None:
    server = serve(echo)
    for broken in ('{"answer": "re', "[1]", '{"answer": 3}', ""):
        with judge(server, cache_dir=str(tmp_path)) as asked:
            assert asked([chat("a")]) == ["re: a"]
        (file,) = tmp_path.glob("*/*.json")
        assert json.loads(file.read_text()) == {"answer": "re: a"}
        file.write_text(broken)
    assert len(server.requests) == 4
    assert not list(tmp_path.glob("*/.*"))


def test_judges_that_share_a_folder_do_not_disturb_each_other(serve: Any, tmp_path: Path) -> None:
    server = serve(echo)
    chats = [chat(str(n)) for n in range(20)]

    def run(_: int) -> list[str | None]:
        with judge(server, cache_dir=str(tmp_path)) as asked:
            return asked(chats)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(run, range(4)))
    assert results == [[f"re: {n}" for n in range(20)]] * 4
    assert len(list(tmp_path.glob("*/*.json"))) == 20


def test_a_failed_answer_is_not_kept(serve: Any, tmp_path: Path) -> None:
    with judge(serve(lambda b, a: (500, b"", {})), retries=0, cache_dir=str(tmp_path)) as asked:
        assert asked([chat("a")]) == [None]
    assert not list(tmp_path.glob("*/*"))


def test_half_a_surrogate_pair_is_no_reason_to_fail(serve: Any) -> None:
    with judge(serve(echo)) as asked:
        assert asked([chat("a\ud800b")]) == ["re: a?b"]


def test_a_closed_judge_says_so_and_closing_ends_what_is_under_way(serve: Any) -> None:
    here, awake = threading.Event(), threading.Event()

    def behave(body: dict[str, Any], attempt: int) -> Answer:
        here.set()
        awake.wait(60)
        return echo(body, attempt)

    asked = judge(serve(behave))
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(asked, [chat("a")])
        here.wait(60)
        asked.close()
        assert job.exception(timeout=30) is not None  # the server has not answered yet
        awake.set()
    asked.close()
    with pytest.raises(RuntimeError, match="the judge is closed"):
        asked([chat("a")])


def test_an_honest_judge_passes_the_canary(serve: Any) -> None:
    server = serve(lambda body, attempt: said("No."))
    with judge(server) as asked:
        asked.canary()
    assert len(server.requests) == 40


def test_a_judge_that_one_word_fools_is_refused(serve: Any) -> None:
    def behave(body: dict[str, Any], attempt: int) -> Answer:
        fooled = "\nSolution\n" in body["messages"][-1]["content"]
        return said("Yes" if fooled else "No")

    with judge(serve(behave)) as asked:
        with pytest.raises(RuntimeError, match="calls 10.0% of empty responses right.*'Solution'"):
            asked.canary()


def test_a_judge_without_readable_verdicts_is_refused(serve: Any) -> None:
    with judge(serve(lambda body, attempt: said("It depends."))) as asked:
        with pytest.raises(RuntimeError, match="no readable verdict on 40 responses"):
            asked.canary()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ""}, "model is ''"),
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'"),
        ({"concurrency": 0}, "concurrency is 0, expected > 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0, expected > 0"),
        ({"retries": -1}, "retries is -1, expected >= 0"),
    ],
)
def test_options_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        JudgeOptions(**{"model": "m", **fields})
    assert message in str(raised.value)
