"""A run from its config: stopped and resumed it is the same run; it goes on with a longer stream; mistakes are said."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from metacl import api
from metacl.cli import main
from metacl.continual.config import continual_config_from_dict, load_continual_config
from metacl.continual.loop import ContinualLoop
from metacl.continual.worker import make_loop
from metacl.errors import ConfigError, RunInterrupted
from metacl.initialization import write_initialization
from metacl.learners.engine import Engine
from tests.continual.everything import EVERYTHING
from tests.small_models import VOCABULARY, save_family
from tests.small_runs import small_config


def timeless(path):
    """results.json without what a clock says."""
    tree = json.loads((path / "results.json").read_text())
    for run in tree["seeds"]:
        del run["learn_seconds"], run["test_seconds"], run["metrics"]["learn_seconds"]
        for experience in run["experiences"]:
            del experience["name"]
    del tree["metrics"]["learn_seconds"]
    return tree


def tensor_bytes(path, step):
    return [
        (path / f"seed-0/checkpoints/step-{step}/{name}.safetensors").read_bytes()
        for name in ("meta_params", "outer_state")
    ]


@pytest.mark.parametrize("where", ["between", "in the middle"])
def test_stopped_and_resumed_gives_the_same_bytes(config, tmp_path, monkeypatch, where):
    api.continual(config("undisturbed"))
    steps = []
    step, fit = ContinualLoop._step, ContinualLoop.fit

    def stopping_step(self, *arguments):
        steps.append(1)
        if where == "in the middle" and len(steps) == 10:  # the fourth step of the second experience
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    def stopping_fit(self, k, before):
        if where == "between" and k == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return fit(self, k, before)

    monkeypatch.setattr(ContinualLoop, "_step", stopping_step)
    monkeypatch.setattr(ContinualLoop, "fit", stopping_fit)
    with pytest.raises(RunInterrupted, match="The same command continues"):
        api.continual(config("stopped"))
    monkeypatch.undo()
    assert not (tmp_path / "stopped/results.json").exists()
    api.continual(config("stopped"))
    for k in (2, 3):
        assert tensor_bytes(tmp_path / "stopped", k) == tensor_bytes(tmp_path / "undisturbed", k)
    assert timeless(tmp_path / "stopped") == timeless(tmp_path / "undisturbed")
    for file in ("adapter_model.safetensors", "head.safetensors"):
        both = [(tmp_path / name / "seed-0/model" / file).read_bytes() for name in ("stopped", "undisturbed")]
        assert both[0] == both[1]


def test_goes_on_with_a_longer_stream(config, tmp_path):
    short = api.continual(config("grows", experiences=2, strategies=EVERYTHING[:6]))["seeds"][0]
    longer = api.continual(config("grows", experiences=4, strategies=EVERYTHING[:6]))["seeds"][0]
    assert [row[:2] for row in longer["rows"][:2]] == list(short["rows"])
    # The end of the shorter run is asked on what is new, and what was never asked is not made up.
    assert longer["rows"][0][2:] == (None, None) and None not in longer["rows"][1]
    assert len(longer["rows"]) == 4 and "forward_transfer" in longer["metrics"]
    head = load_file(tmp_path / "grows/seed-0/model/head.safetensors")
    assert head["weight"].shape[0] == 8
    about = json.loads((tmp_path / "grows/seed-0/model/continual.json").read_text())
    assert about["classes"] == [f"class {c}{k}" for k in range(4) for c in "ab"]


def test_the_past_must_be_the_same(config, files):
    config_ = config()
    api.continual(config_)
    with open(files[0]["train"], "a") as file:
        file.write("one more text,class a0\n")
    with pytest.raises(ConfigError, match="experience 'e0' is not the one"):
        api.continual(config_)


def test_what_is_refused_leaves_nothing(config, tmp_path):
    """So that the command, put right, is not told that the folder holds another run."""
    with pytest.raises(ConfigError, match="o_lora gives each"):
        api.continual(config(strategies=[{"name": "o_lora", "rank": 50}], output=str(tmp_path / "none")), print)
    assert not (tmp_path / "none" / "config.yaml").exists()
    api.continual(config("one seed", experiences=1, strategies=[]))
    with pytest.raises(ConfigError, match="seed-1/model"):  # of the second seed alone
        api.continual(config("none", strategies=[], seeds=[0, 1], start=str(tmp_path / "one seed")))
    assert not (tmp_path / "none").exists()


def test_a_head_that_is_not_trained_is_refused(config):
    with pytest.raises(ConfigError, match=r"training\.only: the head starts at zeros"):
        api.continual(config(training={"only": ["adapter.*"]}), print)
    with pytest.raises(ConfigError, match=r"works on both of LoRA's factors, and adapter\..*lora_A.* is not trained"):
        only = {"only": ["*lora_B*", "head.*"]}
        api.continual(config(training=only, strategies=[{"name": "ewc", "on": "product"}]), print)


def test_a_run_from_before_an_option_was_there_goes_on(config, tmp_path):
    results = api.continual(config(experiences=1, strategies=["la_maml"]))
    stored = tmp_path / "run/config.yaml"
    tree = yaml.safe_load(stored.read_text())
    del tree["measuring"]["rows"], tree["strategies"][0]["synchronous"], tree["learner"]["adapter"]["tokens"]
    stored.write_text(yaml.safe_dump(tree))
    again = api.continual(config(experiences=1, strategies=["la_maml"]))
    assert json.dumps(again) == json.dumps(results)
    del tree["training"]["batch_size"]  # 32 where nothing is said
    stored.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"training\.batch_size: 32 -> 6"):
        api.continual(config(experiences=1, strategies=["la_maml"]))


def test_one_process_loads_the_model_once(config, monkeypatch):
    loaded, load = [], Engine.load
    monkeypatch.setattr(Engine, "load", lambda self, *given: loaded.append(1) or load(self, *given))
    api.continual(config(experiences=1, strategies=[]))
    assert len(loaded) == 1


def test_another_run_is_refused(config):
    api.continual(config(experiences=1))
    with pytest.raises(ConfigError, match=r"training\.batch_size: 6 -> 7"):
        api.continual(config(experiences=1, training={"epochs": 2, "batch_size": 7}))
    with pytest.raises(ConfigError, match="can become longer only"):
        longer = config(experiences=2)
        api.continual(longer)
        api.continual(config(experiences=1))


def test_starts(config, tmp_path, model):
    adapter = {"rank": 4, "alpha": 4, "last_layers": 2}
    meta_config = small_config(model, tmp_path / "meta", learner__adapter=adapter)
    learner, meta = api.starting_point(meta_config)
    meta = {name: tensor + 0.5 if name.startswith("adapter.") else tensor for name, tensor in meta.items()}
    write_initialization(tmp_path / "meta", meta_config, learner, meta, 0, "card")

    def started(start, **changes):
        made = config(start=str(start), **changes)
        return make_loop(made, 0, made.stream.open(0), made.learner.build(0)).start

    found = started(tmp_path / "meta")
    assert all(torch.equal(found[name], meta[name]) for name in found if name.startswith("adapter."))
    assert not found["head.weight"].any()
    api.continual(config("first", experiences=1))
    stored = load_file(tmp_path / "first/seed-0/model/adapter_model.safetensors")
    write_initialization(tmp_path / "meta", meta_config, learner, {n: 2 * t for n, t in meta.items()}, 0, "card")
    api.continual(config("other", experiences=1, start=str(tmp_path / "meta"), strategies=[]))
    write_initialization(tmp_path / "meta", meta_config, learner, meta, 0, "card")
    with pytest.raises(ConfigError, match="start: it is not what this run began from"):
        api.continual(config("other", experiences=2, start=str(tmp_path / "meta"), strategies=[]))
    about = tmp_path / "first/seed-0/model/continual.json"
    written = json.loads(about.read_text())
    del written["learner"]["adapter"]["tokens"]  # as it was before there was such an option
    about.write_text(json.dumps(written))
    found = started(tmp_path / "first")
    assert all(torch.equal(found["adapter." + name], tensor) for name, tensor in stored.items())
    with pytest.raises(ConfigError, match=r"learner\.adapter"):
        started(tmp_path / "meta", learner={**config().learner.to_dict(), "adapter": {"rank": 3, "last_layers": 2}})
    with pytest.raises(ConfigError, match="holds no initialization"):
        started(tmp_path)


def test_only_some_layers(config, tmp_path):
    made = config(training={"only": ["head.*"]}, strategies=[])
    loop = make_loop(made, 0, made.stream.open(0), made.learner.build(0))
    assert set(loop.start) == {"head.weight", "head.bias"}
    assert loop.learn(loop.begin()).record.trainable_parameters == sum(t.numel() for t in loop.start.values())
    with pytest.raises(ConfigError, match=r"training\.only: no parameter is called"):
        made = config(training={"only": ["heads.*"]})
        make_loop(made, 0, made.stream.open(0), made.learner.build(0))


def test_a_head_from_class_means_is_the_nearest_mean(config):
    # Two ways to the same answers: a head that is only started, and distances to the means.
    untrained = {"epochs": 0, "head": "class_means"}
    head = api.continual(config("head", strategies=[], training=untrained, scenario="seen"))["seeds"][0]
    means = api.continual(config("means", strategies=[{"name": "nearest_class_mean"}], scenario="seen"))["seeds"][0]
    assert head["rows"] == means["rows"] and max(map(max, head["rows"])) > 0.5


def test_a_language_model(tmp_path):
    data = tmp_path / "texts"
    data.mkdir()
    for name in ("law", "sea"):
        texts = [f"{name} text number {'abcdefghij'[i]} of the {name}" for i in range(8)]
        (data / f"{name}.txt").write_text("\n\u241e\n".join(texts))
    tree = {
        "name": "language",
        "output": str(tmp_path / "run"),
        "learner": {
            "name": "causal_lm",
            "model": str(save_family("llama", tmp_path / "model", causal=True)),
            "adapter": {"targets": ["q_proj", "v_proj"], "rank": 4},
        },
        "stream": {
            "name": "text_domains",
            "data": {"name": "domain_text", "path": str(data), "split_by": "example"},
        },
        "strategies": [{"name": "replay", "memory": 4}, {"name": "ewc", "on": "product", "strength": 1.0}],
        "training": {"epochs": 4, "batch_size": 3, "learning_rate": 1.0},
    }
    results = api.continual(continual_config_from_dict(tree))
    (run,) = results["seeds"]
    assert results["measure"] == "nats_per_token"
    assert run["rows"][0][0] < run["baseline"][0] and run["rows"][1][1] < run["rows"][0][1]
    # The model has random weights: what it knows before it learns is what is taken for a random initialization.
    assert run["random"] == (math.log(VOCABULARY),) * 2
    assert run["baseline"] == pytest.approx(run["random"], abs=0.1)
    # Signs are turned: more is better, so what was lost is minus the nats that came back.
    assert run["metrics"]["backward_transfer"] == pytest.approx(run["rows"][0][0] - run["rows"][1][0])
    tree["strategies"] = [{"name": "lwf"}]
    with pytest.raises(ConfigError, match="lwf compares class scores"):
        api.continual(continual_config_from_dict({**tree, "output": str(tmp_path / "other")}))


def test_the_shipped_config_and_the_experiments_load_to_equal_ones():
    for path in ("configs/continual.yaml", "experiments/continual_intents/config.yaml"):
        assert Path(path).read_text().startswith("# ")
        loaded = load_continual_config(path)
        assert continual_config_from_dict(yaml.safe_load(yaml.safe_dump(loaded.to_dict()))) == loaded


def test_on_the_command_line(config, tmp_path, monkeypatch, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump(config("told", experiences=2, strategies=[{"name": "experts"}], seeds=[0, 1]).to_dict())
    )
    main_exit(["continual", str(path)], 0)
    said = " ".join(capsys.readouterr().out.split())
    assert "seed 1: 2/2 e1:" in said and "forgetting chaudhry" in said
    for picture in ("r_matrix.svg", "mean.svg"):
        assert (tmp_path / "told" / picture).read_text().startswith("<svg")
    results = json.loads((tmp_path / "told/results.json").read_text())
    assert results["seeds_missing"] == [] and set(results["metrics"]["average_accuracy"]) == {
        "mean",
        "low",
        "high",
        "seeds",
    }
    shutil.rmtree(tmp_path / "told")
    for overrides, part in (
        (["strategy=[]"], "Did you mean 'strategies'"),
        (["threads=2"], "Did you mean 'workers.threads'"),
        (["strategies=[rehearsal]"], "unknown strategy 'rehearsal'"),
        (["strategies=[{name: replay, memories: 3}]"], "Did you mean 'memory'"),
        (["learner={name: causal_lm, model: x}", "start=null"], "stream: files does not fit learner causal_lm"),
        (["learner={name: seq2seq_lm, model: x}"], "seq2seq_lm does not learn streams yet"),
        (["stream={name: text_domains, data: {name: domain_text, path: x}}"], "does not fit learner text_classifier"),
        (["scenario=task", "stream.blur=0.1"], "stream.blur"),
        (["seeds=[1, 1]"], "stands there twice"),
    ):
        main_exit(["continual", str(path), *overrides], 2)
        assert part in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "told").exists()


def main_exit(arguments, code):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert (exit_.value.code or 0) == code
