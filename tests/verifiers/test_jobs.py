import threading

import pytest

from llmalign.verifiers import GoldError
from llmalign.verifiers.jobs import Call, Job, Pace, Queue, encode


def job(call: Call, text: str = "x", load: bytes = b"load") -> Job:
    return Job(call, text.encode(), text.encode(), load, 1.0)


@pytest.fixture
def cheap() -> Call:
    call = Call("math", {}, Pace())
    call.pace.note(1e-5)
    return call


def test_a_full_queue_refuses_and_has_room_again_once_half_is_taken(cheap: Call) -> None:
    queue = Queue(4)
    slow = Call("math", {}, Pace())  # of unknown pace: taken one by one
    assert [queue.offer(job(slow)) for _ in range(5)] == [True] * 4 + [False]
    room = queue.room()
    queue.take(1)
    assert not room.done()
    queue.take(1)
    assert room.done() and queue.room().done()


def test_cheap_jobs_that_are_alike_are_taken_together_and_shared_fairly(cheap: Call) -> None:
    queue = Queue(100)
    for i in range(20):
        queue.offer(job(cheap, f"{i}"))
    assert [j.key for j in queue.take(2)] == [f"{i}".encode() for i in range(10)]
    assert len(queue.take(1)) == 10


@pytest.mark.parametrize("pace_s", [None, 0.5], ids=["unknown", "slow"])
def test_jobs_that_may_be_slow_are_taken_one_by_one(pace_s: float | None) -> None:
    call, queue = Call("math", {}, Pace()), Queue(100)
    if pace_s:
        call.pace.note(pace_s)
    for _ in range(20):
        queue.offer(job(call))
    assert len(queue.take(1)) == 1


def test_a_batch_ends_before_other_options_another_call_and_a_full_pipe(cheap: Call) -> None:
    queue = Queue(100)
    for load in (b"a", b"a", b"b"):
        queue.offer(job(cheap, load=load))
    queue.offer(job(Call("math", {}, cheap.pace), load=b"b"))
    assert [len(queue.take(1)) for _ in range(3)] == [2, 1, 1]
    for _ in range(5):
        queue.offer(job(cheap, "x" * 15_000))
    assert len(queue.take(1)) == 2


def test_closing_ends_all_waiting_and_hands_back_what_nobody_took(cheap: Call) -> None:
    queue = Queue(2)
    taken: list[list[Job]] = []
    worker = threading.Thread(target=lambda: taken.append(queue.take(1)))
    worker.start()
    queue.close()
    worker.join(10)
    assert taken == [[]]
    with pytest.raises(RuntimeError, match="closed"):
        queue.offer(job(cheap))
    full = Queue(1)
    full.offer(job(cheap))
    room = full.room()
    assert len(full.close()) == 1 and room.done()


def test_leaving_a_call_takes_back_what_has_not_begun(cheap: Call) -> None:
    begun, waiting = job(cheap), job(cheap)
    with cheap:
        cheap.futures += [begun.future, waiting.future]
        assert begun.begin()
    assert waiting.future.cancelled() and not waiting.begin()
    assert not begun.future.cancelled()


def test_after_a_failure_of_the_call_its_jobs_fail_without_a_try(cheap: Call) -> None:
    cheap.failed = ValueError("cannot be imported")
    late = job(cheap)
    assert not late.begin()
    assert late.future.exception() is cheap.failed


def test_equal_requests_have_equal_bytes_and_a_gold_must_be_json() -> None:
    first = encode("math", "x", {"b": 1, "a": 2}, {"d": 1, "c": 2})
    assert first == encode("math", "x", {"a": 2, "b": 1}, {"c": 2, "d": 1})
    with pytest.raises(GoldError, match=r"gold is \{3\}, expected a JSON value"):
        encode("math", "x", {3}, {})


def test_options_are_checked_once_and_must_be_json() -> None:
    call = Call("math", {}, Pace())
    assert call.load({"form": "answer"}) is call.load({"form": "answer"})
    with pytest.raises(ValueError, match="unknown option 'fom'; did you mean 'form'"):
        call.load({"fom": "answer"})
    with pytest.raises(ValueError, match="options of 'my:own' must be JSON values"):
        Call("my:own", {}, Pace()).load({"x": object()})
