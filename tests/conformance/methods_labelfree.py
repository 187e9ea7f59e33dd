"""Reference vectors of rewards that need no label, and of those that are likelihoods."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Group, Need, Problem, Sample, Score, Services, TokenScores
from llmalign.rewards.certainty import (
    Entropy,
    self_certainty,
    token_certainty,
    token_entropy,
)
from llmalign.rewards.combine import Sum
from llmalign.rewards.embed import cosine_matrix, ngram_embeddings
from llmalign.rewards.evol import evol_rewards, novelty
from llmalign.rewards.likelihood import (
    endogenous_rewards,
    follow_up_likelihood,
    state_value,
    total,
)
from llmalign.rewards.majority import Ballot, cross_labels, majority_vote
from llmalign.rewards.self_aligned import self_aligned_reward
from llmalign.rewards.tree import Child
from llmalign.verifiers.extract import extract

Case = Mapping[str, Any]

_NO_ANSWER = "I have no idea at all"


@dataclass(kw_only=True)
class _Given:
    """A leaf whose value is given."""

    need: ClassVar[Need] = "pointwise"
    name: str
    value: float

    def bind(self, services: Services) -> None: ...

    def check(self, problem: Problem) -> None: ...

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        return [[Score(self.value) for _ in group.samples] for group in groups]


def _weighted(*terms: tuple[float, float]) -> float | None:
    """Value and weight of each term, through our own sum."""
    leaves = [Child(_Given(name=str(i), value=v), w) for i, (v, w) in enumerate(terms)]
    group = Group(Problem("p", "q"), (Sample("", (), (), "eos"),))
    return Sum(name="sum", of=leaves).score([group])[0][0].value


def _rewards(ballot: Ballot[str]) -> list[float]:
    return [float(agrees) for agrees in ballot.agrees]


def _ttrl(case: Case) -> Any:
    ballot = majority_vote([answer or None for answer in case["inputs"]["answers"]])
    return {"label": ballot.label, "majority_ratio": ballot.ratio, "rewards": _rewards(ballot)}


def _co_reward(case: Case) -> Any:
    sides = [[a or None for a in case["inputs"][f"{s}_answers"]] for s in ("orig", "aug")]
    original, augmented = cross_labels(*sides)
    return {
        "label_for_orig": original.label or "",
        "label_for_aug": augmented.label or "",
        "r_orig": _rewards(original),
        "r_aug": _rewards(augmented),
    }


def _evol(case: Case) -> Any:
    inputs = case["inputs"]
    valid = inputs.get("valid") or [_has_digit(text) for text in inputs["texts"]]
    sides = [bool(b) if v else None for b, v in zip(inputs["base"], valid, strict=True)]
    vectors = inputs.get("embeddings") or ngram_embeddings(inputs["texts"])
    raw = novelty(cosine_matrix(vectors), sides)
    rewards = evol_rewards(raw, sides, mapping="released")
    if isinstance(case["expected"], list):
        return rewards
    return {"novelty_raw_valid": [value for value in raw if value is not None], "rewards": rewards}


def _has_digit(text: str) -> bool:
    return re.search(r"\d", extract(text, ("boxed",)) or "") is not None


def _self_certainty(case: Case) -> Any:
    inputs = case["inputs"]
    tokens = [[token_certainty(logits) for logits in row] for row in inputs["logits"]]
    uniform = [
        [token_certainty(logits) - token_certainty([0.0] * len(logits)) for logits in row]
        for row in inputs["logits"]
    ]
    sequence = [
        self_certainty(_kept(row, mask)) for row, mask in zip(tokens, inputs["mask"], strict=True)
    ]
    return {"per_token": tokens, "kl_uniform": uniform, "sequence": sequence}


def _rent(case: Case) -> Any:
    inputs = case["inputs"]
    tokens = [[token_entropy(logits) for logits in row] for row in inputs["logits"]]
    kept = [_kept(row, mask) for row, mask in zip(tokens, inputs["mask"], strict=True)]
    unanswered = [
        _entropy_reward(row, _NO_ANSWER, no_answer=-inputs["entropy_base"]) for row in kept
    ]
    return {
        "entropy": tokens,
        "reward": [_entropy_reward(row, _NO_ANSWER, no_answer=None) for row in kept],
        "reward_no_answer": unanswered[0],
    }


def _entropy_reward(
    entropies: Sequence[float], text: str, *, no_answer: float | None
) -> float | None:
    """The leaf's value of a response of which the policy says ``entropies``."""
    scores = TokenScores((), tuple(entropies), ())
    leaf = Entropy(name="entropy", no_answer=no_answer)
    leaf.bind(Services(verify=lambda *_: [], policy=lambda pairs, hidden=False: [scores]))
    group = Group(Problem("p", "q"), (Sample(text, (1,) * len(entropies), (), "eos"),))
    return leaf.score([group])[0][0].value


def _kept(row: Sequence[float], mask: Sequence[float]) -> list[float]:
    return [value for value, counts in zip(row, mask, strict=True) if counts]


def _sar(case: Case) -> Any:
    inputs = case["inputs"]
    named = re.search(r"\{.*\}", case["case"])
    options = json.loads(named[0]) if named else {}
    if (lowest := options.pop("clip_value", -1)) != -1:
        options["min_logprob"] = lowest
    compared = options.get("use_comparison", True)
    without = inputs["logp_without_question"] if compared else None
    found = self_aligned_reward(inputs["logp_given_question"], without, **options)
    if not isinstance(case["expected"], Mapping):
        return found.reward
    weights = {
        name: float(re.sub(r".*alpha", "", name).replace("_", "."))
        for name in case["expected"]
        if "alpha" in name
    }
    totals = {
        name: _weighted((float("correct" in name), 1.0), (found.reward, weight))
        for name, weight in weights.items()
    }
    return {"ppl_qa": found.given, "ppl_a": found.without, "sar": found.reward, **totals}


def _endogenous(case: Case) -> Any:
    inputs, alpha = case["inputs"], case["inputs"]["alpha"]
    values = [state_value(logits, alpha=alpha) for logits in inputs["logits"]]
    logps = [
        (logits[action] - value) / alpha
        for logits, value, action in zip(inputs["logits"], values, inputs["actions"], strict=False)
    ]
    rewards = endogenous_rewards(logps, values, alpha=alpha)
    telescoped = alpha * (total(logps) or 0.0) + values[0] - values[len(logps)]
    return {"r": rewards, "V": values, "sum": total(rewards), "check": telescoped}


def _follow_up(case: Case) -> Any:
    return follow_up_likelihood(case["inputs"]["logp_positive"], case["inputs"]["logp_negative"])


def _listener(case: Case) -> Any:
    inputs = case["inputs"]
    exact, listened = inputs["w"]
    return _weighted(
        (inputs["format"], 1.0), (inputs["exact"], exact), (inputs["p_listener"], listened)
    )


METHODS: dict[str, Callable[[Case], Any]] = {
    "TTRL": _ttrl,
    "Co-Reward": _co_reward,
    "EVOL-RL": _evol,
    "self-certainty (INTUITOR)": _self_certainty,
    "RENT": _rent,
    "SAR": _sar,
    "endogenous reward": _endogenous,
    "FLR": _follow_up,
    "listener reward": _listener,
}
