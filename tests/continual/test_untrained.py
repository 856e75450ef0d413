"""Experts with a learned gate, retrieval and prompts on a stream, against scikit-learn and transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from transformers import AutoModelForCausalLM, AutoTokenizer

from metacl import api
from metacl.continual.config import continual_config_from_dict
from metacl.continual.discriminant import log_posterior, oracle_approximating
from metacl.continual.loop import Trained
from metacl.continual.strategies import stored
from metacl.continual.worker import make_loop
from metacl.errors import ConfigError
from tests.continual.test_run import main_exit, tensor_bytes, timeless
from tests.small_models import save_family

GATED = {"name": "experts", "router": "learned"}


def clouds(sizes=(30, 50, 20), width=6):
    """Three classes' vectors, of a covariance of their own, and their classes."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(width, width))
    parts = [random.normal(size=(n, width)) @ mixing + random.normal(size=width) for n in sizes]
    return np.concatenate(parts), np.repeat(np.arange(len(sizes)), sizes)


def gate_of(vectors, labels, shrinkage):
    """`log_posterior` with sums that came one class after another."""
    sums, counts, products = [], [], 0
    for label in range(labels.max() + 1):
        own = torch.tensor(vectors[labels == label])
        sums, counts, products = [*sums, own.sum(0)], [*counts, len(own)], products + own.T @ own
    return log_posterior(torch.tensor(vectors), torch.stack(sums), torch.tensor(counts), products, shrinkage)


@pytest.mark.parametrize("shrinkage", [1e-6, 0.3, 1.0])
def test_the_gate_is_the_discriminant_analysis_of_everything_at_once(shrinkage):
    vectors, labels = clouds()
    expected = LinearDiscriminantAnalysis("lsqr", shrinkage=shrinkage).fit(vectors, labels).predict_log_proba(vectors)
    np.testing.assert_allclose(gate_of(vectors, labels, shrinkage).numpy(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("sizes", [(5, 4, 3), (30, 50, 20)])
def test_without_a_shrinkage_it_is_the_oracle_approximating_one(sizes):
    vectors, labels = clouds(sizes, width=20)
    within = vectors - np.stack([vectors[labels == label].mean(0) for label in range(3)])[labels]
    expected = OAS(assume_centered=True).fit(within).shrinkage_
    covariance = torch.tensor(within.T @ within / len(within))
    assert float(oracle_approximating(covariance, torch.tensor(len(within)))) == pytest.approx(expected)
    assert 0 < expected < 1
    assert torch.allclose(gate_of(vectors, labels, None), gate_of(vectors, labels, expected), atol=1e-9)


def test_with_one_example_a_class_the_nearest_mean_decides():
    vectors = np.eye(4)[:3]
    assert gate_of(vectors, np.arange(3), None).argmax(1).tolist() == [0, 1, 2]


def learned(config, *strategies, experiences=3, **changes):
    """A loop, and where it stands after each experience."""
    made = config(strategies=list(strategies), experiences=experiences, **changes)
    loop = make_loop(made, 0, made.stream.open(0), made.learner.build(0))
    standings = [loop.begin()]
    for _ in range(experiences):
        standings.append(loop.learn(standings[-1]))
    return loop, standings


def features_of(loop, texts):
    learner = loop.model.learner
    with torch.no_grad():
        return learner.features(loop.model.bind(loop.start), learner.encode(list(texts), None)).numpy()


def seen_by(loop, experiences):
    """Features, classes and experiences of all training examples up to there."""
    parts = [experience.train for experience in loop.stream.experiences[:experiences]]
    texts, labels = [text for part in parts for text in part.inputs], [y for part in parts for y in part.labels]
    return features_of(loop, texts), np.array(labels), np.repeat(np.arange(experiences), [len(p) for p in parts])


def answers_of(loop, standing, k, experience):
    """What is answered to an experience's test, all classes, after experience k."""
    return torch.cat(loop._answered(standing, k, experience)).numpy()


def test_experts_are_asked_by_the_learned_gate(config, files):
    stream = {"name": "files", "experiences": files[:3], "blur": 0.6}  # so that more than one expert has a share
    loop, standings = learned(config, {**GATED, "shrinkage": 0.2}, stream=stream)
    mixing, mixed = learned(config, {**GATED, "shrinkage": 0.2, "mixture": True}, stream=stream)
    state = standings[-1].states[0]
    vectors, _, experiences = seen_by(loop, 3)
    asked = features_of(loop, loop.stream.experiences[1].test.inputs)
    oracle = LinearDiscriminantAnalysis("lsqr", shrinkage=0.2).fit(vectors.astype(np.float64), experiences)
    shares = oracle.predict_proba(asked.astype(np.float64))
    batch = loop.model.learner.encode(loop.stream.experiences[1].test.inputs, None)
    experts = [
        {name.removeprefix(f"expert{e}/"): t for name, t in state.items() if name.startswith(f"expert{e}/")}
        for e in range(3)
    ]
    with torch.no_grad():
        each = np.stack([loop.model.outputs(expert, batch).numpy() for expert in experts])  # (E, B, N)
    assert np.median(shares.max(1)) < 0.9 and len(set(shares.argmax(1))) > 1, "one expert alone would tell nothing"
    chosen = each[shares.argmax(1), np.arange(len(asked))]
    np.testing.assert_allclose(answers_of(loop, standings[-1], 2, 1), chosen, rtol=1e-4, atol=1e-4)
    expected = np.einsum("be,ebn->bn", shares, softmax(each, axis=2))
    found = np.exp(answers_of(mixing, mixed[-1], 2, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert "products" not in learned(config, {"name": "experts"}, experiences=1)[1][-1].states[0]


def test_a_shared_expert_has_the_examples_of_both_experiences(config):
    loop, standings = learned(config, {**GATED, "share_above": -1.0})
    state = standings[-1].states[0]
    vectors, _, _ = seen_by(loop, 3)
    assert state["counts"].tolist() == [len(vectors)]
    np.testing.assert_allclose(state["products"], vectors.astype(np.float64).T @ vectors, rtol=1e-5)


@pytest.mark.parametrize("neighbours", [1, 4])
def test_retrieval_is_scikit_learns_neighbours_on_all_that_was_met(config, neighbours):
    loop, standings = learned(config, {"name": "retrieval", "neighbours": neighbours}, scenario="seen")
    for k in (1, 2):
        vectors, labels, _ = seen_by(loop, k + 1)
        near = KNeighborsClassifier(neighbours, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
        near.fit(vectors, labels)
        for experience in range(k + 1):
            test = loop.stream.experiences[experience].test
            expected = near.predict_proba(features_of(loop, test.inputs))
            answers = answers_of(loop, standings[k + 1], k, experience)
            np.testing.assert_allclose(softmax(answers, axis=1)[:, near.classes_], expected, rtol=1e-3, atol=1e-5)
            share = np.mean(near.classes_[expected.argmax(1)] == np.array(test.labels))
            assert standings[k + 1].record.rows[k][experience] == pytest.approx(share)
    assert all(torch.equal(standings[-1].params[name], tensor) for name, tensor in loop.start.items())


def test_where_no_neighbour_may_be_answered_the_nearest_that_may_is(config, files):
    test = Path(files[2]["test"])
    test.write_text(test.read_text().replace("thing2", "thing0"))  # nearest to what the first experience taught
    loop, standings = learned(config, {"name": "retrieval", "neighbours": 1}, scenario="task")
    vectors, labels, _ = seen_by(loop, 3)
    for experience, value in enumerate(standings[-1].record.rows[-1]):
        own = np.isin(labels, loop.stream.experiences[experience].classes())
        test = loop.stream.experiences[experience].test
        near = KNeighborsClassifier(1, metric="cosine").fit(vectors[own], labels[own])
        if experience == 2:
            anywhere = KNeighborsClassifier(1, metric="cosine").fit(vectors, labels)
            assert not np.isin(anywhere.predict(features_of(loop, test.inputs)), labels[own]).any()
        assert value == pytest.approx(near.score(features_of(loop, test.inputs), test.labels))


def test_a_bounded_index_holds_what_the_policy_keeps(config):
    loop, standings = learned(config, {"name": "retrieval", "memory": 8, "policy": "experience_balanced"})
    state = standings[-1].states[0]
    sources = state["sources"].tolist()
    assert sorted(k for k, _ in sources) == [0, 0, 0, 1, 1, 1, 2, 2]
    texts = [loop.stream.experiences[k].train.inputs[place] for k, place in sources]
    expected = features_of(loop, texts)
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(state["vectors"], expected, atol=1e-5)
    assert standings[-1].record.replay_bytes[-1] == 0  # vectors, and no texts
    assert standings[-1].record.state_bytes[-1] == 8 * (4 * expected.shape[1] + 16) + 8


def test_names_are_compared_by_the_starts_features(config):
    loop, standings = learned(config, {"name": "prompt_only"})
    names = features_of(loop, loop.stream.class_names)  # in words already
    for experience in range(3):
        test = loop.stream.experiences[experience].test
        asked = features_of(loop, test.inputs)
        cosines = asked @ names.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(names, axis=1)
        np.testing.assert_allclose(answers_of(loop, standings[-1], 2, experience), cosines / 0.1, atol=1e-4)
    rows = standings[-1].record.rows
    assert rows[0] == rows[1] == rows[2] == standings[-1].record.baseline  # nothing is learned, nothing forgotten


@pytest.fixture(scope="module")
def language_tree(tmp_path_factory):
    """A config of a random Llama that is asked about classes, two experiences of two each."""
    folder = tmp_path_factory.mktemp("named")
    model = save_family("llama", folder / "model", causal=True, max_position_embeddings=256)
    experiences = []
    for k, pair in enumerate((("soup", "sea_wind"), ("gold", "moss"))):
        for part, words in (("train", ("red", "big", "new")), ("test", ("old", "odd"))):
            rows = [f"{word} {label[:3]} thing,{label}" for label in pair for word in words]
            (folder / f"{part}{k}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        experiences.append({part: str(folder / f"{part}{k}.csv") for part in ("train", "test")})
    return {
        "name": "named",
        "learner": {"name": "causal_lm", "model": str(model), "max_length": 40, "adapter": {"targets": ["q_proj"]}},
        "stream": {"name": "files", "experiences": experiences},
        "scenario": "seen",
    }


def likelihoods(model, prompts, names):
    """Log-probability of each name's own tokens after each prompt, by transformers."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    found = []
    for text in prompts:
        start = len(tokenizer(text)["input_ids"])
        for name in names:
            ids = torch.tensor([tokenizer(text + name)["input_ids"]])
            with torch.no_grad():
                chances = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            found.append(float(chances[start - 1 :].sum()))
    return np.array(found).reshape(len(prompts), len(names))


@pytest.mark.parametrize("examples", [0, 4])
def test_a_language_model_is_asked_as_transformers_scores_the_names(language_tree, tmp_path, examples):
    tree = {**language_tree, "strategies": [{"name": "prompt_only", "examples": examples}]}
    made = continual_config_from_dict({**tree, "output": str(tmp_path / "run")})
    loop = make_loop(made, 0, made.stream.open(0), made.learner.build(0))
    standing = loop.learn(loop.learn(loop.begin()))
    names = ["soup", "sea wind", "gold", "moss"]
    memory = stored(standing.states[0])
    train = [experience.train for experience in loop.stream.experiences]
    assert sorted(train[k].labels[place] for k, place in memory) == ([0, 1, 2, 3] if examples else [])
    shown = [f"{train[k].inputs[place]}\nLabel: {names[train[k].labels[place]]}\n\n" for k, place in memory]
    for experience in range(2):
        prompts = ["".join(shown) + f"{text}\nLabel: " for text in loop.stream.experiences[experience].test.inputs]
        expected = likelihoods(made.learner.model, prompts, names)
        found = answers_of(loop, standing, 1, experience)
        np.testing.assert_allclose(
            found - found.max(1, keepdims=True), expected - expected.max(1, keepdims=True), rtol=1e-4, atol=1e-4
        )
        right = np.mean(expected.argmax(1) == np.array(loop.stream.experiences[experience].test.labels))
        assert standing.record.rows[1][experience] == pytest.approx(right)
    text_bytes = sum(len(train[k].inputs[place].encode()) for k, place in memory)
    assert standing.record.replay_bytes[-1] == text_bytes
    assert standing.record.random == (1 / 2, None)  # chance among those met so far, not what the pretrained model says
    with pytest.raises(ConfigError, match="probe: prompt_only trains nothing"):
        continual_config_from_dict({**tree, "probe": {"data": {"name": "domain_text", "path": "x"}}})


def test_a_language_model_is_asked_from_the_command_line_and_goes_on(language_tree, tmp_path, capsys):
    tree = {**language_tree, "strategies": [{"name": "prompt_only", "examples": 2}]}
    experiences = tree["stream"]["experiences"]
    path = tmp_path / "config.yaml"
    for output, parts in (("whole", [2]), ("grown", [1, 2])):
        for count in parts:
            stream = {"name": "files", "experiences": experiences[:count]}
            path.write_text(json.dumps({**tree, "stream": stream, "output": str(tmp_path / output)}))
            main_exit(["continual", str(path)], 0)
    assert "forgetting chaudhry" in " ".join(capsys.readouterr().out.split())
    assert tensor_bytes(tmp_path / "whole", 2) == tensor_bytes(tmp_path / "grown", 2)
    for strategies in ("[]", "[replay]", "[prompt_only, replay]"):
        main_exit(["continual", str(path), f"strategies={strategies}", f"output={tmp_path / 'none'}"], 2)
        assert "strategies to [prompt_only], which asks it" in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "none").exists()


BASELINES = {
    "gate": [{**GATED, "mixture": True}],
    "retrieval": [{"name": "retrieval", "memory": 7}],
    "prompt": [{"name": "prompt_only"}],
    "gate and replay": [{"name": "replay", "memory": 6}, GATED],
}


@pytest.mark.parametrize("strategies", BASELINES.values(), ids=BASELINES)
def test_a_run_that_stops_after_an_experience_goes_on_with_the_same_bytes(config, tmp_path, strategies):
    whole = api.continual(config("whole", experiences=2, strategies=strategies))["seeds"][0]
    stopped = config("stopped", experiences=2, strategies=strategies)

    def stop(line):
        if ": 1/2 " in line:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        api.continual(stopped, stop)
    api.continual(stopped)
    assert tensor_bytes(tmp_path / "stopped", 2) == tensor_bytes(tmp_path / "whole", 2)
    assert timeless(tmp_path / "stopped") == timeless(tmp_path / "whole")
    assert all(0 <= value <= 1 for row in whole["rows"] for value in row)


@pytest.mark.parametrize("strategies", BASELINES.values(), ids=BASELINES)
def test_what_travels_to_other_processes_answers_alike(config, strategies):
    loop, standings = learned(config, *strategies, experiences=2)
    sent = Trained(standings[-1].params, standings[-1].states)
    make, arguments = sent.__reduce__()
    arrived = make(*arguments)
    for experience in range(2):
        assert np.array_equal(answers_of(loop, arrived, 1, experience), answers_of(loop, sent, 1, experience))


@pytest.mark.parametrize("strategies", BASELINES.values(), ids=BASELINES)
def test_nothing_that_was_handed_in_is_changed(config, strategies):
    loop, standings = learned(config, *strategies, experiences=2)
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in standings[1].states]
    loop.learn(standings[1])
    for state, kept in zip(standings[1].states, before, strict=True):
        assert state.keys() == kept.keys() and all(torch.equal(state[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "experts", "mixture": True}, "mixture: router nearest has none. Set router=learned"),
        ({"name": "experts", "shrinkage": 0.1}, "shrinkage: router nearest has none"),
        ({"name": "prompt_only", "examples": 3}, "Set examples=0, take retrieval, or set learner=causal_lm"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(config, tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        api.continual(config("none", strategies=[options]), print)
    assert not (tmp_path / "none").exists()


def test_without_faiss_retrieval_says_how_to_get_it(config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"strategies: retrieval: it needs faiss, .* pip install faiss-cpu"):
        learned(config, {"name": "retrieval"})
