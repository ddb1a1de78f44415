"""No secret that the process knows reaches anything that a run leaves behind."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import traceback
import warnings

import dspy
import pytest

import stl_programs as stl
from stl_programs import GameOf24, GreedySearch, LegalMoves, Value, run_sync, run_tasks
from stl_programs.children import environment_of_child
from stl_programs.credentials import is_secret_name
from stl_programs.environments.base import Environment
from stl_programs.errors import ModelError, StlError
from stl_programs.models.base import Reply, Request
from stl_programs.models.echoes import without_echoes
from stl_programs.models.served.transports import open_remote
from stl_programs.secrets import as_json, cleaned, know, know_fields, know_url, masked, public
from stl_programs.viewer import tree_page
from tests.stl_programs.echoing import echo, spelled

VARIABLES = {
    "OPENAI_API_KEY": "sk-proj-planted01/a+b=", "ANTHROPIC_API_KEY": "sk-ant-planted02",
    "GEMINI_API_KEY": "AIza-planted03", "MISTRAL_API_KEY": "planted04mistral", "GROQ_API_KEY": "gsk_planted05",
    "DEEPSEEK_API_KEY": "sk-planted06", "OPENROUTER_API_KEY": "sk-or-planted07",
    "TOGETHERAI_API_KEY": "planted08together", "HF_TOKEN": "hf_planted09", "AWS_ACCESS_KEY_ID": "AKIAPLANTED10",
    "AWS_SECRET_ACCESS_KEY": "planted11/aws+secret\"'<&>", "AWS_SESSION_TOKEN": "planted12==",
    "AZURE_API_KEY": "planted13azure", "AZURE_CLIENT_SECRET": "planted14~azure~",
    "MLFLOW_TRACKING_PASSWORD": "planted15 mlflow", "MLFLOW_TRACKING_TOKEN": "planted16é",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=planted17otel"}
IN_VARIABLES = {"HTTPS_PROXY": ("http://proxy:{}@proxy.invalid:1", "planted18proxy"),
                "ALL_PROXY": ("http://p:{}@h.invalid", "planted19"),
                "MLFLOW_TRACKING_URI": ("http://me:{}@mlflow.invalid", "planted20mlflow"),
                "DATABASE_URL": ("postgres://me:{}@db.invalid/x?sslmode=require", "planted21#db")}
GIVEN = ("sk-planted22-given", "planted23-authorization", "planted24-x-api-key", "planted25-cookie", "planted26@basic",
         "planted27/query+", "planted28-nested", "planted29-listed", "planted30-dspy")
PROVIDERS = ("anthropic/claude-3-haiku-20240307", "deepseek/deepseek-chat", "mistral/mistral-small",
             "gemini/gemini-1.5-flash")
"""Each speaks by another of LiteLLM's roads, or with its key in another header."""


@pytest.fixture
def planted(monkeypatch):
    """Secrets where secrets stand; their texts, without that of a dspy LM."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, secret in VARIABLES.items():
        monkeypatch.setenv(name, secret)
    for name, (around, secret) in IN_VARIABLES.items():
        monkeypatch.setenv(name, around.format(secret))
    found = [secret.rpartition("x-api-key=")[2] for secret in VARIABLES.values()]
    return [*found, *(secret for _, secret in IN_VARIABLES.values()), *GIVEN[:-1]]


class Few(GameOf24):
    """With two moves at every state."""

    successors = Environment.successors

    def legal_actions(self, state):
        return super().legal_actions(state)[:2]


def program(lm, env=None):
    env = env or Few()
    return GreedySearch(env, LegalMoves(), Value(env.value_signature, lm, samples=1, max_tokens=60_000))


def connection(url):
    """A model with a secret in every place that takes one."""
    _, authorization, key, cookie, password, query, nested, listed, _ = GIVEN
    where = url.replace("//", f"//user:{password.replace('@', '%40')}@")
    where += f"?key={query.replace('/', '%2F').replace('+', '%2B')}&api-version=2024-02-01"
    return stl.lm("hosted_vllm/m", api_base=where, api_key=GIVEN[0], cache=False, extra_headers={
        "Authorization": f"Bearer {authorization}", "x-api-key": key, "Cookie": f"lang=english; session={cookie}"},
        extra_body={"deep": {"password": nested, "list": [{"token": listed}]}})


def shown_in(text, secrets):
    basic = [base64.b64encode(f"user:{secret}".encode()).decode() for secret in secrets]
    return [form for form in [*(form for secret in secrets for form in spelled(secret)), *basic] if form in text]


def left_behind(folder):
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def run(made, folder, **options):
    """Search one task; everything that it leaves behind as one text."""
    dspy.settings.configure(disable_history=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            results = run_sync(run_tasks(made, ["4 5 6 10"], journal=folder / "run.jsonl", keep_trees=True, retries=1,
                                         backoff=0.001, **options))
        except StlError:
            results = []
            print(traceback.format_exc())
    made.save(folder / "program.json")
    history = [entry for _, predictor in made.named_predictors() for entry in
               (*predictor.history, *getattr(predictor.lm, "history", []))]
    for result in results:
        print(result, result._repr_html_(), result._repr_markdown_())
        if result.tree:
            (folder / "tree.html").write_text(tree_page(result.tree))
    print(history, [str(warning.message) for warning in warned], repr(made), repr(made.value.lm))
    return results


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500, 307])
def test_a_server_that_repeats_everything_makes_no_secret_known(planted, tmp_path, capfd, status):
    more = [form for secret in planted for form in spelled(secret)]
    with echo(status, more, "http://127.0.0.1:9/v1" if status == 307 else None) as server:
        run(program(connection(server.url)), tmp_path)
        assert server.requests and any(GIVEN[6] in sent for sent in server.requests), "it was sent what it needs"
    said = left_behind(tmp_path) + "".join(capfd.readouterr())
    assert not shown_in(said, planted)
    assert (status == 307) or "***" in said
    for line in (tmp_path / "run.jsonl").read_text().splitlines():
        json.loads(line)


def test_every_secret_is_masked_in_an_error(planted):
    with echo(400) as server:
        model = connection(server.url).engine.stl_model
        for secret in planted:
            server.more = spelled(secret)[:6]
            with pytest.raises(ModelError) as error:
                run_sync(model.complete(Request([{"role": "user", "content": "Hi"}], seeds=(0,))))
            assert not shown_in("".join(traceback.format_exception(error.value)), planted), secret


@pytest.mark.parametrize("name", [*PROVIDERS, "groq/llama3-8b-8192"])
@pytest.mark.parametrize("status", [200, 401])
def test_litellm_says_no_key_either(planted, tmp_path, capfd, name, status):
    with echo(status, planted) as server:
        for i, lm in enumerate([stl.lm(name, api_base=server.url, cache=False),
                                dspy.LM(name, api_key=GIVEN[-1], api_base=server.url)]):
            (tmp_path / str(i)).mkdir()
            [result] = run(program(lm), tmp_path / str(i))
            assert (result.error is None) == (status == 200), result.error
        assert server.requests and "***" in left_behind(tmp_path)
    assert not shown_in(left_behind(tmp_path) + "".join(capfd.readouterr()), [*planted, GIVEN[-1]])


@pytest.mark.parametrize("name", [*PROVIDERS, "openai/m", "hosted_vllm/m"])
def test_no_key_follows_a_redirect(name):
    with echo(200) as thief, echo(307, location=f"{thief.url}/chat/completions") as server:
        model = open_remote(name, api_base=server.url, api_key="sk-planted-redirect", timeout=5)
        with pytest.raises(ModelError, match="307"):
            run_sync(model.complete(Request([{"role": "user", "content": "Hi"}], seeds=(0,))))
        assert server.requests and not thief.requests


def test_what_litellm_cannot_hold_is_refused():
    with pytest.raises(ModelError, match="redirect"):
        open_remote("aiohttp_openai/m", api_base="http://127.0.0.1:9/v1")


def test_a_key_that_was_set_on_litellm_is_one(monkeypatch):
    from stl_programs.models.served.litellm_module import know_keys, the_litellm

    monkeypatch.setattr(the_litellm(), "anthropic_key", "planted-on-the-module")
    know_keys()
    assert masked("it was planted-on-the-module") == "it was ***"


# One text

def test_every_spelling_is_masked():
    secret = "sk-planted/of+all=\"kinds\"'<é&x\\y ~z"
    know(secret)
    for form in [*spelled(secret), f"{secret}\n{secret}"]:
        assert "planted" not in masked(f"a {form} b") and not shown_in(masked(f"a {form} b"), [secret]), form
    for user in ("u", "me", "you", "them"):
        packed = base64.b64encode(f"{user}:{secret}".encode()).decode()
        assert packed[4:-4] not in masked(packed)


@pytest.mark.parametrize("text", ["none", "EMPTY", "test-key", "require", "english", "2024-02-01", "512",
                                  "secret", "gpt-4o"])
def test_placeholders_and_ordinary_words_stay(monkeypatch, text):
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", text if text in ("none", "EMPTY", "test-key", "secret") else "none")
    monkeypatch.setenv("VLLM_MAX_NUM_BATCHED_TOKENS", "512")
    know_url("postgres://db.invalid/x?sslmode=require&api-version=2024-02-01")
    know_fields({"headers": {"Cookie": "lang=english"}, "model": "gpt-4o", "prompt_cache_key": "gpt-4o"})
    assert masked(f"it says {text}.") == f"it says {text}."


def test_names_of_secrets():
    for name in ("OPENAI_API_KEY", "KEY_2", "apiKey", "x-api-key", "Authorization", "Set-Cookie", "DB_PWD",
                 "AWS_ACCESS_KEY_ID", "SLACK_BOT_TOKEN", "client_secret", "BASIC_AUTH", "password"):
        assert is_secret_name(name), name
    for name in ("PWD", "OLDPWD", "SSH_AUTH_SOCK", "TOKENIZERS_PARALLELISM", "max_tokens", "tokenizer", "AUTHOR",
                 "stop_token_ids", "eos_token", "prompt_cache_key", "signature", "model"):
        assert not is_secret_name(name), name


def test_a_changed_environment_is_seen_and_what_it_held_is_remembered(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "planted-before")
    assert masked("planted-before") == "***"
    monkeypatch.setenv("SOME_API_KEY", "planted-after")
    assert masked("planted-before planted-after") == "*** ***"
    monkeypatch.setenv("SOME_FILE_KEY", __file__)
    assert masked(__file__) == __file__, "a path is no secret"


def test_a_secret_in_tokens_is_masked_token_by_token():
    know("planted-token-by-token")
    tokens = [(part, -0.5) for part in ("the ", "plan", "ted-tok", "en-by-", "token", ", so")]
    reply = Reply(["the planted-token-by-token, so"], 1, 1, logprobs=[tokens])
    found = without_echoes(reply)
    assert found.texts == ["the ***, so"]
    assert found.logprobs == [[("the ", -0.5), *[("***", -0.5)] * 4, (", so", -0.5)]]
    plain = Reply(["the end"], 1, 1, logprobs=[[("the end", -0.5)]])
    assert without_echoes(plain) is plain


def test_what_is_masked_stays_json():
    know("nplanted-in-json\\")
    value = {"a": ["\nplanted-in-json", "x nplanted-in-json\\\n"], "nplanted-in-json\\": 1}
    assert json.loads(as_json(value)) == {"a": ["\nplanted-in-json", "x ***\n"], "***": 1}
    kept = {"a": ["plain", ("b", 1)]}
    assert cleaned(kept) is kept


def test_what_is_saved_has_no_entry_that_is_named_like_a_secret():
    know("planted-elsewhere")
    found = {"a": {"api_key": "x", "b": [{"Cookie": 1, "c": "planted-elsewhere"}]}}
    assert public(found) == {"a": {"b": [{"c": "***"}]}}


def test_masking_takes_no_time(planted):
    masked("warm")
    text = "I think the answer is 24, as 4 * 6 = 24. [[ ## score ## ]] 5"
    started = time.perf_counter()
    for _ in range(2000):
        masked(text)
    assert (time.perf_counter() - started) / 2000 < 200e-6


# What else runs

def test_an_error_of_the_users_own_code_is_masked(planted, tmp_path, capfd):
    class Shop(Few):
        def legal_actions(self, state):
            raise ValueError(f"401 for {' '.join(planted)}")

    [result] = run_sync(run_tasks(program("hosted_vllm/m", Shop()), ["4 5 6 10"], journal=tmp_path / "run.jsonl"))
    assert "***" in result.error and "***" in result.traceback
    assert not shown_in(f"{result}" + left_behind(tmp_path) + "".join(capfd.readouterr()), planted)


def test_every_error_of_the_package_masks_what_it_says(planted):
    for kind in (StlError, *StlError.__subclasses__(), *ModelError.__subclasses__()):
        assert not shown_in(str(kind(" ".join(planted))), planted)


def test_children_are_told_no_secret(planted, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "planted-for-vllm")
    monkeypatch.setenv("HF_HOME", f"/models/{VARIABLES['HF_TOKEN']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    told = environment_of_child({"MINE": "1"})
    assert told["MINE"] == "1" and told["CUDA_VISIBLE_DEVICES"] == "0" and "PATH" in told
    assert not {*VARIABLES, *IN_VARIABLES, "VLLM_API_KEY", "HF_HOME"} & told.keys()
    code = "import os; print(dict(os.environ))"
    said = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True).stdout
    assert not shown_in(said, planted)


@pytest.mark.slow
def test_a_world_that_reads_a_variable_is_told_of_it_elsewhere(monkeypatch):
    from tests.stl_programs.reading_world import Reading

    monkeypatch.setenv("SHOP_PLACE", "here")
    [finding] = stl.check_environment(Reading(), plays=1)
    assert "SHOP_PLACE" in finding.what and "variables=" in finding.cure
    assert not stl.check_environment(Reading(), plays=1, variables={"SHOP_PLACE": "here"})
    assert isinstance(Reading(), Environment)


def test_histories_and_callbacks_are_shown_no_secret(planted):
    seen = []

    class Watching(dspy.utils.callback.BaseCallback):
        def on_lm_start(self, call_id, instance, inputs):
            seen.append(inputs)

        def on_lm_end(self, call_id, outputs, exception=None):
            seen.append((outputs, exception))

    with echo(200, planted) as server, dspy.context(callbacks=[Watching()]):
        value = Value(GameOf24().value_signature, connection(server.url), samples=1)
        asked = value.predict(task=" ".join(planted[:5]), state="4 6", trajectory="", numbers="4 6")
    assert seen and not shown_in(f"{seen} {value.predict.history} {value.predict.lm.history} {asked}", planted)


@pytest.mark.slow
def test_mlflow_holds_no_secret(planted, tmp_path, capfd):
    pytest.importorskip("mlflow")
    from experiments.kit.tracking import MlflowCallback
    from optimizers import Iteration, SelfTaughtLookahead

    with echo(200, planted) as server:
        made = program(connection(server.url))
        [result] = run(made, tmp_path)
        result.error = "x"
        tracker = MlflowCallback(store=f"sqlite:///{tmp_path}/mlflow.db", run_name=f"of {planted[0]}",
                                 experiment=f"with {planted[1]}")
        optimizer = SelfTaughtLookahead(run_dir=tmp_path / f"run-{planted[5]}", callback=tracker)
        tracker.on_start(optimizer, made)
        tracker.on_iteration(Iteration(1, [], [result]), made)
        tracker.log_scores(1, {f"score of {planted[2]}": 1.0})
    contents = left_behind(tmp_path)
    assert not shown_in(contents + "".join(capfd.readouterr()), planted)


def test_a_store_with_a_password_is_shown_without_it():
    from experiments.game24.words import following

    assert "planted-store" not in " ".join(following("http://me:planted-store@mlflow.invalid"))


def test_replies_are_masked_before_they_are_used_again(planted, tmp_path):
    """A continued journal answers with what was used the first time."""
    with echo(200, planted) as server:
        first = run_sync(run_tasks(program(connection(server.url)), ["4 5 6 10"], journal=tmp_path / "a.jsonl",
                                   keep_trees=True))
        again = run_sync(run_tasks(program(connection(server.url)), ["4 5 6 10"], recorded=[tmp_path / "a.jsonl"],
                                   keep_trees=True))
    rationales = [[node["value"]["rationale"] for node in result[0].tree["nodes"] if node.get("value")]
                  for result in (first, again)]
    assert rationales[0] and rationales[0] == rationales[1]
