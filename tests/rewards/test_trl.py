"""Our rewards inside TRL's own trainer, and TRL's own rewards inside our host."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from llmalign.generate import generate_rows
from llmalign.policy import load_policy
from llmalign.rewards import Group, Problem, RewardHost, Sample, as_trl, build_reward
from llmalign.schema import Model
from llmalign.scoring import ModelScorer

pytestmark = pytest.mark.slow

TREE = {
    "sum": [
        {"math": {"markers": ["last_number"]}},
        {"majority": {"markers": ["last_number"], "weight": 0.5}},
        {"length": {"per_token": -0.01}},
    ]
}


def test_trees_and_functions_train_side_by_side_in_trls_grpo(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = generate_rows("arithmetic", 32, seed=0, split="train", options={"terms": 2})
    policy = load_policy(Model(build="tiny"), seed=0)
    tree, seen = as_trl(build_reward(TREE), workers=1), []

    def watched(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        values = tree(prompts=prompts, completions=completions, **columns)
        seen.append((len(completions), [*values]))
        return [*values]

    # A reward that reads the policy's own log-probs is lent the very model that TRL trains.
    scorer = ModelScorer(policy, temperature=1.0)
    sure = as_trl(build_reward("self_certainty"), policy=scorer)

    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=[as_trl(build_reward("math"), workers=1), watched, sure],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=12,
            max_steps=3,
            logging_steps=1,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": row["problem"], "answer": row["answer"]} for row in rows]
        ),
    )
    trainer.train()
    steps = [log for log in trainer.state.log_history if "rewards/watched/mean" in log]
    assert len(steps) == len(seen) == 3
    for log, (count, values) in zip(steps, seen, strict=True):
        known = [v for v in values if v is not None]
        assert count == 8 and known
        assert log["rewards/watched/mean"] == pytest.approx(sum(known) / len(known), abs=1e-5)
        assert 0 <= log["rewards/math/mean"] <= 1
    certainty = [log["rewards/self_certainty/mean"] for log in steps]
    assert all(value > 0 for value in certainty) and len(set(certainty)) == 3


@pytest.mark.parametrize("in_process", [False, True])
def test_a_reward_of_trl_is_one_line_of_our_tree(in_process: bool) -> None:
    call = {"function": "trl.rewards:think_format_reward", "in_process": in_process}
    texts = ["<think>a</think> 4", "4"]
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    chat = Group(Problem("a", ({"role": "user", "content": "2+2"},), {"answer": "4"}), samples)
    host = RewardHost(build_reward({"call": call}), workers=1, memory_mb=16_384)
    with contextlib.closing(host):
        (scores,) = host.score([chat])
    assert [score.value for score in scores] == [1.0, 0.0], scores[0].note
