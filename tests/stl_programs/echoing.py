"""A server that repeats all it was sent, and secrets in every spelling."""

from __future__ import annotations

import base64
import html
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, quote_plus, unquote


def spelled(secret: str) -> list[str]:
    """One secret as servers and libraries write it."""
    data, quoted = secret.encode(), quote(secret, safe="")
    return list(dict.fromkeys([
        secret, quoted, quoted.replace("%2F", "%2f").replace("%2B", "%2b"), quote(secret), quote_plus(secret),
        quote(quoted), unquote(secret), json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3],
        html.escape(secret), html.escape(html.escape(secret)), repr(secret)[1:-1], repr(data)[2:-1],
        base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode(), data.hex(), data.hex().upper()]))


class Echo(ThreadingHTTPServer):
    """Answers every POST with `status`; what it says begins with what it was sent."""

    daemon_threads = True

    def __init__(self, status: int, more: Sequence[str] = (), location: str | None = None):
        self.status, self.more, self.location = status, list(more), location
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Echo

    def do_GET(self) -> None:
        self._answer(self.server.status if self.server.location else 404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        sent = f"{self.path} {unquote(self.path)} {self.headers} {body}"
        self.server.requests.append(sent)
        basic = [base64.b64decode(value[6:]).decode() for value in self.headers.values() if value.startswith("Basic ")]
        if self.server.status != 200:
            said = " ".join([*self.server.more, *basic, sent])
            return self._answer(self.server.status, {"error": {"message": said, "type": "echo"}})
        text = "[[ ## rationale ## ]]\n" + " ".join([sent, *basic, *self.server.more]).replace("[[", "")
        text += "\n\n[[ ## score ## ]]\nlikely\n\n[[ ## completed ## ]]"
        tokens = [{"token": text[i:i + 3], "logprob": -0.1, "bytes": None, "top_logprobs": []}
                  for i in range(0, len(text), 3)]
        self._answer(200, {
            "id": "1", "object": "chat.completion", "created": 1, "model": "echo", "type": "message",
            "service_tier": "default",
            "role": "assistant", "stop_reason": "end_turn", "content": [{"type": "text", "text": text}],
            "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 10},
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": {"content": tokens}, "message": {
                "role": "assistant", "content": text, "reasoning_content": f"they sent {sent}"}}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10, "input_tokens": 5,
                      "output_tokens": 5}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def echo(status: int, more: Sequence[str] = (), location: str | None = None) -> Iterator[Echo]:
    with Echo(status, more, location) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
