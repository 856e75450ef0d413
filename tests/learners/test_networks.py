"""Networks chosen by a config: built from a seed, trained, stored and read back; what does not fit is refused."""

import pytest
import torch
import torch.nn.functional as F

import metacl
from metacl.config import config_from_dict
from metacl.errors import ConfigError
from metacl.learners import LEARNERS, Task
from metacl.objectives import ProtoMAML
from metacl.tasks import EpisodeShape, Sinusoid, TaskAddress
from metacl.testing.oracle import adapted_query_loss


def tree(folder, **sections):
    return {
        "name": "waves",
        "output": str(folder / "run"),
        "learner": "mlp",
        "data": "sinusoid",
        "preset": "maml",
        "inner": {"steps": 1, "step_size": {"value": 0.01, "head": 0.01}},
        "episodes": {"ways": 1, "shots": 5, "queries": 5},
        "outer": {"steps": 3, "tasks_per_step": 2},
        "workers": {"executor": "local"},
        **sections,
    }


def test_mlp_is_the_network_of_the_paper():
    learner = LEARNERS.build({"name": "mlp"}).build(seed=0)
    shapes = [tuple(tensor.shape) for tensor in learner.initial.values()]
    assert shapes == [(40, 1), (40,), (40, 40), (40,), (1, 40), (1,)]
    assert list(learner.initial)[-2:] == ["head.weight", "head.bias"]
    x = torch.linspace(-5, 5, 7).unsqueeze(-1)
    values = list(learner.initial.values())
    hidden = F.relu(F.linear(F.relu(F.linear(x, *values[:2])), *values[2:4]))
    found = learner.outputs(learner.initial, learner.encode(x.numpy(), None))
    torch.testing.assert_close(found, F.linear(hidden, *values[4:]))


def test_the_seed_makes_the_weights_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    config = LEARNERS.build({"name": "mlp"})
    first, again, other = config.build(1).initial, config.build(1).initial, config.build(2).initial
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_conv_gives_features_for_any_objective():
    learner = LEARNERS.build({"name": "conv", "filters": 8}).build(seed=0)
    images = torch.rand(6, 1, 28, 28)
    batch = learner.encode(images, [0, 1, 2, 0, 1, 2])
    features = learner.features(learner.initial, batch)
    assert features.shape == (6, learner.width) == (6, 8)
    head = {"head.weight": torch.ones(3, 8), "head.bias": torch.arange(3.0)}
    expected = features.sum(-1, keepdim=True) + torch.arange(3.0)
    torch.testing.assert_close(learner.outputs({**learner.initial, **head}, batch), expected)
    start = ProtoMAML().start(learner, learner.initial, Task(3, batch, batch))
    assert start["head.weight"].shape == (3, 8)


def test_a_run_leaves_what_it_learned(tmp_path):
    config = config_from_dict(tree(tmp_path))
    run = metacl.train(config)
    stored = metacl.read_initialization(run.initialization)
    assert sorted(stored.meta) == sorted(config.learner.build(0).initial)
    assert not (run.initialization / "adapter_config.json").exists()
    assert "random weights" in (run.initialization / "README.md").read_text()
    # It is what the last checkpoint says, and it can be adapted.
    learner = config.learner.build(0)
    task = learner.prepare(Sinusoid().open().episode(TaskAddress("test", 0, 0, 0), EpisodeShape(shots=5)))
    problem = stored.config.objective.problem(learner, stored.meta, task, config.inner)
    assert adapted_query_loss(problem, stored.meta) > 0


@pytest.mark.parametrize(
    ("sections", "part"),
    [
        ({"learner": "text_classifier"}, "text_classifier takes text, but data 'sinusoid' gives arrays"),
        (
            {"data": {"name": "labelled_text", "dataset": "oos"}},
            "Set data.name to one of: labelled_arrays, linear_regression, omniglot, sinusoid",
        ),
        ({"evaluation": {"shape": {}}}, "data 'sinusoid' has no classes. Set evaluation=null"),
        (
            {"objective": {"name": "multi_step", "of": "maml"}, "estimator": "reptile"},
            "estimator 'reptile' does not see what objective 'multi_step' asks on the way",
        ),
    ],
)
def test_what_does_not_fit(tmp_path, sections, part):
    with pytest.raises(ConfigError) as caught:
        config_from_dict(tree(tmp_path, **sections))
    assert part in str(caught.value)
