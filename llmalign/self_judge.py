"""A judge that is the policy itself as the run started: rewards that need no other model.

The frozen weights cannot learn to please themselves, and grading in many small questions is easier
than answering in one go. They share the policy's device, so they are asked after generation.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import TemplateError

from llmalign.data import encode_prompt
from llmalign.reference import Reference
from llmalign.rewards.base import Message
from llmalign.rollout import Request, SamplingParams, sample_seed
from llmalign.rollout.hf import HfEngine
from llmalign.schema import PolicyJudgeOptions

_PROBE = ({"role": "system", "content": "You grade."}, {"role": "user", "content": "Grade."})


class PolicyJudge:
    """Answers chats with the frozen start policy; equal chats get the same answer.

    What is drawn for a chat depends on the chat and ``seed`` alone, not on the chats beside it. A
    chat that does not fit into the model's context has no answer, nor has one whose answer was cut
    at ``max_new_tokens``: half a verdict is none.

    Args:
        start: the policy as the run started.
        options: how it is asked.
    Raises:
        ValueError: its tokenizer has no chat template, or one that takes no system message.
    """

    on_device = True  # it runs where the policy does, which is busy while samples are drawn

    def __init__(self, start: Reference, options: PolicyJudgeOptions) -> None:
        self.options = options
        self._start = start
        self._engine = HfEngine(start.policy, batch_size=options.batch_size)
        self._params = SamplingParams(options.max_new_tokens, temperature=options.temperature)
        _refuse_template(start.policy.tokenizer)

    def __call__(self, chats: Sequence[Sequence[Message]]) -> list[str | None]:
        """One answer per chat, in order; None where there is none."""
        spelled = [json.dumps([dict(m) for m in chat], sort_keys=True) for chat in chats]
        answers = self._answers(dict(zip(spelled, chats, strict=True)))
        return [answers.get(name) for name in spelled]

    def _answers(self, chats: dict[str, Sequence[Message]]) -> dict[str, str]:
        """Answers by spelled chat; those without one are missing."""
        policy = self._start.policy
        encoded = {n: encode_prompt(tuple(chat), policy.tokenizer) for n, chat in chats.items()}
        asked = [n for n, ids in encoded.items() if len(ids) < policy.context_length]
        requests = [
            Request(tuple(encoded[n]), sample_seed(self.options.seed, "judge", n)) for n in asked
        ]
        answers = {}
        with self._frozen():
            for index, sample in self._engine.generate(requests, self._params):
                if not sample.truncated and (text := sample.text.strip()):
                    answers[asked[index]] = text
        return answers

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        """The start weights, in the mode the model was in afterwards."""
        policy = self._start.policy
        was_training = policy.model.training
        adapter_off = policy.model.disable_adapter() if policy.has_adapter else None
        try:
            with adapter_off or contextlib.nullcontext():
                yield
        finally:
            policy.model.train(was_training)


def _refuse_template(tokenizer: Any) -> None:
    way_out = "take an instruct model, or name a judge behind an API in the judge block"
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "judge.model is 'frozen_policy' and the policy's tokenizer has no chat template, "
            f"expected one, as a judge is asked in chats; {way_out}"
        )
    try:
        encode_prompt(_PROBE, tokenizer)
    except TemplateError as error:
        raise ValueError(
            "judge.model is 'frozen_policy' and the policy's chat template refuses a system "
            f"message ({error}), expected one that takes it; {way_out}"
        ) from error
