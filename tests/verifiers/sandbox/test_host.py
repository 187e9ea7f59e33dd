"""The life of the zygote: levels, failures, threads, forks, and what is left when all is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmalign.verifiers import sandbox
from llmalign.verifiers.sandbox import host
from llmalign.verifiers.sandbox.cell import Cell, Limits
from llmalign.verifiers.sandbox.isolation import PRIMITIVES, Isolation, elsewhere
from llmalign.verifiers.sandbox.launcher import Zygote

linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux")


def strict() -> bool:
    with contextlib.suppress(sandbox.SandboxError):
        return sandbox.probe().level == "strict"
    return False


needs_strict = pytest.mark.skipif(not strict(), reason="this machine forbids the strict level")


@contextlib.contextmanager
def started(*missing: str) -> Iterator[tuple[Zygote, Isolation]]:
    zygote, isolation = host.start(dict.fromkeys(missing, "left out"))
    try:
        yield zygote, isolation
    finally:
        zygote.close()


def run_in(zygote: Zygote, isolation: Isolation, program: str) -> sandbox.Run:
    cell = Cell(zygote, isolation, Limits(time_s=5.0), "", capture=True)
    return host._run(cell, program)


@pytest.mark.parametrize(
    ("active", "level"),
    [
        (PRIMITIVES, "strict"),
        (("namespaces", "uid", "landlock", "seccomp"), "strict"),
        (("user", "namespaces", "uid", "landlock", "seccomp"), "strict"),
        (("uid", "landlock", "seccomp"), "basic"),
        (("user", "namespaces", "uid", "landlock"), "basic"),
        (("uid", "seccomp"), "basic"),
        (("user", "namespaces", "uid"), "none"),
        (("landlock", "seccomp"), "none"),
        ((), "none"),
    ],
)
def test_the_level_follows_from_what_works(active: tuple[str, ...], level: str) -> None:
    missing = {name: "refused" for name in PRIMITIVES if name not in active}
    found = Isolation(active, missing)
    assert found.level == level
    found.demand("none")
    if level != "strict":
        with pytest.raises(sandbox.SandboxError, match=f"level is '{level}', expected 'strict'"):
            found.demand("strict")


def test_a_refusal_says_what_is_missing_and_what_to_ask_for() -> None:
    found = Isolation(("uid", "landlock"), {"seccomp": "Invalid argument"})
    with pytest.raises(sandbox.SandboxError) as raised:
        found.demand("strict")
    assert "seccomp: Invalid argument" in str(raised.value)
    assert "ask for level 'basic' by name" in str(raised.value)
    assert "starting processes" in found.describe()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level is 'high', expected one of none, basic, strict"):
        Isolation((), {}).demand("high")  # type: ignore[arg-type]


def test_elsewhere_than_on_linux_nothing_isolates() -> None:
    found = Isolation((), elsewhere())
    assert found.level == "none"
    assert "only Linux has it" in found.describe()


@linux
@needs_strict
def test_root_makes_the_namespaces_where_users_may_not() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with started("user") as (zygote, isolation):
        found = run_in(zygote, isolation, "import os; print(os.getuid(), os.getpid())")
    assert (isolation.level, found.stdout) == ("strict", b"65534 2\n")


@linux
@needs_strict
def test_a_container_that_forbids_proc_forbids_nothing_else() -> None:
    with started("proc") as (zygote, isolation):
        found = run_in(zygote, isolation, "import os; print(os.getuid(), os.listdir('/proc'))")
    assert (isolation.level, found.stdout) == ("strict", b"1000 []\n")


@linux
@pytest.mark.parametrize(
    ("missing", "works"),
    [
        (("seccomp",), "forks"),
        (("landlock",), "cannot fork"),
        (("user", "namespaces"), "cannot fork"),
        (PRIMITIVES, "forks"),
    ],
    ids=str,
)
def test_a_program_runs_under_whatever_is_there(missing: tuple[str, ...], works: str) -> None:
    program = """
        import os
        try:
            child = os.fork()
        except OSError:
            print("cannot fork")
        else:
            if child: print("forks"); os.waitpid(child, 0)
    """
    with started(*missing) as (zygote, isolation):
        assert isolation.level != "strict"
        assert set(missing) <= set(isolation.missing)
        found = run_in(zygote, isolation, textwrap.dedent(program))
    assert (found.status, found.stdout.decode().strip()) == ("ok", works)


@linux
def test_without_a_namespace_scratch_is_removed_and_children_are_killed(tmp_path: Path) -> None:
    program = """
        import os, sys, time
        os.makedirs("a/b"); os.symlink(sys.executable, "a/link"); os.chmod("a", 0)
        if os.fork() == 0: time.sleep(1000)
        print(os.getcwd())
    """
    with started(*PRIMITIVES) as (zygote, isolation):
        cell = Cell(zygote, isolation, Limits(time_s=0.3), "", capture=True)
        keeper = cell._keeper
        found = host._run(cell, textwrap.dedent(program))
    assert found.status == "timeout"  # the child holds stdout open
    assert not os.path.exists(found.stdout.decode().strip())
    assert os.path.exists(sys.executable)
    assert keeper is not None and wait_until(lambda: not group_lives(keeper))


def group_lives(group: int) -> bool:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    return True
    return False


def wait_until(holds: object, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if holds():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@linux
def test_memory_that_this_process_may_not_use_is_an_error() -> None:
    script = """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        from llmalign.verifiers import sandbox
        print(sandbox.run("print(1)", level="none").stdout)
        try:
            sandbox.run("print(1)", limits=sandbox.Limits(memory_mb=1000), level="none")
        except sandbox.SandboxError as error:
            print(error)
    """
    done = python(script)
    assert done[0] == "b'1\\n'"
    assert "memory_mb is 1000, and with 128 for the interpreter" in done[1]


def python(script: str) -> list[str]:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_zygote_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(sandbox.SandboxError, match="the zygote does not start"):
        Zygote()


def test_an_interpreter_that_fails_is_an_error_with_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmalign.verifiers.sandbox.launcher._BOOT", "raise KeyError('boot')")
    with pytest.raises(sandbox.SandboxError, match="KeyError: 'boot'"):
        Zygote()


@needs_strict
def test_a_zygote_that_died_is_replaced() -> None:
    sandbox.probe()
    zygote = host._home.zygote
    assert zygote is not None
    os.kill(zygote.pid, signal.SIGKILL)
    assert wait_until(lambda: not zygote.alive)
    assert sandbox.run("print(1)").stdout == b"1\n"
    assert host._home.zygote is not zygote


@needs_strict
def test_programs_of_several_threads_run_side_by_side() -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda n: sandbox.run(f"print({n} ** 2)"), range(20)))
    assert [int(run.stdout) for run in runs] == [n**2 for n in range(20)]


@needs_strict
def test_the_zygote_outlives_the_thread_that_started_it() -> None:
    home = host._Home()
    thread = threading.Thread(target=home.get)
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert home.zygote is not None and home.zygote.alive
    home.zygote.close()


@needs_strict
def test_a_fork_gets_a_zygote_of_its_own() -> None:
    script = """
        import os
        from llmalign.verifiers import sandbox
        from llmalign.verifiers.sandbox import host
        sandbox.run("pass")
        mine = host._home.zygote.pid
        child = os.fork()
        if not child:
            found = sandbox.run("print(1)").stdout == b"1\\n" and host._home.zygote.pid != mine
            os._exit(0 if found else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(sandbox.run("print(2)").stdout, host._home.zygote.pid == mine)
    """
    assert python(script) == ["0", "b'2\\n' True"]


def of_session(session: int) -> list[int]:
    """Processes of a session, and those below them in other sessions, by walking /proc."""
    parents: dict[int, int] = {}
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                parents[int(entry)] = int(fields[1])
                if int(fields[3]) == session and fields[0] != "Z":
                    found.add(int(entry))
    for pid in parents:
        above = pid
        while above in parents and above not in found:
            above = parents[above]
        if above in found:
            found.add(pid)
    return sorted(found)


@linux
@needs_strict
@pytest.mark.parametrize("how", ["the process", "its group"])
def test_when_the_host_is_killed_nothing_stays(how: str) -> None:
    script = """
        from llmalign.verifiers import sandbox
        sandbox.probe()
        print("ready", flush=True)
        sandbox.run("import time; time.sleep(1000)", limits=sandbox.Limits(time_s=1000))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    # The host, its zygote inside and outside, the keeper and the program.
    assert wait_until(lambda: len(of_session(process.pid)) >= 5)
    family = of_session(process.pid)
    if how == "the process":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert wait_until(lambda: not [pid for pid in family if running(pid)])


def running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] != "Z"
    return False
