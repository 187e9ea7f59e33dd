"""Process reward models: the value of every step of an answer, and one value made of them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmalign.rewards.base import Group, Problem, Prompt, Score, StepScore
from llmalign.rewards.classifier import FromModel, Kind, Reader
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import column
from llmalign.verifiers import GoldError, Judgement, Verdict

Aggregate = Literal["min", "last", "mean", "product", "max"]
Shaping = Literal["none", "clip", "delta", "clip_delta"]
Span = tuple[int, int]

_AGGREGATES: dict[Aggregate, Callable[[Sequence[float]], float]] = {
    "min": min,
    "last": lambda values: values[-1],
    "mean": lambda values: math.fsum(values) / len(values),
    "product": math.prod,
    "max": max,
}
_TAGS = {"token": "\n", "causal": " ки"}  # of TRL, and of Math-Shepherd


@dataclass(frozen=True)
class _Row:
    """What the model reads of one sample, and where it says what it thinks of each step."""

    spans: tuple[Span, ...]
    ids: list[int]
    places: list[int]
    excess: int = 0
    why: str = ""  # no value, and the reason


@REWARDS.register(
    "prm",
    paper="Math-Shepherd; Clip and Delta: arXiv:2410.15115",
    traits={
        "example": {
            "sum": [
                "math",
                {"prm": {"model": "models/prm", "shaping": "clip_delta", "eta": 0.7, "weight": 1}},
            ]
        }
    },
)
@dataclass(kw_only=True)
class Prm(FromModel):
    """The worst step of the answer (or another aggregate), as a process reward model sees it.

        p_k = softmax(z)[good]          z: the logits at the end of step k
        value = aggregate of p_1 ... p_K,  or  alpha * sum_k shaped(p)_k

    Range: [0, 1] without shaping, [-alpha * eta * K, 0] with ``clip``, [0, alpha] with ``delta``,
    [-alpha * eta, 0] with ``clip_delta``. None for an answer without a step, and, counted as
    undecided, where the text is too long or a logit is not finite. The value of each step, shaped
    where there is a shaping, is a step score from its first to its last character. Differences
    telescope: summed up they say no more than the first step (and 0 where there is one only), and
    are meant for what credits each step by itself. Aspects, for the name ``prm``, before shaping:
    ``prm_min``, ``prm_mean``, ``prm_num_steps``. Alone it is gamed: pay a verified outcome beside.

    Args:
        form: ``token``: a token classifier as TRL trains them, read at the last token of the
            ``step_tag`` after each step. ``causal``: a language model as in Math-Shepherd, read at
            the ``step_tag`` as to whether ``good_token`` or ``bad_token`` comes.
        separator: what ends a step in the answer; white space alone is no step.
        newline_fallback: whether an answer without ``separator`` is split into its lines; else it
            is one step.
        step_tag: what is put after each step for the model to read; null: a newline for ``token``
            and `` ки`` for ``causal``.
        good_label: of ``token``: index or name of the label of a good step.
        good_token, bad_token: of ``causal``, one token each.
        template: ``plain``: the words of the question, without system messages, as both forms are
            trained; ``chat``: the prompt through the model's own chat template.
        question: column with the question as the model was trained to read it; null: the prompt.
        aggregate: what the value is made of; null: ``min``. Not together with a shaping.
        shaping: of the steps, so that repeating good ones does not pay. ``clip``: min(p_k - eta,
            0). ``delta``: p_k - p_{k+1}, the last but one stays p, the last is 0. ``clip_delta``:
            one after the other.
        eta: of ``clip``; so that most steps become 0.
        alpha: weight of the shaped steps, > 0; the paper's was not found.
    Source: Math-Shepherd; aggregates: rewards of best-of-n. On Designing Effective RL Reward at
    Training Time for LLM Reasoning, arXiv:2410.15115 (clip and delta; the form is reconstructed,
    and secondary notes disagree on the last term of delta). Different from released code: an
    answer without steps has no value, where others pay 0.5 or -1.
    """

    form: Literal["token", "causal"] = "token"
    separator: str = "\n\n"
    newline_fallback: bool = True
    step_tag: str | None = None
    good_label: int | str = 1
    good_token: str = "+"
    bad_token: str = "-"
    template: Literal["plain", "chat"] = "plain"
    question: str | None = None
    aggregate: Aggregate | None = None
    shaping: Shaping = "none"
    eta: float | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        clips = "clip" in self.shaping
        if not self.separator:
            raise ValueError("separator is empty, expected what ends a step, such as '\\n\\n'")
        if self.step_tag == "":
            raise ValueError("step_tag is empty, expected what follows each step, or null")
        if self.shaping != "none" and self.aggregate is not None:
            raise ValueError(
                f"aggregate is {self.aggregate!r} and shaping is {self.shaping!r}, expected only "
                "one; shaped steps are added up"
            )
        if clips and (self.eta is None or not 0 <= self.eta <= 1):
            raise ValueError(f"eta is {self.eta}, expected it in [0, 1] for {self.shaping!r}")
        if not clips and self.eta is not None:
            raise ValueError(f"eta is {self.eta}, expected null: shaping is {self.shaping!r}")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha is {self.alpha}, expected > 0")
        if self.shaping == "none" and self.alpha != 1:
            raise ValueError(f"alpha is {self.alpha}, expected 1 without shaping; use a weight")
        self.kind: Kind = self.form  # type: ignore[misc]

    @property
    def tag(self) -> str:
        """What follows each step."""
        return _TAGS[self.form] if self.step_tag is None else self.step_tag

    def check_model(self, reader: Reader) -> None:
        """Raises ValueError where the model lacks the label, a token or the chat template."""
        where = f"reward {self.name!r}"
        if not getattr(reader.tokenizer, "is_fast", False):
            raise ValueError(
                f"{where}: the tokenizer of {self.model!r} is slow, expected a fast one, which "
                "knows where its tokens lie in the text; convert it to tokenizer.json"
            )
        if self.template == "chat" and not reader.tokenizer.chat_template:
            raise ValueError(
                f"{where}: template is 'chat', expected 'plain', because {self.model!r} has no "
                "chat template"
            )
        self._columns(reader)
        if self.form == "causal":
            self._whole_text("1", ["1", "1"])
        elif not self._plain_ids(self.tag):
            raise ValueError(
                f"{where}: step_tag is {self.tag!r}, of which {self.model!r} sees no token, "
                "expected one that it reads; set step_tag to the one it was trained with"
            )

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the column of the question is missing or no text."""
        try:
            self._question(problem)
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Reads all samples of all groups, in batches of about equal length."""
        rows = [self._row(group.problem, s.text) for group in groups for s in group.samples]
        read = [row for row in rows if not row.why]
        columns = self._columns(self.reader)
        logits = iter(
            self.reader.classify_tokens(
                [row.ids for row in read],
                [row.places for row in read],
                batch_tokens=self.batch_tokens,
                columns=columns if self.form == "causal" else None,
            )
        )
        good = columns[0] if self.form == "token" else 0
        scores = iter([self._score(row, [] if row.why else next(logits), good) for row in rows])
        return [[next(scores) for _ in group.samples] for group in groups]

    # -- what the model reads ---------------------------------------------------------------------

    def _question(self, problem: Problem) -> Prompt:
        if self.question is None:
            return problem.prompt
        found = column(problem, self.question)
        if not isinstance(found, str):
            raise GoldError(
                f"column {self.question!r} is {repr(found)[:80]}, expected the question as text; "
                "map it in data"
            )
        return found

    def _row(self, problem: Problem, answer: str) -> _Row:
        spans = tuple(step_spans(answer, self.separator, self.newline_fallback))
        if not spans:
            return _Row(spans, [], [], why="the answer has no step")
        steps = [answer[start:end] for start, end in spans]
        build = self._separate_tokens if self.form == "token" else self._whole_text
        ids, places = build(self._question(problem), steps)
        fitted, excess = self.fitted(ids)
        if fitted is None or min(places) <= excess > 0:
            length = f"the text has {len(ids)} tokens, more than max_tokens, {self.limit}"
            return _Row(spans, [], [], excess, length)
        return _Row(spans, fitted, [place - excess for place in places], excess)

    def _separate_tokens(
        self, question: Prompt, steps: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        # Each part is tokenised alone, as in training: a tag must not merge with its step.
        tokenizer = self.reader.tokenizer
        if self.template == "chat":
            ids = list(
                tokenizer.apply_chat_template(
                    _chat(question), add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
        else:
            ids = self._plain_ids(plain(question))
            if tokenizer.bos_token_id is not None:
                ids = [tokenizer.bos_token_id, *ids]
        tag, places = self._plain_ids(self.tag), []
        for step in steps:
            ids += [*self._plain_ids(step), *tag]
            places.append(len(ids) - 1)
        return ids, places

    def _plain_ids(self, text: str) -> list[int]:
        tokenizer = self.reader.tokenizer
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _whole_text(self, question: Prompt, steps: Sequence[str]) -> tuple[list[int], list[int]]:
        tokenizer = self.reader.tokenizer
        chat = self.template == "chat"
        text = f"{plain(question)} "
        if chat:
            text = tokenizer.apply_chat_template(
                _chat(question), add_generation_prompt=True, tokenize=False
            )
        ends = []
        for step in steps:
            text += step + self.tag
            ends.append(len(text))
            text += "\n"
        found = tokenizer(
            text[:-1], add_special_tokens=not chat, return_offsets_mapping=True, verbose=False
        )
        last = {end: place for place, (start, end) in enumerate(found["offset_mapping"]) if end}
        if not all(end in last for end in ends):
            raise ValueError(
                f"reward {self.name!r}: step_tag is {self.tag!r}, which the tokenizer of "
                f"{self.model!r} joins with the text after it, expected one that it keeps apart; "
                "set step_tag to the one the model was trained with"
            )
        return list(found["input_ids"]), [last[end] for end in ends]

    def _columns(self, reader: Reader) -> list[int]:
        """The label of a good step, or the ids of the two tokens."""
        if self.form == "causal":
            return [self._token(reader, option) for option in ("good_token", "bad_token")]
        label, labels = self.good_label, reader.labels
        if len(labels) > 1 and isinstance(label, int) and 0 <= label < len(labels):
            return [label]
        if len(labels) > 1 and label in labels:
            return [labels.index(str(label))]
        raise ValueError(
            f"reward {self.name!r}: good_label is {label!r}, expected one of the labels of "
            f"{self.model!r}, which are at least two: {', '.join(labels)}"
        )

    def _token(self, reader: Reader, option: str) -> int:
        token = getattr(self, option)
        ids = reader.tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            return int(ids[0])
        known = reader.tokenizer.get_vocab()
        if token in known:
            return int(known[token])
        raise ValueError(
            f"reward {self.name!r}: {option} is {token!r}, which is {len(ids)} tokens of "
            f"{self.model!r}, expected one; name one of its vocabulary"
        )

    # -- what it says -----------------------------------------------------------------------------

    def _score(self, row: _Row, logits: Sequence[Sequence[float]], good: int) -> Score:
        if not row.spans:
            judgement = Judgement(Verdict.NO_ANSWER, None, row.why)
            return Score(None, {self.name: None}, judgement, f"{self.name}: {row.why}")
        if row.why:
            return self.undecided(row.why)
        if not all(math.isfinite(z) for step in logits for z in step):
            return self.undecided("a logit at a step is not finite")
        values = [good_probability(step, good) for step in logits]
        worth = shaped(values, self.shaping, self.eta or 0.0, self.alpha)
        if self.shaping == "none":
            value = aggregated(values, self.aggregate or "min")
        else:
            value = math.fsum(worth)
        aspects: dict[str, float | None] = {self.name: value}
        aspects[f"{self.name}_min"] = aggregated(values, "min")
        aspects[f"{self.name}_mean"] = aggregated(values, "mean")
        aspects[f"{self.name}_num_steps"] = float(len(values))
        note = f"{self.name}: the first {row.excess} tokens were cut" if row.excess else ""
        steps = tuple(StepScore(*span, v) for span, v in zip(row.spans, worth, strict=True))
        return Score(value, aspects, note=note, steps=steps)


def _chat(question: Prompt) -> list[dict[str, Any]]:
    if isinstance(question, str):
        return [{"role": "user", "content": question}]
    return [dict(message) for message in question]


def plain(question: Prompt) -> str:
    """The words of a prompt, without its system messages."""
    if isinstance(question, str):
        return question
    return "\n".join(m["content"] for m in question if m["role"] != "system")


def step_spans(text: str, separator: str, newline_fallback: bool) -> list[Span]:
    """(start, end) of every step in characters, white space around it left out; empty steps, such
    as between two separators, are none."""
    if newline_fallback and separator not in text.strip():
        separator = "\n"
    spans, start = [], 0
    for piece in text.split(separator):
        if inside := re.search(r"\S(?:.*\S)?", piece, re.DOTALL):
            spans.append((start + inside.start(), start + inside.end()))
        start += len(piece) + len(separator)
    return spans


def good_probability(logits: Sequence[float], good: int) -> float:
    """Softmax of the logits at ``good``."""
    largest = max(logits)
    return math.exp(logits[good] - largest) / math.fsum(math.exp(z - largest) for z in logits)


def aggregated(values: Sequence[float | None], how: Aggregate) -> float | None:
    """One value of those of the steps; steps without value do not count, None where none has one.

    Different from released code, where a missing step and an answer without steps count 0.5, or -1.
    """
    known = [value for value in values if value is not None]
    return _AGGREGATES[how](known) if known else None


def shaped(values: Sequence[float], how: Shaping, eta: float, alpha: float) -> list[float]:
    """Process rewards of the steps: ``alpha`` times their values, clipped, then differences.

        clip   r_k = min(p_k - eta, 0)
        delta  r_k = p_k - p_{k+1};  r_{K-1} = p_{K-1};  r_K = 0

    After delta the sum from step k on is alpha * p_k and no longer grows with the number of steps;
    a single step earns 0. Source: arXiv:2410.15115, reconstructed.
    """
    found = list(values)
    if "clip" in how:
        found = [min(value - eta, 0.0) for value in found]
    if "delta" in how:
        after = [*found[1:-1], 0.0][: len(found) - 1]
        found = [now - then for now, then in zip(found[:-1], after, strict=True)] + [0.0]
    return [alpha * value for value in found]
