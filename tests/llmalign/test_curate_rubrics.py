"""Rubrics out of preferences; the judge is a real server that can misbehave."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llmalign.curate import contrast_rubrics, select_hard
from llmalign.curation.files import write_rows
from llmalign.curation.rubrics import VETO, read_rubric
from llmalign.rewards import Problem, build_reward
from llmalign.rewards.judge import OpenAIJudge


def said(text):
    return 200, json.dumps({"choices": [{"message": {"content": text}}]})


class Server(ThreadingHTTPServer):
    """A chat-completions API; ``behave(system, user)`` gives (status, body) or None to hang up."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.lock = behave, threading.Lock()
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def contrasts(self):
        """The questions for which a rubric was asked."""
        return [re.search(r"Question:\n(.*)", u)[1] for s, u in self.asked if "rubrics" in s]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = {m["role"]: m["content"] for m in body["messages"]}
        asked = texts.get("system", ""), texts["user"]
        with self.server.lock:
            self.server.asked.append(asked)
        answer = self.server.behave(*asked)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1].encode())))
        self.end_headers()
        self.wfile.write(answer[1].encode())

    def log_message(self, *arguments):
        pass


def writes(user):
    """A rubric for the pair in ``user``, whose question says how the writer misbehaves."""
    question = re.search(r"Question:\n(.*)", user)[1]
    rule = 'The response holds the word "{}".'.format
    good = {"hard_rules": [rule("good")], "principles": [rule("kind")]}
    tricks = {
        "prose": said("Sure! The first one is nicer."),
        "nan": said('{"hard_rules": [NaN], "principles": []}'),
        "broken": said('{"hard_rules": ["a", '),
        "leaky": said(json.dumps({"principles": ["It resembles the preferred response."]})),
        "same": said(json.dumps({"principles": [rule("answer")]})),
        "refused": (400, "context too long"),
        "silent": said(""),
    }
    for trick, answer in tricks.items():
        if trick in question:
            return answer
    if "second" in question and "attempt 1 was refused" not in user:
        return said(json.dumps({"hard_rules": [rule("bad")]}))
    return said("```json\n" + json.dumps(good) + "\n```")


def judges(system, user):
    """Writes rubrics by ``writes``; a criterion is met where the response holds its word."""
    if "rubrics" in system:
        return writes(user)
    if "grade" not in system:
        return said("ready")
    if "ungraded" in user:
        return said("I would say a solid 8/10.")
    word = re.search(r'Criterion: .*"(\w+)"', user)
    response = re.search(r"=\w+=\n(.*)\n=\w+=", user, re.DOTALL)[1]
    met = bool(word) and re.search(rf"\b{word[1]}\b", response) is not None
    return said(json.dumps({"score": float(met)}))


@pytest.fixture
def serve():
    started = []

    def start(behave=judges):
        server = Server(behave)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def judge(server, **options):
    return OpenAIJudge(model="m", base_url=server.url, retries=0, backoff_s=0.01, **options)


def pair(question, **columns):
    return {
        "id": question,
        "prompt": question,
        "chosen": "a good and kind answer",
        "rejected": "a bad answer",
        **columns,
    }


def contrast(server, rows, **options):
    with judge(server) as asked:
        return contrast_rubrics(rows, asked, **options)


def test_a_rubric_is_kept_in_the_form_that_the_rubric_reward_reads(serve):
    found = contrast(serve(), [pair("why", topic="x")])
    assert found.rows == [
        pair("why", topic="x")
        | {
            "rubrics": [
                {
                    "criterion": 'The response holds the word "good".',
                    "name": "hard_1", "weight": 1.0, "minimum": VETO,
                },
                {
                    "criterion": 'The response holds the word "kind".',
                    "name": "principle_1", "weight": 1.0,
                },
            ]
        }
    ]  # fmt: skip
    build_reward("rubric").check(Problem("why", "why", found.rows[0]))
    assert found.left_out == [] and found.tries == (1,)


def test_only_a_rubric_that_prefers_the_chosen_answer_is_kept(serve):
    swapped = pair("swapped", chosen="a bad answer", rejected="a good and kind answer")
    found = contrast(serve(), [swapped, pair("same"), pair("why")], tries=2)
    assert [row["id"] for row in found.rows] == ["why"]
    first, tied = found.left_out
    assert (first["id"], first["outcome"]) == ("swapped", "inconsistent")
    assert first["why"] == "graded by it, the preferred response has 0 and the other 1"
    assert (tied["id"], tied["outcome"]) == ("same", "inconsistent")
    assert [(one["chosen"], one["rejected"]) for one in tied["tries"]] == [(1, 1), (1, 1)]


def test_a_refused_rubric_is_told_to_the_writer_who_may_do_better(serve):
    server = serve()
    found = contrast(server, [pair("second thoughts"), pair("why")])
    assert found.tries == (2, 1)
    assert found.summary() == {"pairs": 2, "kept": 2, "kept_at_first_try": 1, "left_out": {}}
    again = [u for s, u in server.asked if "attempt 1 was refused" in u]
    assert len(again) == 1
    assert "the preferred response has 0 and the other 1" in again[0]
    assert 'holds the word \\"bad\\"' in again[0]


@pytest.mark.parametrize(
    ("question", "outcome", "why"),
    [
        ("prose", "unreadable", "no JSON object but 'Sure! The first"),
        ("nan", "unreadable", "no JSON object"),
        ("broken", "unreadable", "no JSON object"),
        ("leaky", "unreadable", "a criterion speaks of the 'preferred response'"),
        ("refused", "unreadable", "the judge gave no answer"),
        ("silent", "unreadable", "the judge gave no answer"),
        ("ungraded", "not scorable", "rubric: 2 of 2 criteria without a verdict"),
    ],
)
def test_what_cannot_be_read_is_listed_beside_what_can(serve, question, outcome, why):
    found = contrast(serve(), [pair(question), pair("why")], tries=2)
    assert [row["id"] for row in found.rows] == ["why"]
    (left,) = found.left_out
    assert (left["row"], left["id"], left["outcome"]) == (1, question, outcome)
    assert why in left["why"] and len(left["tries"]) == 2


def test_the_margin_is_what_the_chosen_answer_must_lead_by(serve):
    row = pair("why", rejected="a good answer")  # holds one of the two words
    assert contrast(serve(), [row], margin=0.4).rows
    assert not contrast(serve(), [row], margin=0.5).rows


def test_rows_that_are_no_pair_are_listed(serve):
    rows = [
        pair("why"),
        pair("equal", rejected="a good and kind answer"),
        pair("many", chosen=["one", "two"], rejected=["three"]),
        pair("half", rejected=None),
    ]
    found = contrast(serve(), rows)
    assert [row["id"] for row in found.rows] == ["why"]
    assert [(one["row"], one["id"], one["outcome"]) for one in found.left_out] == [
        (2, "equal", "no pair"), (3, "many", "no pair"), (4, "half", "no pair"),
    ]  # fmt: skip
    assert "chosen and rejected are equal" in found.left_out[0]["why"]
    assert "column 'chosen' is ['one', 'two'], expected a text" in found.left_out[1]["why"]


def test_the_other_forms_of_preferences_get_a_prompt_of_their_own(serve):
    user = {"role": "user", "content": "why"}
    sides = {
        key: [user, {"role": "assistant", "content": pair("x")[key]}]
        for key in ("chosen", "rejected")
    }
    (row,) = contrast(serve(), [sides]).rows
    assert row["prompt"] == [user] and row["chosen"] == sides["chosen"]
    head = "\n\nHuman: why?\n\nAssistant:"
    texts = {"chosen": head + " a good and kind answer", "rejected": head + " a bad answer"}
    (row,) = contrast(serve(), [texts]).rows
    assert row["prompt"] == head
    named = {key: pair("x")[key] for key in ("chosen", "rejected")} | {"question": "why"}
    server = serve()
    (row,) = contrast(server, [named]).rows
    assert "prompt" not in row and server.contrasts() == ["why"]


def test_a_judge_that_calls_empty_answers_right_is_refused(serve):
    def easy(system, user):
        return said('{"score": 1}') if "grade" in system else judges(system, user)

    with pytest.raises(RuntimeError, match="calls 100.0% of empty responses right"):
        contrast(serve(easy), [pair("why")])


def questions(count):
    """Pairs of which some are kept at once, some later, and some never."""
    kinds = ["why {}", "second {}", "prose {}", "same {}", "ungraded {}"]
    return [pair(kinds[i % len(kinds)].format(i)) for i in range(count)]


def test_a_judge_that_dies_keeps_what_is_done_and_the_next_run_ends_the_same(serve, tmp_path):
    rows, kept = questions(40), tmp_path / "out.progress.jsonl"
    unbroken = contrast(serve(), rows)
    alive = threading.Event()
    alive.set()

    def mortal(system, user):
        if "rubrics" in system and "why 35" in user:
            alive.clear()  # all of the first portion is done, the second has begun
        return judges(system, user) if alive.is_set() else None

    server = serve(mortal)
    with pytest.raises(RuntimeError) as raised:
        contrast(server, rows, progress=kept)
    message = str(raised.value)
    assert "nor to a probe (last error: RemoteProtocolError" in message
    assert f"32 of 40 pairs are done and kept in {kept}; mend the judge" in message
    assert "run the same again to go on" in message
    server.behave = judges
    server.asked.clear()
    found = contrast(server, rows, progress=kept)
    assert found == unbroken
    assert {int(q.split()[1]) for q in server.contrasts()} == set(range(32, 40))


def test_a_fault_of_the_moment_costs_no_attempt(serve):
    met = set()

    def forgetful(system, user):
        first = (system, user) not in met
        met.add((system, user))
        return None if first and "rubrics" in system else judges(system, user)

    assert contrast(serve(forgetful), questions(4)) == contrast(serve(), questions(4))


def test_a_judge_that_refuses_the_key_stops_the_run_and_not_the_pairs(serve, tmp_path):
    rows, kept = questions(3), tmp_path / "p.jsonl"
    with pytest.raises(RuntimeError, match="answers 401.*0 of 3 pairs are done and kept in"):
        contrast(serve(lambda system, user: (401, "no key")), rows, progress=kept)
    assert len(contrast(serve(), rows, progress=kept).rows) == 2


def test_progress_of_other_options_is_refused(serve, tmp_path):
    server, kept = serve(), tmp_path / "p.jsonl"
    contrast(server, [pair("why")], progress=kept)
    with pytest.raises(ValueError, match="other rows, another model or other options"):
        contrast(server, [pair("why")], progress=kept, margin=0.1)


def test_the_command_killed_in_the_middle_goes_on_and_writes_the_same_file(serve, tmp_path):
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in questions(36)))
    running = {}
    whole = contrast(serve(), source)
    write_rows(tmp_path / "whole.jsonl", whole.rows, whole.left_out)

    def deadly(system, user):
        if "rubrics" in system and "why 35" in user and running:
            os.kill(running.pop("pid"), signal.SIGKILL)
        return judges(system, user)

    server = serve(deadly)

    line = ["data", "rubrics", source, "--output", tmp_path / "out.jsonl", "--json"]
    line += ["--judge-url", server.url, "--judge-model", "m"]
    command = [sys.executable, "-m", "llmalign.cli", *map(str, line)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    running["pid"] = first.pid
    assert first.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "out.jsonl").exists()
    server.asked.clear()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["kept"] == 15
    assert {int(q.split()[1]) for q in server.contrasts()} == {32, 33, 34, 35}
    for suffix in (".jsonl", ".left_out.json"):
        ours, theirs = (tmp_path / f"{name}{suffix}" for name in ("out", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert not (tmp_path / "out.progress.jsonl").exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("[]", "no JSON object"),
        ('{"hard_rules": "be nice"}', "hard_rules is 'be nice', expected a list of texts"),
        ('{"principles": ["ok", " "]}', "expected a list of texts"),
        ('{"hard_rules": [], "principles": []}', "expected a list of criteria"),
        (json.dumps({"principles": [f"p{i}" for i in range(17)]}), "17 criteria, expected at most"),
        ('{"principles": ["Is like Response A."]}', "speaks of the 'Response A'"),
    ],
)
def test_a_rubric_of_another_form_is_refused(answer, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        read_rubric(answer, veto=True)


def test_without_veto_no_rule_has_a_minimum_and_a_text_counts_once():
    (only,) = read_rubric('{"hard_rules": ["is brief", " is brief "]}', veto=False)
    assert only == {"criterion": "is brief", "name": "hard_1", "weight": 1.0}


def test_the_judge_of_a_reward_file_scores_hard_problems(serve, tmp_path):
    path = tmp_path / "reward.yaml"
    url = serve().url
    path.write_text(f"reward: rubric\njudge: {{model: m, base_url: '{url}'}}\n")
    rubrics = ['The response holds the word "good".']
    rows = [{"prompt": text, "completion": text, "rubrics": rubrics} for text in ("good", "bad")]
    found = select_hard(path, rows, high=0.5)
    assert [row["prompt"] for row in found.rows] == ["bad"] and found.scores == [0.0]
