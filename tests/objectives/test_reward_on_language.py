"""Meta-RL on a causal language model: a task is a hidden preference, which only the rewards of completions tell."""

import pytest
import torch

import metacl
from metacl.adaptation import InnerLoop
from metacl.config import config_from_dict
from metacl.errors import ConfigError
from metacl.initialization import read_initialization
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import Task, as_leaves
from metacl.learners.samples import Samples
from metacl.metagradients import Reverse, plain_gradient, trajectory
from metacl.objectives import REWARDS, PolicyGradient
from metacl.tasks import TaskAddress
from metacl.testing.oracle import compare
from tests.small_models import save_family

LETTERS = "bcdfgklmnprstvwx"
PLUGIN = '''
import torch
from metacl.objectives import REWARDS, Reward

@REWARDS.register("wanted_letters")
class WantedLetters(Reward):
    """How often the completion has the letter that the task wants."""

    def of(self, batch, samples):
        pairs = zip(samples.texts, samples.references, strict=True)
        return torch.tensor([[float(text.count(wanted.strip())) for text in texts] for texts, wanted in pairs])
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_family("llama", tmp_path_factory.mktemp("llama"), causal=True)


def learner_of(folder, rank=4, tokens=3, **adapter):
    adapter = AdapterConfig(rank=rank, **{"targets": ("q_proj", "v_proj", "down_proj"), **adapter})
    return CausalLanguageModelConfig(
        model=str(folder), adapter=adapter, max_length=24, completion_after="?", completion_tokens=tokens
    ).build(0)


def task_of(learner, wanted):
    support, query = (
        learner.encode([f"{prompt}? {wanted}" for prompt in prompts], None)
        for prompts in (("a", "is it", "who", "my card"), ("lost", "where is"))
    )
    return Task(1, support, query, TaskAddress("train", 0, 0, 0))


@pytest.mark.parametrize("wanted", "ek")
def test_adapting_raises_the_reward_on_other_prompts(folder, wanted):
    learner = learner_of(folder)
    objective = PolicyGradient(reward=REWARDS.build({"name": "contains"}), samples=16, kl=0.01)
    loop = InnerLoop(steps=8, step_size={"value": 3.0, "head": 3.0, "learn": "none"})
    task, meta = task_of(learner, wanted), as_leaves(learner.initial)
    problem = objective.problem(learner, meta, task, loop)
    start = {name: tensor.detach() for name, tensor in problem.start(meta).items()}
    *_, end = trajectory(problem, plain_gradient(problem), start)
    before, after = (
        float(objective.reward.of(task.query, learner.sample(theta, task.query, 200, seed=7)).mean())
        for theta in (start, end.theta)
    )
    assert after > before + 0.08


def test_meta_gradient_is_right_to_finite_differences_in_float64(folder):
    """One token, so that few numbers decide it; the KL is taken to a start that has moved."""
    learner = learner_of(folder, rank=1, tokens=1, targets=("q_proj",), last_layers=1)
    learner.module.double()
    generator = torch.Generator().manual_seed(0)
    meta = as_leaves(
        {name: t.double() + 0.1 * torch.randn(t.shape, generator=generator) for name, t in learner.initial.items()}
    )
    task = task_of(learner, "e")
    objective = PolicyGradient(reward=REWARDS.build({"name": "contains"}), samples=16, kl=0.5)
    loop = InnerLoop(steps=2, step_size={"value": 1.0, "learn": "none"})
    problem = objective.problem(learner, meta, task, loop)
    compare("policy gradient", "", 1e-6, Reverse().estimate(problem).gradient, problem, []).or_raise()


@pytest.mark.slow
def test_meta_training_by_a_reward_of_ones_own(folder, tmp_path, monkeypatch):
    """Through the whole of `train`: in as many steps more is earned by letters that were never wanted in training."""
    (tmp_path / "letter_reward.py").write_text(PLUGIN)
    rows = [f"{prompt}? {letter},{letter}" for letter in LETTERS for prompt in ("a", "is it", "who", "my", "at", "so")]
    (tmp_path / "preferences.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = config_from_dict(
        {
            "name": "preferences",
            "output": str(tmp_path / "run"),
            "plugins": ["letter_reward"],
            "preset": "maml_rl",
            "learner": {
                "name": "causal_lm",
                "model": str(folder),
                "max_length": 16,
                "completion_after": "?",
                "completion_tokens": 2,
                "adapter": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]},
            },
            "data": {"name": "labelled_text", "path": "preferences.csv", "fractions": [0.75, 0.0, 0.25]},
            "episodes": {"ways": 1, "shots": 3, "queries": 3},
            "objective": {"reward": "wanted_letters", "samples": 16},
            "inner": {"steps": 2, "step_size": {"value": 2.0}},
            "outer": {"steps": 30, "tasks_per_step": 4, "learning_rate": 0.02},
            "workers": {"executor": "local"},
        }
    )
    trained = read_initialization(metacl.train(config).initialization).meta
    learner, source = config.learner.build(config.seed), config.data.open()

    def rewards(meta):
        """Before and after adapting, on prompts that were not adapted to; the mean over four unseen letters."""
        found = torch.zeros(2)
        for index in range(4):
            task = learner.prepare(source.episode(TaskAddress("test", 0, 0, index), config.episodes))
            problem = config.objective.problem(learner, meta, task, config.inner)
            start = {name: tensor.detach() for name, tensor in problem.start(meta).items()}
            *_, end = trajectory(problem, plain_gradient(problem), start)
            for place, theta in enumerate((start, end.theta)):
                drawn = learner.sample(theta, task.query, 300, seed=1)
                found[place] += config.objective.reward.of(task.query, drawn).mean() / 4
        return found

    untrained, (start, adapted) = rewards(learner.initial), rewards(trained)
    print(untrained, start, adapted)
    assert adapted > start + 0.04
    assert adapted > untrained[1] + 0.04


def test_contains_reads_texts():
    reward = REWARDS.build({"name": "contains"})
    actions = torch.zeros(2, 2, 1, dtype=torch.long)
    drawn = Samples(actions, actions, [["a yes b", "no"], ["x", "y"]], [" yes", "y"])
    assert reward.of(None, drawn).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(ConfigError, match=r"contains reads answers as text\. Set learner=causal_lm"):
        reward.of(None, Samples(actions, actions))
