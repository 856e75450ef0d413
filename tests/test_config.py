"""Configs: what loads, what the overrides do, and that whatever cannot work is refused with the key and the mend."""

import sys
from pathlib import Path

import pytest
import yaml

from metacl.adaptation import SGD, Adam
from metacl.config import OuterLoop, RunConfig, config_from_dict, config_to_yaml, load_config
from metacl.errors import ConfigError
from metacl.objectives import ANIL

MINIMAL = "name: small\nlearner: text_classifier\ndata: {name: labelled_text, dataset: oos}\n"


def load(folder: Path, text: str = MINIMAL, *overrides: str) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")  # a test's folder is named after the test


def test_minimal_config_has_defaults(tmp_path):
    config = load(tmp_path)
    assert config.objective.registered_name == "proto_maml"
    assert config.estimator.registered_name == "reverse"
    assert config.outer == OuterLoop()
    assert config.folder == Path("runs/small")


def test_output_overrides_the_folder(tmp_path):
    assert load(tmp_path, MINIMAL + "output: elsewhere/x\n").folder == Path("elsewhere/x")


FULL = """
name: full-1.0_b
output: out/ü
seed: 9223372036854775807
learner: {name: text_classifier, max_length: 16, adapter: {rank: 2, targets: [query], last_layers: 1}}
data: {name: labelled_text, path: some/file.csv, text_column: t, fractions: [0.5, 0.25, 0.25], split_seed: 3}
episodes: {ways: 3, shots: 2, queries: 4}
objective: anil
inner:
  steps: 2
  optimizer: {name: adam, betas: [0.8, 0.99], weight_decay: 1.0e-5}
  step_size: {learn: tensor_and_step}
estimator: {name: first_order}
outer: {steps: 7, optimizer: sgd, learning_rate: 1e-7, schedule: cosine, clip_norm: 3, aggregator: mean}
workers: {executor: ray, groups: 3, threads: 2, zero_stage: 2, address: "10.0.0.1:6379"}
checkpoints: {every: 1, keep: 5}
evaluation: {shape: {ways: 3, shots: 5}, episodes: 20, steps: [0, 2], split: valid}
"""


@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_round_trip_through_yaml(tmp_path, text):
    config = load(tmp_path, text)
    written = config_to_yaml(config)
    again = load(tmp_path, written)
    assert again == config
    assert config_to_yaml(again) == written


def test_full_config_holds_what_was_written(tmp_path):
    config = load(tmp_path, FULL)
    assert config.objective == ANIL()
    assert config.inner.optimizer == Adam(betas=(0.8, 0.99), weight_decay=1e-5)
    assert config.outer.learning_rate == 1e-7  # YAML 1.1 reads 1e-7 as text
    assert config.evaluation is not None
    assert config.evaluation.steps == (0, 2)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("outer.steps=20", "outer.steps", 20),
        ("outer.learning_rate=1e-4", "outer.learning_rate", 1e-4),
        ("outer.clip_norm=null", "outer.clip_norm", None),
        ("learner.normalize=false", "learner.normalize", False),
        ("learner.adapter.targets=[key, value]", "learner.adapter.targets", ("key", "value")),
        ("learner.model=a/b=c", "learner.model", "a/b=c"),
        ("inner.step_size.learn=none", "inner.step_size.learn", "none"),
        ("evaluation={shape: {ways: 2}, episodes: 5}", "evaluation.episodes", 5),
        ("evaluation.shape.ways=2", "evaluation.shape.ways", 2),
        ("objective=anil", "objective.registered_name", "anil"),
        ("inner.optimizer=adam", "inner.optimizer.registered_name", "adam"),
    ],
)
def test_override(tmp_path, override, key, value):
    found = load(tmp_path, MINIMAL, override)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_override_turns_the_shorthand_into_a_mapping(tmp_path):
    text = MINIMAL + "inner: {optimizer: sgd}\n"
    config = load(tmp_path, text, "inner.optimizer.momentum=0.5", "learner.adapter.rank=3")
    assert config.inner.optimizer == SGD(momentum=0.5)
    assert config.learner.registered_name == "text_classifier"
    assert config.learner.adapter.rank == 3


def test_later_overrides_win_and_neighbours_stay(tmp_path):
    config = load(tmp_path, FULL, "outer.steps=1", "outer.steps=2")
    assert (config.outer.steps, config.outer.clip_norm) == (2, 3.0)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("outer.steps", ["'outer.steps'", "key=value", "outer.steps=20"]),
        ("=3", ["key=value"]),
        ("outer..steps=3", ["key=value"]),
        ("outr.steps=3", ["unknown key 'outr'", "'outer'"]),
        ("outer.stepz=3", ["outer.stepz: unknown key", "'steps'"]),
        ("outer.steps=[1", ["'outer.steps=[1'", "not YAML", "quote"]),
        ("outer.steps=many", ["outer.steps", "integer", "'many'"]),
        ("outer=3", ["outer:", "OuterLoop", "3"]),
    ],
)
def test_bad_override(tmp_path, override, parts):
    message = refusal(tmp_path, MINIMAL, override)
    assert [part for part in parts if part not in message] == [], message


BAD = {
    "unknown section": ("outr: {steps: 3}", ["outr: unknown key", "Did you mean 'outer'?"]),
    "key of another section": ("inner: {tasks_per_step: 3}", ["unknown key", "Did you mean 'outer.tasks_per_step'?"]),
    "unknown nested key": ("outer: {stepz: 3}", ["outer.stepz: unknown key", "Did you mean 'steps'?"]),
    "unknown option of a component": (
        "learner: {name: text_classifier, adapter: {rnk: 3}}",
        ["learner.adapter.rnk: unknown key", "'rank'"],
    ),
    "unknown component": ("objective: mamll", ["objective.name: unknown meta-objective 'mamll'", "'maml'"]),
    "component without a name": ("objective: {}", ["objective.name: missing", "Known: adversarial, anil, "]),
    "inner optimizer without a name": (
        "inner: {optimizer: {momentum: 0.9}}",
        ["inner.optimizer.name: missing", "Known: adam, adamw, sgd"],
    ),
    "wrong type": ("seed: abc", ["seed: Input should be a valid integer", "'abc'"]),
    "text instead of a section": ("outer: fast", ["outer:", "'fast'"]),
    "negative": ("outer: {learning_rate: -1}", ["outer.learning_rate", "greater than 0", "-1"]),
    "not a number": ("outer: {learning_rate: .nan}", ["outer.learning_rate"]),
    "fewest groups above the most": ("workers: {groups: {min: 3, max: 2}}", ["workers.groups: min 3", "max 2"]),
    "half a range of groups": ("workers: {groups: {min: 3}}", ["workers.groups: expected a number or {min: 1, max"]),
    "no such fault": ("faults: [{kind: flood, step: 1}]", ["faults.0.kind", "'sigterm'", "'flood'"]),
    "hang without groups": (
        "workers: {executor: local}\nfaults: [{kind: hang, step: 1}]",
        ["faults.0: hang needs worker groups. Set workers.executor=ray"],
    ),
    "unknown choice": ("outer: {schedule: exponential}", ["outer.schedule", "'cosine' or 'linear'", "'exponential'"]),
    "name with a slash": ("name: a/b", ["name:", "'a/b'"]),
    "seed too large": ("seed: 9223372036854775808", ["seed:", "9223372036854775808"]),
    "evaluation without a shape": ("evaluation: {episodes: 3}", ["evaluation.shape: missing"]),
    "too few episodes for an interval": ("evaluation: {shape: {}, episodes: 1}", ["evaluation.episodes", "2"]),
    "two origins of data": (
        "data: {name: labelled_text, dataset: oos, path: x.csv}",
        ["exactly one of", "data.dataset", "data.path"],
    ),
    "nesterov without momentum": (
        "inner: {optimizer: {name: sgd, nesterov: true}}",
        ["nesterov", "set inner.optimizer.momentum"],
    ),
    "groups in one process": (
        "workers: {executor: local, groups: 2}",
        ["workers.groups: 2", "workers.groups=1", "workers.executor=ray"],
    ),
    "second derivative of fused attention": (
        "learner: {name: text_classifier, attention: sdpa}",
        ["'reverse' differentiates twice", "learner.attention=eager", "estimator=first_order"],
    ),
    # What YAML can say and Python's keyword arguments cannot.
    "key that is a number": ("1: 2", []),
    "component key that is a bool": ("data: {name: labelled_text, dataset: oos, yes: 1}", ["data"]),
    "component name that is a list": ("objective: {name: [maml]}", ["objective.name"]),
    # Accepted by pydantic unless told otherwise.
    "infinite rate": ("outer: {learning_rate: .inf}", ["outer.learning_rate"]),
    "a bool for a count": ("outer: {steps: true}", ["outer.steps"]),
    # The key lies in a section that may be null.
    "unknown key of the evaluation": ("evaluation: {shape: {}, stepz: []}", ["evaluation.stepz: unknown", "'steps'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config(tmp_path, case):
    text, parts = BAD[case]
    section = text.split(":")[0]
    others = "".join(f"{line}\n" for line in MINIMAL.splitlines() if not line.startswith(section + ":"))
    message = refusal(tmp_path, others + text + "\n")
    assert message.startswith("run.yaml: ")
    assert [part for part in parts if part not in message] == [], message


def test_missing_sections_are_all_named(tmp_path):
    message = refusal(tmp_path, "seed: 1\n")
    assert [key for key in ("name", "learner", "data") if f"{key}: missing" not in message] == []


def test_fused_attention_goes_with_first_order(tmp_path):
    config = load(tmp_path, MINIMAL, "learner.attention=sdpa", "estimator=first_order")
    assert config.learner.attention == "sdpa"


def test_unquoted_class_split_is_taken_or_told_to_be_quoted(tmp_path):
    # YAML 1.1 reads 02 as the number 2.
    try:
        config = load(tmp_path, MINIMAL, "data.class_split=02")
    except ConfigError as error:
        assert "quote" in str(error).removeprefix(str(tmp_path))
    else:
        assert config.data.class_split == "02"


def test_yaml_syntax_error_names_the_line(tmp_path):
    message = refusal(tmp_path, "name: x\nouter:\n  steps: 3\n seed: [1\n")
    assert message.startswith("run.yaml, line 4: not YAML")


def test_value_that_yaml_itself_rejects(tmp_path):
    assert "not YAML" in refusal(tmp_path, MINIMAL + "seed: 2020-13-45\n")


def test_not_utf8(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: not YAML"):
        load_config(path)


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("", "NoneType"), ("just text\n", "str")])
def test_not_a_mapping(tmp_path, text, kind):
    assert f"expected a mapping of sections at the top, got {kind}" in refusal(tmp_path, text)


def test_missing_file_says_where_paths_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"no\.yaml: no such config file. Paths are relative to {tmp_path}"):
        load_config("no.yaml")


def test_origin_of_a_dict_is_named():
    with pytest.raises(ConfigError, match=r"^adaptation\.json: name: missing"):
        config_from_dict(
            {"learner": "text_classifier", "data": {"name": "labelled_text", "dataset": "oos"}},
            origin="adaptation.json",
        )


SHIPPED = [path for path in sorted(Path("configs").glob("*.yaml")) if path.name != "continual.yaml"]
"""That one is for `metacl continual`; see tests/continual/test_run.py."""


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_shipped_configs_load_and_open_with_a_comment(path):
    assert path.read_text().startswith("#")
    config = load_config(path)
    assert config_from_dict(yaml.safe_load(config_to_yaml(config))) == config


def test_a_continual_config_is_sent_to_its_own_verb():
    with pytest.raises(ConfigError, match=r"Use: metacl continual configs/continual\.yaml"):
        load_config("configs/continual.yaml")


def test_a_learned_head_fits_one_number_of_ways(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluation\.shape\.ways: 5, but maml learns a head for episodes\.ways = 3"):
        load(tmp_path, MINIMAL + "objective: maml\nepisodes: {ways: 3}\nevaluation: {shape: {ways: 5}}\n")


def test_plugins_register_what_a_config_can_choose(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "my_plugin.py").write_text(
        "from metacl.objectives import OBJECTIVES, ProtoMAML\n"
        "@OBJECTIVES.register('mine')\n"
        "class Mine(ProtoMAML):\n"
        "    weight: float = 1.0\n"
    )
    config = load(tmp_path, MINIMAL + "plugins: [my_plugin]\nobjective: {name: mine, weight: 2}\n")
    assert config.objective.to_dict() == {"name": "mine", "weight": 2.0}
    with pytest.raises(ConfigError, match="plugins: 'no_such_plugin' cannot be imported"):
        load(tmp_path, MINIMAL + "plugins: [no_such_plugin]\n")


def test_groups_as_a_range():
    tree = yaml.safe_load(MINIMAL)
    workers = config_from_dict({**tree, "workers": {"groups": {"min": 2, "max": 8}}}).workers
    assert (workers.groups, workers.groups_to_start, workers.groups_to_go_on) == (8, 2, 2)
    again = config_from_dict({**tree, "workers": workers.to_dict()}).workers  # as a stored config gives them
    assert again == workers
    number = config_from_dict({**tree, "workers": {"groups": 3}}).workers
    assert (number.groups, number.groups_to_start, number.groups_to_go_on) == (3, 3, 1)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["workers.executor=local", "workers.ranks_per_group=2"], ["workers.ranks_per_group: 2", "executor=ray"]),
        (["workers.ranks_per_group=2", "workers.gpus_per_group=1"], ["workers.gpus_per_group: 1", "Set it to 0 or 2"]),
        (["workers.offload=cpu"], ["workers.offload: cpu", "Set workers.zero_stage=3"]),
        (["workers.zero_stage=3", "workers.offload=nvme"], ["workers.nvme_path"]),
        (["workers.zero_stage=3", "workers.nvme_path=/tmp"], ["workers.nvme_path"]),
        (["workers.deepspeed={zero_optimization: {stage: 1}}"], ["workers.deepspeed.zero_optimization", "zero_stage"]),
        (
            ["workers.zero_stage=3", "estimator={name: reverse, compile: true}", "learner.padding=max_length"],
            ["estimator.compile: messages among ranks", "Set estimator.compile=false"],
        ),
        (["workers.zero_stage=3", "estimator=unrolled"], ["workers.zero_stage: 3", "'unrolled'", "estimator=reverse"]),
        (["learner.adapter={kind: ia3, last_layers: 1}"], ["learner.adapter.last_layers", "kind=lora"]),
    ],
)
def test_groups_that_cannot_be(tmp_path, overrides, parts):
    message = refusal(tmp_path, MINIMAL, *overrides)
    assert all(part in message for part in parts), message


def test_a_sharded_group(tmp_path):
    overrides = ["workers.ranks_per_group=4", "workers.gpus_per_group=4", "workers.zero_stage=3", "workers.offload=cpu"]
    config = load(tmp_path, MINIMAL, *overrides, "workers.deepspeed={zero_optimization: {sub_group_size: 1000000}}")
    assert load(tmp_path, config_to_yaml(config)) == config


def test_episodes_of_several_sizes(tmp_path):
    config = load(tmp_path, MINIMAL, "episodes={ways: {min: 3, max: 6}, shots: {min: 1, max: 4}, imbalanced: true}")
    shape = config.episodes
    assert (shape.ways, shape.min_ways, shape.shots, shape.min_shots, shape.varies) == (6, 3, 4, 1, True)
    assert str(shape) == "3 to 6-way 1 to 4-shot (each class its own), 5 queries a class"
    assert load(tmp_path, config_to_yaml(config)) == config


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["episodes.ways={min: 2, max: 5}", "objective=anil"], ["episodes.ways: a range", "objective=proto_maml"]),
        (["evaluation.shape={ways: 5, shots: {min: 1, max: 5}}"], ["evaluation.shape", "one N and K"]),
        (["episodes.shots={min: 2, max: 1}"], ["min 2 is more than max 1"]),
        (["episodes.shots={low: 2, max: 3}"], ["shots: expected a number or {min: 1, max: 8}"]),
        (
            ["data=sinusoid", "learner=mlp", "objective=maml", "episodes.shots={min: 1, max: 3}"],
            ["'sinusoid' draws one size"],
        ),
        (
            ["episodes.shots={min: 1, max: 3}", "estimator={name: reverse, compile: true}", "learner.padding=packed"],
            ["estimator.compile: every size of an episode"],
        ),
        (
            ["episodes.shots={min: 1, max: 3}", "workers.tasks_per_forward=2", "learner.padding=packed"],
            ["workers.tasks_per_forward: 2, but episodes differ in size"],
        ),
    ],
)
def test_sizes_that_cannot_be(tmp_path, overrides, parts):
    message = refusal(tmp_path, MINIMAL, *overrides)
    assert all(part in message for part in parts), message


def test_a_mixture_is_written_back(tmp_path):
    oos, hwu = (f"source: {{name: labelled_text, dataset: {name}}}" for name in ("oos", "hwu64"))
    data = f"data={{name: mixture, sources: [{{{oos}, weight: 2}}, {{{hwu}}}], temperature: 3}}"
    config = load(tmp_path, MINIMAL, data)
    assert config.data.sources[1].source.dataset == "hwu64" and config.data.sources[1].weight is None
    assert load(tmp_path, config_to_yaml(config)) == config
