"""The checks that authors run: every built-in passes, and each kind of mistake is caught and named."""

import pytest
import torch

from metacl.adaptation import Adam, InnerLoop
from metacl.metagradients import ESTIMATORS, FirstOrder, InnerLoopDiverged, MetaGradientResult, Reverse
from metacl.objectives import MAML, OBJECTIVES, ProtoMAML
from metacl.testing import CheckFailed, check_estimator, check_objective


@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_built_in_estimators(name):
    report = check_estimator(ESTIMATORS.build({"name": name}))
    assert report.verdict.startswith(f"{report.subject}: right.")
    assert report.failures == report.notes == ()
    if ESTIMATORS.get(name).exact:
        assert max(report.errors.values()) < 1e-7
        assert report.cosine == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_built_in_objectives(name):
    report = check_objective(OBJECTIVES.build({"name": name}))
    assert report.verdict.startswith(f"{report.subject}: right.")
    assert report.notes == ()


def test_loop_of_ones_own():
    loop = InnerLoop(steps=2, optimizer=Adam(), step_size={"value": 0.01, "learn": "scalar"})
    report = check_estimator(Reverse(), loop)
    assert list(report.errors) == ["adapter.0.weight", "adapter.0.bias", "temperature", "step_size.factor"]


def test_biased_gradient_is_told_but_not_refused():
    report = check_estimator(FirstOrder())
    assert 0.5 < report.cosine < 0.999
    assert "approximate gradient of order 1" in report.verdict
    assert "(any allowed)" in report.verdict


class Plain:
    """An estimator that derives from nothing."""

    order, exact, needs_double_backward, sharding_stages = 2, True, True, frozenset({0})

    def estimate(self, problem):
        result = Reverse().estimate(problem)
        return MetaGradientResult(self.changed(result.gradient), self.loss(result.query_loss), result.support_losses)

    def changed(self, gradient):
        return gradient

    def loss(self, value):
        return value


def verdict_on(estimator):
    with pytest.raises(CheckFailed) as caught:
        check_estimator(estimator)
    assert str(caught.value).startswith(f"{type(estimator).__name__}: wrong.")
    return str(caught.value)


def test_plain_class_passes():
    assert check_estimator(Plain()).verdict.startswith("Plain: right.")


def test_declarations_that_are_missing():
    class Silent:
        order = 1

    assert "exact, needs_double_backward, sharding_stages not declared" in verdict_on(Silent())


def test_wrong_tensor_is_named():
    class Scaled(Plain):
        def changed(self, gradient):
            return {**gradient, "temperature": 1.001 * gradient["temperature"]}

    assert "wrong: the gradient of temperature is not that of the adapted query loss" in verdict_on(Scaled())


def test_first_order_that_calls_itself_exact():
    class Boasting(Plain):
        def estimate(self, problem):
            return FirstOrder().estimate(problem)

    assert "adapter.0.weight" in verdict_on(Boasting())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda gradient: {n: t for n, t in gradient.items() if n != "temperature"}, "it gives gradients of"),
        (lambda gradient: {**gradient, "temperature": torch.ones(2)}, "has shape (2,); expected ()"),
        (lambda gradient: {**gradient, "temperature": torch.tensor(float("nan"))}, "temperature is not finite"),
    ],
)
def test_malformed_gradients_even_of_biased_estimators(change, word):
    class Malformed(Plain):
        exact = False

        def changed(self, gradient):
            return change(gradient)

    assert word in verdict_on(Malformed())


def test_query_loss_that_is_not_the_adapted_one():
    class Misreporting(Plain):
        def loss(self, value):
            return value + 1e-3

    assert "the query loss it reports" in verdict_on(Misreporting())


def test_state_between_estimates():
    class Remembering(Plain):
        calls = 0

        def changed(self, gradient):
            self.calls += 1
            return {name: tensor + 1e-12 * self.calls for name, tensor in gradient.items()}

    assert "other bits" in verdict_on(Remembering())


def test_double_backward_that_is_denied():
    class Denying(Plain):
        needs_double_backward = False

    assert "needs_double_backward is declared False" in verdict_on(Denying())


def test_divergence_that_is_swallowed():
    class Swallowing(Plain):
        def estimate(self, problem):
            try:
                return super().estimate(problem)
            except InnerLoopDiverged as error:
                zeros = {name: torch.zeros_like(tensor) for name, tensor in problem.meta.items()}
                return MetaGradientResult(zeros, 0.0, error.losses)

    assert "raise InnerLoopDiverged" in verdict_on(Swallowing())


def objective_verdict(objective):
    with pytest.raises(CheckFailed) as caught:
        check_objective(objective)
    return str(caught.value)


def test_objective_that_detaches():
    class Detaching(ProtoMAML):
        def start(self, learner, meta, task):
            start = super().start(learner, meta, task)
            return {**start, "head.bias": start["head.bias"].detach()}

    assert "not that of the adapted query loss" in objective_verdict(Detaching())


def test_objective_that_draws_random_numbers():
    class Random(MAML):
        def query_loss(self, learner, params, task):
            return super().query_loss(learner, params, task) + 1e-12 * torch.rand(())

    assert "another one the second time" in objective_verdict(Random())


def test_objective_that_promises_other_tensors():
    class Promising(ProtoMAML):
        def inner_names(self, learned):
            return list(learned)

    found = objective_verdict(Promising())
    assert "start has the tensors" in found
    assert "inner_names promises adapter.0.weight, adapter.0.bias" in found


def test_learned_tensor_without_use_is_noted():
    class Wasteful(MAML):
        def learned(self, learner, ways):
            return {**super().learned(learner, ways), "spare": torch.zeros(2)}

        def adaptable(self, name):
            return name != "spare"

    report = check_objective(Wasteful())
    assert report.notes == ("the adapted query loss does not depend on spare",)
    assert "note: the adapted query loss does not depend on spare" in report.verdict
