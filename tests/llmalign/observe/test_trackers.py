import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llmalign.observe.trackers import open_trackers

RUN = {"run_name": "tiny", "config": {"loss": {"clip_low": 0.2}}}


def test_tensorboard_holds_the_numbers_and_nothing_else(tmp_path):
    (tracker,) = open_trackers(["tensorboard"], run_folder=tmp_path, **RUN)
    tracker.log({"step": 1, "reward": 0.5, "kl": None, "name": "x", "loss": float("nan")}, 1)
    tracker.log({"step": 2, "reward": 0.75, "eval/pass@1": 1}, 2)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["eval/pass@1", "reward"]
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.5), (2, 0.75)]
    assert b'"clip_low": 0.2' in events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]


def test_no_trackers_is_an_empty_list(tmp_path):
    assert open_trackers([], run_folder=tmp_path, **RUN) == []


def test_an_unknown_tracker_is_refused_before_any_is_opened(tmp_path):
    with pytest.raises(ValueError, match=r"observe\.trackers: unknown tracker 'wandbb'; did you"):
        open_trackers(["tensorboard", "wandbb"], run_folder=tmp_path, **RUN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_names_the_setting_and_the_remedy(tmp_path, name):
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(RuntimeError, match=rf"observe\.trackers has '{name}'.*'llmalign\[track\]'"):
        open_trackers([name], run_folder=tmp_path, **RUN)
    assert list(tmp_path.iterdir()) == []
