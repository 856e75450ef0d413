"""Finite differences of the whole way from the meta-parameters to the adapted query loss, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from metacl.learners.base import Params
from metacl.metagradients import InnerProblem, plain_gradient, trajectory

DISTANCE = 1e-5
"""Of a difference. In float64, on losses about 1, rounding and truncation both come to some 1e-10."""

SMALLEST = 1e-3
"""Errors of a tensor are relative to its largest entry, or to this part of the largest of all if that is more."""


class CheckFailed(AssertionError):
    """What was checked does not do what it says. The message is the verdict."""


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes
    ----------
    subject, claim : str
        What was checked, and what it says of itself.
    allowed : float or None
        The relative error it may make; None for any.
    errors : name of a meta-parameter -> its relative error
        Empty if it did not come to a comparison.
    cosine : float
        Of the angle to finite differences, all tensors together.
    failures, notes : tuple of str
        What is wrong, and what is worth knowing.
    """

    subject: str
    claim: str
    allowed: float | None
    errors: dict[str, float]
    cosine: float
    failures: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The report as text, the answer first."""
        lines = [f"{self.subject}: {'wrong' if self.failures else 'right'}. {self.claim}"]
        lines += [f"  wrong: {failure}" for failure in self.failures]
        lines += [f"  note: {note}" for note in self.notes]
        if self.errors:
            allowed = "any" if self.allowed is None else f"{self.allowed:.0e}"
            lines.append(f"  Against finite differences: cosine {self.cosine:.6f}, relative errors ({allowed} allowed)")
            width = max(map(len, self.errors))
            lines += [f"    {name:{width}}  {error:.1e}" for name, error in self.errors.items()]
        return "\n".join(lines)

    def or_raise(self) -> Report:
        """Itself, if nothing failed. Raises `CheckFailed` with the verdict."""
        if self.failures:
            raise CheckFailed(self.verdict)
        return self


def adapted_query_loss(problem: InnerProblem, meta: Params) -> float:
    """L_Q(θ_K), and what is asked on the way, as a plain number without any estimator."""
    moved = replace(problem, meta=meta)
    total = 0.0
    with torch.no_grad():
        for step, state in enumerate(trajectory(moved, plain_gradient(moved), moved.start(meta))):
            asked = moved.along(state.theta, meta, step) if moved.along and step < moved.loop.steps else None
            total += 0.0 if asked is None else float(asked)
        return total + float(moved.query_loss(state.theta, meta))


def finite_differences(problem: InnerProblem) -> Params:
    """d L_Q(θ_K) / dφ, number by number: 2 P adaptations for P numbers."""
    meta = {name: tensor.detach() for name, tensor in problem.meta.items()}

    def loss_at(name: str, place: int, distance: float) -> float:
        moved = meta[name].clone()
        moved.view(-1)[place] += distance
        return adapted_query_loss(problem, {**meta, name: moved})

    return {
        name: torch.tensor(
            [
                (loss_at(name, place, DISTANCE) - loss_at(name, place, -DISTANCE)) / (2 * DISTANCE)
                for place in range(tensor.numel())
            ],
            dtype=tensor.dtype,
        ).view(tensor.shape)
        for name, tensor in meta.items()
    }


def compare(
    subject: str, claim: str, allowed: float | None, gradient: Params, problem: InnerProblem, failures: list[str]
) -> Report:
    """The report on `gradient`, with the `failures` found so far and those of the comparison."""
    malformed = _malformed(gradient, problem.meta)
    if malformed:
        return Report(subject, claim, allowed, {}, 0.0, (*failures, *malformed))
    expected = finite_differences(problem)
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    errors = {}
    for name, tensor in expected.items():
        scale = max(float(tensor.abs().max()), SMALLEST * largest)
        errors[name] = float((gradient[name] - tensor).abs().max()) / scale if scale else 0.0
    off = [name for name, error in errors.items() if allowed is not None and error > allowed]
    wrong = [f"the gradient of {', '.join(off)} is not that of the adapted query loss"] if off else []
    still = [name for name, tensor in expected.items() if not tensor.abs().max() > DISTANCE * largest]
    notes = [f"the adapted query loss does not depend on {', '.join(still)}"] if still else []
    cosine = float(F.cosine_similarity(_flat(gradient, expected), _flat(expected, expected), dim=0))
    return Report(subject, claim, allowed, errors, cosine, (*failures, *wrong), tuple(notes))


def _malformed(gradient: Params, meta: Params) -> list[str]:
    found = []
    if set(gradient) != set(meta):
        found.append(f"it gives gradients of {', '.join(gradient)}; the meta-parameters are {', '.join(meta)}")
    for name in [name for name in gradient if name in meta]:
        if gradient[name].shape != meta[name].shape:
            shapes = f"{tuple(gradient[name].shape)}; expected {tuple(meta[name].shape)}"
            found.append(f"the gradient of {name} has shape {shapes}")
        elif not bool(torch.isfinite(gradient[name]).all()):
            found.append(f"the gradient of {name} is not finite")
    return found


def _flat(params: Params, order: Params) -> Tensor:
    return torch.cat([params[name].detach().reshape(-1) for name in order])
