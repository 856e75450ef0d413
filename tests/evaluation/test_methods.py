"""Every method against an oracle: scikit-learn, scipy, torch's own optimizers, faiss."""

import faiss
import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression as Sklearn
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid, NearestNeighbors
from sklearn.preprocessing import normalize
from transformers import AutoModel, AutoTokenizer

from metacl.coordination.worker import Worker
from metacl.errors import ConfigError
from metacl.evaluation.few_shot import CompareMethods
from metacl.evaluation.frozen_features import FrozenFeatures
from metacl.evaluation.methods import (
    Examples,
    FineTuning,
    FrozenPrototypes,
    LabelNames,
    LogisticRegression,
    MetaLearned,
    MetaLearnedLogisticRegression,
    NearestNeighbour,
    Pretrained,
    Retrieval,
    Row,
    Scene,
    chosen_methods,
)
from metacl.evaluation.methods.fine_tuning import ADAPTERS
from metacl.evaluation.methods.label_names import in_words
from metacl.learners import LEARNERS
from metacl.objectives import class_means
from metacl.tasks import EpisodeShape, TaskAddress
from tests.helpers import tiny_config
from tests.small_runs import save_tiny_bert, small_config

ADDRESS = TaskAddress("test", 1, 0, 0)


@pytest.fixture
def worker(tmp_path):
    return Worker(tiny_config(tmp_path, inner={"step_size": {"value": 0.1, "head": 0.3, "learn": "none"}}))


def scene_of(worker, ways=3, moved=0.0):
    """A scene and its query; what was learned is the pretrained start moved by a constant."""
    episode = worker.source.episode(ADDRESS, EpisodeShape(ways=ways, shots=3, queries=4))
    scene = Scene(worker, worker.layout.flatten(worker.initial) + np.float32(moved), episode)
    assert scene.task.query.targets is None  # nobody can look
    return scene, scene.query


def arrays(worker, scene, query):
    parts = [worker.learner.features(worker.initial, part.batch).detach().numpy() for part in (scene.support, query)]
    return *parts, scene.targets.numpy()


def only(method, scene, query):
    ((row, predictor),) = method.adapt(scene)
    assert [row] == method.rows()
    return predictor(query).detach().numpy()


def test_frozen_prototypes_go_by_the_cosine_to_the_class_means(worker):
    scene, query = scene_of(worker, moved=1.0)  # frozen: what was learned does not matter
    support, asked, targets = arrays(worker, scene, query)
    means = [normalize(support)[targets == label].mean(0) for label in range(3)]
    found = only(FrozenPrototypes(), scene, query)
    np.testing.assert_allclose(found, cosine_similarity(asked, means) / 0.1, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ways", [2, 3])
def test_logistic_regression_is_scikit_learns(worker, ways):
    scene, query = scene_of(worker, ways)
    support, asked, targets = arrays(worker, scene, query)
    expected = Sklearn().fit(normalize(support), targets).predict_proba(normalize(asked))
    # For two classes scikit-learn fits one vector, whose log-odds are those of our two scores.
    found = softmax(only(LogisticRegression(c=1.0), scene, query), axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_logistic_regression_on_what_was_learned_reads_the_moved_features(worker):
    scene, query = scene_of(worker, moved=0.5)
    support, asked, targets = arrays(worker, scene, query)  # the pretrained ones
    moved = {name: tensor + 0.5 for name, tensor in worker.initial.items()}
    learned = [worker.learner.features(moved, part.batch).detach().numpy() for part in (scene.support, query)]
    expected = Sklearn().fit(normalize(learned[0]), targets).decision_function(normalize(learned[1]))
    found = only(MetaLearnedLogisticRegression(c=1.0), scene, query)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    frozen = Sklearn().fit(normalize(support), targets).decision_function(normalize(asked))
    assert np.abs(found - frozen).max() > 0.01


def test_learned_features_of_a_text_are_computed_once_until_something_else_is_learned(worker, monkeypatch):
    computed = []
    features = worker.learner.features
    monkeypatch.setattr(worker.learner, "features", lambda params, batch: computed.append(1) or features(params, batch))

    def asked(moved):
        scene, query = scene_of(worker, moved=moved)
        before = len(computed)
        method = MetaLearnedLogisticRegression(c=1.0)
        method.prepare(scene)
        return only(method, scene, query), len(computed) - before

    (first, new), (again, none), (other, anew) = asked(0.5), asked(0.5), asked(0.7)
    assert (new > 0, none, anew) == (True, 0, new)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_logistic_regression_on_features_that_are_not_finite_has_diverged(worker):
    work = CompareMethods((MetaLearnedLogisticRegression(c=1.0),), EpisodeShape(ways=3, shots=2, queries=2))
    (score,) = work(worker, ADDRESS, np.full(worker.layout.size, np.inf, np.float32))
    assert (score.diverged, score.accuracy) == (True, 0.0)


def test_nearest_neighbour_is_that_of_faiss(worker):
    scene, query = scene_of(worker)
    support, asked, targets = arrays(worker, scene, query)
    index = faiss.IndexFlatIP(support.shape[1])
    index.add(normalize(support))
    _, nearest = index.search(normalize(asked), 1)
    found = only(NearestNeighbour(), scene, query)
    np.testing.assert_array_equal(found.argmax(-1), targets[nearest[:, 0]])


def test_retrieval_votes_as_scikit_learns_neighbours_do(worker):
    scene, query = scene_of(worker)
    support, asked, targets = arrays(worker, scene, query)
    near = KNeighborsClassifier(4, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
    expected = near.fit(support, targets).predict_proba(asked)
    found = softmax(only(Retrieval(neighbours=4), scene, query), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_documents_move_features_towards_the_nearest_of_them(worker, tmp_path):
    scene, query = scene_of(worker)
    support, asked, targets = arrays(worker, scene, query)
    texts = [f"document {place}" for place in range(9)]
    (tmp_path / "notes.txt").write_text("\n".join(texts))
    known = normalize(worker.learner.features(worker.initial, worker.learner.encode(texts, None)).detach())

    def moved(features):
        nearest = NearestNeighbors(n_neighbors=3, metric="cosine").fit(known).kneighbors(features)[1]
        return 0.7 * normalize(features) + 0.3 * known[nearest].mean(1)

    near = KNeighborsClassifier(5, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
    expected = near.fit(moved(support), targets).predict_proba(moved(asked))
    found = softmax(only(Retrieval(documents=tmp_path / "notes.txt"), scene, query), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_without_faiss_retrieval_says_how_to_get_it(worker, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--methods retrieval: it needs faiss, .* pip install faiss-cpu"):
        chosen_methods(["retrieval"], (0,), worker.config)
    rows = [row.method for method in chosen_methods(["all"], (0,), worker.config) for row in method.rows()]
    assert "nearest neighbour" in rows and not any("retrieval" in row for row in rows)


def test_label_names_never_read_the_support(worker):
    scene, query = scene_of(worker)
    names = worker.learner.encode([in_words(name) for name in scene.class_names], None)
    expected = cosine_similarity(
        worker.learner.features(worker.initial, query.batch).detach(),
        worker.learner.features(worker.initial, names).detach(),
    )
    np.testing.assert_allclose(only(LabelNames(), scene, query) * 0.1, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("card_arrival", "card arrival"),
        ("cardArrival", "card arrival"),
        ("BOOKS & ARTS", "books arts"),
        ("place of birth", "place of birth"),
        ("P931", "p931"),
        ("???", "???"),
    ],
)
def test_names_in_words(name, words):
    assert in_words(name) == words


def test_zero_steps_of_proto_maml_are_scikit_learns_nearest_centroids(worker):
    scene, query = scene_of(worker)
    support, asked, targets = arrays(worker, scene, query)
    found = only(MetaLearned(steps=(0,)), scene, query)
    np.testing.assert_array_equal(found.argmax(-1), NearestCentroid().fit(support, targets).predict(asked))


def test_inner_steps_are_torchs_sgd(worker):
    scene, query = scene_of(worker)
    learner, method = worker.learner, MetaLearned(steps=(3, 0, 1))
    found = {row: predictor(query) for row, predictor in method.adapt(scene)}
    assert list(found) == method.rows() == [Row("meta-learned", steps) for steps in (0, 1, 3)]
    start = worker.config.objective.start(learner, worker.initial, scene.task)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    optimizer = torch.optim.SGD(
        [{"params": [leaf], "lr": 0.3 if name.startswith("head.") else 0.1} for name, leaf in leaves.items()]
    )
    for step in range(4):
        if (row := Row("meta-learned", step)) in found:
            torch.testing.assert_close(found[row], learner.outputs(leaves, query.batch), rtol=1e-5, atol=1e-6)
        optimizer.zero_grad()
        learner.loss(leaves, scene.support.batch).backward()
        optimizer.step()


def test_pretrained_start_ignores_what_was_learned(worker):
    (still, query), (moved, _) = scene_of(worker), scene_of(worker, moved=0.5)
    from_still, from_moved = (only(Pretrained(steps=(2,)), scene, query) for scene in (still, moved))
    np.testing.assert_array_equal(from_still, from_moved)
    assert not np.array_equal(only(MetaLearned(steps=(2,)), moved, query), from_moved)


def test_frozen_features_of_a_text_do_not_depend_on_the_others(worker):
    scene, query = scene_of(worker)
    together = scene.frozen.of_texts(query.inputs)
    again = scene.frozen.of_texts(list(reversed(query.inputs)))
    assert torch.equal(together, again.flip(0))
    assert scene.frozen is scene_of(worker)[0].frozen  # the worker's, not the episode's


def test_frozen_features_encoded_ahead_are_those_of_a_text_alone(tmp_path):
    worker = Worker(small_config(save_tiny_bert(tmp_path / "tiny"), tmp_path / "out"))
    texts = [" ".join(["card", "lost", "payment"][: 1 + place % 3] * (1 + place // 9)) for place in range(90)]
    ahead, alone = FrozenFeatures.pretrained(worker), FrozenFeatures.pretrained(worker)
    ahead.encode_ahead(texts)  # more than one batch, with doubles
    found = ahead.of_texts(texts)
    torch.testing.assert_close(found, alone.of_texts(texts), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[0], found[1])


def test_frozen_features_are_those_of_the_model_without_a_prompt(tmp_path):
    folder, text = save_tiny_bert(tmp_path / "tiny"), "where is my card"
    worker = Worker(small_config(folder, tmp_path / "out", learner__adapter={"kind": "prompt"}))
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    expected = torch.nn.functional.normalize(hidden.mean(1), dim=-1)
    torch.testing.assert_close(FrozenFeatures.pretrained(worker).of_texts([text]), expected, rtol=1e-4, atol=1e-5)


def test_frozen_methods_cost_no_pass_through_the_frozen_layers(worker, monkeypatch):
    monkeypatch.setattr(Examples, "batch", property(lambda self: pytest.fail("encoded")))
    methods = (FrozenPrototypes(), LogisticRegression(c=1.0), NearestNeighbour(), LabelNames())
    scores = CompareMethods(methods, EpisodeShape(ways=3, shots=2, queries=2))(worker, ADDRESS, np.zeros(0, np.float32))
    assert [len(score.predicted) for score in scores] == [6] * 4


def test_all_methods_but_those_that_do_not_fit(worker):
    rows = [row.method for method in chosen_methods(["all"], (0, 2), worker.config) for row in method.rows()]
    # The tiny learner is no transformer, so nothing is fine-tuned.
    assert sorted(set(rows)) == [
        "frozen prototypes",
        "label names, zero-shot",
        "logistic regression",
        "meta-learned",
        "meta-learned, logistic regression",
        "nearest neighbour",
        "pretrained",
        "retrieval, support",
    ]
    with pytest.raises(ConfigError, match="--methods fine_tuning: it tunes a transformer"):
        chosen_methods(["fine_tuning"], (0,), worker.config)
    with pytest.raises(ConfigError, match="'prototipes'"):
        chosen_methods(["prototipes"], (0,), worker.config)


def test_a_prompt_without_a_place_is_left_out(tmp_path):
    """512 positions, all of them for the text."""
    config = small_config(save_tiny_bert(tmp_path / "tiny"), tmp_path, learner__max_length=512)
    tuned = [method.what for method in chosen_methods(["all"], (0,), config) if isinstance(method, FineTuning)]
    assert tuned == ["full", "last_layers", "lora", "ia3"]
    with pytest.raises(ConfigError, match=r"--methods fine_tuning: its prompt has no place.*512 positions"):
        chosen_methods(["fine_tuning"], (0,), config)


@pytest.mark.parametrize(
    ("what", "tuned"),
    [("full", "model."), ("last_layers", "layer.2."), ("lora", "lora_"), ("ia3", "ia3_"), ("prompt", "prompt_")],
)
def test_fine_tuning_is_torchs_adam(tmp_path, what, tuned):
    config = small_config(save_tiny_bert(tmp_path / "tiny"), tmp_path / "out", inner={"steps": 1})
    worker = Worker(config)
    scene, query = scene_of(worker)
    method = FineTuning(what=what, layers=1, steps=(1, 3), learning_rate=1e-2)
    found = {row.steps: predictor(query).detach().clone() for row, predictor in method.adapt(scene)}
    assert [row.steps for row in method.rows()] == list(found) == [1, 3]
    learner = LEARNERS.build({**config.learner.to_dict(), "adapter": ADAPTERS[what]}).build(config.seed)
    support = learner.encode(list(scene.support.inputs), scene.targets.tolist())
    asked = learner.encode(list(query.inputs), None)
    leaves = {name: tensor.detach().clone() for name, tensor in learner.initial.items()}
    means = class_means(learner.features(leaves, support), scene.targets, 3).detach()
    leaves |= {"head.weight": 2 * means, "head.bias": -(means * means).sum(-1)}
    adapting = [tensor.requires_grad_() for name, tensor in leaves.items() if tuned in name or "head." in name]
    assert len(adapting) == 3 if what == "prompt" else len(adapting) > 3
    optimizer = torch.optim.Adam(adapting, lr=1e-2)
    for step in range(1, 4):
        optimizer.zero_grad()
        learner.loss(leaves, support).backward()
        optimizer.step()
        if step in found:
            torch.testing.assert_close(found[step], learner.outputs(leaves, asked), rtol=1e-3, atol=1e-3)


def test_what_is_tuned_tries_every_value_unless_one_is_given():
    assert [one.c for one in LogisticRegression().candidates()] == [1.0, 10.0, 100.0]
    assert LogisticRegression(c=2.0).candidates() == [LogisticRegression(c=2.0)]
    assert [one.learning_rate for one in FineTuning().candidates()] == [1e-4, 3e-4, 1e-3, 3e-3]
    assert [one.learning_rate for one in FineTuning(what="prompt").candidates()] == [3e-3, 1e-2, 3e-2, 1e-1]
    assert FineTuning(learning_rate=0.1).candidates() == [FineTuning(learning_rate=0.1)]
