"""A run's folder: whose it is, what may change between its parts, and its metrics after an interruption."""

import errno
import json

import pytest
import yaml

from metacl.config import load_config
from metacl.coordination.run_folder import RunFolder, differing_keys, write_text
from metacl.errors import ConfigError, ResourceError
from tests.helpers import tiny_config


def claimed(tmp_path, **sections):
    config = tiny_config(tmp_path, **sections)
    folder = RunFolder(config.folder)
    folder.check(config, resume=True)
    folder.claim(config)
    return folder


def refusal(folder, config, resume=True):
    with pytest.raises(ConfigError) as caught:
        folder.check(config, resume)
    return str(caught.value)


def test_claiming_writes_the_resolved_config(tmp_path):
    text = "name: n\nlearner: text_classifier\ndata: {name: labelled_text, dataset: oos}\nobjective: anil\n"
    (tmp_path / "c.yaml").write_text(text)
    config = load_config(tmp_path / "c.yaml", [f"output={tmp_path}/deep/run"])
    folder = RunFolder(config.folder)
    folder.check(config, resume=True)
    assert not config.folder.exists()  # checking changes nothing
    folder.claim(config)
    assert load_config(tmp_path / "deep" / "run" / "config.yaml") == config


def test_a_run_from_before_an_option_was_there_is_the_same_run(tmp_path):
    text = "name: n\nlearner: text_classifier\ndata: {name: labelled_text, dataset: oos}\n"
    (tmp_path / "c.yaml").write_text(text)
    config = load_config(tmp_path / "c.yaml", [f"output={tmp_path}/run"])
    folder = RunFolder(config.folder)
    folder.claim(config)
    tree = yaml.safe_load(folder.config.read_text())
    del tree["outer"]["weight_decay"], tree["learner"]["adapter"]["tokens"]
    folder.config.write_text(yaml.safe_dump(tree))
    folder.check(config, resume=True)
    assert folder.differences(load_config(tmp_path / "c.yaml", ["outer.weight_decay=0.1"])) == [
        "outer.weight_decay: 0.0 -> 0.1"
    ]


def test_empty_folder_is_free(tmp_path):
    (tmp_path / "run").mkdir()
    assert claimed(tmp_path).config.exists()


def test_same_run_may_go_on(tmp_path):
    claimed(tmp_path)
    claimed(tmp_path)


def test_same_run_may_not_go_on_if_told_so(tmp_path):
    folder = claimed(tmp_path)
    message = refusal(folder, tiny_config(tmp_path), resume=False)
    assert "already holds a run" in message
    assert "--resume never" in message
    assert "output=" in message


def test_a_different_run_is_refused_by_its_keys(tmp_path):
    folder = claimed(tmp_path)
    before = folder.config.read_text()
    message = refusal(folder, tiny_config(tmp_path, seed=5, inner={"steps": 4}))
    assert "inner.steps: 2 -> 4; seed: 0 -> 5" in message
    assert "output=" in message
    assert folder.config.read_text() == before


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"outer": {"learning_rate": 0.5}}, "outer.learning_rate: 0.001 -> 0.5"),
        ({"episodes": {"ways": 2, "shots": 2, "queries": 2}}, "episodes.ways: 3 -> 2"),
        ({"objective": {"name": "anil"}}, "objective.name: 'proto_maml' -> 'anil'"),
        ({"inner": {"steps": 2, "optimizer": {"name": "sgd", "momentum": 0.5}}}, "optimizer.momentum: 0.0 -> 0.5"),
        ({"inner": {"steps": 2, "optimizer": {"name": "adam"}}}, "inner.optimizer.eps: None -> 1e-08"),
    ],
)
def test_what_makes_another_run(tmp_path, sections, key):
    assert key in refusal(claimed(tmp_path), tiny_config(tmp_path, **sections))


@pytest.mark.parametrize(
    "sections",
    [
        {"workers": {"executor": "ray", "groups": 4, "threads": 1}},
        {"checkpoints": {"every": 1, "keep": 9}},
        {"evaluation": {"shape": {}, "episodes": 7}},
        {"name": "renamed"},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_what_does_not(tmp_path, sections):
    claimed(tmp_path)
    folder = claimed(tmp_path, **sections)
    stored = yaml.safe_load(folder.config.read_text())
    assert next(iter(sections)) in stored
    assert stored["name"] == sections.get("name", "tiny")


def test_a_moved_folder_is_the_same_run(tmp_path):
    claimed(tmp_path).path.rename(tmp_path / "elsewhere")
    claimed(tmp_path, output=tmp_path / "elsewhere")


def test_a_constant_schedule_may_go_on_for_longer(tmp_path):
    claimed(tmp_path, outer={"steps": 10})
    claimed(tmp_path, outer={"steps": 20})


def test_a_cosine_may_not(tmp_path):
    # Its end is part of every step.
    folder = claimed(tmp_path, outer={"steps": 10, "schedule": "cosine"})
    message = refusal(folder, tiny_config(tmp_path, outer={"steps": 20, "schedule": "cosine"}))
    assert "outer.steps: 10 -> 20" in message


def test_changing_the_schedule_names_the_steps_too(tmp_path):
    folder = claimed(tmp_path, outer={"steps": 10})
    message = refusal(folder, tiny_config(tmp_path, outer={"steps": 20, "schedule": "cosine"}))
    assert "outer.schedule: 'constant' -> 'cosine'" in message
    assert "outer.steps: 10 -> 20" in message


def test_keys_that_only_one_config_has():
    assert differing_keys({"a": {"x": 1}}, {"a": {"y": 2}}) == ["a.x: 1 -> None", "a.y: None -> 2"]


@pytest.mark.parametrize("content", ["other", None], ids=["folder of something else", "a file"])
def test_taken_by_something_else(tmp_path, content):
    run = tmp_path / "run"
    if content:
        run.mkdir()
        (run / "mine.txt").write_text(content)
    else:
        run.write_text("")
    assert "exists and is not the folder of a run" in refusal(RunFolder(run), tiny_config(tmp_path))


@pytest.mark.parametrize("content", [b"a: [", b"- list\n", b"", b"caf\xe9: 1\n"])
def test_damaged_config(tmp_path, content):
    folder = claimed(tmp_path)
    folder.config.write_bytes(content)
    message = refusal(folder, tiny_config(tmp_path))
    assert str(folder.config) in message
    assert "damaged" in message


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    config = tiny_config(tmp_path, output=tmp_path / "file" / "run")
    with pytest.raises(ResourceError, match=r"cannot be written \(Not a directory\).*output="):
        RunFolder(config.folder).claim(config)


def metrics_of(folder):
    return [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]


def test_metrics_after_the_checkpoint_are_dropped(tmp_path):
    folder = claimed(tmp_path)
    for step in range(1, 6):
        folder.append_metrics({"step": step, "query_loss": 0.5})
    folder.keep_metrics_until(3)
    assert metrics_of(folder) == [1, 2, 3]
    folder.append_metrics({"step": 4})
    assert metrics_of(folder) == [1, 2, 3, 4]
    folder.keep_metrics_until(0)
    assert metrics_of(folder) == []


def test_half_written_last_line_is_dropped(tmp_path):
    folder = claimed(tmp_path)
    folder.append_metrics({"step": 1})
    with folder.metrics.open("a") as file:
        file.write('{"step": 2, "que')
    folder.keep_metrics_until(9)
    assert metrics_of(folder) == [1]


def test_no_metrics_yet(tmp_path):
    folder = claimed(tmp_path)
    folder.keep_metrics_until(3)
    assert not folder.metrics.exists()


def test_full_disk_under_the_metrics(tmp_path):
    folder = claimed(tmp_path)
    folder.metrics.symlink_to("/dev/full")  # every write to it fails with ENOSPC
    with pytest.raises(ResourceError, match=r"metrics\.jsonl"):
        folder.append_metrics({"step": 1})


def test_full_disk_under_a_text_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(ResourceError, match=r"a\.txt: cannot be written \(No space left on device\)") as caught:
        write_text(path, "new")
    assert caught.value.exit_code == 3
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new ü")
    assert path.read_text("utf-8") == "new ü"

    def crash(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "newer")
    assert path.read_text("utf-8") == "new ü"
