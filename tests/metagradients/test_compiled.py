"""Traced and compiled pieces give the eager gradient, for every task, from one compilation."""

import weakref

import pytest
import torch
from torch._dynamo.utils import counters

from metacl.errors import ConfigError
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import as_leaves
from metacl.metagradients import FiniteDifference, Reverse, compiled
from metacl.metagradients.graphs import Cuts
from metacl.objectives import ProtoMAML
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_runs import save_tiny_bert, small_config


@pytest.fixture(scope="module", params=["max_length", "packed"])
def setting(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    model = save_tiny_bert(folder / "model")
    config = small_config(
        model,
        folder / "run",
        learner__padding=request.param,
        inner={"steps": 3, "step_size": {"value": 0.05, "head": 0.05}},
    )
    return config, config.data.open()


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(compiled, "compiler_here", lambda: False)
    compiled._say_once.cache_clear()


def problems(setting, learner):
    """Two tasks of one shape, from a start in the middle of training; float64, where rounding hides nothing."""
    config, source = setting
    learner.adapted.model.double()
    torch.manual_seed(0)
    start = config.objective.meta_parameters(learner, config.inner, ways=3)
    start = {name: tensor.double() + 0.05 * torch.randn_like(tensor.double()) for name, tensor in start.items()}
    for index in range(2):
        episode = source.episode(TaskAddress("train", 0, 0, index), config.episodes)
        yield config.objective.problem(learner, as_leaves(start), learner.prepare(episode), config.inner)


def norm_error(found, expected):
    """Of the whole gradient: single step sizes are small differences of sums."""
    difference = sum(float((found[name] - g).double().square().sum()) for name, g in expected.items())
    return (difference / sum(float(g.double().square().sum()) for g in expected.values())) ** 0.5


def check(setting, eager, fast, bound, compiled=True):
    learner = setting[0].learner.build(0)
    for problem in problems(setting, learner):
        expected, found = eager.estimate(problem), fast.estimate(problem)
        assert norm_error(found.gradient, expected.gradient) <= bound
        assert found.support_losses == pytest.approx(expected.support_losses, rel=1e-10)
    (traced,) = learner.traced.values()
    assert bool(traced._compiled) is compiled
    return traced


@pytest.mark.parametrize("allowance", ["one", 1, "all"])
def test_without_a_compiler_the_traced_pieces_run(setting, no_compiler, caplog, allowance):
    traced = check(setting, Reverse(), Reverse(compile=True, allowance=allowance), 1e-10)
    # start, inner gradient and query loss, traced once for both tasks
    assert sorted((f.name, len(f._compiled)) for f in traced._compiled.values()) == [
        ("the inner gradient", 1),
        ("the query loss", 1),
        ("the start", 1),
    ]
    assert caplog.text.count("no C++ compiler") == 1


def test_a_failing_compiler_is_announced_and_done_without(setting, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("no space left")

    monkeypatch.setattr(torch._inductor, "standalone_compile", fail)
    monkeypatch.setattr(compiled, "compiler_here", lambda: True)
    check(setting, Reverse(), Reverse(compile=True), 1e-10)
    assert "no space left" in caplog.text


@pytest.mark.parametrize("central", [True, False])
def test_differences_from_the_traced_gradient(setting, no_compiler, central):
    check(setting, FiniteDifference(central=central), FiniteDifference(central=central, compile=True), 1e-2)


@pytest.mark.slow
@pytest.mark.skipif(not compiled.compiler_here(), reason="no C++ compiler on this machine")
@pytest.mark.parametrize("setting", ["packed"], indirect=True)
def test_compiled(setting):
    config, source = setting
    learner = config.learner.model_copy(update={"adapter": AdapterConfig(rank=2, last_layers=1)})  # less to compile
    estimator = Reverse(compile=True, allowance="one")  # the others with the same pieces traced, above
    traced = check((config.model_copy(update={"learner": learner}), source), Reverse(), estimator, 1e-10)
    assert traced.compile_seconds > 1


def cubic(parameters, data):
    """(Σ data·p³ / 3 and its gradient data·p²), whose product with u is 2·data·p·u."""
    (p,) = parameters
    loss = (data[0] * p**3).sum() / 3
    return (loss.detach(), *torch.autograd.grad(loss, [p], create_graph=True))


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_piece_against_the_closed_form(no_compiler, share):
    p = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    data = torch.tensor([0.5, 1.0, 2.0])
    function = compiled.CompiledFunction("a cubic", cubic)
    loss, gradient = function.bind([p], [data])([p], share)
    torch.testing.assert_close(gradient, data * p.detach() ** 2)
    assert not loss.requires_grad
    u = torch.tensor([1.0, 2.0, -1.0])
    torch.testing.assert_close(torch.autograd.grad(gradient, p, u)[0], 2 * data * p.detach() * u)


def test_a_part_of_what_is_kept_is_smaller_and_saves_a_part_of_the_products(no_compiler):
    weights = [torch.randn(*shape) / 8 for shape in ((64, 256), (256, 64)) * 3]

    def through_layers(parameters, data):
        x = data[0] + parameters[0]
        for weight in weights:
            x = torch.tanh(x @ weight)
        return (x.square().sum(),)

    p, data = torch.randn(64, requires_grad=True), [torch.randn(512, 64)]
    bound = compiled.CompiledFunction("layers", through_layers).bind([p], data)
    known = {t.untyped_storage().data_ptr() for t in (*data, *weights)}
    kept_bytes, products = [], []
    for share in (0.2, 1.0):
        _, kept = bound.keep([p], share)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
        kept_bytes.append(sum(size for place, size in storages.items() if place not in known))
        _, back = bound._compiled.cuts.halves(share)
        products.append(sum(node.target is torch.ops.aten.mm.default for node in back.graph.nodes))
        (found,) = bound.finish(kept, [torch.ones(())], share)
        torch.testing.assert_close(found, bound.products([p], [torch.ones(())])[0])
    assert kept_bytes[0] < 0.5 * kept_bytes[1]
    again = sum(node.target is torch.ops.aten.mm.default for node in bound._compiled.cuts.products.graph.nodes)
    assert products[1] < products[0] < again


def test_products_with_narrow_matrices_are_taken_transposed_and_stay_what_they_are():
    wide = torch.randn(48, 40, dtype=torch.float64)

    def adapted(parameters, data):
        down, up = parameters
        return ((data[0] @ wide + data[0] @ down @ up).tanh().sum(),)

    parameters = [torch.randn(48, 8, dtype=torch.float64), torch.randn(8, 40, dtype=torch.float64)]
    data = [torch.randn(64, 48, dtype=torch.float64)]
    cuts = Cuts(adapted, parameters, data, fused=True)
    sizes = [
        (*node.args[0].meta["val"].shape, node.args[1].meta["val"].shape[1])
        for node in cuts._graph.nodes
        if node.target is torch.ops.aten.mm.default
    ]
    assert (8, 48, 64) in sizes, "data @ down, as downᵀ @ dataᵀ"
    assert all(columns > 8 for _, _, columns in sizes)
    rest = (*cuts.once(*data, *cuts.frozen), *cuts.frozen)
    leaves = [tensor.clone().requires_grad_() for tensor in parameters]
    (expected,) = adapted(leaves, data)
    torch.testing.assert_close(cuts.outputs(*parameters, *rest)[0], expected.detach())
    found = cuts.products(*parameters, *rest, torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(found, torch.autograd.grad(expected, leaves))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_a_step_holds_of_its_task_goes_with_its_way_back(no_compiler, share):
    p = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    bound = compiled.CompiledFunction("a cubic", cubic).bind([p], [torch.ones(3)])
    _, gradient = bound([p], share)
    held = weakref.ref(bound)
    del bound
    assert held() is not None
    torch.autograd.grad(gradient, p, torch.ones(3))
    assert held() is None, "although the walk that the step belongs to goes on"


def test_weights_that_nothing_depends_on_leave_the_graph(no_compiler):
    unused, weight = torch.ones(1000), torch.tensor(3.0)

    def function(parameters, data):
        (unused * 2).sum()
        return (parameters[0] * weight,)

    p = torch.tensor(2.0)
    bound = compiled.CompiledFunction("a product", function).bind([p], [])
    assert bound._compiled.cuts.frozen == [weight]
    assert float(bound.outputs([p])[0]) == 6.0


def test_data_that_is_not_used_may_have_any_shape(no_compiler):
    function = compiled.CompiledFunction("a cubic", cubic)
    p = torch.ones(3)
    for unused in (torch.zeros(2), torch.zeros(5, 4)):
        _, gradient = function.bind([p], [2 * p, unused]).outputs([p])
        torch.testing.assert_close(gradient, 2 * p)
    assert len(function._compiled) == 1
    function.bind([p[:2]], [p[:2], unused])
    assert len(function._compiled) == 2


def test_what_depends_on_the_data_alone_is_computed_once(no_compiler):
    def function(parameters, data):
        return (parameters[0] * data[0].exp().sum(),)

    p = torch.tensor(2.0, requires_grad=True)
    bound = compiled.CompiledFunction("a product", function).bind([p], [torch.zeros(4)])
    cuts = bound._compiled.cuts
    assert "exp" in str(cuts.once.code)
    assert all("exp" not in str(graph.code) for graph in (cuts.outputs, cuts.products, *cuts.halves(1.0)))
    (value,) = bound([p], share=0.0)
    assert (float(value.detach()), float(torch.autograd.grad(value, p)[0])) == (8.0, 4.0)


def test_what_looks_at_values_is_not_compiled_and_that_is_said(caplog):
    def function(parameters, data):
        return (parameters[0] * 2 if data[0].sum() > 0 else parameters[0],)

    compiled_function = compiled.CompiledFunction("a branch", function)
    assert compiled_function.bind([torch.ones(2)], [torch.ones(3)]) is None
    assert compiled_function.bind([torch.ones(2)], [torch.ones(3)]) is None
    assert caplog.text.count("a branch cannot be traced") == 1


@pytest.mark.slow
@pytest.mark.skipif(not compiled.compiler_here(), reason="no C++ compiler on this machine")
def test_another_run_finds_the_compiled_piece_on_disk():
    p, data = torch.ones(3), torch.ones(3)
    hits = []
    for _ in range(2):
        counters.clear()
        compiled.CompiledFunction("a cubic", cubic).bind([p], [data]).outputs([p])
        hits.append(counters["inductor"]["fxgraph_cache_hit"])
    assert hits[1] == 1


def test_an_objective_with_functions_of_its_own_is_not_compiled_unless_it_says_it_may_be(setting, no_compiler):
    class Doubled(ProtoMAML):
        """Twice the loss at every other step: tracing it once would be wrong."""

        def support_loss(self, learner, params, task, step):
            return (1 + step % 2) * super().support_loss(learner, params, task, step)

    config, source = setting
    learner = config.learner.build(0)
    task = learner.prepare(source.episode(TaskAddress("train", 0, 0, 0), EpisodeShape(ways=3, shots=1, queries=2)))
    meta = as_leaves(Doubled().meta_parameters(learner, config.inner, 3))
    problem = Doubled().problem(learner, meta, task, config.inner)
    assert problem.traced is None
    found = Reverse(compile=True).estimate(problem)
    assert norm_error(found.gradient, Reverse().estimate(problem).gradient) == 0
    assert not Doubled.pure and ProtoMAML.pure


def test_ever_new_shapes_are_refused(setting, tmp_path):
    with pytest.raises(ConfigError, match=r"learner\.padding=packed"):
        small_config("x", tmp_path, estimator={"name": "reverse", "compile": True})


@pytest.mark.parametrize("objective", [{"name": "multi_step"}, {"name": "distilled", "on": "query"}])
def test_what_a_wrapper_changes_is_not_lost_by_compiling(setting, no_compiler, objective):
    objective = {**objective, "of": {"name": "proto_maml"}}
    tree = {**setting[0].to_dict(), "objective": objective}
    config = setting[0].model_validate(tree)
    check((config, setting[1]), Reverse(), Reverse(compile=True), 1e-10, compiled=False)


def test_pure_is_what_all_its_functions_are():
    class Problem(ProtoMAML):
        def problem(self, learner, meta, task, loop):
            return super().problem(learner, meta, task, loop)

    class Mixin:
        def support_loss(self, learner, params, task, step):
            return step * super().support_loss(learner, params, task, step)

    class Mixed(Mixin, ProtoMAML):
        pass

    class Renamed(ProtoMAML):
        pass

    assert (Problem.pure, Mixed.pure, Renamed.pure) == (False, False, True)


def test_an_objective_with_options_that_cannot_be_hashed(setting):
    class Listed(ProtoMAML):
        names: list[str]

    config, source = setting
    learner = config.learner.build(0)
    task = learner.prepare(source.episode(TaskAddress("train", 0, 0, 0), config.episodes))
    meta = as_leaves(Listed(names=["a"]).meta_parameters(learner, config.inner, 3))
    assert Listed(names=["a"]).problem(learner, meta, task, config.inner).traced is not None
