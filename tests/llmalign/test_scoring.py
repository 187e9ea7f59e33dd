from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import llmalign.rewards.bmas
import llmalign.rewards.demonstration  # noqa: F401
from llmalign.observe.log import read_metrics
from llmalign.policy import load_policy
from llmalign.reference import Reference
from llmalign.rewards import Group, Problem, Sample
from llmalign.scale.checkpoint import list_checkpoints
from llmalign.schema import Model
from llmalign.scoring import FrozenModels, ModelScorer, TokenTable, open_host
from llmalign.training import train


@pytest.fixture
def policy():
    return load_policy(Model(build="tiny"), seed=0)


def sample(*token_ids):
    return Sample("", token_ids, (), "eos")


PAIRS = [("1+2=", sample(5, 6, 7)), ("", sample(8)), ("12*3=", sample()), ("9", sample(4, 4))]


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_scores_are_those_of_the_models_own_logits(policy, temperature):
    found = ModelScorer(policy, temperature=temperature)(PAIRS, hidden=True)
    for (prompt, given), scores in zip(PAIRS, found, strict=True):
        prompt_ids = list(policy.tokenizer(prompt)["input_ids"]) or [policy.tokenizer.bos_token_id]
        ids = [*prompt_ids, *given.token_ids]
        if not given.token_ids:
            assert scores.logprobs == scores.hidden == ()
            continue
        output = policy.model(torch.tensor([ids]), output_hidden_states=True)
        at = range(len(prompt_ids) - 1, len(ids) - 1)
        logits_TV = output.logits[0, list(at), : len(policy.tokenizer)].double() / temperature
        logp_TV = torch.log_softmax(output.logits[0, list(at)].double() / temperature, -1)
        expected = [logp_TV[t, token].item() for t, token in enumerate(given.token_ids)]
        assert scores.logprobs == pytest.approx(expected, abs=1e-5)
        entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
        assert scores.entropies == pytest.approx(entropy_T.tolist(), abs=1e-5)
        certainty_T = torch.logsumexp(logits_TV, -1) - logits_TV.mean(-1)
        assert scores.certainties == pytest.approx(certainty_T.tolist(), abs=1e-5)
        hidden_D = output.hidden_states[-1][0, list(at)].mean(0)
        assert scores.hidden == pytest.approx(hidden_D.tolist(), abs=1e-5)


def test_batches_do_not_change_the_scores(policy, monkeypatch):
    together = ModelScorer(policy, temperature=1.0)(PAIRS)
    monkeypatch.setattr("llmalign.scoring.BATCH_TOKENS", 1)
    alone = ModelScorer(policy, temperature=1.0)(PAIRS)
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.hidden == ()


def test_a_frozen_scorer_keeps_the_start_while_the_policy_learns(policy):
    frozen = ModelScorer(Reference(policy), temperature=1.0)
    own = ModelScorer(policy, temperature=1.0)
    before = frozen(PAIRS)
    with torch.no_grad():
        for parameter in policy.trainable.values():
            parameter.add_(0.01)
    assert frozen(PAIRS) == before
    assert own(PAIRS) != before


def test_running_statistics_of_rewards_survive_a_resume(small):
    running = {"normalize": {"of": "llmalign_loop_rewards:spread", "scope": "running"}}
    recipe = small(reward={"sum": [running]})
    folder = Path(recipe.output) / recipe.name
    train(recipe)
    whole = [step["reward"] for step in read_metrics(folder / "metrics.jsonl")]
    newest = list_checkpoints(folder / "checkpoints")[0]
    (newest / "trainable.pt").write_bytes(b"garbage")  # so that it goes on from the one before
    (folder / "summary.json").unlink()
    train(recipe, resume="auto")
    assert [step["reward"] for step in read_metrics(folder / "metrics.jsonl")] == whole


# -- a second frozen model ------------------------------------------------------------------------


@pytest.fixture
def before(tmp_path):
    """The folder of another model, smaller yet, with the same tokenizer."""
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48}
    load_policy(Model(build="tiny", build_options=sizes), seed=7).save(tmp_path / "before")
    return str(tmp_path / "before")


def moved(policy):
    with torch.no_grad():
        for parameter in policy.trainable.values():
            parameter.add_(0.05)


def test_a_model_opened_by_path_scores_as_it_would_alone_and_is_loaded_once(policy, small, before):
    models = FrozenModels(policy, small())
    found = models(before)(PAIRS)
    alone = ModelScorer(load_policy(Model(path=before), seed=0), temperature=1.0)(PAIRS)
    for one, other in zip(found, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-6)
    assert found != ModelScorer(policy, temperature=1.0)(PAIRS)
    assert models(before) is models(before)
    assert not any(p.requires_grad for p in models(before).model.model.parameters())


def test_another_vocabulary_is_refused_with_both_and_where_they_differ(policy, small, before):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(before)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(before)
    with pytest.raises(ValueError) as caught:
        FrozenModels(policy, small())(before)
    message = str(caught.value)
    assert "vocabulary of 260 tokens and 259 embeddings, expected the 259 tokens" in message
    assert "differ in 1, first in '<think>' = 259; give the model" in message


def test_a_tokenizer_that_outgrew_its_model_is_refused(policy, small, before):
    # the way out of another vocabulary, half gone: the same tokens, and no row for the last
    tokenizer = PreTrainedTokenizerFast.from_pretrained(before)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(before)
    policy.tokenizer = tokenizer
    with pytest.raises(ValueError, match="of 260 tokens and 259 embeddings, expected the 260"):
        FrozenModels(policy, small())(before)


def test_a_model_that_is_not_there_is_named(policy, small, tmp_path):
    with pytest.raises(RuntimeError, match="a reward's model '.*nowhere' cannot be opened"):
        FrozenModels(policy, small())(str(tmp_path / "nowhere"))


def test_the_demonstration_reward_is_the_ratio_of_the_start_and_the_base(policy, small, before):
    spec = {"demonstration": {"base": before}}
    host = open_host(small(), spec, policy)
    start = ModelScorer(policy, temperature=1.0)(PAIRS)
    base = ModelScorer(load_policy(Model(path=before), seed=0), temperature=1.0)(PAIRS)
    moved(policy)  # what is learnt later does not count
    groups = [Group(Problem("p", prompt), (given,)) for prompt, given in PAIRS]
    values = [scores[0].value for scores in host.score(groups)]
    host.close()
    for value, ours, theirs in zip(values, start, base, strict=True):
        expected = sum(ours.logprobs) - sum(theirs.logprobs) if ours.logprobs else None
        assert value == (None if expected is None else pytest.approx(expected, abs=1e-4))


def test_a_run_is_paid_for_demonstrations(small, before):
    reward = {"sum": [{"demonstration": {"base": before, "over": "mean"}}]}
    summary = train(small(reward=reward, schedule={"steps": 2}, data={"eval": None}))
    assert summary["finished"] and summary["bad_updates"] == 0
    assert summary["degenerate_groups"] == 0  # every sample has its own ratio


# -- embeddings of tokens -------------------------------------------------------------------------


def test_a_token_table_keeps_the_rows_the_policy_started_with(policy):
    table = TokenTable(policy)
    ids = policy.tokenizer("1+2", add_special_tokens=False)["input_ids"]
    expected = policy.model.get_input_embeddings().weight[ids].detach().clone().numpy()
    moved(policy)
    found, nothing = table(["1+2", ""])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32 and nothing.shape == (0, expected.shape[1])


def test_bmas_compares_answers_with_the_tables_rows(policy, small):
    host = open_host(small(), {"bmas": {"column": "answer"}}, policy)
    problem = Problem("p", "1+2=", {"answer": "3 apples"})
    texts = ["3 apples", "3 apricots", "zzz"]
    group = Group(problem, tuple(Sample(t, (5,), (0.0,), "eos") for t in texts))
    same, near, far = (score.value for score in host.score([group])[0])
    host.close()
    assert same == pytest.approx(1.0)
    assert 1.0 > near > far


def test_only_what_the_tree_needs_is_copied(policy, small, monkeypatch):
    copied = []
    monkeypatch.setattr("llmalign.scoring.Reference", lambda p: copied.append(p) or Reference(p))
    for spec in ("math", "self_certainty", {"bmas": {"column": "answer"}}):
        open_host(small(), spec, policy).close()
    assert copied == []
    open_host(small(), "endogenous", policy).close()
    assert copied == [policy]
