from pathlib import Path

import pytest
import torch

from llmalign.observe.log import read_metrics
from llmalign.policy import Reference, load_policy
from llmalign.rewards import Sample
from llmalign.scale.checkpoint import list_checkpoints
from llmalign.schema import Model
from llmalign.scoring import ModelScorer
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
