import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from llmalign.observe import report
from llmalign.observe.log import RunLog, write_json, write_samples
from llmalign.observe.report import write_report

EVIL = '</script><script>document.title="x"</script><!-- <script> <img src=x onerror=alert(1)>'
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


def evaluation(right):
    ci = [right - 0.05, right + 0.05]
    tables = {"pass@k": {"4": 0.8}, "pass@k_ci": {"4": [0.7, 0.9]}, "maj@k": {}, "maj@k_ci": {}}
    return {"pass@1": right, "ci": ci, "problems": 50, "tokens_mean": 120.5} | tables


def sample(step, number, **other):
    return {
        "step": step,
        "problem_id": f"p{number}",
        "prompt": [{"role": "user", "content": f"question {number} <b>"}],
        "answer": "72",
        "completion": f"completion {number} {EVIL}",
        "reward": number / 10,
        "aspects": {"math": 1.0, "<i>format": None},
        "verdict": "right" if number % 2 else "wrong",
        "extracted": "7",
        "advantage": float("nan"),
    } | other


def make_run(folder, num_steps=30, num_samples=4):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text("name: tiny-run\nseed: 1\n")
    write_json(folder / "environment.json", {"torch": "2.13.0"})
    with RunLog(folder, resume_step=None) as log:
        for step in range(num_steps):
            timing = {"seconds_rollout": 2.0, "seconds_update": 1.0 + step % 3}
            curves = {"reward": step / 100, "loss": 1 / (step + 1), "kl": None}
            curves |= {"reward/math": 0.5, "reward/length": -0.1, "share/math": 0.9}
            log.log({"step": step, **curves, **timing})
        log.log({"step": num_steps - 1, "eval/pass@1": 0.5})
    write_samples(folder, 3, [sample(3, i) for i in range(num_samples)])
    summary = {"before": evaluation(0.2), "after": evaluation(0.6), "train_seconds": 90.0}
    write_json(folder / "summary.json", summary)
    return folder


class Scripts(HTMLParser):
    """Collects scripts as a browser would cut them, and every tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data


def embedded(path):
    return json.loads(Scripts(path.read_text("utf-8")).scripts[0])


def test_the_page_holds_the_run(tmp_path):
    path = write_report(make_run(tmp_path / "run"))
    data = embedded(path)
    assert path == tmp_path / "run" / "report.html"
    assert data["name"] == "tiny-run"
    assert data["curves"]["reward"]["y"][:3] == [0.0, 0.01, 0.02]
    assert data["curves"]["eval/pass@1"] == {"x": [29], "y": [0.5], "of": 1}
    assert "kl" not in data["curves"]  # null at every step: no reference model
    assert data["ledger"]["phases"]["rollout"]["total"] == 60.0
    assert data["ledger"]["phases"]["update"]["y"][:3] == [1.0, 2.0, 3.0]
    assert data["summary"]["after"]["ci"] == pytest.approx([0.55, 0.65])
    assert [s["problem_id"] for s in data["samples"]] == ["p0", "p1", "p2", "p3"]
    assert data["samples"][1]["completion"] == f"completion 1 {EVIL}"
    assert data["samples_total"] == 4
    assert data["notes"] == []


def test_the_page_needs_no_network_and_model_text_adds_no_tag(tmp_path):
    text = write_report(make_run(tmp_path / "run")).read_text("utf-8")
    page = Scripts(text)
    assert len(page.scripts) == 2
    assert not {"img", "link", "iframe", "b", "i"} & {tag for tag, _ in page.tags}
    assert not any({"src", "href", "onerror"} & set(attributes) for _, attributes in page.tags)
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert unsafe not in text


@pytest.mark.parametrize(
    ("missing", "note"),
    [
        ("summary.json", "There is no summary.json: the run has not ended, or was stopped."),
        ("metrics.jsonl", "There is no metrics.jsonl: no step was finished."),
        ("samples/step-000003.jsonl", None),
        ("recipe.yaml", None),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_shown(tmp_path, missing, note):
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    data = embedded(write_report(folder))
    assert data["notes"] == ([note] if note else [])
    assert data["name"] == ("run" if missing == "recipe.yaml" else "tiny-run")
    assert bool(data["samples"]) == (not missing.startswith("samples"))
    assert bool(data["curves"]) == (missing != "metrics.jsonl")


def test_an_empty_folder_makes_a_page_and_no_folder_an_error(tmp_path):
    assert embedded(write_report(tmp_path))["samples"] == []
    with pytest.raises(FileNotFoundError, match="expected the folder of a run"):
        write_report(tmp_path / "nothing")


def test_torn_and_broken_files_of_a_crashed_run_are_told(tmp_path):
    folder = make_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "re')
    assert embedded(write_report(folder))["last_step"] == 29
    (folder / "metrics.jsonl").write_text('xx\n{"step": 1}\n')
    (folder / "summary.json").write_text('{"before": ')
    (folder / "recipe.yaml").write_text("name: [")
    (folder / "samples" / "step-000004.jsonl").write_text('{"step": 4}\n{"st')
    data = embedded(write_report(folder))
    assert data["notes"][0].startswith("Curves are left out: ")
    assert data["notes"][1:] == [
        "summary.json cannot be read.",
        "samples/step-000004.jsonl:2 cannot be read.",
    ]
    assert data["recipe"] == "name: ["


def test_long_curves_are_thinned_without_losing_a_spike(tmp_path):
    with RunLog(tmp_path, resume_step=None) as log:
        for step in range(9000):
            loss = {4321: 77.0, 17: -50.0, 6000: float("nan")}.get(step, step % 7)
            log.log({"step": step, "loss": loss, "seconds_update": 1.0})
    data = embedded(write_report(tmp_path))
    curve = data["curves"]["loss"]
    assert curve["of"] == 9000
    assert len(curve["x"]) == len(curve["y"]) <= report.MAX_POINTS
    assert curve["x"] == sorted(curve["x"])
    assert dict(zip(curve["x"], curve["y"], strict=True))[4321] == 77.0
    assert min(curve["y"]) == -50.0
    assert len(data["ledger"]["x"]) == report.MAX_LEDGER_POINTS
    assert data["ledger"]["phases"]["update"] == {"y": [1.0] * 400, "total": 9000.0}


def test_samples_are_bounded_per_step_and_in_total_and_counted(tmp_path):
    for step in range(40):
        write_samples(tmp_path, step, [{"step": step, "reward": float("nan")}] * 200)
    data = embedded(write_report(tmp_path))
    assert len(data["samples"]) == report.MAX_RECORDS
    assert data["samples_total"] == 8000
    assert {s["step"] for s in data["samples"]} == set(range(40))


def test_with_very_many_steps_some_are_left_out_evenly_and_the_last_is_kept(tmp_path):
    for step in range(600):
        write_samples(tmp_path, step, [{"step": step}] * 9)
    shown = sorted({s["step"] for s in embedded(write_report(tmp_path))["samples"]})
    assert len(shown) == 250
    assert shown[-1] == 599
    assert max(b - a for a, b in zip(shown, shown[1:], strict=False)) <= 3


def test_a_very_long_text_keeps_its_ends_and_says_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_CHARACTERS", 100)
    write_samples(tmp_path, 1, [{"completion": "a" * 5000 + "\\boxed{7}"}])
    (shown,) = embedded(write_report(tmp_path))["samples"]
    assert shown["completion"].startswith("a" * 2000 + "\n[… 1,009 characters left out …]\n")
    assert shown["completion"].endswith("\\boxed{7}")


def dump_dom(page, profile):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_a_browser_draws_curves_and_samples_and_runs_no_model_text(tmp_path):
    dom = dump_dom(write_report(make_run(tmp_path / "run")), tmp_path / "profile")
    assert "<title>tiny-run · llmalign</title>" in dom
    drawn = re.findall(r'<path[^>]* d="(M[^"]+)"[^>]* data-curve="([^"]+)"', dom)
    nodes = ["length", "math", "math"]  # rewards of two nodes, and the share of one
    expected = sorted([*nodes, "loss", "mean", "pass@1", "rollout", "update"])
    assert sorted(name for _, name in drawn) == expected
    assert all(d.count("L") >= 29 for d, name in drawn if name != "pass@1")
    assert len(re.findall(r'role="option"', dom)) == 4
    rows = dom[dom.index('id="summary"') : dom.index("Curves")]
    assert "pass@4" in rows and "+40.0 points" in rows
    body = dom[dom.index('id="detail"') :]
    assert "completion 0 &lt;/script&gt;&lt;script&gt;document.title" in body
    assert "question 0 &lt;b&gt;" in body and "&lt;i&gt;format" in body


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_a_browser_shows_a_run_that_left_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    dom = dump_dom(write_report(tmp_path / "run"), tmp_path / "profile")
    assert "This run has kept no samples." in dom
    assert "no step was finished" in dom
