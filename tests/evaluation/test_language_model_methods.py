"""Language models asked for classes: against transformers' likelihoods and torch's SGD; and on the command line."""

import json

import numpy as np
import pytest
import torch
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from transformers import AutoModelForCausalLM, AutoTokenizer

from metacl.cli import main
from metacl.config import config_from_dict
from metacl.coordination.worker import Worker
from metacl.errors import ConfigError
from metacl.evaluation.methods import InContext, MetaLearned, Retrieval, Row, Scene, ZeroShotPrompt, chosen_methods
from metacl.evaluation.methods.in_context import in_turn
from metacl.evaluation.methods.retrieval import _known_words
from metacl.learners.base import Batch
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_models import save_family

WORDS = {"soup": "ladle pot bean", "sea_wind": "gale sail tide", "gold": "coin ring mine", "moss": "fern bog damp"}
SHAPE = EpisodeShape(ways=3, shots=2, queries=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A random Llama, texts of four classes, a config that puts the two together."""
    folder = tmp_path_factory.mktemp("words")
    model = save_family("llama", folder / "llama", causal=True, max_position_embeddings=256)
    rows = [
        {"text": f"{word} {i * 'so '}", "label": c}
        for c, words in WORDS.items()
        for i, word in enumerate(words.split() * 2)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "name": "words",
        "output": str(folder / "run"),
        "learner": {"name": "causal_lm", "model": str(model), "max_length": 40, "adapter": {"targets": ["down_proj"]}},
        "data": {"name": "labelled_text", "path": str(folder / "rows.jsonl"), "fractions": [0.0, 0.0, 1.0]},
        "episodes": {"ways": 3, "shots": 2, "queries": 2},
        "objective": "maml",
        "inner": {"steps": 2, "step_size": {"value": 0.05, "learn": "none"}},
        "outer": {"steps": 2, "tasks_per_step": 1},
        "workers": {"executor": "local"},
        "evaluation": {"shape": {"ways": 3, "shots": 2, "queries": 2}, "episodes": 3, "steps": [0, 2]},
    }
    return folder, model, tree


@pytest.fixture(scope="module")
def scene(made):
    worker = Worker(config_from_dict(made[2]))
    episode = worker.source.episode(TaskAddress("test", 1, 0, 0), SHAPE)
    return Scene(worker, worker.layout.flatten(worker.initial), episode)


def likelihoods(model, before, names):
    """Log-probability of each name's own tokens after `before`, by transformers, up to the longest prompt."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    found = []
    for text in before:
        start = len(tokenizer(text)["input_ids"])
        for name in names:
            ids = torch.tensor([tokenizer(text + name)["input_ids"]])
            with torch.no_grad():
                chances = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            found.append(float(chances[start - 1 :].sum()))
    return np.array(found).reshape(len(before), len(names))


def in_words(scene):
    return [name.replace("_", " ") for name in scene.class_names]


def only(method, scene):
    ((row, predictor),) = method.adapt(scene)
    assert [row] == method.rows()
    scores = predictor(scene.query).numpy()
    return scores - scores.max(1, keepdims=True)


def test_a_zero_shot_prompt_scores_the_names_as_transformers_does(made, scene):
    expected = likelihoods(made[1], [f"{text}\nLabel: " for text in scene.query.inputs], in_words(scene))
    np.testing.assert_allclose(
        only(ZeroShotPrompt(), scene), expected - expected.max(1, keepdims=True), rtol=1e-4, atol=1e-4
    )


def test_the_examples_stand_before_the_question_class_by_class_in_turn(made, scene):
    names, support = in_words(scene), scene.support
    shown = [f"{t}\nLabel: {names[label]}" for t, label in zip(support.inputs, support.labels, strict=True)]
    assert list(support.labels) == [0, 0, 1, 1, 2, 2]
    before = "\n\n".join(shown[place] for place in (0, 2, 4, 1, 3, 5))
    tokenizer = AutoTokenizer.from_pretrained(made[1])
    asked = [f"{before}\n\n{text}\nLabel: " for text in scene.query.inputs]
    assert 40 < max(len(tokenizer(text)["input_ids"]) for text in asked) < 240  # more than learner.max_length
    expected = likelihoods(made[1], asked, names)
    np.testing.assert_allclose(
        only(InContext(), scene), expected - expected.max(1, keepdims=True), rtol=1e-4, atol=1e-4
    )


def test_the_nearest_examples_stand_last_after_the_documents(made, scene, tmp_path):
    names, texts = in_words(scene), list(scene.support.inputs)
    documents = ["a gale is a wind", "soup is hot", "moss is green"]
    (tmp_path / "notes.txt").write_text("\n".join(documents))

    def nearest(asked, among, count):
        tf_idf = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(among)
        order = np.argsort(-cosine_similarity(tf_idf.transform([asked]), tf_idf.transform(among))[0], kind="stable")
        return [among[place] for place in order[:count]][::-1]

    label_of = dict(zip(texts, scene.support.labels, strict=True))
    asked = []
    for text in scene.query.inputs:
        shown = [f"{one}\nLabel: {names[label_of[one]]}" for one in nearest(text, texts, 2)]
        asked.append("\n\n".join([*nearest(text, documents, 1), *shown, f"{text}\nLabel: "]))
    expected = likelihoods(made[1], asked, names)
    method = Retrieval(neighbours=2, fetched=1, documents=tmp_path / "notes.txt")
    np.testing.assert_allclose(only(method, scene), expected - expected.max(1, keepdims=True), rtol=1e-4, atol=1e-4)


def test_documents_are_weighed_once_and_before_any_time_is_taken(scene, tmp_path):
    (tmp_path / "notes.txt").write_text("a gale is a wind\nsoup is hot")
    method = Retrieval(documents=tmp_path / "notes.txt")
    before = _known_words.cache_info().misses
    method.prepare(scene)
    assert _known_words.cache_info().misses == before + 1
    for _ in range(2):
        only(method, scene)
    assert _known_words.cache_info().misses == before + 1


def test_what_does_not_fit_is_left_out_from_the_front(made, scene):
    learner = scene.worker.learner
    names = in_words(scene)
    kept = "gale\nLabel: sea wind"
    from metacl.evaluation.methods.in_context import prompt

    text = "so so"
    longest = len(learner.tokenizer(f"{kept}\n\n{text}\nLabel: sea wind")["input_ids"])
    assert longest > learner.config.max_length
    assert prompt(learner, ["pot\nLabel: soup", kept], text, names) == text
    longer = learner.with_long_texts()
    assert longer.config.max_length == 256 and learner.config.max_length == 40
    assert prompt(longer, [60 * "pot ", kept], text, names) == f"{kept}\n\n{text}"


def test_a_text_too_long_is_cut_at_its_front(scene):
    (cut,) = scene.worker.learner.labelled(["x" * 50 + "abc"], [1], ["a", "b"])
    assert len(cut) == 40 and cut.endswith("xabc\nLabel: b")


def test_names_of_any_length_are_scored_after_the_same_text(made, scene):
    names, text = ["ab", "a longer name"], "so pot bean coin ring " * 4
    kept = text[-(40 - len("\nLabel: a longer name")) :]  # a token a character
    expected = likelihoods(made[1], [f"{kept}\nLabel: "], names)
    learner = scene.worker.learner
    found = learner.class_scores(learner.initial, [text], names).numpy()
    np.testing.assert_allclose(found[:, 1] - found[:, 0], expected[:, 1] - expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_learned_prompt_is_no_part_of_the_pretrained_model(made):
    worker = Worker(config_from_dict({**made[2], "learner": {**made[2]["learner"], "adapter": {"kind": "prompt"}}}))
    episode = worker.source.episode(TaskAddress("test", 1, 0, 0), SHAPE)
    scene = Scene(worker, worker.layout.flatten(worker.initial), episode)
    expected = likelihoods(made[1], [f"{text}\nLabel: " for text in scene.query.inputs], in_words(scene))
    found = only(ZeroShotPrompt(), scene)
    np.testing.assert_allclose(found, expected - expected.max(1, keepdims=True), rtol=1e-4, atol=1e-4)


def test_what_is_scored_together_is_bounded_in_tokens(scene, monkeypatch):
    learner, names, texts = scene.worker.learner, ["ab", "a longer name"], [count * "so " for count in (1, 7, 7, 2, 5)]
    together = learner.class_scores(learner.initial, texts, names)
    sizes, encode = [], type(learner).encode

    def noted(self, texts, labels):
        batch = encode(self, texts, labels)
        sizes.append(len(texts) * max(group.inputs["input_ids"].shape[1] for group in batch.groups))
        return batch

    monkeypatch.setattr(type(learner), "encode", noted)
    monkeypatch.setattr("metacl.learners.label_words.TOKENS_TOGETHER", 100)
    apart = learner.class_scores(learner.initial, texts, names)
    assert 2 < len(sizes) < 10 and max(sizes) <= 100
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


def test_in_turn():
    assert in_turn(list("abcde"), [0, 0, 1, 1, 1]) == list("acbde")


def test_inner_steps_are_sgd_on_the_labelled_texts(scene):
    learner, names = scene.worker.learner, in_words(scene)
    found = {row.steps: predictor(scene.query) for row, predictor in MetaLearned(steps=(0, 2)).adapt(scene)}
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in learner.initial.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.05)
    shown = [f"{t}\nLabel: {names[label]}" for t, label in zip(scene.support.inputs, scene.support.labels, strict=True)]
    support: Batch = learner.encode(shown, None)
    for step in range(3):
        if step in found:
            asked = [f"{text}\nLabel: {name}" for text in scene.query.inputs for name in names]
            with torch.no_grad():
                expected = -learner.outputs(leaves, learner.encode(asked, None)).view(-1, 3)
            torch.testing.assert_close(found[step], expected, rtol=1e-4, atol=1e-4)
        optimizer.zero_grad()
        learner.loss(leaves, support).backward()
        optimizer.step()


def test_which_methods_a_language_model_is_compared_with(made):
    config = config_from_dict(made[2])
    rows = {row.method for method in chosen_methods(["all"], (0, 1), config) for row in method.rows()}
    assert rows == {"zero-shot prompt", "in-context examples", "retrieval, support", "pretrained", "meta-learned"}
    with pytest.raises(ConfigError, match="--methods frozen_prototypes: it reads feature vectors, and learner 'causal"):
        chosen_methods(["frozen_prototypes"], (0,), config)
    tree = {**made[2], "learner": {"name": "text_classifier"}, "objective": "proto_maml"}
    for name, needs in (("zero_shot_prompt", "it asks a language model"), ("in_context", "it fills the prompt of a")):
        with pytest.raises(ConfigError, match=f"--methods {name}: {needs}"):
            chosen_methods([name], (0,), config_from_dict(tree))


def test_from_training_to_a_report(made, tmp_path, monkeypatch, capsys):
    folder, _, tree = made
    tree = {**tree, "data": {**tree["data"], "fractions": [0.7, 0.0, 0.3], "split_seed": 0}, "output": "run"}
    tree["episodes"] = {"ways": 2, "shots": 2, "queries": 2}
    del tree["evaluation"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))

    def ended(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        return exit_.value.code, " ".join((captured := capsys.readouterr()).out.split() + captured.err.split())

    assert ended("train", "run.yaml")[0] == 0
    asked = ("--data", folder / "rows.jsonl", "--ways", 3, "--shots", 1, "--queries", 2, "--episodes", 3)
    code, said = ended("evaluate", "run", *asked, "--steps", "0,1", "--methods", "all", "--report", "report")
    assert code == 0, said
    assert "in-context examples" in said and "No meta-learned row" not in said
    results = json.loads((tmp_path / "report/3-way_1-shot.json").read_text())
    rows = [Row(row["method"], row["steps"]) for row in results["rows"]]
    assert Row("zero-shot prompt", None) in rows and Row("meta-learned", 1) in rows
    assert {one["true"] for one in results["examples"][0]["query"]} <= {*WORDS}
