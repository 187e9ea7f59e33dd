import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.pool import Case, VerifierPool

KIND = "llmalign_test_plugin:judge"


def plugin(pool: VerifierPool, *texts: str, **options: Any) -> list[Verdict]:
    pairs = [(text, None) for text in texts]
    judgements = pool.judge_many(KIND, pairs, options)
    return [judgement.verdict for judgement in judgements]


def test_judgements_come_in_the_order_of_the_pairs(pool: VerifierPool) -> None:
    pairs = [(rf"\boxed{{{i}}}", i if i % 3 else i + 1) for i in range(64)]
    judgements = pool.judge_many("math", pairs, {"markers": ["boxed"]})
    assert [j.answer for j in judgements] == [str(i) for i in range(64)]
    assert [j.verdict is Verdict.RIGHT for j in judgements] == [bool(i % 3) for i in range(64)]


def test_threads_share_the_pool_and_get_their_own_answers(pool: VerifierPool) -> None:
    def judge(i: int) -> list[str | None]:
        pairs = [(rf"\boxed{{{i * 100 + k}}}", 1) for k in range(10)]
        return [j.answer for j in pool.judge_many("math", pairs)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(judge, range(1, 25)))
    assert found == [[str(i * 100 + k) for k in range(10)] for i in range(1, 25)]


def test_coroutines_share_the_pool_and_the_loop_is_never_blocked(pool: VerifierPool) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0.01)

    async def judge_all() -> list[list[Judgement]]:
        ticking = asyncio.create_task(tick())
        pairs = [[(rf"\boxed{{{i * k}}}", i) for i in range(400)] for k in range(1, 9)]
        found = await asyncio.gather(*(pool.ajudge_many("math", group) for group in pairs))
        ticks.clear()
        await pool.ajudge_many(KIND, [("sleep", 0.5)])
        ticking.cancel()
        return list(found)

    found = asyncio.run(judge_all())
    assert [[j.answer for j in group] for group in found] == [
        [str(i * k) for i in range(400)] for k in range(1, 9)
    ]
    # About fifty where nothing else runs; none where the loop waits for the worker.
    assert len(ticks) >= 5, "the event loop stood still"


def test_a_cancelled_coroutine_takes_back_what_no_worker_has_begun(plugin_folder: Path) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(pool.ajudge_many(KIND, [("sleep", 0.3)] * 200))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with VerifierPool(1, 5.0, cache_size=0) as pool:
        asyncio.run(cancel())
        began = time.perf_counter()
        assert plugin(pool, "yes") == [Verdict.RIGHT]
        assert time.perf_counter() - began < 10  # not the minute of all that was asked for


def test_a_call_that_fails_takes_its_other_jobs_with_it(pool: VerifierPool) -> None:
    pairs = [("bad gold", None)] + [("sleep", 0.5 + i / 1000) for i in range(100)]
    began = time.perf_counter()
    with pytest.raises(GoldError):
        pool.judge_many(KIND, pairs)
    assert plugin(pool, "after the failure") == [Verdict.WRONG]
    assert time.perf_counter() - began < 10


def test_more_than_the_queue_holds_is_fed_as_it_drains(plugin_folder: Path) -> None:
    with VerifierPool(2, 5.0, max_pending=4) as pool:
        judgements = pool.judge_many(KIND, [(f"{i}", None) for i in range(1500)])
        assert [j.answer for j in judgements] == [f"{i}" for i in range(1500)]
        found = asyncio.run(pool.ajudge_many(KIND, [(f"a{i}", None) for i in range(500)]))
        assert [j.answer for j in found] == [f"a{i}" for i in range(500)]


def test_each_case_has_its_own_outcome_and_options(pool: VerifierPool) -> None:
    cases: list[Case] = [
        ("yes", None, {}),
        ("bad gold", None, {}),
        ("no", None, {"answer": "no"}),
        ("raise", None, {}),
        ("yes", object(), {}),
    ]
    found = list(pool.judge_each(KIND, cases))
    verdicts = [j.verdict if isinstance(j, Judgement) else None for j in found]
    assert verdicts == [Verdict.RIGHT, None, Verdict.RIGHT, Verdict.UNDECIDED, None]
    assert "gold is bad" in str(found[1]) and "JSON" in str(found[4])


def test_decided_judgements_are_remembered_and_undecided_ones_are_not(pool: VerifierPool) -> None:
    pairs = [("pid", "remembered")] * 3
    first = pool.judge_many(KIND, pairs)
    again = pool.judge_many(KIND, pairs)
    assert len({j.answer for j in first + again}) == 1
    assert again[0].seconds == 0.0 < first[0].seconds
    before = pool.judge_many(KIND, [("raise", "again")])
    after = pool.judge_many(KIND, [("raise", "again")])
    assert min(before[0].seconds, after[0].seconds) > 0.0


def test_options_and_golds_are_part_of_what_is_remembered(pool: VerifierPool) -> None:
    assert plugin(pool, "maybe") == [Verdict.WRONG]
    assert plugin(pool, "maybe", answer="maybe") == [Verdict.RIGHT]
    assert [pool.judge_many("math", [(r"\boxed{5}", g)])[0].verdict for g in (5, 6)] == [
        Verdict.RIGHT,
        Verdict.WRONG,
    ]


@pytest.mark.parametrize(
    ("kind", "gold"),
    [("llmalign_test_plugin:judge", None), ("math", ""), ("math", object())],
    ids=["plug-in", "empty", "not JSON"],
)
def test_a_bad_gold_is_raised_in_the_caller(pool: VerifierPool, kind: str, gold: Any) -> None:
    with pytest.raises(GoldError, match="gold is"):
        pool.judge_many(kind, [("bad gold", gold)])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("maths", {}, "unknown verifier 'maths'; did you mean 'math'"),
        ("math", {"forms": "answer"}, "unknown option 'forms'; did you mean 'form'"),
        ("math", {"form": "box"}, "expected one of 'response', 'answer'"),
        ("llmalign_no_such_module:judge", {}, "No module named"),
        ("llmalign_test_plugin:judges", {}, "has no attribute 'judges'"),
        ("llmalign_test_plugin:not_a_function", {}, "expected a function"),
        ("llmalign_test_plugin:judge", {"reply": "yes"}, "unexpected keyword argument 'reply'"),
    ],
)
def test_a_wrong_verifier_or_option_is_an_error_of_the_caller(
    pool: VerifierPool, kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pool.judge_many(kind, [("yes", "1")], options)


def test_no_pairs_give_no_judgements(pool: VerifierPool) -> None:
    assert pool.judge_many("math", []) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"workers": 0},
        {"workers": 1, "timeout_s": 0.0},
        {"workers": 1, "memory_mb": -1},
        {"workers": 1, "max_pending": 0},
        {"workers": 1, "cache_size": -1},
    ],
    ids=lambda arguments: list(arguments)[-1],
)
def test_the_limits_must_be_positive(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected >"):
        VerifierPool(**arguments)


def test_a_closed_pool_refuses_and_the_call_under_way_fails(plugin_folder: Path) -> None:
    pool = VerifierPool(1, timeout_s=60.0)
    plugin(pool, "warm")
    failures: list[BaseException] = []

    def hang() -> None:
        try:
            plugin(pool, "hang", "yes")
        except RuntimeError as error:
            failures.append(error)

    caller = threading.Thread(target=hang)
    caller.start()
    time.sleep(0.3)
    began = time.perf_counter()
    pool.close()
    caller.join(10)
    assert time.perf_counter() - began < 10
    assert "closed" in str(failures[0])
    with pytest.raises(RuntimeError, match="closed"):
        plugin(pool, "yes")


def test_seconds_are_those_of_the_judge_alone(pool: VerifierPool) -> None:
    slow, quick = pool.judge_many(KIND, [("sleep", 0.2), ("quick", None)])
    assert 0.2 <= slow.seconds < 0.6
    assert 0.0 < quick.seconds < 0.05


def test_a_verifiers_budget_goes_before_the_pools_limit(tmp_path: Path) -> None:
    count = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) "
    slow = (count + "SELECT max(x) FROM c").format(2_000_000)
    with VerifierPool(1, 0.05) as pool:
        gold = {"query": "SELECT 2000000", "script": "CREATE TABLE t (x);"}
        (judgement,) = pool.judge_many("sql", [(slow, gold)], {"form": "query"})
    assert judgement.verdict is Verdict.RIGHT and judgement.seconds > 0.05


@pytest.mark.parametrize(("reason", "kind"), [("machine", RuntimeError), ("option", ValueError)])
def test_what_preparing_raises_is_an_error_of_the_caller(
    pool: VerifierPool, reason: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="unprepared' cannot be used: .*Error: cannot be prepared"):
        pool.judge_many("llmalign_test_plugin:unprepared", [("yes", None)], {"reason": reason})


def test_stats_count_what_happened(plugin_folder: Path) -> None:
    with VerifierPool(1, 0.5) as pool:
        plugin(pool, "yes", "yes", "sleepless", "hang", "die", "raise")
        plugin(pool, "yes")
        stats = pool.stats()
    assert (stats.judged, stats.hits, stats.killed, stats.restarted) == (5, 1, 1, 2)
    assert stats.undecided == {"timed out": 1, "crashed": 1, "raised KeyError": 1}
    assert 0.5 <= stats.seconds < 10
