"""A server of the chat-completions API that compares the two responses it is shown."""

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llmalign.rewards.judge import OpenAIJudge

Rule = Callable[[str, str, str], str | None]  # A, B, all the judge is shown -> what it says
SHOWN = re.compile(r"Response ([AB]), between two lines of (=\w+=):\n\2\n(.*?)\n\2", re.DOTALL)


def longer(a: str, b: str, asked: str) -> str:
    return "tie" if len(a) == len(b) else "AB"[len(a) < len(b)]


class Server(ThreadingHTTPServer):
    """Compares the two responses it is shown by ``rule``; None: it fails."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule: Rule = longer
        self.shown: list[tuple[str, str]] = []
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        found = {name: text for name, _, text in SHOWN.findall(asked)}
        self.server.asked.append(asked)
        self.server.shown.append((found["A"], found["B"]))
        said = self.server.rule(found["A"], found["B"], asked)
        content = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200 if said is not None else 500)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def judge(server: Server) -> OpenAIJudge:
    address = f"http://127.0.0.1:{server.server_port}/v1"
    return OpenAIJudge(model="m", base_url=address, backoff_s=0.0, retries=0)
