"""A shop behind HTTP that remembers where each session is, and counts what it was sent."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ITEMS = {f"B{i}": item for i, item in enumerate([
    ("red desk lamp", 19), ("blue desk lamp", 25), ("red floor lamp", 49), ("blue mug", 9), ("red mug", 12)])}
SMALL_PRINT = " ".join(["Delivery within three days, returns within thirty."] * 6)


class ShopServer:
    """POST /new begins a session, POST /act acts in one. Use as a context manager; `url` is where it is.

    `counts`: sessions begun ("new"), actions taken, by their first word, and those that are no longer ("open").
    `busy_every`: every so many requests one is answered 503.
    """

    def __init__(self, busy_every: int = 0):
        self.busy_every, self.sessions, self.counts = busy_every, dict[str, dict](), Counter[str]()
        self.lock = threading.Lock()

    def __enter__(self) -> ShopServer:
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with shop.lock:
                    status, page = shop.answer(self.path, body)
                text = json.dumps(page).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict) -> tuple[int, dict]:
        self.counts["requests"] += 1
        if self.busy_every and self.counts["requests"] % self.busy_every == 0:
            return 503, {"error": "busy"}
        if path == "/new":
            self.counts["new"] += 1
            name = str(self.counts["new"])
            self.sessions[name] = {"at": "front", "found": [], "item": None}
            return 200, {"session": name, **self.page(self.sessions[name])}
        session = self.sessions[body["session"]]
        if not self.act(session, body["action"]):
            return 400, {"error": f"{body['action']!r} is not possible here"}
        self.counts[body["action"].partition("[")[0]] += 1
        return 200, self.page(session)

    def act(self, session: dict, action: str) -> bool:
        """Move the session on; False where it cannot."""
        verb, _, word = action.removesuffix("]").partition("[")
        if session["at"] == "front" and verb == "search" and word:
            session.update(at="results", found=[name for name, (title, _) in ITEMS.items()
                                                if set(word.split()) & set(title.split())])
        elif session["at"] == "results" and verb == "click" and word in session["found"]:
            session.update(at="item", item=word)
        elif session["at"] in ("results", "item") and verb == "back":
            session["at"] = "front" if session["at"] == "results" else "results"
        elif session["at"] == "item" and verb == "buy":
            session["at"] = "bought"
        else:
            return False
        return True

    def page(self, session: dict) -> dict:
        kind = session["at"]
        if kind == "front":
            text, actions = f"The shop's front page. {SMALL_PRINT}", ["search[words]"]
        elif kind == "results":
            lines = [f"{name}: {ITEMS[name][0]}, {ITEMS[name][1]} dollars. {SMALL_PRINT}" for name in session["found"]]
            text, actions = "\n".join(["Results", *lines]), [*(f"click[{name}]" for name in session["found"]), "back[]"]
        elif kind == "item":
            title, price = ITEMS[session["item"]]
            text, actions = f"Item {session['item']}: {title}, {price} dollars. {SMALL_PRINT}", ["buy[]", "back[]"]
        else:
            text, actions = "Thank you for your order.", []
        return {"kind": kind, "text": text, "actions": actions, "done": kind == "bought"}
