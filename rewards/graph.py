"""Rewards of reasoning with knowledge that has to be fetched: from a graph, a search, the user."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Problem, Sample, Score, StepScore
from llmalign.rewards.node import Node
from llmalign.rewards.references import TextOnly, answer_text, named_score, references
from llmalign.rewards.relevance import question, variety
from llmalign.rewards.rouge import words
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers.format import tagged
from llmalign.verifiers.text import normalise_text


@REWARDS.register(
    "progressive_retrieval",
    paper="GraphRAG-R1 (progressive retrieval attenuation)",
    traits={"example": {"sum": ["cost_aware_f1", {"progressive_retrieval": {"first": 0.5}}]}},
)
@dataclass(kw_only=True)
class ProgressiveRetrieval(TextOnly):
    """Pays each further retrieval less than the one before (PRA).

        first * (1 + decay + decay^2 + ...)   one term for each retrieval, first * calls at decay 1

    Range: [0, first * (1 - decay^max_calls) / (1 - decay)]. Only different queries count, and no
    empty one. It pays retrievals that help nobody: for a first phase, before ``cost_aware_f1``.

    Args:
        tag: a retrieval is ``<tag>query</tag>`` in the response.
        first: what the first one is paid, >= 0.
        decay: what each further one is paid, as a share of the one before, in [0, 1].
        max_calls: retrievals beyond this are paid nothing.
    Source: GraphRAG-R1, reconstructed; its constants were not found, the defaults are ours.
    """

    name: str
    tag: str = "search"
    first: float = 0.5
    decay: float = 0.5
    max_calls: int = 8

    def __post_init__(self) -> None:
        if self.first < 0 or self.max_calls < 0:
            raise ValueError("first or max_calls is negative, expected both >= 0")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay}, expected it in [0, 1]")

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Counts retrievals."""
        return [[self._score(sample) for sample in group.samples] for group in groups]

    def _score(self, sample: Sample) -> Score:
        calls = len({normalise_text(query) for query in queries(sample, self.tag)})
        value = retrieval_attenuation(min(calls, self.max_calls), self.first, self.decay)
        return named_score(self.name, {"": value, "calls": float(calls)})


def queries(sample: Sample, tag: str) -> list[str]:
    """The retrievals of a response that ask for something, in order."""
    return [query for query in tagged(sample.text, tag) if query.strip()]


def retrieval_attenuation(calls: int, first: float, decay: float) -> float:
    """sum of first * decay^i for i below ``calls``; ``first * calls`` where decay is 1."""
    if decay == 1:
        return first * calls
    return first * (1 - decay**calls) / (1 - decay)


@REWARDS.register(
    "cost_aware_f1",
    paper="GraphRAG-R1 (cost-aware F1)",
    traits={"example": {"cost_aware_f1": {"cost": 0.1}}},
)
@dataclass(kw_only=True)
class CostAwareF1(TextOnly):
    """F1 of the answer's words against the gold, less with every retrieval (CAF).

        F1 * scale * exp(-cost * calls)

    Range: [0, scale]. The answer is the last ``<answer>…</answer>`` after the thinking, else all
    of it; words are compared as in SQuAD; the best of several golds counts.

    Args:
        column: the column that holds the gold answers, a text or a list of texts.
        tag: a retrieval is ``<tag>query</tag>`` in the response; empty ones cost as well.
        scale: what a right answer without any retrieval is paid, > 0.
        cost: of each retrieval, >= 0.
    Source: GraphRAG-R1, reconstructed; its constants were not found, the defaults are ours.
    """

    name: str
    column: str = "answer"
    tag: str = "search"
    scale: float = 1.0
    cost: float = 0.1

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.cost < 0:
            raise ValueError(
                f"scale is {self.scale} and cost is {self.cost}, expected > 0 and >= 0"
            )

    def check(self, problem: Problem) -> None:
        """Raises GoldError where there is no gold."""
        references(problem, self.column)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Compares words and counts retrievals."""
        return [self._score(group) for group in groups]

    def _score(self, group: Group) -> list[Score]:
        golds = references(group.problem, self.column)
        scores = []
        for sample in group.samples:
            answer, calls = answer_text(sample), len(tagged(sample.text, self.tag))
            f1 = max(word_f1(answer, gold) for gold in golds)
            value = cost_aware_f1(f1, calls, self.scale, self.cost)
            scores.append(named_score(self.name, {"": value, "f1": f1, "calls": float(calls)}))
        return scores


def cost_aware_f1(f1: float, calls: int, scale: float, cost: float) -> float:
    """``f1 * scale * exp(-cost * calls)``."""
    return f1 * scale * math.exp(-cost * calls)


def word_f1(answer: str, gold: str) -> float:
    """F1 of the words of two texts, normalised as in SQuAD; how often a word stands counts."""
    said, wanted = (Counter(normalise_text(text).split()) for text in (answer, gold))
    common = (said & wanted).total()
    return 2 * common / (said.total() + wanted.total()) if common else 0.0


@REWARDS.register(
    "kg_path",
    paper="Knowledge Graphs are Implicit Reward Models",
    traits={
        "short": "of",
        "children": "of",
        "example": {"kg_path": {"of": "choice", "column": "path"}},
    },
)
@dataclass(kw_only=True)
class KgPath(Node):
    """Pays the right answer, and reasoning that names what stands on a path of a knowledge graph.

        right_pay or wrong_pay + min(1.2 * hits / path words + 0.3 * 1[hits >= 2], 1.5) * variety

    Hits are the different words of the path that the response holds, thinking included; variety is
    its share of distinct trigrams. The value replaces the child's.
    Range: [wrong_pay, right_pay + 1.5].

    Args:
        of: the reward that says what is right, such as ``math``.
        column: the column that holds the path: a text or a list of texts (entities, relations).
        right_pay, wrong_pay: for the answer.
        wrong_share: of the path's pay that a wrong answer keeps, in [0, 1].
        right_above: a response is right where the child's value exceeds this.
    Source: Knowledge Graphs are Implicit Reward Models. Different from there: a wrong answer keeps
    half of the path's pay (1 is the paper's), so that by default it never earns more than a right
    one. How the paper measures repetition was not found. Listing all entities still earns the
    whole path.
    """

    single: ClassVar[bool] = True

    column: str = "path"
    right_pay: float = 0.1
    wrong_pay: float = -1.0
    wrong_share: float = 0.5
    right_above: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.right_pay <= self.wrong_pay:
            raise ValueError(
                f"right_pay is {self.right_pay} and wrong_pay is {self.wrong_pay}; "
                "right_pay must be the larger, or the policy is paid for wrong answers"
            )
        if not 0 <= self.wrong_share <= 1:
            raise ValueError(f"wrong_share is {self.wrong_share}, expected it in [0, 1]")

    def check(self, problem: Problem) -> None:
        """Raises GoldError where there is no path."""
        super().check(problem)
        references(problem, self.column)

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Adds the path's pay to that of the answer; None where the child is None."""
        path = set(words(" ".join(references(group.problem, self.column))))
        rows = zip(group.samples, values[0], strict=True)
        return [None if v is None else self._pay(s, path, v > self.right_above) for s, v in rows]

    def _pay(self, sample: Sample, path: set[str], right: bool) -> float:
        said = words(sample.text)
        pay = path_pay(len(path & set(said)), len(path), variety(said))
        return self.right_pay + pay if right else self.wrong_pay + self.wrong_share * pay


def path_pay(hits: int, path_words: int, variety: float) -> float:
    """min(1.2 * hits / path_words + 0.3 * 1[hits >= 2], 1.5) * variety; 0 for an empty path."""
    if not path_words:
        return 0.0
    return min(1.2 * hits / path_words + 0.3 * (hits >= 2), 1.5) * variety


@REWARDS.register(
    "proactive",
    paper="Teaching Language Models To Gather Information Proactively",
    traits={"example": {"proactive": {"column": "masked_facts"}}},
)
@dataclass(kw_only=True)
class Proactive(TextOnly):
    """One for each fact, kept from the prompt, that the user's replies to questions bring out.

    Range: [0, number of facts]. A fact counts once, and not at all where the prompt says it; each
    turn's new facts are the value of its step. A reply is ``<reply>…</reply>`` right after the
    ``</question>`` it answers. Let ``</question>`` be a stop string, so that what follows it is the
    user's and never the policy's.

    Args:
        column: the column that holds the facts, a text or a list of texts.
        question_tag, reply_tag: names of the two tags.
    Source: Teaching Language Models To Gather Information Proactively, reconstructed. A reply
    brings a fact out where it holds its words one after another; a simulated user in other words
    needs a judge.
    """

    name: str
    column: str = "masked_facts"
    question_tag: str = "question"
    reply_tag: str = "reply"

    def check(self, problem: Problem) -> None:
        """Raises GoldError where there are no facts."""
        references(problem, self.column)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Reads the replies."""
        return [self._score(group) for group in groups]

    def _score(self, group: Group) -> list[Score]:
        asked = question(group.problem.prompt)
        facts = references(group.problem, self.column)
        masked = [fact for fact in facts if not says(asked, fact)]
        return [self._one(sample.text, masked) for sample in group.samples]

    def _one(self, text: str, masked: Sequence[str]) -> Score:
        turns = replies(text, self.question_tag, self.reply_tag)
        elicited = [[fact for fact in masked if says(reply, fact)] for _, _, reply in turns]
        counts = new_facts(masked, elicited)
        steps = tuple(
            StepScore(start, end, float(count))
            for (start, end, _), count in zip(turns, counts, strict=True)
        )
        value = float(sum(counts))
        return Score(
            value, {self.name: value, f"{self.name}.turns": float(len(turns))}, steps=steps
        )


def new_facts(masked: Sequence[str], elicited: Sequence[Sequence[str]]) -> list[int]:
    """For each turn how many of the masked facts it brings out for the first time."""
    left, counts = set(masked), []
    for facts in elicited:
        counts.append(len(left & set(facts)))
        left -= set(facts)
    return counts


def says(text: str, fact: str) -> bool:
    """Whether a text holds the words of a fact one after another; never for one without words."""
    wanted = " ".join(words(fact))
    return bool(wanted) and f" {wanted} " in f" {' '.join(words(text))} "


def replies(text: str, question_tag: str, reply_tag: str) -> list[tuple[int, int, str]]:
    """(start, end, reply) of each turn: start and end of what the policy wrote, and the reply."""
    turns, start, place = [], 0, 0
    asked, opening, closing = f"</{question_tag}>", f"<{reply_tag}>", f"</{reply_tag}>"
    for part in text.split(asked)[:-1]:
        place += len(part) + len(asked)
        following = text.find(asked, place)
        rest = text[place : None if following < 0 else following]
        begun, ended = rest.lstrip(), rest.find(closing)
        if begun.startswith(opening) and ended >= 0:
            inside = begun[len(opening) :].partition(closing)[0]
            turns.append((start, place, inside))
            start = place + ended + len(closing)
    return turns
