"""A judge behind the chat-completions API: many chats at once, retried, remembered, counted.

``OpenAIJudge`` speaks to any server of that API (OpenAI's, vLLM's, llama.cpp's). What its
answers mean is read in ``judging``.
"""

import asyncio
import json
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

from llmalign.rewards.base import Message
from llmalign.rewards.judging import canary, correctness_chat, read_yes

Chat = Sequence[Message]

_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_REFUSED = {401, 403, 404, 405}  # asking again, or asking something else, changes nothing
_LONGEST_WAIT_S = 60.0
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_MAX_KNOWN = 100_000  # answers kept in memory


@dataclass(frozen=True)
class JudgeStats:
    """What a judge did since it was opened.

    ``asked`` counts chats, ``cached`` those answered from memory or disk (equal chats under way
    included), ``answered`` those the server answered, ``failed`` those it did not in the end;
    ``retries`` counts further attempts; ``seconds`` adds up the wall time of requests;
    ``last_error`` is the last thing that went wrong.
    """

    asked: int = 0
    cached: int = 0
    answered: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Where a judge is, what it is asked for, and how patiently.

    Args:
        model: the model's name, as the server knows it.
        base_url: the API's address, up to and with ``/v1``.
        api_key_env: the environment variable that holds the key; unset: no key is sent.
        temperature, max_tokens, seed: of the answer; a seed of null is not sent.
        concurrency: requests under way at once, > 0.
        timeout_s: time one request may take, in seconds, > 0.
        retries: further attempts after a time-out, a broken connection, or an error of the server
            (408, 409, 425, 429 or 5xx), >= 0.
        backoff_s: wait before the first of them, doubled before each next, plus up to half at
            random; a ``Retry-After`` of the server goes first. At most a minute.
        cache_dir: folder of remembered answers, safe to share between processes; empty: answers
            are remembered in memory only.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int | None = None
    concurrency: int = 16
    timeout_s: float = 60.0
    retries: int = 5
    backoff_s: float = 0.5
    cache_dir: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is '', expected the name of a model the server knows")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {self.base_url[:80]!r}, expected http://… or https://…")
        positive = ("max_tokens", "concurrency", "timeout_s")
        for name in (*positive, "retries", "backoff_s", "temperature"):
            value = getattr(self, name)
            if value < 0 or (name in positive and not value):
                expected = "> 0" if name in positive else ">= 0"
                raise ValueError(f"{name} is {value}, expected {expected}")


class OpenAIJudge:
    """A judge behind the chat-completions API. Safe to use from any thread.

    Equal chats get the same answer, asked for once. A chat without an answer after all retries,
    or with an empty one, gives None and is asked again next time.

    Args:
        options: where the judge is and how it is asked; or its fields by name.
    Raises:
        RuntimeError: httpx is not installed.
    """

    def __init__(self, options: JudgeOptions | None = None, **fields: Any) -> None:
        try:
            import httpx
        except ImportError as error:
            raise RuntimeError("the judge needs httpx; pip install 'llmalign[judge]'") from error
        self.options = JudgeOptions(**fields) if options is None else options
        self._stats = JudgeStats()
        self._lock = threading.Lock()
        self._known: dict[str, Future[str | None]] = {}
        self._disk = _Disk(Path(self.options.cache_dir)) if self.options.cache_dir else None
        key = os.environ.get(self.options.api_key_env, "")
        self._client = httpx.AsyncClient(
            base_url=self.options.base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.options.timeout_s,
            verify=self.options.base_url.startswith("https:"),  # certificates take 0.1 s to load
            limits=httpx.Limits(max_connections=self.options.concurrency),
        )
        self._errors = (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects)
        self._loop = asyncio.new_event_loop()
        self._gate = asyncio.Semaphore(self.options.concurrency)
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="judge")
        self._thread.start()

    def __call__(self, chats: Sequence[Chat]) -> list[str | None]:
        """One answer per chat, in order; None where there is none.

        Raises:
            RuntimeError: the server refuses all requests (key, address or model), or the judge is
                closed.
        """
        futures = [self._ask(chat) for chat in chats]
        return [future.result() for future in futures]

    def stats(self) -> JudgeStats:
        """Counts since the judge was opened."""
        with self._lock:
            return self._stats

    def canary(self) -> None:
        """Raises RuntimeError where the judge calls responses without content right."""
        canary(self.grade, name=f"judge {self.options.model!r}")

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Whether each response answers its question rightly: 1, 0 or None for no verdict."""
        answers = self([correctness_chat(question, response) for question, response in pairs])
        return [read_yes(answer) for answer in answers]

    def close(self) -> None:
        """Ends requests under way and the thread that makes them."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "OpenAIJudge":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the caller's side ------------------------------------------------------------------------

    def _ask(self, chat: Chat) -> "Future[str | None]":
        body = self._body(chat)
        spelled = json.dumps([self.options.base_url, body], sort_keys=True)
        key = blake2b(spelled.encode(errors="surrogatepass"), digest_size=20).hexdigest()
        with self._lock:
            if self._closed:
                raise RuntimeError("the judge is closed; open a new one")
            self._stats = replace(self._stats, asked=self._stats.asked + 1)
            if known := self._known.get(key):
                self._stats = replace(self._stats, cached=self._stats.cached + 1)
                return known
            while len(self._known) >= _MAX_KNOWN:
                self._known.pop(next(iter(self._known)))
            future = self._known[key] = self._start(self._answer(key, body))
        future.add_done_callback(lambda done: self._forget_failure(key, done))
        return future

    def _start(self, work: Coroutine[Any, Any, str | None]) -> "Future[str | None]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _forget_failure(self, key: str, done: "Future[str | None]") -> None:
        if done.cancelled() or done.exception() is not None or done.result() is None:
            with self._lock:
                self._known.pop(key, None)

    def _body(self, chat: Chat) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.options.model,
            "messages": [_sendable(message) for message in chat],
            "temperature": self.options.temperature,
            "max_tokens": self.options.max_tokens,
        }
        return body if self.options.seed is None else body | {"seed": self.options.seed}

    # -- the loop's side --------------------------------------------------------------------------

    async def _answer(self, key: str, body: dict[str, Any]) -> str | None:
        if self._disk and (kept := self._disk.get(key)) is not None:
            self._count(cached=1)
            return kept
        async with self._gate:
            answer = await self._persist(body)
        self._count(**{"failed" if answer is None else "answered": 1})
        if self._disk and answer is not None:
            self._disk.put(key, answer)
        return answer

    async def _persist(self, body: dict[str, Any]) -> str | None:
        """Asks until there is an answer, or no more attempt."""
        for attempt in range(self.options.retries + 1):
            wait_s = self.options.backoff_s * 2**attempt * random.uniform(1.0, 1.5)
            response = await self._post(body)
            if response is not None:
                status = response.status_code
                if status in _REFUSED:
                    raise RuntimeError(_refusal(self.options, status, response.text))
                if status < 400 and (found := self._read(response)) is not None:
                    return found or None
                self._fault(f"status {status}: {response.text[:200]}")
                if status >= 400 and status not in _RETRIED:
                    return None
                wait_s = _retry_after(response.headers.get("retry-after", ""), wait_s)
            if attempt < self.options.retries:
                self._count(retries=1)
                await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
        return None

    async def _post(self, body: dict[str, Any]) -> Any:
        """The server's response, None where none came in time."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await self._client.post("chat/completions", json=body)
        except (*self._errors, TimeoutError) as error:
            self._fault(f"{type(error).__name__}: {error}")
            return None
        finally:
            self._count(seconds=time.perf_counter() - began)

    def _fault(self, why: str) -> None:
        with self._lock:
            self._stats = replace(self._stats, last_error=why)

    def _read(self, response: Any) -> str | None:
        """The text of a server's answer; None where it does not speak the API."""
        try:
            found = response.json()
            text = found["choices"][0]["message"]["content"]
            usage = found.get("usage") or {}
            counts = {n: int(usage.get(n) or 0) for n in ("prompt_tokens", "completion_tokens")}
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        self._count(**counts)
        return text.strip() if isinstance(text, str) else ""

    def _count(self, **more: float) -> None:
        with self._lock:
            now = {name: getattr(self._stats, name) + value for name, value in more.items()}
            self._stats = replace(self._stats, **now)

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()


class _Disk:
    """Answers by key, one file each. A file appears whole or not at all, and a broken one counts
    as none, so that any number of processes can share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()

    def get(self, key: str) -> str | None:
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
            return found["answer"] if isinstance(found["answer"], str) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def put(self, key: str, answer: str) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".", delete=False
        ) as file:
            json.dump({"answer": answer}, file)
        os.replace(file.name, path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def _sendable(message: Message) -> dict[str, str]:
    """A message without halves of surrogate pairs, which no JSON over the wire can hold."""
    return {name: text.encode("utf-8", errors="replace").decode() for name, text in message.items()}


def _refusal(options: JudgeOptions, status: int, text: str) -> str:
    hint = f"check model, base_url and the key in {options.api_key_env}"
    return f"judge {options.model!r} at {options.base_url} answers {status}: {text[:200]!r}; {hint}"


def _retry_after(header: str, otherwise_s: float) -> float:
    return float(header) if _SECONDS.fullmatch(header) else otherwise_s
