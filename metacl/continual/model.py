"""The model of a continual run: a learner with a head for every class of the stream, and what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metacl.learners.base import HEAD, Batch, Learner, Params

HEAD_WEIGHT, HEAD_BIAS = f"{HEAD}weight", f"{HEAD}bias"


class Model:
    """See the module. Nothing in it is changed; what is trained is passed in.

    Parameters
    ----------
    classes : int
        N; 0 for a language model.
    frozen : Params
        Adaptable parameters that are not trained.
    """

    def __init__(self, learner: Learner, classes: int, frozen: Params | None = None) -> None:
        self.learner = learner
        self.classes = classes
        self.frozen = frozen or {}

    def bind(self, params: Params) -> Params:
        """What the learner is given."""
        return {**self.frozen, **params}

    @property
    def measure(self) -> str:
        """What a test gives, and R holds: shares of right answers, or nats per token."""
        return "accuracy" if self.classes else "nats_per_token"

    @property
    def has_own_head(self) -> bool:
        """Whether the head is made here, and grows with the stream; a module of one's own may have one inside."""
        return bool(self.classes) and self.learner.width is not None

    @property
    def has_random_start(self) -> bool:
        """Whether `start` is the model at random initialization; a module of one's own is taken for that."""
        return not self.has_own_head and not self.learner.vocabulary

    def chance(self, labels: Sequence[int], allowed: Tensor | None) -> float:
        """The measure of a model whose weights are drawn at random, in the mean over draws.

        Rows of a random head are exchangeable, so each of the `allowed` (N,) classes (None for all) is the answer as
        often. A language model is taken to find every token of its vocabulary as likely.

        labels : of the test examples.
        """
        if not self.classes:
            return math.log(self.learner.vocabulary)
        told_apart = range(self.classes) if allowed is None else allowed.nonzero().flatten().tolist()
        return sum(label in told_apart for label in labels) / len(labels) / len(told_apart)

    def start(self) -> Params:
        """The learner's initial parameters, with a head of zeros where it has none of its own."""
        params = {name: tensor.to(self.learner.device) for name, tensor in self.learner.initial.items()}
        if self.has_own_head:
            assert self.learner.width is not None
            params[HEAD_WEIGHT] = torch.zeros(self.classes, self.learner.width, device=self.learner.device)
            params[HEAD_BIAS] = torch.zeros(self.classes, device=self.learner.device)
        return params

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """Class scores (B, N); of a language model the negative log-likelihood of each text, (B,)."""
        return self.learner.outputs(self.bind(params), batch)

    def loss(self, outputs: Tensor, targets: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over the examples, among the `allowed` (B, N) classes; or over the tokens that count."""
        assert targets is not None, "a loss needs targets"
        if not self.classes:
            return outputs.sum() / targets.sum()
        return F.cross_entropy(among(outputs, allowed), targets)

    def log_likelihoods(self, outputs: Tensor, targets: Tensor, allowed: Tensor | None = None) -> Tensor:
        """log p(target | input) of every example, (B,); of a language model the mean over its tokens."""
        if not self.classes:
            return -outputs / targets
        return -F.cross_entropy(among(outputs, allowed), targets, reduction="none")

    def measured(self, found: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The measure over batches of (outputs, targets)."""
        right = counted = 0.0
        for outputs, targets in found:
            if self.classes:
                right += float((outputs.argmax(-1) == targets).sum())
                counted += len(targets)
            else:
                right += float(outputs.double().sum())
                counted += float(targets.sum())
        return right / counted

    def divergence(self, before: Params, now: Params, batch: Batch) -> Tensor:
        """KL(before ‖ now) of a language model's next token, summed over those that count in each text, (B,)."""
        return self.learner.divergence(self.bind(before), self.bind(now), batch)

    def features(self, params: Params, batch: Batch) -> Tensor:
        """Feature vectors (B, D). Raises `ConfigError` if the learner has none."""
        return self.learner.features(self.bind(params), batch)


def among(outputs: Tensor, allowed: Tensor | None) -> Tensor:
    """Class scores with those that are not allowed at minus infinity."""
    return outputs if allowed is None else outputs.masked_fill(~allowed, -torch.inf)


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over the B rows of KL(teacher ‖ student), in nats, of class scores (B, N) at a temperature; a scalar."""
    student_log = F.log_softmax(student / temperature, -1)
    return F.kl_div(student_log, F.log_softmax(teacher / temperature, -1), reduction="batchmean", log_target=True)
