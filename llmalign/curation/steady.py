"""A judge that is down is told from one that has no answer to a chat."""

import time
from collections.abc import Sequence
from typing import Any

from llmalign.rewards.base import Judge, Message


class JudgeDown(RuntimeError):
    """The judge answers nothing at all, or refuses all requests."""


class SteadyJudge:
    """Asks chats without an answer once more, and stops where the judge answers nothing.

    A chat that has none after that while the judge answers others is that chat's own fault: too
    long, say, or always answered by an empty text.

    Args:
        judge: what is asked; retries are its own.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __call__(self, chats: Sequence[Sequence[Message]]) -> list[str | None]:
        """One answer per chat, in order; None where there is none though the judge is up.

        Raises:
            JudgeDown: it is not up.
        """
        answers = self._ask(chats)
        missing = [i for i, answer in enumerate(answers) if answer is None]
        if missing:
            self._probe(len(missing), len(chats))
            for i, answer in zip(missing, self._ask([chats[i] for i in missing]), strict=True):
                answers[i] = answer
            left = answers.count(None)
            if left:
                self._probe(left, len(chats))
        return answers

    def _ask(self, chats: Sequence[Sequence[Message]]) -> list[str | None]:
        try:
            return list(self._judge(chats))
        except RuntimeError as error:
            raise JudgeDown(str(error)) from error

    def _probe(self, missing: int, asked: int) -> None:
        # The time makes each probe a chat of its own: equal chats may be answered from memory.
        probe = [{"role": "user", "content": f"Reply with one word. ({time.time_ns()})"}]
        if self._ask([probe]) != [None]:
            return
        stats: Any = getattr(self._judge, "stats", None)
        why = stats().last_error if callable(stats) else ""
        raise JudgeDown(
            f"the judge gave no answer to {missing} of {asked} chats, nor to a probe"
            + (f" (last error: {why})" if why else "")
        )
