import math
from typing import Any

import pytest
from support import bigram
from support.scoring import no_verifier

from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, build_reward
from llmalign.rewards.base import Services, TokenScores
from llmalign.rewards.demonstration import Demonstration


class Model:
    """Gives each token of a sample the same log-probability, or those it is told."""

    def __init__(self, *logprobs: float) -> None:
        self.logprobs = logprobs

    def __call__(self, pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
        known = self.logprobs
        rows = [known if len(known) > 1 else known * len(s.token_ids) for _, s in pairs]
        return [TokenScores(tuple(row[: len(s.token_ids)]), (), ())
                for row, (_, s) in zip(rows, pairs, strict=True)]  # fmt: skip


def score(sft: Any, base: Any, *samples: Sample, **options: Any) -> list[Score]:
    reward = build_reward({"demonstration": {"base": "before", **options}})
    reward.bind(Services(verify=no_verifier, frozen=sft, open_model=lambda path: base))
    return reward.score([Group(Problem("p", "x"), samples)])[0]


def sample(length: int, reason: Any = "eos") -> Sample:
    return Sample("y" * length, tuple(range(length)), (), reason)


def test_the_reward_is_the_log_ratio_of_the_two_models_summed() -> None:
    # -0.3 + 1.0 = 0.7, -0.8 + 0.9 = 0.1, -0.1 + 0.6 = 0.5
    (found,) = score(Model(-0.3, -0.8, -0.1), Model(-1.0, -0.9, -0.6), sample(3))
    assert found.value == pytest.approx(1.3)
    assert found.aspects == {
        "demonstration": pytest.approx(1.3),
        "demonstration_mean": pytest.approx(1.3 / 3),
        "demonstration_sft": pytest.approx(-1.2),
        "demonstration_base": pytest.approx(-2.5),
    }


def test_what_only_the_base_model_liked_is_paid_negatively() -> None:
    (found,) = score(Model(-2.0), Model(-0.5), sample(4))
    assert found.value == pytest.approx(-6.0)


def test_the_sum_grows_with_length_where_the_mean_does_not() -> None:
    short, long = score(Model(-0.5), Model(-1.0), sample(2), sample(20))
    assert (short.value, long.value) == pytest.approx((1.0, 10.0))
    short, long = score(Model(-0.5), Model(-1.0), sample(2), sample(20), over="mean")
    assert (short.value, long.value) == pytest.approx((0.5, 0.5))


def test_a_truncated_response_is_scored_like_any_other() -> None:
    whole, cut = score(Model(-0.5), Model(-1.0), sample(3), sample(3, "length"))
    assert cut == whole


def test_a_response_without_tokens_is_not_scorable() -> None:
    empty, other = score(Model(-0.5), Model(-1.0), sample(0), sample(1))
    assert empty.value is None and "no tokens" in empty.note
    assert other.value == pytest.approx(0.5)


@pytest.mark.parametrize("sft", [-math.inf, math.nan, -0.1])
@pytest.mark.parametrize("base", [-math.inf, math.nan])
def test_a_log_probability_that_is_not_finite_is_not_scorable(sft: float, base: float) -> None:
    (found,) = score(Model(sft), Model(base), sample(2))
    assert found.value is None and "not finite" in found.note
    (swapped,) = score(Model(base), Model(sft), sample(2))
    assert swapped.value is None


def test_both_models_read_the_prompt_of_each_sample() -> None:
    sft, base = bigram.BigramModel(), bigram.BigramModel()
    reward = build_reward({"demonstration": {"base": "before"}})
    reward.bind(Services(verify=no_verifier, frozen=sft, open_model=lambda path: base))
    groups = [Group(Problem(p, p), (bigram.sampled("ab"),) * 2) for p in ("abab", "xyz")]
    values = [[s.value for s in scores] for scores in reward.score(groups)]
    assert sft.asked == base.asked == [["abab", "abab", "xyz", "xyz"]]
    assert values == [[0.0, 0.0]] * 2  # one model twice: nothing was learnt in between


def test_the_base_model_is_opened_once_and_by_its_path() -> None:
    opened: list[str] = []
    reward = build_reward({"demonstration": "models/before"})

    def open_model(path: str) -> Any:
        opened.append(path)
        return Model(-1.0)

    host = RewardHost(reward, frozen=Model(-0.5), open_model=open_model)
    assert host.after_generation
    for _ in range(2):
        host.score([Group(Problem("p", "x"), (sample(1),))])
    host.close()
    assert opened == ["models/before"]


def test_no_groups_ask_no_model() -> None:
    asked = bigram.BigramModel()
    reward = build_reward({"demonstration": {"base": "before"}})
    reward.bind(Services(verify=no_verifier, frozen=asked, open_model=lambda path: asked))
    assert reward.score([]) == [] and asked.asked == []


def test_a_host_without_models_is_refused() -> None:
    with pytest.raises(ValueError, match="'demonstration' needs frozen_logprobs"):
        RewardHost(build_reward({"demonstration": {"base": "before"}}))
    reward = build_reward({"demonstration": {"base": "before"}})
    with pytest.raises(RuntimeError, match="needs the model 'before' and the host opens none"):
        reward.bind(Services(verify=no_verifier, frozen=Model(-1.0)))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="demonstration needs option 'base'"):
        build_reward("demonstration")
    with pytest.raises(ValueError, match="base is '', expected the model before fine-tuning"):
        Demonstration(name="d", base=" ")
    with pytest.raises(ValueError, match="over is 'max'"):
        build_reward({"demonstration": {"base": "before", "over": "max"}})
