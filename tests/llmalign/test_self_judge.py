"""The judge that is the policy: real models whose next token follows from the last alone."""

import json

import pytest
import torch
from jsonschema import Draft202012Validator
from transformers import Qwen2Config, Qwen2ForCausalLM

from llmalign.policy import Policy, load_policy
from llmalign.recipe import build_recipe, json_schema, load_recipe
from llmalign.reference import Reference
from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward
from llmalign.rollout import Request, SamplingParams
from llmalign.rollout.hf import HfEngine
from llmalign.schema import Lora, Model, PolicyJudgeOptions
from llmalign.scoring import open_host
from llmalign.self_judge import PolicyJudge
from llmalign.tiny import build_tokenizer
from llmalign.training import train

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
)
END = "<end>"
GRADER = {".": "0", "0": END}  # a chat of a rubric ends in a full stop


def chain(follows, *, positions=2048, template=PLAIN, sharpness=10.0):
    """A Qwen2 model that says ``follows[last]`` after ``last`` (one of its letters, where there are
    several), or else "0"; no token but the last counts, as attention and MLP add nothing to its
    embedding."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    size = 288  # a dimension for each of the 259 tokens, and a multiple of the heads
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=size, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
        tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)

    def number(token):
        return tokenizer.eos_token_id if token == END else tokenizer(token)["input_ids"][-1]

    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), size))
        model.lm_head.weight.zero_()
        model.lm_head.weight[number("0"), :] = sharpness / size**0.5 / 2
        for last, then in follows.items():
            for one in [then] if then == END else then:
                model.lm_head.weight[number(one), number(last)] = sharpness / size**0.5
    return model, tokenizer


def policy_of(follows, **options):
    return Policy(*chain(follows, **options), torch.device("cpu"))


def judge(follows, *, options=None, **model):
    return PolicyJudge(
        Reference(policy_of(follows, **model)), PolicyJudgeOptions(**(options or {}))
    )


def chat(text, system="Grade."):
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


LETTERS = {"a": "x", "x": END, "b": "y", "y": "z", "z": END, "c": "c", "d": END}
DICE = {"?": "123456", **{face: END for face in "123456"}}


def test_each_chat_gets_the_models_answer_in_order():
    assert judge(LETTERS)([chat("1a"), chat("22b"), chat("3a")]) == ["x", "yz", "x"]
    assert judge(LETTERS)([]) == []


def test_no_answer_is_given_where_there_is_none_or_half_of_one():
    asked = judge(LETTERS, options={"max_new_tokens": 8})
    assert asked([chat("d"), chat("c"), chat("b")]) == [None, None, "yz"]  # empty, endless, fine
    assert judge(LETTERS, options={"max_new_tokens": 2})([chat("b")]) == [None]


def test_a_chat_beyond_the_context_has_no_answer_and_the_others_have_theirs():
    asked = judge(LETTERS, positions=64)
    assert asked([chat("." * 80 + "a"), chat("a")]) == [None, "x"]


def test_equal_chats_are_asked_once_and_neighbours_change_nothing(monkeypatch):
    asked = judge(DICE, options={"temperature": 1.0})
    chats = [chat(f"{n}?") for n in range(12)]
    together = asked(chats)
    assert len(set(together)) > 4  # drawn, not picked
    assert [asked([one])[0] for one in chats] == together
    assert asked(list(reversed(chats))) == together[::-1]
    counted = []
    generate = asked._engine.generate
    monkeypatch.setattr(
        asked._engine, "generate", lambda r, p: counted.append(len(r)) or generate(r, p)
    )
    assert asked([chats[0]] * 5) == [together[0]] * 5
    assert counted == [1]


def test_another_seed_draws_other_answers():
    one = judge(DICE, options={"temperature": 1.0})
    other = judge(DICE, options={"temperature": 1.0, "seed": 1})
    chats = [chat(f"{n}?") for n in range(12)]
    assert one(chats) != other(chats)


def test_the_judge_stays_as_the_policy_learns():
    policy = policy_of(LETTERS)
    asked = PolicyJudge(Reference(policy), PolicyJudgeOptions())
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
    assert asked([chat("a")]) == ["x"]


def test_under_an_adapter_the_judge_is_the_base_and_the_policys_mode_is_kept(tmp_path):
    model, tokenizer = chain(LETTERS)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(Model(path=str(tmp_path), lora=Lora(rank=4)), seed=0)
    with torch.no_grad():
        for parameter in policy.trainable.values():
            parameter.normal_(0, 5.0)
    policy.model.train()
    asked = PolicyJudge(Reference(policy), PolicyJudgeOptions())
    assert asked([chat("b")]) == ["yz"]
    assert policy.model.training
    ids = tuple(tokenizer.apply_chat_template(chat("b"), return_dict=False))
    request = [Request(ids, 0)]
    ((_, learnt),) = HfEngine(policy, batch_size=1).generate(request, SamplingParams(3))
    assert learnt.text != "yz"  # the adapter is on again, and it matters


def test_a_tokenizer_without_a_usable_template_is_refused():
    with pytest.raises(ValueError, match="no chat template, expected one"):
        judge({}, template=None)
    with pytest.raises(ValueError, match=r"refuses a system message \(no system\)"):
        judge({}, template=NO_SYSTEM)


# -- in a host ------------------------------------------------------------------------------------

RUBRIC = {"rubric": {"criteria_for_all": ["It is short."]}}


@pytest.fixture
def judged(small):
    """A function: a recipe of the small run whose judge is the policy."""
    return lambda **judge: small(judge={"model": "frozen_policy", **judge})


def test_a_rubric_is_graded_by_the_start_policy_after_generation(judged):
    policy = policy_of(GRADER)
    host = open_host(judged(), RUBRIC, policy)
    assert host.after_generation
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()  # what is learnt later does not grade
    group = Group(Problem("p", "Say hi."), (Sample("hi", (5,), (0.0,), "eos"),))
    future = host.submit(group)
    assert not future.done()  # the model is busy until all groups are there
    host.flush()
    (score,) = future.result()
    assert score.value == 0.0 and score.aspects["rubric.0"] == 0.0
    host.close()


def test_a_judge_elsewhere_is_asked_while_the_policy_generates():
    host = RewardHost(build_reward(RUBRIC), judge=lambda chats: ["0"] * len(chats))
    assert not host.after_generation
    host.close()


def test_a_start_policy_that_calls_nothing_right_is_refused(judged):
    with pytest.raises(RuntimeError, match="calls 100.0% of empty responses right"):
        open_host(judged(), RUBRIC, policy_of({".": "1", "1": END}))


def test_a_start_policy_that_cannot_grade_is_refused(judged):
    with pytest.raises(RuntimeError, match="gave no readable verdict on 40 responses"):
        open_host(judged(max_new_tokens=8), RUBRIC, policy_of({".": "."}))


# -- in a recipe ----------------------------------------------------------------------------------


def test_the_judge_block_is_resolved_in_both_forms(small):
    recipe = small(judge={"model": "frozen_policy", "max_new_tokens": 16})
    assert recipe.judge == {
        "model": "frozen_policy", "max_new_tokens": 16, "temperature": 0.0, "seed": 0,
        "batch_size": 32,
    }  # fmt: skip
    assert build_recipe(recipe.model_dump()) == recipe
    api = small(judge={"model": "gpt-x", "concurrency": 2})
    assert api.judge["concurrency"] == 2 and "base_url" in api.judge


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"model": "frozen_policy", "base_url": "http://x"}, "judge: unknown option 'base_url'"),
        ({"model": "frozen_policy", "max_tokens": 9}, "did you mean 'max_new_tokens'"),
        ({"model": "gpt-x", "max_new_tokens": 9}, "did you mean 'max_tokens'"),
        ({"model": "frozen_policy", "max_new_tokens": 0}, "judge: max_new_tokens is 0, expected >"),
        ({"model": "frozen_policy", "temperature": -1.0}, "temperature is -1.0, expected >= 0"),
        ({"model": "frozen_policy", "batch_size": "all"}, "batch_size is 'all', expected an integ"),
        ({"model": "gpt-x", "timeout_s": "long"}, "judge: timeout_s is 'long', expected a number"),
        ({"temperature": 0.0}, "model is missing, .* or 'frozen_policy' for the policy itself"),
    ],
)
def test_a_wrong_judge_block_is_refused_with_its_place(small, block, message):
    with pytest.raises(ValueError, match=message):
        small(judge=block)


@pytest.mark.parametrize(
    ("block", "fits"),
    [
        ({"model": "frozen_policy", "max_new_tokens": 9}, True),
        ({"model": "gpt-x", "max_tokens": 9, "seed": None}, True),
        (None, True),
        ({"model": "frozen_policy", "max_tokens": 9}, False),
        ({"model": "gpt-x", "max_new_tokens": 9}, False),
        ({"max_new_tokens": 9}, False),
        ({"model": "frozen_policy", "seed": "x"}, False),
    ],
)
def test_an_editor_knows_both_forms(block, fits):
    schema = Draft202012Validator(json_schema()["properties"]["judge"])
    assert schema.is_valid(block) == fits


def test_a_reward_that_asks_a_judge_needs_the_block_before_any_model_is_loaded(small):
    with pytest.raises(ValueError, match="judge is missing and reward 'rubric' asks one"):
        small(reward={"sum": [RUBRIC]})
    small(reward={"sum": [RUBRIC]}, judge={"model": "frozen_policy"})


# -- as shipped -----------------------------------------------------------------------------------


def test_the_shipped_recipe_runs_on_a_random_model_that_grades(tmp_path):
    model, tokenizer = chain(GRADER, sharpness=6.0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [
        {"Goal": f"Measure the speed of {n}.", "Rubric": ["Says how.", "Says why."]}
        for n in range(8)
    ]
    rows.append({"Goal": "Left out.", "Rubric": []})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [
        f"model.path={tmp_path / 'model'}",
        f"data.train.path={tmp_path / 'rows.jsonl'}",
        f"output={tmp_path}",
        "data.holdout=1",
        "schedule.steps=1",
        "sampling.problems_per_step=2",
        "rollout.samples_per_problem=2",
        "rollout.max_new_tokens=8",
    ]
    summary = train(load_recipe("rubric_self_graded", changes))
    assert summary["finished"] and summary["bad_updates"] == 0
    run = tmp_path / "rubric_self_graded"
    samples = [json.loads(line) for f in (run / "samples").iterdir() for line in f.open()]
    graded = [row["aspects"] for row in samples if row["completion"].strip()]
    assert graded and {"rubric.0", "rubric.1", "rubric.guard", "rubric"} <= set(graded[0])
    left_out = json.loads((run / "left_out.json").read_text())
    assert len(left_out) == 1 and "expected a list of criteria" in left_out[0]["why"]
