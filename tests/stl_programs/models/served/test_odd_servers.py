"""Servers as they are: odd shapes, lies, floods, and what users say of their connection."""

import asyncio
import gzip
import json
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stl_programs
from signatures import NumberScale
from stl_programs import Budget, GameOf24, GreedySearch, LegalMoves, Value, run_sync, run_tasks
from stl_programs.errors import ModelError, TransientError
from stl_programs.models.base import Request
from stl_programs.models.served.direct import DirectModel
from stl_programs.models.served.http import proxy_of
from stl_programs.models.served.protocol import ErrorInside, read_body
from stl_programs.models.served.remote import LiteLLMModel
from stl_programs.models.served.transports import from_lm, open_remote
from stl_programs.models.served.urls import wait, words
from stl_programs.models.thoughts import apart

PROMPT = [{"role": "user", "content": "hello"}]
ASKED = Request(PROMPT, (0, 1), max_tokens=9)
JUDGED = "[[ ## rationale ## ]]\nr\n\n[[ ## score ## ]]\nlikely\n\n[[ ## completed ## ]]"


def completion(*texts, usage=(5, 6), **more):
    counts = (
        dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) if isinstance(usage, tuple) else usage
    )
    return {
        "choices": [{"index": i, "message": {"content": text}} for i, text in enumerate(texts)],
        "usage": counts,
        **more,
    }


def read(body, request=ASKED):
    return read_body(body if isinstance(body, bytes) else json.dumps(body).encode(), request)


@contextmanager
def server(chat, models=(404, {})):
    """A server whose chat(body, headers) gives (status, body); yields its URL and what was posted."""
    posts = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, status, body, headers=()):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (("Content-Length", str(len(data))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.reply(*models)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posts.append((body, dict(self.headers)))
            self.reply(*chat(body, self.headers))

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}/v1", posts
    finally:
        made.shutdown()


def judge(lm, tasks=1, samples=1, retries=0, budget=None, **options):
    env = GameOf24()
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, lm, samples=samples, max_tokens=50, **options))
    return run_sync(run_tasks(program, env.tasks("test")[:tasks], retries=retries, budget=budget, backoff=0.01))


# Usage

BOUND = ASKED.prompt_tokens_bound


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ((5, 6), (5, 6, 0, False)),
        (None, (BOUND, 2, 0, True)),
        ({}, (BOUND, 2, 0, True)),
        ([1], (BOUND, 2, 0, True)),
        ("many", (BOUND, 2, 0, True)),
        ((None, None), (BOUND, 2, 0, True)),
        ((5, None), (BOUND, 2, 0, True)),
        ({"prompt_tokens": 5, "total_tokens": 11}, (5, 6, 0, False)),
        ((-5, -6), (BOUND, 2, 0, True)),
        ((0, 0), (BOUND, 2, 0, True)),
        (("5", "6"), (BOUND, 2, 0, True)),
        ((5.5, 1), (BOUND, 2, 0, True)),
        ((True, False), (BOUND, 2, 0, True)),
        ((5.0, 6), (5, 6, 0, False)),
        ((10**400, 6), (BOUND, 6, 0, True)),
        ({"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 3}}, (5, 6, 3, False)),
        (
            {"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 10**9}},
            (BOUND, 6, 0, True),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": "x"}, (5, 6, 0, False)),
    ],
)
def test_a_usage_that_cannot_be_is_a_bound(usage, counted):
    found = read(completion("a", "b", usage=usage))
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.bounds) == counted


def test_a_result_says_that_its_tokens_are_bounds():
    with server(lambda body, _: (200, completion(*[JUDGED] * body["n"], usage=None))) as (url, _):
        [result] = judge(stl_programs.lm("openai/m", api_base=url))
    assert result.usage["value"]["bounded_calls"] == result.usage["value"]["calls"] > 0


@pytest.mark.parametrize("usage", [(-500, -40), (0, 0), (300, float("nan")), (10**9, 10**9)])
def test_no_lie_about_tokens_overspends(usage):
    with server(lambda body, _: (200, completion(*[JUDGED] * body["n"], usage=usage))) as (url, posts):
        results = judge(stl_programs.lm("hosted_vllm/m", api_base=url), tasks=10, budget=Budget(tokens=5000))
        bills = [result.usage["value"] for result in results if "value" in result.usage]
        assert (
            len(posts) <= 5000 // 400
            and sum(bill["prompt_tokens"] + bill["completion_tokens"] for bill in bills) <= 5000
        )


def test_an_lm_object_is_billed_for_every_request_it_makes():
    class Counting(dspy.BaseLM):
        calls = 0

        async def aforward(self, prompt=None, messages=None, **_):
            Counting.calls += 1
            raise RuntimeError("down")

        forward = None

    judge(Counting(model="my/lm"), tasks=4, samples=5, budget=Budget(calls=10))
    assert Counting.calls <= 10


# Shapes


def test_texts_are_read_in_every_shape():
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a"},
        {"type": "output_text", "text": "b"},
    ]
    found = read({"choices": [{"message": {"content": parts}}, {"text": "plain"}]})
    assert found.texts == ["ab", "plain"] and found.thoughts == ["hm", None]
    assert read({"choices": [{"message": {"content": "\ud83d x"}}]}).texts == ["\ufffd x"]
    assert read(b"\xef\xbb\xbf" + json.dumps(completion("x")).encode()).texts == ["x"]
    for odd in (None, 5, {"a": 1}, [5]):
        assert read({"choices": [{"message": {"content": odd}}]}).texts[0] in (None, "")
    assert read({"choices": [{"message": {"content": None, "refusal": "no"}}]}).finish_reasons == ["refusal"]
    assert read({"choices": [{"message": {"tool_calls": [{}]}}]}).finish_reasons == ["tool_calls"]


def test_draws_come_in_order_and_no_more_than_were_asked_for():
    swapped = completion("first", "second", "third")
    swapped["choices"].reverse()
    assert read(swapped).texts == ["first", "second"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 200_000,
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"5",
        b"null",
        b'"x"',
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": 5}',
        b'{"choices": {"a": 1}}',
        b"\xff\xfe",
        b'{"choices": [{"mess',
    ],
)
def test_what_is_no_completion_is_a_value_error(body):
    with pytest.raises(ValueError):
        read(body)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "message",
                        "content",
                        "usage",
                        "prompt_tokens",
                        "completion_tokens",
                        "text",
                        "error",
                        "index",
                        "finish_reason",
                        "prompt_tokens_details",
                        "cached_tokens",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused(body):
    try:
        found = read({"choices": [{"message": body}], "usage": body} if not isinstance(body, dict) else body)
    except (ValueError, ErrorInside):
        return
    assert all(text is None or isinstance(text, str) for text in found.texts)
    assert 0 <= found.cached_tokens <= found.prompt_tokens and found.completion_tokens >= 0


@pytest.mark.parametrize(
    ("body", "kind", "maybe_paid", "said"),
    [
        ({"error": {"code": 402, "message": "Insufficient credits"}}, ModelError, False, "402: Insufficient credits"),
        ({"object": "error", "message": "too long", "type": "x", "code": 400}, ModelError, False, "400: too long"),
        ({"message": "no model m", "code": 404}, ModelError, False, "404: no model m"),
        ({"object": "error", "message": "busy", "code": 503}, TransientError, True, "503: busy"),
        ({"error": {"code": 429, "message": "slow"}}, TransientError, True, "429: slow"),
        ({"error": "overloaded"}, TransientError, True, "overloaded"),
        ([{"error": {"code": "503", "message": "busy"}}], TransientError, True, "503: busy"),
        ({"choices": [{"error": {"code": 400, "message": "bad"}}]}, ModelError, False, "400: bad"),
    ],
)
def test_an_error_inside_a_200_is_that_error(body, kind, maybe_paid, said):
    with server(lambda *_: (200, body)) as (url, _), pytest.raises(ModelError) as caught:
        run_sync(DirectModel("openai/m", api_base=url).complete(ASKED))
    assert type(caught.value) is kind and said in str(caught.value) and caught.value.maybe_paid is maybe_paid


def test_what_servers_say_is_one_line():
    assert words(b'{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}') == "seed: Extra inputs"
    assert words(b"<html><style>b{}</style><h1>502</h1>\nBad gateway</html>") == "502 Bad gateway"
    assert words(b"[" * 10**5)[:3] == "[[[" and words(b'{"error": {"message": "a\\nb"}}') == "a b"
    assert [wait(header) for header in ("nan", "1e999", "\u0665", "Fri, 31 Dec 1999 23:59:59 +9999", "0x10")] == [
        None,
        3600.0,
        None,
        None,
        None,
    ]


def test_thoughts_are_apart_from_answers():
    assert apart("<think>4?</think>7") == ("7", "4?") and apart("7") == ("7", None)
    assert apart("4?</think>7") == ("7", "4?") and apart("a <THINK>x</THINK> b") == ("a  b", "x")
    assert apart("<think>draft 4") == (None, "draft 4") and apart("[THINK]x[/THINK]y") == ("y", "x")
    channels = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>7<|return|>"
    assert apart(channels) == ("7", "hm")


@pytest.mark.parametrize(
    ("reason", "note"),
    [
        ("length", "value draws that were cut at max_tokens"),
        ("content_filter", "value draws that a content filter withheld"),
        ("tool_calls", "value draws that called a tool in place of an answer"),
    ],
)
def test_a_draw_that_did_not_end_by_itself_is_counted_as_what_it_is(reason, note):
    said = JUDGED.partition("\n\n[[ ## completed")[0]

    def chat(body, _):
        found = completion(*[said] * body["n"])
        for choice in found["choices"]:
            choice["finish_reason"] = reason
        return 200, found

    with server(chat) as (url, _), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [result] = judge(stl_programs.lm("openai/m", api_base=url))
    assert result.notes[note] == result.usage["value"]["parse_failures"] > 0


@pytest.mark.parametrize(
    "said", ["**7**", "7 out of 10", "Score: 7", "7[[ ## completed ## ]]", "7/10", "7\n\nIt looks good."]
)
def test_a_score_is_read_where_it_is_unambiguous(said):
    assert NumberScale().parse(said) == 7.0
    assert NumberScale().parse("5" + " " * 10**6 + "x") is None


@pytest.mark.parametrize("said", ["7 or 8", "7\n8", "70%", "7-8", "nan", "1e1", "\u0667", "", "5/5", "1_0", "9" * 400])
def test_a_score_that_could_be_another_is_missing(said):
    assert NumberScale().parse(said) is None


# Asked otherwise


@pytest.mark.slow
def test_draws_are_asked_for_one_by_one_where_n_is_refused():
    def chat(body, _):
        if body["n"] > 1:
            return 400, {"error": {"message": "Only one completion choice is allowed"}}
        return 200, completion(JUDGED)

    with server(chat) as (url, posts):
        [result] = judge(stl_programs.lm("openai/m", api_base=url), samples=3)
        refused = sum(body["n"] > 1 for body, _ in posts)
        bill = result.usage["value"]
    assert result.error is None and bill["samples"] == bill["calls"] == len(posts) - refused


@pytest.mark.slow
def test_fields_are_renamed_or_left_out_never_both():
    def azure(body, _):
        if "max_tokens" in body:
            return 400, {
                "error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}
            }
        return 200, completion(*[JUDGED] * body["n"])

    with server(azure) as (url, posts):
        assert judge(stl_programs.lm("openai/gpt-5", api_base=url))[0].error is None
        assert not {"max_tokens", "max_completion_tokens"} <= set(posts[-1][0])
        assert judge(stl_programs.lm("openai/gpt-5", api_base=url, max_completion_tokens=500))[0].error is None
    with server(
        lambda body, _: (
            (422, {"detail": "seed: not permitted"}) if "seed" in body else (200, completion(*[JUDGED] * body["n"]))
        )
    ) as (url, posts):
        with pytest.warns(UserWarning, match="takes no seed"):
            assert judge(stl_programs.lm("openai/m", api_base=url))[0].error is None
        before = len(posts)
        lm = stl_programs.lm("openai/m", api_base=url, additional_drop_params=["seed"])
        assert judge(lm)[0].error is None and all("seed" not in body for body, _ in posts[before:])


# Connections


def test_options_arrive_by_any_of_their_names():
    with server(lambda body, _: (200, completion(*[JUDGED] * body["n"]))) as (url, posts):
        lm = stl_programs.lm(
            "openai/m",
            base_url=url,
            api_key="k-planted",
            cache=False,
            default_headers={"X-Team": "a"},
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
            top_p=0.5,
        )
        lm("hello")
        body, headers = posts[-1]
        assert headers["X-Team"] == "a" and headers["Authorization"] == "Bearer k-planted"
        assert body["chat_template_kwargs"] == {"enable_thinking": False} and body["top_p"] == 0.5
        assert not {"base_url", "extra_body", "headers", "default_headers"} & set(body)
        judge(
            dspy.LM(
                "openai/m",
                api_base=url,
                api_key="k",
                top_p=0.3,
                stop=["X"],
                temperature=0.2,
                extra_headers={"X-Team": "b"},
            )
        )
        body, headers = posts[-1]
        assert (body["top_p"], body["stop"], body["temperature"], headers["X-Team"]) == (0.3, ["X"], 0.2, "b")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base_url": "http://a/v1", "api_base": "http://b/v1"}, "say two things"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": 0}, "timeout=0"),
        ({"api_key": "planted\nb"}, "api_key"),
        ({"headers": {"X": "a\r\nb"}}, "header 'X'"),
        ({"extra_body": [1]}, "extra_body is a list"),
        ({"top_p": {1}}, "top_p is a set"),
        ({"stream": True}, "stream of"),
        ({"additional_drop_params": [1]}, "additional_drop_params"),
    ],
)
def test_an_option_that_cannot_be_sent_is_refused_by_its_name(options, named):
    with pytest.raises(ModelError, match=named):
        open_remote("openai/m", **options)


@pytest.mark.parametrize("option", [{"n": 3}, {"seed": 1}, {"logprobs": True}])
def test_what_a_search_sets_is_refused_in_an_lm(option):
    with pytest.raises(ModelError, match=next(iter(option))):
        from_lm(dspy.LM("openai/m", api_key="k", **option))


def test_the_environment_is_read_when_it_is_needed(monkeypatch):
    for name in ("HOSTED_VLLM_API_BASE", "HOSTED_VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert "no server" in judge("hosted_vllm/later")[0].error
    with server(lambda body, _: (200, completion(*[JUDGED] * body["n"]))) as (url, posts):
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", url)
        monkeypatch.setenv("HOSTED_VLLM_API_KEY", "k-later")
        assert judge("hosted_vllm/later")[0].error is None
        assert posts[0][1]["Authorization"] == "Bearer k-later"


def test_a_proxy_that_is_not_spoken_to_is_an_error_and_not_gone_past(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ModelError, match="socks5 proxy"):
        proxy_of("http://llm.invalid:8000/v1")
    assert proxy_of("http://127.0.0.1:8000/v1") is None
    monkeypatch.setenv("http_proxy", "127.0.0.1:3128")
    assert proxy_of("http://llm.invalid:8000/v1") == "http://127.0.0.1:3128"


def test_a_name_with_an_at_sign_is_a_name():
    for name in ("vertex_ai/claude-3-5-sonnet@20240620", "openai/@cf/meta/llama", "openai/qwen@q4_k_m"):
        assert stl_programs.models.load(name).name == name


# Floods


@pytest.mark.parametrize("road", [DirectModel, LiteLLMModel])
@pytest.mark.parametrize("kind", ["flood", "bomb", "odd"])
def test_a_body_without_end_is_cut_off(kind, road, monkeypatch):
    monkeypatch.setattr("stl_programs.models.served.http.LONGEST", 2**20)
    body, packed = {
        "flood": (b" " * 2**21, None),
        "bomb": (gzip.compress(b" " * 2**24), "gzip"),
        "odd": (b"garbage", "br"),
    }[kind]

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        encoding = f"Content-Encoding: {packed}\r\n" if packed else ""
        writer.write(f"HTTP/1.1 200 OK\r\n{encoding}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def ask():
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as made:
            port = made.sockets[0].getsockname()[1]
            return await road("openai/m", api_base=f"http://127.0.0.1:{port}/v1", api_key="none").complete(ASKED)

    with pytest.raises(ModelError, match="a body" if road is DirectModel or kind != "odd" else "openai/m") as caught:
        run_sync(ask())
    if road is DirectModel or kind != "odd":
        assert caught.value.maybe_paid and not isinstance(caught.value, TransientError)


def test_a_packed_body_that_was_not_asked_for_is_unpacked():
    data = gzip.compress(json.dumps(completion("x", "y")).encode())

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        )
        await writer.drain()

    async def ask():
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as made:
            port = made.sockets[0].getsockname()[1]
            return await DirectModel("openai/m", api_base=f"http://127.0.0.1:{port}/v1").complete(ASKED)

    assert run_sync(ask()).texts == ["x", "y"]


def test_redirects_carry_no_key_anywhere():
    with (
        server(lambda *_: (200, completion("x", "y"))) as (elsewhere, stolen),
        server(lambda *_: (307, b"", [("Location", f"{elsewhere}/chat/completions")])) as (url, _),
    ):
        with pytest.raises(ModelError, match="at another URL"):
            run_sync(DirectModel("openai/m", api_base=url, api_key="k-planted").complete(ASKED))
        assert stolen == []
