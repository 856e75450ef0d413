"""The baseline that only remembers: the nearest learned examples vote (Khandelwal et al. 2020, eq. 2, by classes).

A vector index grows with the stream, or is bounded as a memory is. It holds feature vectors of the start and no text.
"""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.memory import Policy, keep
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, as_memory
from metacl.continual.strategies.lwf import needs_classes
from metacl.continual.strategies.start_features import features_of_test, needs_features, start_features
from metacl.errors import ConfigError
from metacl.evaluation.neighbours import NO_VOTE, index_of, unit, votes, without_faiss
from metacl.learners.base import Batch, Params

VECTORS, SOURCES, OFFERED = "vectors", "sources", "offered"


@STRATEGIES.register("retrieval")
class Retrieval(Strategy):
    """Nearest neighbours in the start's features vote for their classes. Nothing is trained.

    neighbours : how many examples vote, at most. temperature : a vote weighs exp(cosine / temperature).
    memory : M, feature vectors stored; null for those of all examples. policy : which ones a memory keeps, as `replay`
    has it.
    """

    neighbours: PositiveInt = 5
    temperature: PositiveFloat = 0.1
    memory: PositiveInt | None = None
    policy: Policy = "class_balanced"

    def check(self, model: Model, stream: Stream) -> None:
        """Feature vectors of classes, and faiss."""
        needs_features("retrieval", model)
        needs_classes("retrieval", model)
        if missing := without_faiss():
            raise ConfigError(f"strategies: retrieval: {missing}")

    def training_set(self, moment: Moment, addresses: list[Address], state: State) -> list[Address]:
        """None."""
        return []

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The experience's vectors are stored, all or as the policy says, with where each comes from."""
        stream = moment.pool.stream
        new = stream.train_addresses(moment.experience)
        before: list[Address] = [(int(k), int(place)) for k, place in state[SOURCES].tolist()] if state else []
        vectors = [torch.from_numpy(unit(features)) for _, features in start_features(moment, new)]
        known = torch.cat([*([state[VECTORS].cpu()] if state else []), *vectors])
        kept, offered = [*before, *new], int(state[OFFERED]) if state else 0
        if self.memory is not None:
            kept = keep(self.policy, before, offered, new, self.memory, stream.label, moment.random())
        place_of = {address: place for place, address in enumerate([*before, *new])}
        return params, {
            VECTORS: known[[place_of[address] for address in kept]],
            SOURCES: as_memory(kept),
            OFFERED: torch.tensor(offered + len(new)),
        }

    def predict(self, moment: Moment, params: Params, batch: Batch, state: State) -> Tensor | None:
        """Log-votes; minus infinity for classes never seen.

        Of classes without a vote the one with the nearest example comes first, for where others may not be answered.
        """
        if not state:
            return None
        vectors, classes = state[VECTORS].cpu(), moment.model.classes  # an index lies in the machine's memory
        labels = torch.tensor([moment.pool.stream.label((int(k), int(place))) for k, place in state[SOURCES].tolist()])
        features = features_of_test(moment, batch)
        asked = unit(features)
        index = index_of(vectors.numpy())
        found = votes(index, labels.numpy(), asked, self.neighbours, self.temperature, classes)
        cosines = (torch.from_numpy(asked) @ vectors.T).double()
        nearest = torch.full((len(asked), classes), -torch.inf, dtype=torch.float64)
        nearest = nearest.scatter_reduce(1, labels.expand(len(asked), -1), cosines, "amax")
        return torch.where(found > NO_VOTE, found, NO_VOTE - 1 + nearest).to(features.device)
