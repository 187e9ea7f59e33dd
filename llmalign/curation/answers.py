"""A model's answers to a pool of problems: read from the rows, or asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmalign.curation.files import Progress
from llmalign.curation.pool import Member, Plan, Pool
from llmalign.rewards import RewardHost, Sample
from llmalign.saved import TEXT_FIELDS

Tell = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a model answers problems whose rows bring no answer.

    Args:
        model: a folder or hub name.
        samples: answers per problem; more than one need a ``temperature``.
        temperature: 0 takes the most likely token.
        max_new_tokens: None: the recipe's, 512 without one.
        batch_size: answers under way at once.
        seed: of the sampling.
        progress: a file that keeps answers, so that a killed run goes on.
    """

    model: str
    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int | None = None
    batch_size: int = 64
    seed: int = 0
    progress: Path | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected >= 1")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, expected >= 0")
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"samples is {self.samples} at temperature 0, where all are equal; "
                "give a temperature, or one sample"
            )


def answer_field(row: Mapping[str, Any]) -> str | None:
    """The name under which a row brings an answer."""
    return next((name for name in TEXT_FIELDS if name in row), None)


def read_answers(pool: Pool, host: RewardHost) -> list[Member]:
    """The problems of a pool with the answers that the rows bring; rows without one are listed."""
    members = pool.members(host)
    for member in members:
        for place in member.places:
            text = _text(pool.rows[place])
            if text is None:
                pool.leave_out(
                    place,
                    f"no text under {', '.join(TEXT_FIELDS)}; give the model's answer there, "
                    "or a model to answer",
                )
            else:  # tokens are counted as `llmalign score` does where only the text is left
                sample = Sample(text, tuple(range(len(text.split()))), (), "eos")
                member.answers.append((place, sample))
    return members


def _text(row: Mapping[str, Any]) -> str | None:
    """The answer in a row: a text, or one message of the assistant."""
    found = row.get(answer_field(row) or "")
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], Mapping):
        found = found[0].get("content") if found[0].get("role") == "assistant" else None
    return found if isinstance(found, str) else None


def ask_model(
    pool: Pool, host: RewardHost, plan: Plan, answering: Answering, tell: Tell | None
) -> list[Member]:
    """The problems of a pool with a model's answers; equal problems are answered once.

    Prompts longer than the recipe or the model allows are listed, never cut.
    """
    from llmalign.data import drop_long_prompts
    from llmalign.policy import load_policy
    from llmalign.rollout.hf import HfEngine
    from llmalign.schema import Model

    base = plan.recipe.model.model_dump() if plan.recipe else {}
    base |= {"path": answering.model, "build": None, "gradient_checkpointing": False, "lora": None}
    policy = load_policy(Model(**base), seed=answering.seed)
    members = pool.members(host, policy.tokenizer)
    limit = min(pool.data.max_prompt_tokens, policy.context_length - 1)
    problems = [member.problem for member in members]
    fitting, long = drop_long_prompts(problems, policy.tokenizer, limit, "drop")
    members = pool.without(members, {one.id: one.why for one in long})
    engine = HfEngine(policy, batch_size=answering.batch_size)
    _sample(members, [ids for _, ids in fitting], engine, plan, answering, tell)
    return members


def _sample(
    members: Sequence[Member],
    prompt_ids: Sequence[tuple[int, ...]],
    engine: Any,
    plan: Plan,
    answering: Answering,
    tell: Tell | None,
) -> None:
    """Gives every problem its answers, portion by portion, kept as they come."""
    from llmalign.rollout import Request, SamplingParams, sample_seed

    rollout = plan.recipe.rollout if plan.recipe else None
    params = SamplingParams(
        answering.max_new_tokens or (rollout.max_new_tokens if rollout else 512),
        temperature=answering.temperature,
        stop=tuple(rollout.stop) if rollout else (),
    )
    asked = {
        f"{member.problem.id}|{s}": Request(
            ids, sample_seed(answering.seed, "hard", member.problem.id, s)
        )
        for member, ids in zip(members, prompt_ids, strict=True)
        for s in range(answering.samples)
    }
    requests = [[key, request.prompt_ids, request.seed] for key, request in asked.items()]
    weights = _fingerprint(answering.model)
    progress = Progress(answering.progress, [weights, asdict(params), requests])
    waiting = [key for key in asked if key not in progress.found]
    portion = 4 * answering.batch_size  # the engine sorts by length within what it is given
    for start in range(0, len(waiting), portion):
        keys = waiting[start : start + portion]
        given = engine.generate([asked[key] for key in keys], params)
        progress.add({keys[i]: [s.text, len(s.token_ids), s.finish_reason] for i, s in given})
        if tell is not None:
            tell("answers", len(progress.found), len(asked))
    for member in members:
        for s in range(answering.samples):
            text, num_tokens, reason = progress.found[f"{member.problem.id}|{s}"]
            sample = Sample(text, tuple(range(num_tokens)), (), reason)
            member.answers.append((member.places[0], sample))


def _fingerprint(model: str) -> list[Any]:
    """The model's name; of a folder also its files, with their sizes and times."""
    folder = Path(model).expanduser()
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return [model, [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]]
