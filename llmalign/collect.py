"""What a step is made of: which problems, how many samples of each, and which of them are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llmalign.data import ProblemSampler
from llmalign.evaluation.run import Prompted, sample_groups
from llmalign.experience import ScoredGroup
from llmalign.observe.log import write_samples
from llmalign.policy import Policy
from llmalign.rewards import Group, RewardHost
from llmalign.rollout import Engine, Request, SamplingParams, sample_seed
from llmalign.rollout.tree import TreeGroup, before_words, pruned, treepo, treerl
from llmalign.sampling.codec import decode, encode
from llmalign.sampling.curriculum import Curriculum, difficulty_order
from llmalign.sampling.dropped import Dropped, teaches_nothing
from llmalign.sampling.replay import ReplayBuffer, half_priority
from llmalign.sampling.select import keep_only, select
from llmalign.schema import Recipe, TreeRl
from llmalign.verifiers import Verdict

Drawn = tuple[int, int]  # index of a problem, epoch


@dataclass
class Collected:
    """The groups of a step.

    Attributes:
        groups: to train on; those with an ``age`` were used before.
        discarded: generated and scored, but without a signal.
        dropped: what was left out, and why.
        tokens_generated: all of them, also of samples that are not trained on.
        note: what is to be said to the user; mostly empty.
    """

    groups: list[ScoredGroup] = field(default_factory=list)
    discarded: list[ScoredGroup] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    tokens_generated: int = 0
    note: str = ""

    @property
    def fresh(self) -> list[ScoredGroup]:
        """Groups to train on that were generated in this step."""
        return [g for g in self.groups if not g.age]


class Collector:
    """Draws problems, samples and scores them, and keeps what there is to learn from.

    Args:
        recipe: its ``sampling`` and ``rollout``.
        engine: samples.
        params: the distribution and the limit.
        host: scores groups while others are generated.
        problems: (problem, prompt ids) to draw from.
        policy: its tokenizer and its context length.
    """

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        params: SamplingParams,
        host: RewardHost,
        problems: Sequence[Prompted],
        policy: Policy,
    ) -> None:
        self.recipe, self.engine, self.params, self.host = recipe, engine, params, host
        self._decode = partial(policy.tokenizer.decode, skip_special_tokens=True)
        self._context = policy.context_length
        self.problems = list(problems)
        curriculum, shuffle = recipe.sampling.curriculum, recipe.data.shuffle
        self.curriculum: Curriculum | None = None
        if curriculum is not None:
            self.curriculum = Curriculum(**curriculum.filter_options())
            order = difficulty_order(
                [problem for problem, _ in problems],
                order=curriculum.order,
                column=curriculum.column or "",
            )
            self.problems = [self.problems[i] for i in order]
            shuffle = shuffle and curriculum.order == "none"
        self.sampler = ProblemSampler(len(self.problems), seed=recipe.seed, shuffle=shuffle)
        replay = recipe.sampling.replay
        self.replay: ReplayBuffer[ScoredGroup] | None = None
        if replay is not None:
            options = replay.model_dump(exclude={"share"})
            self.replay = ReplayBuffer(**options, encode=encode, decode=decode)
            for problem, _ in self.problems:
                encode(problem)  # a column that cannot be saved fails here, not at a checkpoint

    # -- a step -------------------------------------------------------------------------------

    def collect(self, step: int) -> Collected:
        """Groups for one step: kept ones used again, fresh ones, and what was left out.

        Each round of dynamic sampling asks only for the groups that are still missing, so nothing
        is left over when the step is full; the budget bounds the groups of all rounds together.
        """
        found = Collected()
        self._take_replayed(found, step)
        wanted = self.recipe.sampling.problems_per_step
        dynamic = self.recipe.sampling.dynamic
        budget = (wanted - len(found.groups)) * (dynamic.max_batches if dynamic else 1)
        spent = 0
        while len(found.groups) < wanted and spent < budget:
            room = min(wanted - len(found.groups), budget - spent)
            for scored in self._generate(self._draw(room, found, step), found):
                spent += 1
                self._record(scored, step)
                why = teaches_nothing(scored.metric(self.metric_name)) if dynamic else None
                if why is None:
                    found.groups.append(self._selected(scored, found, step))
                else:
                    found.discarded.append(scored)
                    found.dropped.append(Dropped(step, scored.group.problem.id, why))
        if missing := wanted - len(found.groups):
            detail = f"{missing} of {wanted} groups are missing after {spent} generated"
            found.dropped.append(Dropped(step, "", "budget spent", detail))
        self._keep_for_replay(found.fresh)
        return found

    @property
    def metric_name(self) -> str | None:
        """The reward node that says whether a group teaches something; None: the reward itself."""
        dynamic = self.recipe.sampling.dynamic
        if dynamic is not None and dynamic.metric is not None:
            return dynamic.metric
        # The overlong penalty differs by length alone: all-wrong groups would pass the filter.
        return "reward" if self.recipe.overlong.buffer_share else None

    def write_dropped(self, folder: Path, found: Collected, step: int) -> None:
        """The list of what a step left out, ``samples/dropped-step-….jsonl``; none where empty."""
        if found.dropped:
            records = (d.to_record() for d in found.dropped)
            write_samples(folder, step, records, kind="dropped")

    # -- which problems -------------------------------------------------------------------------

    def _draw(self, count: int, found: Collected, step: int) -> list[Drawn]:
        if self.curriculum is None:
            return self.sampler.next(count)
        assert self.recipe.sampling.curriculum is not None
        looks = count * self.recipe.sampling.curriculum.max_looks
        portion = self.curriculum.choose(
            self.sampler.next,
            lambda drawn: self.problems[drawn[0]][0].id,
            count=count,
            most=max(count, min(looks, len(self.problems))),
            step=step,
        )
        found.dropped += portion.skipped
        found.note = portion.note or found.note
        return list(portion.kept)

    def _record(self, scored: ScoredGroup, step: int) -> None:
        """Tells the curriculum how a problem went: the share of right samples, or ``metric``."""
        if self.curriculum is None:
            return
        assert self.recipe.sampling.curriculum is not None
        metric = self.recipe.sampling.curriculum.metric
        judgements = [score.judgement for score in scored.scores]
        if metric is None and any(judgements):
            values = [_right(j.verdict) if j else None for j in judgements]
        else:
            values = scored.metric(metric)
        self.curriculum.record(scored.group.problem.id, values, step)

    # -- samples --------------------------------------------------------------------------------

    def _generate(self, drawn: Sequence[Drawn], found: Collected) -> list[ScoredGroup]:
        """Samples the drawn problems; each group is scored while others still grow."""
        prompted = [self.problems[index] for index, _ in drawn]
        futures: dict[int, Any] = {}
        groups: dict[int, Group] = {}
        trees: dict[int, TreeGroup] = {}

        def on_group(index: int, group: Group) -> None:
            groups[index] = group
            futures[index] = self.host.submit(_without_kept(group))

        def seeds(p: int, s: int) -> int:
            return sample_seed(self.recipe.seed, prompted[p][0].id, drawn[p][1], s)

        if self.recipe.sampling.tree is None:
            samples = self.recipe.rollout.samples_per_problem
            sample_groups(
                self.engine, prompted, self.params, seeds=seeds, samples=samples, on_group=on_group
            )
        else:
            roots = [
                Request(ids, seeds(p, 0), self._context - len(ids))
                for p, (_, ids) in enumerate(prompted)
            ]
            for p, tree in self._grow(roots):
                trees[p] = tree
                on_group(p, Group(prompted[p][0], tree.samples, self.params.max_new_tokens))
        self.host.flush()
        for p, group in groups.items():
            drawn_tokens = sum(len(s.token_ids) for s in group.samples)
            found.tokens_generated += trees[p].tokens_generated if p in trees else drawn_tokens
        return [
            ScoredGroup(groups[p], futures[p].result(), prompted[p][1], tree=trees.get(p))
            for p in range(len(prompted))
        ]

    def _grow(self, roots: Sequence[Request]) -> Iterator[tuple[int, TreeGroup]]:
        tree = self.recipe.sampling.tree
        assert tree is not None
        options = tree.model_dump(exclude={"kind", "until"})
        if isinstance(tree, TreeRl):
            until = before_words(tree.until, self._decode) if tree.until else None
            options["branchable"] = until
        grow = partial(treerl if isinstance(tree, TreeRl) else treepo, decode=self._decode)
        yield from grow(self.engine, roots, self.params, **options)

    def _selected(self, scored: ScoredGroup, found: Collected, step: int) -> ScoredGroup:
        """The samples of a group that are trained on, with the scores they got among all of it."""
        sampling, size = self.recipe.sampling, len(scored.scores)
        count = min(sampling.train_samples or size, size)
        if count == size:
            return scored
        name = scored.group.problem.id
        chosen = select(
            [score.value for score in scored.scores],
            count,
            how=sampling.select,
            seed=sample_seed(self.recipe.seed, "select", step, name),
        )
        detail = f"{count} of {size} samples are trained on ({sampling.select})"
        found.dropped.append(Dropped(step, name, "not selected", detail))
        if sampling.baseline == "all":
            return replace(scored, chosen=tuple(chosen))
        kept = keep_only(scored, chosen)
        return kept if kept.tree is None else replace(kept, tree=pruned(kept.tree, chosen))

    # -- groups used again ----------------------------------------------------------------------

    def _take_replayed(self, found: Collected, step: int) -> None:
        replay, version = self.recipe.sampling.replay, self.engine.weights_version
        if self.replay is None or replay is None:
            return
        for scored, age in self.replay.expire(version):
            detail = f"sampled {age} updates ago, not used again"
            found.dropped.append(Dropped(step, scored.group.problem.id, "stale", detail))
        # One fresh group at least, or the buffer would never see another policy.
        wanted = self.recipe.sampling.problems_per_step
        count = min(round(replay.share * wanted), wanted - 1)
        seed = sample_seed(self.recipe.seed, "replay", step)
        for scored, age in self.replay.take(version, count, seed):
            found.groups.append(replace(scored, age=age))

    def _keep_for_replay(self, groups: Sequence[ScoredGroup]) -> None:
        if self.replay is None:
            return
        for scored in groups:
            values = [v for v in scored.metric(self.metric_name) if v is not None]
            if len(set(values)) > 1:
                above = sum(v > sum(values) / len(values) for v in values)
                priority = half_priority(above / len(values))
                self.replay.put(self.engine.weights_version, scored, priority)

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The place in the data, what is known of problems, and the groups kept; JSON values."""
        parts = {"sampler": self.sampler, "curriculum": self.curriculum, "replay": self.replay}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.sampler.load_state_dict(state["sampler"])
        if self.curriculum is not None:
            self.curriculum.load_state_dict(state["curriculum"])
        if self.replay is not None:
            self.replay.load_state_dict(state["replay"])


def _right(verdict: Verdict) -> float | None:
    return None if verdict is Verdict.UNDECIDED else float(verdict is Verdict.RIGHT)


def _without_kept(group: Group) -> Group:
    """Kept sets are megabytes that no reward reads."""
    samples = (replace(s, kept_ids=b"", kept_counts=b"") for s in group.samples)
    return replace(group, samples=tuple(samples))
