"""Starts of other runs and mixtures of them, against what the run's own rows and numpy say."""

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn.functional import cross_entropy

from metacl import api
from metacl.config import Evaluation, config_from_dict
from metacl.coordination.worker import Worker
from metacl.errors import ConfigError, DataError
from metacl.evaluation.few_shot import CompareMethods
from metacl.evaluation.methods import (
    Experts,
    FineTunedStart,
    FineTuning,
    LabelNames,
    MetaLearned,
    OtherStarts,
    Retrieval,
    Row,
    Scene,
    chosen_methods,
)
from metacl.evaluation.methods.fine_tuning import ADAPTERS, _learner
from metacl.evaluation.methods.inner_steps import stored_start
from metacl.initialization import read_initialization, write_initialization
from metacl.objectives import class_means
from metacl.reporting import QuietProgress
from metacl.tasks import TASK_SOURCES, EpisodeShape, TaskAddress, seen_classes
from metacl.tasks.bundled import bundled_class_split, bundled_examples
from tests.small_runs import save_tiny_bert, small_config, small_tree

ADDRESS = TaskAddress("test", 1, 0, 0)


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """The config of a run, and two initializations of its model that were moved away from it."""
    folder = tmp_path_factory.mktemp("starts")
    config = small_config(save_tiny_bert(folder / "tiny"), folder / "out")
    learner, meta = api.starting_point(config)
    for seed, (name, data) in enumerate((("a", "banking77"), ("b", "hwu64"))):
        own = small_config(folder / "tiny", folder / name, name=name, data__dataset=data)
        torch.manual_seed(seed)
        moved = {key: tensor + 0.3 * torch.rand(tensor.shape) for key, tensor in meta.items()}
        write_initialization(folder / name / "init", own, learner, moved, 0, "card")
    return config, folder


@pytest.fixture
def scene(starts):
    config, folder = starts
    worker = Worker(config)
    stored = read_initialization(folder / "a" / "init")
    episode = worker.source.episode(TaskAddress("test", 1, 0, 0), EpisodeShape(ways=3, shots=2, queries=3))
    return Scene(worker, worker.layout.flatten(stored.meta), episode)


def answers(method, scene):
    found = {row: predictor(scene.query).detach().numpy() for row, predictor in method.adapt(scene)}
    assert list(found) == method.rows()
    return found


def test_another_start_is_adapted_as_if_it_were_ones_own(starts, scene):
    folder = starts[1]
    others = OtherStarts(steps=(0, 2), starts=(folder / "a", folder / "b" / "init"))
    found = answers(others, scene)
    for row, own in answers(MetaLearned(steps=(0, 2)), scene).items():
        np.testing.assert_array_equal(found[Row(f"from {folder / 'a'}", row.steps)], own)
        assert not np.allclose(found[Row(f"from {folder / 'b' / 'init'}", row.steps)], own)


def test_a_mixture_is_the_gates_mean_of_the_experts_probabilities(starts, scene):
    folder = starts[1]
    paths = (folder / "a", folder / "b")
    by_start = answers(OtherStarts(steps=(2,), starts=paths), scene)
    keys = []
    for path in paths:
        config = read_initialization(path / "init").config
        episodes = [config.data.open().episode(TaskAddress("train", 0, 0, i), config.episodes) for i in range(4)]
        keys.append(scene.frozen.of_texts([text for one in episodes for text in one.support_texts]).mean(0))
    near = cosine_similarity(scene.frozen.of(scene.query), torch.stack(keys))
    gate = softmax(near / 0.05, axis=1)
    assert 0.02 < gate.min() < 0.98
    each = [np.exp(log_softmax(scores, axis=1)) for scores in by_start.values()]
    mixed = sum(share[:, None] * of for share, of in zip(gate.T, each, strict=True))
    (found,) = answers(Experts(steps=(2,), starts=paths, key_episodes=4), scene).values()
    np.testing.assert_allclose(np.exp(found), mixed, rtol=1e-4, atol=1e-6)


def test_fine_tuning_from_a_start_is_torchs_adam(starts, scene):
    config, folder = starts
    method = FineTunedStart(start=folder / "b", steps=(1, 3), learning_rate=1e-2)
    found = {row.steps: predictor(scene.query).detach().clone() for row, predictor in method.adapt(scene)}
    learner = config.learner.build(config.seed)
    stored = read_initialization(folder / "b" / "init").meta
    leaves = {name: stored[name].clone() for name in learner.initial}
    support = learner.encode(list(scene.support.inputs), scene.targets.tolist())
    means = class_means(learner.features(leaves, support), scene.targets, 3).detach()
    leaves |= {"head.weight": 2 * means, "head.bias": -(means * means).sum(-1)}
    optimizer = torch.optim.Adam([leaf.requires_grad_() for leaf in leaves.values()], lr=1e-2)
    for step in range(1, 4):
        optimizer.zero_grad()
        learner.loss(leaves, support).backward()
        optimizer.step()
        if step in found:
            scores = learner.outputs(leaves, learner.encode(list(scene.query.inputs), None))
            torch.testing.assert_close(found[step], scores, rtol=1e-3, atol=1e-3)
    assert list(found) == [1, 3]


def test_what_serves_several_episodes_is_made_once_and_before_any_time_is_taken(starts, tmp_path):
    config, folder = starts
    worker = Worker(config)
    tuned = [FineTuning(what=what, steps=(1,), learning_rate=1e-3) for what in ADAPTERS]
    methods = (
        *tuned,
        FineTunedStart(start=folder / "a", steps=(1,), learning_rate=1e-3),
        Experts(steps=(0,), starts=(folder / "a", folder / "b"), key_episodes=1),
        OtherStarts(steps=(0,), starts=(folder / "b",)),
        LabelNames(),
        Retrieval(documents=tmp_path / "notes.txt"),
    )
    (tmp_path / "notes.txt").write_text("a lost card\na late transfer\na fee")
    shape = EpisodeShape(ways=2, shots=1, queries=1)
    stored_start.cache_clear()
    _learner.cache_clear()
    for place in range(2):
        episode = worker.source.episode(TaskAddress("test", 1, 0, place), shape)
        scene = Scene(worker, worker.layout.flatten(worker.initial), episode)
        scene.frozen.of(scene.support)
        for method in methods:
            method.prepare(scene)
            known = _learner.cache_info().misses, stored_start.cache_info().misses, len(scene.frozen._known)
            list(method.adapt(scene))
            assert known == (_learner.cache_info().misses, stored_start.cache_info().misses, len(scene.frozen._known))
    assert _learner.cache_info().misses == 5  # no adapter, LoRA, IA3, a prompt, the run's own


def test_a_method_is_prepared_before_it_adapts(starts):
    said = []

    class Noting(LabelNames):
        def prepare(self, scene):
            said.append("prepared")

        def adapt(self, scene):
            said.append("adapted")
            return super().adapt(scene)

    worker = Worker(starts[0])
    CompareMethods((Noting(),), EpisodeShape(ways=2, shots=1, queries=1))(worker, ADDRESS, np.zeros(0, np.float32))
    assert said == ["prepared", "adapted"]


def test_joint_training_is_cross_entropy_over_all_training_classes(starts, tmp_path):
    """By plain PyTorch: the same texts, labels by the sorted names of the classes, AdamW; then it is a start."""
    config, folder = starts
    tree = small_tree(
        folder / "tiny",
        tmp_path / "joint",
        data__joint=True,
        episodes={"ways": 25, "shots": 1, "queries": 2},
        objective="maml",
        inner={"steps": 0, "step_size": {"learn": "none"}},
        estimator="first_order",
        outer={"steps": 3, "tasks_per_step": 1, "learning_rate": 0.01},
    )
    joint = config_from_dict(tree)
    trained = read_initialization(api.train(joint).initialization).meta
    classes = sorted(bundled_class_split("banking77", "01")["train"])
    label_of = {one.text: classes.index(one.label) for one in bundled_examples("banking77") if one.label in classes}
    learner, source = joint.learner.build(joint.seed), joint.data.open()
    leaves = {name: tensor.clone() for name, tensor in learner.initial.items()}
    leaves |= {"head.weight": torch.zeros(25, 32), "head.bias": torch.zeros(25)}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.01)
    for step in range(3):
        texts = source.episode(TaskAddress("train", joint.seed, step, 0), joint.episodes).query_texts
        labels = torch.tensor([label_of[text] for text in texts])
        assert sorted(labels.tolist()) == sorted([*range(25)] * 2)
        optimizer.zero_grad()
        cross_entropy(learner.outputs(leaves, learner.encode(list(texts), None)), labels).backward()
        optimizer.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(trained[name], leaf.detach(), rtol=1e-3, atol=2e-5)
    (method, _) = chosen_methods(
        ["fine_tuned_start"], (0,), config, {"fine_tuned_start": {"start": tmp_path / "joint", "learning_rate": 0.01}}
    )
    assert [row.method for row in method.rows()] == [f"fine-tuning from {tmp_path / 'joint'}"]
    asked = config.model_copy(update={"evaluation": Evaluation(shape=EpisodeShape(ways=5))})
    for name in ("other_starts", "experts"):
        with pytest.raises(ConfigError, match="learned a head for 25 classes, and these episodes have 5"):
            chosen_methods([name], (0,), asked, {name: {"starts": [tmp_path / "joint"]}})
    for shape in ({"ways": 5}, {"ways": {"min": 5, "max": 25}}):
        with pytest.raises(DataError, match=r"Set episodes\.ways=25"):
            joint.data.open().check("train", EpisodeShape.model_validate({**shape, "shots": 1, "queries": 2}))
    joint.data.open().check("test", EpisodeShape(ways=5, shots=1, queries=2))
    with pytest.raises(ConfigError, match=r"data\.joint"):
        config_from_dict({**tree, "data": {"name": "labelled_text", "path": "x", "joint": True, "out_of_scope": "y"}})


def test_options_of_methods(starts, tmp_path):
    config, folder = starts

    def chosen(names, **options):
        return chosen_methods(names, (0, 2), config, options)

    (fine, _) = chosen(["fine_tuning"], fine_tuning={"what": "ia3", "steps": [10, 100]})
    assert [row.steps for row in fine.rows()] == [10, 100]
    for written in (str(folder / "a"), [str(folder / "a")]):
        (other, _) = chosen(["other_starts"], other_starts={"starts": written})
        assert other.starts == (folder / "a",)
    assert [row.steps for row in other.rows()] == [0, 2]
    names = {method.registered_name for method in chosen(["all"], experts={"starts": [folder / "a", folder / "b"]})}
    assert "experts" in names and "other_starts" not in names
    for names, options, message in (
        (["experts"], {}, r"Give --method-option experts\.starts=runs/a or \[runs/a, runs/b\]\."),
        (["fine_tuned_start"], {}, r"it needs start\. Give --method-option fine_tuned_start\.start=runs/a\."),
        (["experts"], {"experts": {"starts": 3}}, r"--method-option experts\.starts: "),
        (["prototipes"], {}, "--methods: there is no method 'prototipes'"),
        (["retrieval"], {"experts": {"starts": ["a"]}}, "--method-option experts: it is not among --methods"),
        (["retrieval"], {"retrival": {}}, "Did you mean 'retrieval'"),
        (["retrieval"], {"retrieval": {"neighbors": 3}}, "Did you mean 'neighbours'"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen(names, **options)
    with pytest.raises(DataError, match="not an initialization made by metacl"):
        chosen(["experts"], experts={"starts": [tmp_path]})
    tree = small_tree(folder / "tiny", folder / "out", learner__adapter={"rank": 4})
    with pytest.raises(ConfigError, match="is of another learner"):
        chosen_methods(["experts"], (0,), config_from_dict(tree), {"experts": {"starts": [folder / "a"]}})


def test_no_start_was_trained_on_what_is_asked(starts, tmp_path):
    """Split 02 trains with classes that split 01 tests with; a mixture of it does, too."""
    config, folder = starts
    asked = bundled_class_split("banking77", "01")
    leaked = {*bundled_class_split("banking77", "02")["train"]} & {*asked["valid"], *asked["test"]}
    learner, meta = api.starting_point(config)
    second = {"name": "labelled_text", "dataset": "banking77", "class_split": "02"}
    other = {"name": "labelled_text", "dataset": "oos"}
    mixed = {"name": "mixture", "sources": [{"source": other}, {"source": second}]}
    for name, data in (("second", second), ("mixed", mixed)):
        own = small_config(folder / "tiny", tmp_path / name, data=data)
        write_initialization(tmp_path / name / "init", own, learner, meta, 0, "card")
        for method, option in (("other_starts", "starts"), ("experts", "starts"), ("fine_tuned_start", "start")):
            path = tmp_path / name if option == "start" else [tmp_path / name]
            with pytest.raises(ConfigError, match=f"was trained on classes .*: {', '.join(sorted(leaked)[:3])}"):
                chosen_methods([method], (0,), config, {method: {option: path}})
    assert seen_classes(config.data, TASK_SOURCES.build(other)) == []


def test_a_run_that_was_trained_with_what_is_asked_is_told_so(starts):
    config, folder = starts
    stored = read_initialization(folder / "a" / "init")
    evaluation = Evaluation(shape=EpisodeShape(ways=2, shots=1, queries=1), episodes=2, steps=(0,))

    class Noted(QuietProgress):
        def note(self, text):
            notes.append(text)

    for class_split, told in (("01", []), ("02", ["not all is unseen"])):
        notes = []
        data = config.data.model_copy(update={"class_split": class_split})
        api.evaluate(stored, config.model_copy(update={"data": data, "evaluation": evaluation}), Noted())
        assert [note.split(":")[0] for note in notes if "unseen" in note] == told


def test_documents_are_read_before_anything_is_measured(starts, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    for name, message in (("none.txt", "no such file"), ("empty.txt", "it has no text")):
        with pytest.raises(DataError, match=message):
            chosen_methods(["retrieval"], (0,), starts[0], {"retrieval": {"documents": str(tmp_path / name)}})


def test_options_on_the_command_line(starts, tmp_path, monkeypatch, capsys):
    from metacl.cli import main

    folder = starts[1]

    def ended(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["evaluate", str(folder / "a"), *map(str, arguments)])
        return exit_.value.code, " ".join((said := capsys.readouterr()).out.split() + said.err.split())

    for options, message in (
        (["--method-option", "experts.starts=[x]"], "Give --methods, too"),
        (["--methods", "experts", "--method-option", "starts=[x]"], "expected METHOD.OPTION=VALUE"),
        (["--methods", "experts", "--method-option", "experts.starts=[x"], "the value is not YAML"),
    ):
        code, said = ended(*options)
        assert code == 2 and message in said, said
    shape = (
        "--ways",
        2,
        "--shots",
        1,
        "--queries",
        1,
        "--episodes",
        2,
        "--steps",
        "0,1",
        "--json",
        tmp_path / "found.json",
    )
    mixed = (
        "--method-option",
        f"experts.starts=[{folder / 'a'}, {folder / 'b'}]",
        "--method-option",
        "retrieval.neighbours=1",
    )
    code, said = ended(*shape, "--methods", "experts,retrieval", *mixed)
    assert code == 0, said
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    named = [(row["method"], row["steps"]) for row in rows]
    assert named[:3] == [("mixture of 2 adapters", 0), ("mixture of 2 adapters", 1), ("retrieval, support", None)]
