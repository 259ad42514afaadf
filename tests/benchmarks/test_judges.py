"""Judges: none, the rule judge, and a model behind a server."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, write
from uniprune.benchmarks._kit import model_judge
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.evaluation import backend
from uniprune.evaluation.dataset import DataOptions

pytestmark = pytest.mark.end_to_end

JUDGED = ["mathvista", "mathvision", "mia-bench"]
SECRET = "sk-very-secret-0123456789"


def opened(name: str, folder: Path, rows=None, **judge) -> KitDataset:
    tsv = write(folder / f"{name}.tsv", rows or EXAMPLES[name].rows)
    return KitDataset(name, TASKS[name], tsv, DataOptions(folder, **judge))


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server with a canned judge."""

    def __init__(self):
        self.requests: list[tuple[dict, dict]] = []
        self.failing_after = 10**9
        self.status = 500
        self.location = ""
        self.reply = lambda text: "14"
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((dict(self.headers), body))
        content = body["messages"][0]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        if len(self.server.requests) > self.server.failing_after or self.path != "/v1/chat/completions":
            data, code = f"overloaded, your key {self.headers['Authorization']}".encode(), self.server.status
        else:
            message = {"choices": [{"message": {"role": "assistant", "content": self.server.reply(text)}}]}
            data, code = json.dumps(message).encode(), 200
        self.send_response(code)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must not be asked for a server on this machine
    instance = Server()
    thread = threading.Thread(target=instance.serve_forever, daemon=True)
    thread.start()
    yield instance
    instance.shutdown()
    instance.server_close()
    thread.join()


def patient(dataset: KitDataset) -> KitDataset:
    """Without pauses between retries."""
    dataset._judge = replace(dataset._judge, wait=0.0)
    return dataset


@pytest.mark.parametrize("name", JUDGED)
def test_without_a_judge_nothing_is_started(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} cannot be scored without a judge; give --judge rule"):
        opened(name, tmp_path)


def test_half_a_judge_is_refused(tmp_path):
    with pytest.raises(UserError, match="--judge-model"):
        opened("mathvista", tmp_path, judge="http://localhost:1")
    with pytest.raises(UserError, match="'gpt-4o' is neither 'rule' nor the URL"):
        opened("mathvista", tmp_path, judge="gpt-4o")


def test_exact_matching_stays_exact_whatever_judge_is_configured(tmp_path):
    dataset = opened("pope", tmp_path, judge="http://127.0.0.1:1/v1", judge_model="m")
    assert dataset.score(EXAMPLES["pope"].answers, tmp_path).judge == "exact"


@pytest.mark.parametrize("name", ["mathvista", "mathvision"])
def test_a_model_extracts_the_answer(name, server, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    example = EXAMPLES[name]
    server.reply = lambda text: {"14.": "14", "7.": "7"}.get(text.removesuffix("Extracted answer:").split()[-1], "none")
    dataset = opened(name, tmp_path, judge=server.url, judge_model="my-judge")
    score = dataset.score(example.answers, tmp_path)
    assert (score.value, score.judge) == (pytest.approx(example.value), "my-judge")
    headers, body = server.requests[0]
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("my-judge", 0, 128)
    assert "Model respone: " in body["messages"][0]["content"]  # the kit's own prompt, misspelling included
    shown = caplog.text + "".join(capfd.readouterr()) + repr(vars(dataset)) + str(score)
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in shown + kept


def test_a_model_grades_instructions_and_sees_the_image(server, tmp_path):
    server.reply = lambda text: (
        "Score of component 1: 5/5, score of component 2: 0/5, total score: 5/10. Because."
        if "red red" in text
        else "I cannot say."
    )
    dataset = opened("mia-bench", tmp_path, judge=server.url, judge_model="my-judge")
    score = dataset.score(EXAMPLES["mia-bench"].answers, tmp_path)
    assert (score.value, score.unparsed, score.per_item) == (50.0, 2, {"0": 0.5})  # the kit's mean skips the unread
    text, image = server.requests[0][1]["messages"][0]["content"]
    assert "You need to grade" in text["text"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,iVBOR")


def test_no_readable_grading_is_no_score(server, tmp_path):
    server.reply = lambda text: "I cannot say."
    dataset = opened("mia-bench", tmp_path, judge=server.url, judge_model="my-judge")
    with pytest.raises(UserError, match="could read none of the judge's 3 replies"):
        dataset.score(EXAMPLES["mia-bench"].answers, tmp_path)


@pytest.mark.parametrize("name", ["mathvista", "mia-bench"])
def test_a_server_that_fails_midway_loses_nothing(name, server, tmp_path):
    server.reply = lambda text: "score of component 1: 1/1, total score: 1/1." if name == "mia-bench" else "14"
    server.failing_after = 1
    dataset = patient(opened(name, tmp_path, judge=server.url, judge_model="my-judge"))
    dataset._judge = replace(dataset._judge, threads=1)
    with pytest.raises(
        UserError, match=r"'my-judge' .* gave no answer \(HTTP 500: overloaded.*nothing is lost"
    ) as caught:
        dataset.score(EXAMPLES[name].answers, tmp_path)
    assert SECRET not in str(caught.value) and "***" in str(caught.value)
    assert len(server.requests) == 1 + 3  # one reply, one question tried three times, no more
    with (tmp_path / "judge-replies.jsonl").open("a") as log:
        log.write('{"request": "cut o')  # a kill while writing
    server.failing_after = 10**9
    asked = len(server.requests)
    score = dataset.score(EXAMPLES[name].answers, tmp_path)
    questions = 3
    assert len(server.requests) - asked == questions - 1 and score.value > 0
    dataset.score(EXAMPLES[name].answers, tmp_path)
    assert len(server.requests) - asked == questions - 1


def test_a_run_survives_its_judge_and_the_key_is_nowhere(server, checkpoint, tmp_path, capfd, caplog):
    """The whole way: answers and replies are kept, the same command asks the rest, nothing shows or stores the key."""
    caplog.set_level(logging.DEBUG)
    command = ["--model", str(checkpoint("llava")), "--method", "none", "--data", "mini-mathvista", "--limit", "6"]
    command += ["--max-new-tokens", "2", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    command += ["--judge", server.url, "--judge-model", "my-judge", "--debug"]
    server.failing_after, server.status = 1 + 2, 401  # one word before the run, then two replies
    assert main(command) == 2
    [log] = (tmp_path / "out").rglob("judge-replies.jsonl")
    kept = log.read_text().splitlines()
    [answers] = (tmp_path / "out").glob("*/mini-mathvista.jsonl")
    stored = answers.read_bytes()
    assert len(kept) == 2 and stored.count(b"\n") == 6
    [record] = (tmp_path / "out").glob("*/mini-mathvista.record.json")
    assert json.loads(record.read_text())["score"] is None

    server.failing_after, asked = 10**9, len(server.requests)
    assert main(command) == 0
    assert answers.read_bytes() == stored  # no row was answered again
    replies = log.read_text().splitlines()
    assert replies[:2] == kept and len(replies) - 2 == len(server.requests) - asked - 1 > 0
    assert json.loads(record.read_text())["score"]["judge"] == "my-judge"

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if SECRET.encode() in path.read_bytes()]
    shown = capfd.readouterr()
    assert "'my-judge'" in shown.err and "***" in shown.err
    assert SECRET not in shown.err + shown.out + caplog.text


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [("dead", "Connection refused", 0), ("wrong key", "HTTP 401", 1), ("overloaded", "HTTP 500", 3)],
)
def test_a_judge_that_does_not_answer_is_told_before_a_model_is_loaded(
    fault, message, requests, server, checkpoint, tmp_path, monkeypatch, capsys
):
    """One tiny request, told once for all runs. Benchmarks without a judge need none; nor do runs that are done."""
    command = ["--model", str(checkpoint("llava")), "--method", "none", "random-pre", "--ratio", "0.5", "--limit", "4"]
    command += ["--max-new-tokens", "2", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    command += ["--judge-model", "my-judge", "--data", "mini-pope"]
    address = ["--judge", "http://127.0.0.1:9/v1" if fault == "dead" else server.url]
    server.failing_after, server.status = 0, 401 if fault == "wrong key" else 500
    with monkeypatch.context() as patch:
        patch.setattr(backend, "with_weights", lambda loaded: pytest.fail("the model was loaded"))
        patch.setattr(model_judge.time, "sleep", lambda seconds: None)
        assert main([*command, "mini-mathvista", *address]) == 2
    told = capsys.readouterr().err
    assert "the judge 'my-judge' at http://127.0.0.1" in told and message in told
    assert "start the server, or correct --judge, --judge-model or the key" in told
    assert (told.count("gave no answer"), len(server.requests)) == (1, requests)
    assert not list(tmp_path.glob("out/*/*.jsonl"))
    if fault != "wrong key":
        return
    assert main([*command, *address]) == 0
    assert len(server.requests) == requests
    server.failing_after = 10**9
    assert main([*command, "mini-mathvista", "--judge", server.url]) == 0
    assert server.requests[requests][1]["messages"] == [{"role": "user", "content": "Reply with the word ready."}]
    asked = len(server.requests)
    assert main([*command, "mini-mathvista", "--judge", server.url]) == 0
    assert len(server.requests) == asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_with_the_new_address(status, server, tmp_path):
    other = Server()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    server.failing_after, server.status, server.location = 0, status, f"{other.url}/chat/completions"
    dataset = patient(opened("mathvista", tmp_path, judge=server.url, judge_model="my-judge"))
    with pytest.raises(UserError, match=f"redirects to {other.url}/chat/completions, which would not get the question"):
        dataset.score(EXAMPLES["mathvista"].answers, tmp_path)
    other.shutdown()
    other.server_close()
    asked = [body["messages"][0]["content"] for _, body in server.requests]
    assert len(set(asked)) == len(asked), "nothing is asked twice"
    assert other.requests == [] and not list(tmp_path.rglob("judge-replies.jsonl"))


@pytest.mark.parametrize("key", [f"{SECRET}\nx", f"{SECRET} x", f"{SECRET}…"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(key, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds blanks") as caught:
        opened("mathvista", tmp_path, judge="http://127.0.0.1:9/v1", judge_model="m")
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")  # a line's end is not part of it
    assert opened("mathvista", tmp_path, judge="http://127.0.0.1:9/v1", judge_model="m")._judge.key == SECRET


def test_a_wrong_key_is_not_retried(server, tmp_path):
    server.failing_after, server.status = 0, 401
    dataset = opened("mathvista", tmp_path, judge=server.url, judge_model="my-judge")
    dataset._judge = replace(dataset._judge, threads=1)
    with pytest.raises(UserError, match="HTTP 401"):
        dataset.score(EXAMPLES["mathvista"].answers, tmp_path)
    assert len(server.requests) == 1


def test_an_absent_server_is_a_user_error(tmp_path):
    dataset = patient(opened("mathvista", tmp_path, judge="http://127.0.0.1:9/v1", judge_model="m"))
    with pytest.raises(UserError, match="gave no answer"):
        dataset.score(EXAMPLES["mathvista"].answers, tmp_path)


def test_the_kit_gets_its_own_judges_back(tmp_path):
    kit = boot()
    modules = [kit.image_vqa, kit.miabench, kit.mathv, kit.multiple_choice, kit.mp_util]
    before = [dict(vars(module)) for module in modules]
    for name in JUDGED:
        opened(name, tmp_path, judge="rule").score(EXAMPLES[name].answers, tmp_path)
    for module, names in zip(modules, before, strict=True):
        assert {name: value for name, value in vars(module).items() if names.get(name) is not value} == {}
