"""What programs can do in the sandbox, shown by programs that try."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import sandbox
from llmalign.verifiers.sandbox import Limits, Run

HEAD = """
import json, os, socket, sys, threading, time
def attempt(do, *given):
    try:
        do(*given)
        return "done"
    except BaseException as error:
        return type(error).__name__
def say(value):
    print(json.dumps(value))
"""


def isolated() -> bool:
    try:
        return sandbox.probe().level == "strict"
    except sandbox.SandboxError:
        return False


pytestmark = pytest.mark.skipif(not isolated(), reason="this machine forbids the strict level")


def run(program: str, stdin: str = "", **limits: Any) -> Run:
    return sandbox.run(program, stdin, limits=Limits(**{"time_s": 10.0, **limits}))


def told(program: str, **limits: Any) -> Any:
    found = run(HEAD + program, **limits)
    assert found.status == "ok", found
    return json.loads(found.stdout)


def test_a_program_reads_its_input_and_prints() -> None:
    found = run("print(input()[::-1])", "ä→b\n")
    assert (found.status, found.stdout.decode(), found.exit_code) == ("ok", "b→ä\n", 0)
    assert 0 < found.seconds < 10


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.exit(3)", 3), ("import sys; sys.exit('text')", 1), ("exit()", 0),
        ("import sys; sys.exit(True)", 1), ("import os; os._exit(7)", 7), ("1/0", 1),
        ("def f(", 1), ("raise SystemExit", 0), ("raise KeyboardInterrupt", 1), ("\0", 1),
        ("import sys; sys.stdout.close(); print(1)", 1), ("x = '\ud800'", 1),
    ],
)  # fmt: skip
def test_the_exit_status_is_that_of_the_interpreter(program: str, code: int) -> None:
    found = run(program)
    assert (found.exit_code, found.status) == (code, "failed" if code else "ok")


def test_a_failure_says_what_was_raised() -> None:
    assert run("def f():\n    raise KeyError('k')\nf()").why == "exit status 1: KeyError: 'k'"
    assert run("import os; os.abort()").why == "killed by SIGABRT"
    assert "SyntaxError" in run("a b").why


@pytest.mark.parametrize(
    "program",
    [
        "print(open(0).read())", "import sys; print(sys.stdin.buffer.read().decode())",
        "print(open('/dev/stdin').read())", "import os; print(os.read(0, 10).decode())",
        "import os, sys; sys.stdout.write(sys.stdin.read()); sys.stdout.flush(); os._exit(0)",
        "import fileinput; print(*fileinput.input())",
        "import atexit; atexit.register(lambda: print(input()))",
        "import threading; threading.Thread(target=lambda: print(input())).start()",
        "class A:\n    def __del__(self): print(input())\na = A()",
        "import asyncio\nasync def f(): print(input())\nasyncio.run(f())",
        "import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n"
        "    f.write(input()); f.seek(0); print(f.read())",
        "import sys; print('noise', file=sys.stderr); print(input())",
        "import colorsys, sqlite3, zoneinfo, ctypes, multiprocessing; print(input())",
        "if __name__ == '__main__': print(input())",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and f(n - 1)\n"
        "f(50000)\nprint(input())",
        "x = bytearray(250 * 2**20); print(input())",
        "import threading; threading.stack_size(2**27)\n"
        "t = threading.Thread(target=lambda: print(input())); t.start(); t.join()",
    ],
)  # fmt: skip
def test_what_programs_usually_do_works(program: str) -> None:
    found = run(program, "hello")
    assert (found.status, found.stdout.decode().strip()) == ("ok", "hello")


def test_equal_programs_print_the_same() -> None:
    program = "import random; print(random.random(), hash('a'), {'a', 'b', 'c', 'd'})"
    assert run(program).stdout == run(program).stdout


def test_nothing_but_scratch_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("here")
    os.chmod(tmp_path, 0o777)
    places = ["/", "/etc", "/usr", "/dev", str(tmp_path), str(tmp_path.parent), str(Path.cwd())]
    found = told(
        f"say([attempt(open, place + '/x', 'w') for place in {places!r}]"
        f"+ [attempt(os.remove, {str(tmp_path / 'victim')!r}), attempt(open, '/tmp/x', 'w')])"
    )
    assert found[-1] == "done"
    assert "done" not in found[:-1]
    assert (tmp_path / "victim").read_text() == "here"


def test_only_the_interpreter_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    secrets = ["/etc/shadow", "/etc/hosts", str(tmp_path / "secret"), __file__, "/proc/1/environ"]
    secrets += ["/proc/1/mem", "/proc/cmdline", "/sys/kernel", "/root/.bashrc"]
    assert "done" not in told(f"say([attempt(open, path) for path in {secrets!r}])")
    assert told("say(os.listdir('/home') if os.path.isdir('/home') else [])") == []


def test_files_of_one_program_are_gone_for_the_next() -> None:
    assert told("open('x', 'w').close(); os.chmod('.', 0); say(attempt(open, 'x'))") != "done"
    assert told("say(os.listdir('/tmp'))") == []


def test_the_environment_is_empty_but_for_what_python_needs() -> None:
    os.environ["LLMALIGN_SECRET"] = "secret"
    try:
        found = told(
            "say([sorted(os.environ), os.getuid(), os.getcwd(), sys.argv, socket.gethostname()])"
        )
    finally:
        del os.environ["LLMALIGN_SECRET"]
    names = ["HOME", "LANG", "OMP_NUM_THREADS", "PATH", "PYTHONHASHSEED", "TMPDIR"]
    assert found == [names, 1000, "/tmp", ["program.py"], "sandbox"]


def test_there_is_no_network_and_no_socket() -> None:
    assert told("say([attempt(socket.socket), attempt(socket.socket, socket.AF_UNIX)])") == [
        "PermissionError",
        "PermissionError",
    ]


def test_no_process_and_no_other_program_can_be_started() -> None:
    found = told(
        "import subprocess\n"
        "say([attempt(os.fork), attempt(subprocess.run, ['/bin/true']),"
        " attempt(os.execv, sys.executable, ['x']),"
        " attempt(os.posix_spawn, '/bin/true', ['x'], {})])"
    )
    assert found == ["PermissionError"] * 4


def test_threads_are_few() -> None:
    started = told(
        "n = 0\ntry:\n    while n < 1000:\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\nsay(n)"
    )
    assert 8 <= started < 128


def test_no_other_process_can_be_seen_traced_or_signalled() -> None:
    found = told(
        "import ctypes\n"
        "say([attempt(os.kill, pid, 9) for pid in (0, -1, 1)]"
        " + [attempt(os.killpg, 0, 9), attempt(os.listdir, '/proc/1/fd'),"
        " ctypes.CDLL(None).ptrace(16, 1, 0, 0),"
        " [p for p in os.listdir('/proc') if p.isdigit()]])"
    )
    assert found == ["PermissionError"] * 5 + [-1, ["1", "2"]]
    assert told("say(attempt(os.kill, os.getpid(), 0))") == "done"


def test_no_capability_is_left_and_none_comes_back() -> None:
    found = told(
        "import ctypes, resource\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "say([int(status['Cap' + kind], 16) for kind in ('Eff', 'Prm', 'Bnd', 'Amb')]"
        " + [int(status['NoNewPrivs']), int(status['Seccomp']),"
        " ctypes.CDLL(None).unshare(0x10000000),"
        " ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None),"
        " attempt(resource.setrlimit, resource.RLIMIT_AS, (-1, -1))])"
    )
    assert found == [0, 0, 0, 0, 1, 2, -1, -1, "ValueError"]


def test_memory_is_bounded_whatever_it_is_called() -> None:
    found = told(
        "import mmap\n"
        "say([attempt(bytearray, 800 * 2**20), attempt(mmap.mmap, -1, 800 * 2**20),"
        " attempt(os.memfd_create, 'x')])"
    )
    assert found == ["MemoryError", "OSError", "PermissionError"]


def test_files_are_bounded_in_size_sum_and_number() -> None:
    found = told(
        "def fill(size):\n"
        "    n = 0\n"
        "    try:\n"
        "        while True:\n"
        "            open(f'{size}-{n}', 'wb').write(b'x' * size); n += 1\n"
        "    except OSError as error: pass\n"
        "    for i in range(n + 1): attempt(os.remove, f'{size}-{i}')\n"
        "    return n\n"
        "say([fill(2**26), fill(2**20), fill(0)])"
    )
    assert found[0] == 0
    assert found[1] <= 64
    assert found[2] <= 2000


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass", "import time; time.sleep(1000)", "10 ** 10 ** 9",
        "import re; re.match('(a+)+b', 'a' * 60)",
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        "import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass",
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
        "import atexit, time; atexit.register(time.sleep, 1000)",
        "import sys, time\nwhile True: sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.05)",
        "import os\nwhile True:\n    try: os.write(3, b'x' * 65536)\n    except OSError: pass",
    ],
    ids=lambda program: program[:40],
)  # fmt: skip
def test_the_clock_stands_outside(program: str) -> None:
    began = time.monotonic()
    found = run(program, time_s=0.2)
    assert (found.status, found.why) == ("timeout", "time limit exceeded")
    assert time.monotonic() - began < 5


def test_a_flood_of_output_is_cut() -> None:
    found = run("import sys\nwhile True: sys.stdout.write('A' * 65536)", output_mb=1)
    assert (found.status, found.why) == ("output_limit", "output limit exceeded")
    assert len(found.stdout) <= 2**20 + 2**16


def test_a_flood_on_stderr_holds_nothing_up() -> None:
    assert run("import sys\nsys.stderr.write('x' * 10**7)\nprint(1)").stdout == b"1\n"


def test_a_crash_is_an_ending_like_any_other() -> None:
    found = run("import ctypes\nprint(1, flush=True)\nctypes.string_at(0)")
    assert (found.status, found.exit_code, found.stdout) == ("killed", -11, b"1\n")


def test_its_input_cannot_be_changed() -> None:
    found = told("say([attempt(os.write, 0, b'x'), attempt(os.ftruncate, 0, 5)])")
    assert found == ["PermissionError", "PermissionError"]


def test_a_program_finds_nothing_of_the_trainer_in_its_memory() -> None:
    expected = "of the trainer, " + "forty-two"
    found = told(
        "import re\n"
        "hits, marker = 0, re.compile(b'of the traine[r], forty-tw[o]')\n"
        "for line in open('/proc/self/maps'):\n"
        "    low, high = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "    if 'rw' in line and 'stack' not in line:\n"
        "        memory = open('/proc/self/mem', 'rb', 0); memory.seek(low)\n"
        "        try: hits += bool(marker.search(memory.read(high - low)))\n"
        "        except OSError: pass\n"
        "say([hits, [m for m in sys.modules if 'llmalign' in m or 'sandbox' in m]])"
    )
    assert found == [0, []], expected


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="time_s is 0, expected > 0"):
        Limits(time_s=0)


def test_a_program_over_the_size_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="characters, expected <= 1000000"):
        sandbox.run(" " * 1_000_001)
