"""What adapting takes: tokens by the tokenizer and by hand, bytes by torch's profiler and by arithmetic."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModel, AutoTokenizer

from metacl.coordination.worker import Worker
from metacl.evaluation import table
from metacl.evaluation.few_shot import CompareMethods
from metacl.evaluation.memory import MeasureMemory
from metacl.evaluation.methods import (
    AdaptationMethod,
    FineTuning,
    FrozenPrototypes,
    LabelNames,
    MetaLearned,
    Row,
    Scene,
)
from metacl.tasks import EpisodeShape, TaskAddress
from tests.helpers import tiny_config
from tests.small_runs import save_tiny_bert, small_config

ADDRESS = TaskAddress("test", 1, 0, 0)
SHAPE = EpisodeShape(ways=3, shots=3, queries=2)
LORA = FineTuning(what="lora", learning_rate=1e-3, steps=(10,))
FEW_STEPS = LORA.model_copy(update={"steps": (2,)})
METHODS = (FrozenPrototypes(), LabelNames(), MetaLearned(steps=(0, 3)), LORA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("costs") / "tiny")


def worker_of(folder, **changes):
    return Worker(small_config(folder, folder / "out", **changes))


def tokens(worker, methods=METHODS, address=ADDRESS):
    scores = CompareMethods(methods, SHAPE)(worker, address, worker.layout.flatten(worker.initial))
    return [score.tokens for score in scores]


def memory(worker, methods=METHODS, shape=SHAPE):
    return dict(MeasureMemory(methods, shape)(worker, ADDRESS, worker.layout.flatten(worker.initial)))


def counted(folder, texts, max_length=16):
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(folder)(list(texts))["input_ids"]]
    assert max(lengths) > max_length > min(lengths)  # some are cut, some are padded
    return sum(min(length, max_length) for length in lengths)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learner__padding": "max_length"},
        {"learner__padding": "packed"},
        {"learner__adapter": {"kind": "prompt", "tokens": 4}},
    ],
    ids=str,
)
def test_tokens_are_the_tokenizers_times_the_forwards(folder, changes):
    worker = worker_of(folder, **changes)
    episode = worker.source.episode(ADDRESS, SHAPE)
    support = counted(folder, episode.support_texts)
    names = [name.replace("_", " ") for name in episode.class_names]
    of_names = sum(map(len, AutoTokenizer.from_pretrained(folder)(names)["input_ids"]))
    # The class means are a forward, and so is each step.
    expected = [support, of_names, support, 4 * support, 11 * support]
    assert tokens(worker) == expected
    assert tokens(worker, METHODS[:2]) == expected[:2]  # now that the features are known


def test_a_head_that_is_learned_costs_no_forward_before_the_first_step(folder):
    worker = worker_of(folder, objective="maml")
    support = counted(folder, worker.source.episode(ADDRESS, SHAPE).support_texts)
    assert tokens(worker, (MetaLearned(steps=(0, 1, 3)),)) == [0, support, 3 * support]


def test_a_row_has_the_mean_of_its_episodes(folder):
    worker = worker_of(folder)
    addresses = [TaskAddress("test", 1, 0, index) for index in range(3)]
    work, meta = CompareMethods((FrozenPrototypes(),), SHAPE), worker.layout.flatten(worker.initial)
    (row,) = table({address: work(worker, address, meta) for address in addresses})
    each = [counted(folder, worker.source.episode(address, SHAPE).support_texts) for address in addresses]
    assert len(set(each)) > 1 and row.tokens == pytest.approx(sum(each) / 3)
    assert row.memory_bytes is None


def test_what_is_no_token_is_not_counted(tmp_path):
    assert tokens(Worker(tiny_config(tmp_path)), (FrozenPrototypes(), MetaLearned(steps=(1,)))) == [None, None]


class Allocates(AdaptationMethod):
    """4 000 bytes, of which 2 000 stay; then 1 000 more; then 3 000 more, 1 000 let go."""

    def rows(self):
        return [Row("allocates", step) for step in range(3)]

    def adapt(self, scene):
        rows, answer = self.rows(), lambda examples: torch.zeros(len(examples.inputs), scene.ways)
        kept = [torch.zeros(500), torch.zeros(500)]
        kept.pop()
        yield rows[0], answer
        kept.append(torch.zeros(250))
        yield rows[1], answer
        kept.append(torch.zeros(750))
        kept.pop(1)
        yield rows[2], answer


def test_memory_by_arithmetic(tmp_path):
    found = memory(Worker(tiny_config(tmp_path)), (Allocates(),))
    assert list(found.values()) == [4000, 4000, 6000]


def test_memory_is_what_the_profiler_saw_allocated(folder):
    worker = worker_of(folder)
    found = memory(worker, (FEW_STEPS,))
    scene = Scene(worker, worker.layout.flatten(worker.initial), worker.source.episode(ADDRESS, SHAPE))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        for _ in FEW_STEPS.adapt(scene):
            pass
    held = peak = 0
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert found[Row("fine-tuning, LoRA", 2)] == pytest.approx(peak, rel=0.05)


def test_memory_grows_with_the_support_and_with_what_is_tuned(folder):
    worker = worker_of(folder)
    full = FineTuning(what="full", learning_rate=1e-3, steps=(2,))
    methods = (FrozenPrototypes(), MetaLearned(steps=(0, 3)), FEW_STEPS, full)
    few, many = (memory(worker, methods, EpisodeShape(ways=3, shots=shots, queries=2)) for shots in (1, 5))
    for row in [*MetaLearned(steps=(0, 3)).rows(), *FEW_STEPS.rows()]:
        assert many[row] > 3 * few[row]  # five times the activations
    for of_shots in (few, many):
        frozen, _, stepped, lora, of_all = of_shots.values()
        assert frozen < stepped and frozen < lora < of_all
    parameters = AutoModel.from_pretrained(folder).parameters()
    # What is tuned, its gradient and Adam's two moments.
    assert few[full.rows()[0]] > 4 * sum(parameter.numel() * 4 for parameter in parameters)


def test_neither_depends_on_what_was_asked_before(folder):
    """As another worker group would have been."""
    fresh, used = worker_of(folder), worker_of(folder)
    for index in (3, 1, 2):
        tokens(used, METHODS[:3], address=TaskAddress("test", 1, 0, index))
    methods = (*METHODS[:3], FEW_STEPS)
    assert tokens(fresh, methods) == tokens(used, methods)
    assert memory(fresh, methods) == memory(used, methods)
