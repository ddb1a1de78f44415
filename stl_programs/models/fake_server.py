"""A fake: an OpenAI-compatible HTTP server whose replies come from a Python function instead of a language model.

It stands in for a served model in tests and examples. It binds to loopback only.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stl_programs.environments.game24 import format_numbers, moves, parse_numbers

Reply = Callable[[list[dict[str, Any]], str, int], str]
"""(messages, model, seed) -> text. A function of its arguments alone, so that replies repeat."""


class FakeServer:
    """Serves `reply` under the names `models` on 127.0.0.1; adapters can be loaded as on vLLM.

    `requests` and the token counts are the server's own account, to hold a client's bill against.

    Example:
        >>> with FakeServer(game24_script, ["tiny"]) as server:
        ...     lm = dspy.LM("hosted_vllm/tiny", api_base=server.url)
    """

    def __init__(self, reply: Reply, models: list[str]):
        self.reply, self.models = reply, list(models)
        self.requests: list[dict[str, Any]] = []
        self.prompt_tokens = self.completion_tokens = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one chat completion. Tokens are counted as words."""
        if body["model"] not in self.models:
            return 404, {"error": {"message": f"no model {body['model']!r}", "code": 404}}
        seed = body.get("seed") or 0
        texts = [self.reply(body["messages"], body["model"], seed + i) for i in range(body.get("n") or 1)]
        prompt = sum(len(message["content"].split()) for message in body["messages"])
        completion = sum(len(text.split()) for text in texts)
        with self._lock:
            self.requests.append(body)
            self.prompt_tokens += prompt
            self.completion_tokens += completion
        return 200, {
            "id": "fake", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                        for i, text in enumerate(texts)],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}}

    def load_adapter(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if body["lora_name"] in self.models:
                return 400, {"error": {"message": f"{body['lora_name']} has already been loaded"}}
            self.models.append(body["lora_name"])
        return 200, {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = self.path == "/v1/models"
                self.send(200 if found else 404, {"data": [{"id": name} for name in server.models]} if found else {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                routes = {"/v1/chat/completions": server.answer, "/v1/load_lora_adapter": server.load_adapter}
                route = routes.get(self.path)
                self.send(*(route(body) if route else (404, {})))

            def send(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        return Handler


def game24_script(messages: list[dict[str, Any]], model: str, seed: int) -> str:
    """Plays Game of 24 without a language model: random legal moves, and judgements by one random play-out.

    Answers the stock chat format for moves and base judgements, and the paper's sentences for a tuned value.
    """
    prompt = messages[-1]["content"]
    found = re.findall(r"(?:\[\[ ## state ## \]\]|State:)\s*([-0-9/ ]+)", prompt)
    numbers = parse_numbers(found[-1])
    rng = random.Random(f"{seed}/{found[-1]}")
    if "[[ ## actions ## ]]" in prompt or any("[[ ## actions ## ]]" in m["content"] for m in messages):
        options = [text for text, _ in moves(numbers)]
        picked = rng.sample(options, min(8, len(options)))
        return f"[[ ## actions ## ]]\n{json.dumps(picked)}\n\n[[ ## completed ## ]]"
    steps = []
    while len(numbers) > 1 and moves(numbers):
        move, numbers = rng.choice(moves(numbers))
        steps.append((move, format_numbers(numbers)))
    score = "sure" if numbers == parse_numbers("24") else "impossible"
    chain = [f"{move} -> {after}" for move, after in steps]
    if "[[ ## score ## ]]" in prompt or any("[[ ## score ## ]]" in m["content"] for m in messages):
        return (f"[[ ## rationale ## ]]\n{' . '.join([*chain, 'end'])}\n\n[[ ## score ## ]]\n{score}\n\n"
                "[[ ## completed ## ]]")
    if not steps:
        return f"I will evaluate the terminal state:\nReflection of the Terminal State: end\n" \
               f"Thus the correctness score is {score}."
    return ("I will evaluate the best successor state from the current state:\n"
            f"Best Next Action: {steps[0][0]}\nObservation of Best Successor State: {steps[0][1]}\n"
            f"Reflection of the Best Successor State: {' . '.join([*chain[1:], 'end'])}\n"
            f"Thus the correctness score is {score}.")
