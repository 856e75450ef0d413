"""Tasks side by side in a run: the same training but for rounding, and each task keeps what is wrong with it."""

import pytest
import torch
from safetensors.torch import load_file

import metacl
from metacl.coordination import together
from metacl.coordination.executor import LocalExecutor
from metacl.coordination.together import map_together
from metacl.coordination.worker import MetaGradientWork, TaskFailed
from metacl.errors import ConfigError
from metacl.metagradients import InnerLoopDiverged
from metacl.tasks import TaskAddress
from tests.small_runs import save_tiny_bert, small_config

ADDRESSES = [TaskAddress("train", 0, 0, index) for index in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


def packed(model, folder, **changes):
    return small_config(model, folder, learner__padding="packed", **changes)


@pytest.fixture
def executor(model, tmp_path):
    inner = {"steps": 2, "step_size": {"value": 0.05, "head": 0.05}}
    executor = LocalExecutor(packed(model, tmp_path, inner=inner), print)
    executor.start()
    return executor


def gradients(done):
    return {one.address: torch.from_numpy(one.result.gradient) for one in done}


def test_a_run_ends_with_the_same_parameters_but_for_rounding(model, tmp_path):
    trained = []
    for count in (1, 2):
        config = packed(model, tmp_path / str(count), workers={"executor": "local", "tasks_per_forward": count})
        metacl.train(config)
        trained.append(load_file(config.folder / "checkpoints/step-5/meta_params.safetensors"))
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_every_task_has_its_own_gradient(executor, monkeypatch):
    worker = executor._worker
    meta = worker.layout.flatten(worker.initial)
    # In float64 up to the reply: what is left in float32 is the processor's rounding, near 1e-5 on some.
    worker.learner.adapted.model.double()
    single = worker.parameters
    monkeypatch.setattr(worker, "parameters", lambda flat: {n: t.double() for n, t in single(flat).items()})
    alone = gradients(executor.map(MetaGradientWork(), ADDRESSES, meta))
    side_by_side = gradients(map_together(executor, ADDRESSES, 2, meta, pytest.fail))
    assert set(alone) == set(side_by_side) == set(ADDRESSES)
    for address, gradient in alone.items():
        assert (side_by_side[address] - gradient).norm() <= 1e-7 * gradient.norm()


def test_one_that_diverges_is_left_out_and_its_neighbours_are_not(executor, monkeypatch):
    bad = ADDRESSES[1]
    work = MetaGradientWork.__call__

    def diverges(estimator, problems):
        raise InnerLoopDiverged([1.0, float("nan")])

    def fails(self, worker, address, meta):
        if address == bad:
            raise TaskFailed("the support loss is nan at inner step 1")
        return work(self, worker, address, meta)

    monkeypatch.setattr(together, "estimate_side_by_side", diverges)
    monkeypatch.setattr(MetaGradientWork, "__call__", fails)
    meta = executor._worker.layout.flatten(executor._worker.initial)
    left_out = {}
    done = list(map_together(executor, ADDRESSES, 3, meta, left_out.__setitem__))
    assert {one.address for one in done} == set(ADDRESSES) - {bad}
    assert left_out == {bad: "the support loss is nan at inner step 1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner__padding": "groups"}, r"learner\.padding=packed"),
        ({"estimator": "implicit", "inner": {"steps": 2, "proximal": 1.0}}, r"estimator=reverse"),
        ({"objective": {"name": "distilled"}}, r"'distilled' is not known to depend on tensors alone"),
        ({"workers__ranks_per_group": 2, "workers__executor": "ray"}, r"workers\.ranks_per_group=1"),
    ],
)
def test_what_cannot_go_side_by_side_is_refused(tmp_path, changes, message):
    options = {"learner__padding": "packed", "workers__tasks_per_forward": 2, **changes}
    with pytest.raises(ConfigError, match=message):
        small_config("x", tmp_path, **options)
