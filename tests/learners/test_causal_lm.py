"""The causal language model against transformers' own loss, and a short training on the texts of domains."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import metacl
from metacl.config import config_from_dict
from metacl.coordination.executor import LocalExecutor
from metacl.coordination.flat import FlatLayout
from metacl.coordination.worker import TaskFailed
from metacl.errors import ConfigError, DataError
from metacl.evaluation import log_perplexities
from metacl.initialization import read_initialization
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.adapter import AdapterConfig
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_models import FAMILIES, save_family

TEXTS = ["hello there", "is it so? yes", "a b", "where is my card. it is lost"]
CAUSAL = [family for family in FAMILIES if family != "bert"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {family: save_family(family, tmp_path_factory.mktemp(family), causal=True) for family in CAUSAL}


def config_of(models, family, **changes):
    adapter = {"rank": 2, "targets": FAMILIES[family][1]}
    options = {"adapter": AdapterConfig(**adapter), "max_length": 32, **changes}
    return CausalLanguageModelConfig(model=str(models[family]), **options)


def transformers_loss(folder, texts, scored_from):
    """Mean over all tokens that count, from transformers' loss of one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total = count = 0
    for text, begin in zip(texts, scored_from, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, :begin] = -100
        here = int((labels[:, 1:] != -100).sum())
        total += float(model(input_ids=ids, labels=labels).loss.detach()) * here
        count += here
    return total / count


@pytest.mark.parametrize("family", CAUSAL)
def test_loss_is_that_of_transformers_over_all_tokens(models, family):
    """An adapter as attached changes nothing; padding and grouping by length must not, either."""
    top = AdapterConfig(targets=FAMILIES[family][1], last_layers=1)
    for options in ({}, {"padding": "max_length"}, {"adapter": top}):
        learner = config_of(models, family, **options).build(0)
        batch = learner.encode(TEXTS, None)
        assert batch.targets.tolist() == [len(learner.tokenizer(text)["input_ids"]) - 1 for text in TEXTS]
        expected = transformers_loss(models[family], TEXTS, [0] * len(TEXTS))
        assert float(learner.loss(learner.initial, batch)) == pytest.approx(expected, rel=1e-5)


def test_loss_on_the_completion_only(models):
    learner = config_of(models, "llama", completion_after="? ").build(0)
    texts = ["who? me", "what is it? that"]
    batch = learner.encode(texts, None)
    assert batch.targets.tolist() == [2, 4]
    expected = transformers_loss(models["llama"], texts, [len("who? "), len("what is it? ")])
    assert float(learner.loss(learner.initial, batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"completion_after": "? "}, "no question", "'\\? ' does not occur in the text 'no question'"),
        ({"completion_after": "? ", "max_length": 4}, "long? yes", "of the 4 tokens kept .* none counts"),
        ({}, "a", "of the 1 tokens kept of the text 'a' none counts"),
    ],
)
def test_texts_without_anything_to_predict(models, options, text, message):
    with pytest.raises(DataError, match=message):
        config_of(models, "llama", **options).build(0).encode([text], None)


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Each domain repeats a word of its own; all words are of the same two letters."""
    path = tmp_path_factory.mktemp("data") / "domains.csv"
    words = ["abab", "aabb", "abba", "baab", "bbaa", "baba"]
    rows = [f"{word * (2 + i % 3)} {word * (1 + i // 3)},{word}" for word in words for i in range(9)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def tree_of(models, domains, output, **changes):
    return {
        "name": "domains",
        "output": str(output),
        "learner": {
            "name": "causal_lm",
            "model": str(models["llama"]),
            "max_length": 24,
            "adapter": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]},
        },
        "data": {"name": "labelled_text", "path": str(domains), "fractions": [0.5, 0.0, 0.5]},
        "episodes": {"ways": 1, "shots": 3, "queries": 3},
        "objective": "maml",
        "inner": {"steps": 3, "step_size": {"value": 0.05}},
        "outer": {"steps": 15, "tasks_per_step": 2, "learning_rate": 0.01},
        "workers": {"executor": "local"},
        **changes,
    }


def test_training_lowers_the_perplexity_of_unseen_domains(models, domains, tmp_path):
    """Measured after 0 and 3 steps on three texts, before and after meta-training."""
    config = config_from_dict(tree_of(models, domains, tmp_path / "run"))
    run = metacl.train(config)
    trained = read_initialization(run.initialization).meta
    executor = LocalExecutor(config, lambda _: None)
    executor.start()
    layout = FlatLayout.of(trained)
    untrained = executor._worker.initial
    addresses = [TaskAddress("test", 0, 0, index) for index in range(3)]
    before, after = (
        log_perplexities(executor, layout.flatten(meta), addresses, EpisodeShape(ways=1, shots=3, queries=3), (0, 3))
        for meta in (untrained, trained)
    )
    def mean(found, steps):
        return sum(found[address][steps] for address in addresses) / len(addresses)

    assert mean(before, 3) < mean(before, 0)  # adapting helps, even from the pretrained start
    assert mean(after, 3) < mean(before, 3) - 0.1  # and more from the meta-learned one


def test_perplexity_of_an_inner_loop_that_diverges_names_the_task(models, domains, tmp_path):
    executor = LocalExecutor(config_from_dict(tree_of(models, domains, tmp_path / "run")), lambda _: None)
    executor.start()
    meta = FlatLayout.of(executor._worker.initial).flatten(executor._worker.initial) * float("nan")
    with pytest.raises(TaskFailed, match=r"task test/.*the support loss is nan"):
        log_perplexities(executor, meta, [TaskAddress("test", 0, 0, 0)], EpisodeShape(ways=1, shots=3, queries=3), (3,))


def test_what_needs_classes_is_refused(models, domains, tmp_path):
    shape = {"shape": {"ways": 1}}
    with pytest.raises(ConfigError, match=r"evaluation\.shape\.ways: 1, but one class leaves nothing to tell apart"):
        config_from_dict(tree_of(models, domains, tmp_path / "run", evaluation=shape))
    config = config_from_dict(tree_of(models, domains, tmp_path / "run", objective="proto_maml"))
    with pytest.raises(ConfigError, match=r"has none\. Set objective=maml"):
        metacl.train(config)
