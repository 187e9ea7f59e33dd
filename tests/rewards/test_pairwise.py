"""Comparisons by a judge behind a real server of the chat-completions API."""

import json
import math
import random
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.comparing import Server, judge, longer

from llmalign.advantages import both_orders, brpo, pairwise_wins
from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, Services, build_reward
from llmalign.rewards.pairwise import against_reference, drawn_reference, margins
from llmalign.verifiers import GoldError, Verdict


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running: Server) -> Server:
    running.rule = longer
    running.shown.clear()
    running.asked.clear()
    return running


def first(a: str, b: str, asked: str) -> str:
    return "A"


def group(*texts: str, id: str = "p7", **columns: Any) -> Group:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem(id, "Who?", columns), samples)


def score(server: Server, options: Any, *texts: str, **columns: Any) -> list[Score]:
    reward = build_reward({"pairwise": options})
    with judge(server) as asked:
        reward.bind(Services(verify=lambda *_: [], judge=asked))
        return reward.score([group(*texts, **columns)])[0]


def values(scores: list[Score]) -> list[float | None]:
    return [one.value for one in scores]


def drawing(index: int, size: int) -> dict[str, Any]:
    """Options under which sample ``index`` of ``size`` is the reference of problem p7 at step 0."""
    seed = next(s for s in range(1000) if drawn_reference("p7", 0, size, seed=s) == index)
    return {"against": "reference", "seed": seed}


# -- all pairs -------------------------------------------------------------------------------------


def test_each_pair_is_shown_in_both_orders_and_pays_the_share_of_wins(server: Server) -> None:
    scores = score(server, "all", "ccc", "a", "bb")
    assert values(scores) == [1.0, 0.0, 0.5]
    pairs = [("ccc", "a"), ("ccc", "bb"), ("a", "bb")]
    assert sorted(server.shown) == sorted(pairs + [pair[::-1] for pair in pairs])
    assert scores[0].versus == {1: (1.0, 1.0), 2: (1.0, 1.0)}
    assert scores[2].versus == {0: (-1.0, -1.0), 1: (1.0, 1.0)}
    assert scores[1].aspects == {
        "pairwise": 0.0, "pairwise.unreadable": 0.0, "pairwise.position_bias": 0.0
    }  # fmt: skip


def test_a_judge_that_likes_the_first_place_prefers_nobody_and_is_seen(server: Server) -> None:
    server.rule = first
    scores = score(server, "all", "ccc", "a", "bb")
    assert values(scores) == [0.5, 0.5, 0.5]
    assert scores[0].versus == {1: (1.0, -1.0), 2: (1.0, -1.0)}
    assert [one.aspects["pairwise.position_bias"] for one in scores] == [1.0, 1.0, 1.0]
    assert margins(scores) == [[0.0] * 3] * 3


def test_the_bias_is_the_share_of_a_samples_own_pairs(server: Server) -> None:
    # the one pair of like length goes to the first place
    server.rule = lambda a, b, asked: longer(a, b, asked).replace("tie", "A")
    scores = score(server, "all", "ccc", "a", "b")
    assert [one.aspects["pairwise.position_bias"] for one in scores] == [0.0, 0.5, 0.5]
    assert values(scores) == [1.0, 0.25, 0.25]


def test_values_are_those_of_a_plain_loop_whatever_the_judge_says(server: Server) -> None:
    said: dict[tuple[str, str, str], str] = {}
    draw = random.Random(3)
    lock = threading.Lock()

    def moody(a: str, b: str, asked: str) -> str:
        vote = re.findall(r"judgement (\d) of 3", asked)[0]
        with lock:
            return said.setdefault((a, b, vote), draw.choice(["A", "B", "tie", "both"]))

    server.rule = moody
    texts = [f"t{k}" for k in range(5)]
    scores = score(server, {"votes": 3}, *texts)
    assert len(said) == 5 * 4 * 3

    def share(me: str, other: str) -> float | None:
        orders = []
        for shown, points in (
            ((me, other), {"A": 1.0, "tie": 0.5, "B": 0.0}),
            ((other, me), {"A": 0.0, "tie": 0.5, "B": 1.0}),
        ):
            known = [points[w] for v in "123" if (w := said[(*shown, v)]) != "both"]
            orders += [sum(known) / len(known)] if known else []
        return sum(orders) / len(orders) if orders else None

    for one, text in zip(scores, texts, strict=True):
        known = [p for t in texts if t != text and (p := share(text, t)) is not None]
        assert one.value == pytest.approx(sum(known) / len(known))
        unread = sum(text in key[:2] and word == "both" for key, word in said.items())
        assert one.aspects["pairwise.unreadable"] == pytest.approx(unread / 24)
    table = margins(scores)
    assert all(table[i][j] == -table[j][i] for i in range(5) for j in range(5))


@pytest.mark.parametrize(
    ("diff", "expected"),
    [
        ([[0, -1, -3], [1, 0, -2], [3, 2, 0]], [-0.8728713739, -0.2182178435, 1.091089217]),
        ([[0, 1, -2], [-1, 0, 3], [2, -3, 0]], [-0.2182178435, 0.436435687, -0.2182178435]),
    ],
    ids=["of scalar rewards 1, 2, 4", "intransitive"],
)
def test_the_margins_of_numbers_reach_the_advantage_of_think_rm(
    server: Server, diff: list[list[int]], expected: list[float]
) -> None:
    names = ["x", "y", "z"]

    def grade(a: str, b: str, asked: str) -> str:
        lead = diff[names.index(a)][names.index(b)]
        return json.dumps({"a": 5 + lead / 2 + 1, "b": 5 - lead / 2})  # one more for the first

    server.rule = grade
    table = margins(score(server, {"answer": "numbers"}, *names))
    assert table == diff  # both orders take the place's share out
    adv_BT = pairwise_wins(
        torch.tensor(table), torch.zeros(3, dtype=torch.int64), torch.ones(3, 1).bool(), eps=1e-6
    )
    assert adv_BT[:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_equal_texts_tie_and_empty_ones_lose_without_a_judge(server: Server) -> None:
    scores = score(server, {"answer": "numbers"}, "same", "same", " ", "Solution:")
    assert server.asked == []
    assert values(scores) == pytest.approx([5 / 6, 5 / 6, 1 / 6, 1 / 6])
    assert scores[0].versus == {1: (0.0, 0.0), 2: (10.0, 10.0), 3: (10.0, 10.0)}
    assert scores[2].versus[3] == (0.0, 0.0)
    # nothing was asked, so that nothing dilutes the judge's shares
    assert scores[0].aspects["pairwise.unreadable"] is None
    assert scores[0].aspects["pairwise.position_bias"] is None
    assert scores[0].note == ""


def test_a_lone_sample_is_not_scorable_and_says_why(server: Server) -> None:
    (alone,) = score(server, "all", "a")
    assert alone.value is None and alone.note == "pairwise: no other sample to compare with"
    assert margins([alone]) == [[0.0]]


def test_judgements_that_cannot_be_read_are_left_out_and_counted(server: Server) -> None:
    server.rule = lambda a, b, asked: "Hm." if "x" in a else longer(a, b, asked)
    scores = score(server, "all", "xxx", "b", "cc")
    # x is read only where it is shown second; its outcome of both orders is not known
    assert scores[0].versus == {1: (None, 1.0), 2: (None, 1.0)}
    assert values(scores) == [1.0, 0.0, 0.5]
    assert scores[0].aspects["pairwise.unreadable"] == 0.5
    assert scores[0].aspects["pairwise.position_bias"] is None
    assert scores[1].note == "pairwise: 1 of 4 judgements not readable"
    assert margins(scores)[0] == [0.0, 1.0, 1.0]


def test_where_nothing_can_be_read_nothing_is_scorable(server: Server) -> None:
    server.rule = lambda a, b, asked: "It depends."
    scores = score(server, "all", "a", "bb")
    assert values(scores) == [None, None]
    assert scores[0].note == "pairwise: 2 of 2 judgements not readable"
    assert scores[0].judgement is None and scores[0].aspects["pairwise.unreadable"] == 1.0
    assert scores[0].versus == {1: (None, None)}
    assert math.isnan(margins(scores)[0][1])


def test_a_judge_that_is_down_leaves_samples_undecided_and_a_host_counts_them(
    server: Server,
) -> None:
    server.rule = lambda a, b, asked: None
    reward = build_reward("pairwise")
    host = RewardHost(reward, judge=judge(server), max_undecided=0.5)
    (scores,) = host.score([group("a", "bb")])
    host.close()
    assert values(scores) == [None, None]
    assert scores[0].judgement is not None
    assert scores[0].judgement.verdict is Verdict.UNDECIDED
    with pytest.raises(RuntimeError, match="2 of 2 samples are undecided.*judge gave no answer"):
        host.stats()


# -- one reference ---------------------------------------------------------------------------------


def test_numbers_of_a_judge_reach_the_advantage_of_brpo(server: Server) -> None:
    grades = {"one": 7, "two": 5, "three": 8, "four": 6}
    server.rule = lambda a, b, asked: json.dumps({"a": grades[a], "b": grades[b]})
    scores = score(server, {**drawing(3, 4), "answer": "numbers"}, *grades)
    assert values(scores) == [1.0, 0.0, 1.0, 0.5]
    assert len(server.asked) == 6 and all("four" in pair for pair in server.shown)
    assert scores[3].versus == {} and scores[3].note == "pairwise: the reference of its group"
    rows, is_reference = against_reference(scores)
    assert rows[:3] == [[1.0, 1.0], [-1.0, -1.0], [2.0, 2.0]] and all(map(math.isnan, rows[3]))
    assert is_reference == [False, False, False, True]
    adv_BT = brpo(
        torch.tensor(rows), torch.tensor(is_reference), torch.zeros(4, dtype=torch.int64),
        torch.ones(4, 1).bool(), max_skew=0.6,
    )  # fmt: skip
    assert adv_BT[:, 0].tolist() == [1, -1, 1, 0]


def test_a_win_in_one_order_only_is_no_win_for_brpo(server: Server) -> None:
    server.rule = first
    scores = score(server, drawing(0, 2), "a", "b")
    rows, is_reference = against_reference(scores)
    assert rows[1] == [1.0, -1.0] and is_reference == [True, False]
    assert values(scores) == [0.5, 0.5]


def test_a_tie_with_the_reference_needs_no_judge(server: Server) -> None:
    rows, _ = against_reference(score(server, {**drawing(1, 2), "votes": 2}, "a", "a"))
    assert rows[0] == [0.0] * 4 and server.asked == []


def test_a_step_that_ends_while_the_judge_thinks_moves_no_reference(server: Server) -> None:
    host = RewardHost(build_reward({"pairwise": "reference"}), judge=judge(server))
    by_step = [drawn_reference("p7", step, 3, seed=0) for step in range(20)]
    other_step = next(step for step in range(20) if by_step[step] != by_step[0])

    def moving(a: str, b: str, asked: str) -> str:
        host.step = other_step
        return longer(a, b, asked)

    server.rule = moving
    before = host.score([group("a", "bb", "ccc")])[0]
    after = host.score([group("a", "bb", "ccc")])[0]
    host.close()
    assert against_reference(before)[1].index(True) == by_step[0]
    assert against_reference(after)[1].index(True) == by_step[other_step]


def test_a_lone_sample_is_its_own_reference(server: Server) -> None:
    (alone,) = score(server, "reference", "a")
    assert alone.value == 0.5
    assert against_reference([alone]) == ([[]], [True])


def test_comparisons_with_different_samples_are_refused_for_brpo(server: Server) -> None:
    with pytest.raises(ValueError, match=r"versus names samples \[0, 1, 2\], expected one ref"):
        against_reference(score(server, "all", "a", "bb", "ccc"))


# -- an anchor -------------------------------------------------------------------------------------


def test_an_anchor_is_beaten_as_surely_as_the_votes_of_both_orders_say(server: Server) -> None:
    def split(a: str, b: str, asked: str) -> str:
        vote = int(re.findall(r"judgement (\d+) of 10", asked)[0])
        wins = vote <= (8 if a == "mine" else 7)
        return "A" if wins == (a == "mine") else "B"

    server.rule = split
    (found,) = score(server, {"against": "anchor", "votes": 10}, "mine", anchor="gold")
    assert found.value == pytest.approx(0.75)  # (0.8 + 0.7) / 2
    assert found.aspects["pairwise.position_bias"] == 0.0
    assert found.versus == {} and len(server.asked) == 20
    first_B, second_B = torch.tensor([0.8]), torch.tensor([0.7])
    assert both_orders(first_B, second_B).item() == pytest.approx(found.value)


def test_the_anchors_own_text_is_even_and_an_empty_response_loses_unasked(server: Server) -> None:
    options = {"against": "anchor", "column": "best"}
    assert values(score(server, options, "gold", ".", best=["gold"])) == [0.5, 0.0]
    assert server.asked == []


def test_one_order_alone_says_nothing_of_an_anchor(server: Server) -> None:
    server.rule = lambda a, b, asked: "A" if a == "mine" else "well"
    (found,) = score(server, "anchor", "mine", anchor="gold")
    assert found.value is None and found.note == "pairwise: 1 of 2 judgements not readable"
    assert found.judgement is None  # the judge is up


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "problem 'p7': column 'anchor' is missing"),
        ({"anchor": "  "}, "column 'anchor' is '  ', expected a text"),
        ({"anchor": ["a", "b"]}, "column 'anchor' holds 2 texts, expected one"),
    ],
)
def test_a_problem_without_an_anchor_is_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError, match=re.escape(message)):
        build_reward({"pairwise": "anchor"}).check(group("a", **columns).problem)
    build_reward("pairwise").check(group("a", **columns).problem)


# -- what is asked ----------------------------------------------------------------------------


def test_the_judge_is_shown_question_criteria_and_both_texts_as_they_are(server: Server) -> None:
    options = {"criteria": "it is kind", "prompt": "{b}\n{a}\nQ {question} C {criteria} {x} {}"}
    score(server, options, "{b} {question}", "\\1 {a}")
    assert sorted(server.shown) == [("\\1 {a}", "{b} {question}"), ("{b} {question}", "\\1 {a}")]
    for asked in server.asked:
        assert asked.index("Response B") < asked.index("Response A")
        assert "Q Who? C it is kind {x} {}" in asked and "A, B, or tie" in asked
        assert "judgement" not in asked


def test_a_chat_and_its_criteria_are_shown_by_default(server: Server) -> None:
    reward = build_reward({"pairwise": {"answer": "numbers"}})
    samples = group("a", "bb").samples
    prompt = ({"role": "user", "content": "Hi?"},)
    server.rule = lambda a, b, asked: '{"a": 1, "b": 1}'
    with judge(server) as asked:
        reward.bind(Services(verify=lambda *_: [], judge=asked))
        reward.score([Group(Problem("p", prompt), samples)])
    assert "Question:\nuser: Hi?" in server.asked[0]
    assert "leaves out nothing that matters" in server.asked[0]
    assert '{"a": X, "b": Y}' in server.asked[0]


# -- through the tree ------------------------------------------------------------------------------


def through(server: Server, spec: Any, *texts: str) -> list[Score]:
    with judge(server) as asked:
        reward = build_reward(spec)
        reward.bind(Services(verify=lambda *_: [], judge=asked))
        return reward.score([group(*texts)])[0]


def test_nodes_hand_comparisons_on(server: Server) -> None:
    spec = {"scale": {"of": {"sum": ["refusal", "pairwise"]}, "factor": 2.0}}
    scores = through(server, spec, "a", "bb")
    assert values(scores) == [0.0, 2.0]
    assert scores[1].versus == {0: (1.0, 1.0)}


def test_a_closed_gate_silences_the_comparisons_below_it(server: Server) -> None:
    spec = {"gate": ["refusal", {"pairwise": drawing(0, 3)}]}
    scores = through(server, spec, "a", "I cannot.", "ccc")
    assert values(scores) == [0.0, 2.0, 0.0]
    assert [one.versus for one in scores] == [{}, {0: (1.0, 1.0)}, {}]
    rows, is_reference = against_reference(scores)
    assert is_reference == [True, False, False]
    assert rows[1] == [1.0, 1.0] and all(map(math.isnan, rows[2]))  # not preferred
