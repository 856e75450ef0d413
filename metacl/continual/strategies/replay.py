"""Experience replay: earlier examples in every batch (Chaudhry et al. 2019, "On Tiny Episodic Memories")."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from metacl.continual.experience import Address
from metacl.continual.memory import Policy, keep
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import MEMORY, STRATEGIES, State, Strategy, as_memory, stored
from metacl.learners.base import Params
from metacl.tasks.randomness import AddressedRandom

OFFERED = "offered"
"""The state's entry that counts the examples which were ever offered to its memory."""


def offered(state: State) -> int:
    """How many there were so far."""
    return int(state[OFFERED]) if OFFERED in state else 0


def remembered(
    moment: Moment, policy: Policy, size: int, addresses: list[Address], state: State, random: AddressedRandom
) -> State:
    """A state's memory after an experience of `addresses`, each offered once, and how many were offered in all."""
    before = offered(state)
    # What is replayed is not new: with cumulative or a memory of others it would be offered twice.
    new = [address for address in addresses if address[0] == moment.experience]
    memory = keep(policy, stored(state), before, new, size, moment.pool.stream.label, random)
    return {MEMORY: as_memory(memory), OFFERED: torch.tensor(before + len(new))}


def drawn(state: State, count: int, random: AddressedRandom) -> list[Address]:
    """`count` different examples of a memory, or all of it if there are fewer, in random order."""
    memory = stored(state)
    return random.sample(memory, min(count, len(memory)))


@STRATEGIES.register("replay")
class Replay(Strategy):
    """Every batch has examples of a memory beside the new ones, under one mean loss.

    memory : M, examples stored. ratio : replayed for every new one. policy : "reservoir" (each example of the stream is
    kept with the same probability), "class_balanced" or "experience_balanced" (the same number of each).
    draw : "uniform" from the whole memory at each step; or in "passes" through it, begun again with each pass over the
    new examples and shuffled as they are; a last batch may be small. Without shuffling a batch holds neighbours in
    memory, as in Avalanche.
    """

    memory: PositiveInt = 200
    ratio: PositiveFloat = 1.0
    policy: Policy = "reservoir"
    draw: Literal["uniform", "passes"] = "uniform"

    def replayed(self, moment: Moment, state: State) -> list[Address]:
        """As `draw` says; nothing while the memory is empty."""
        count = max(1, round(self.ratio * moment.batch_size))
        if self.draw == "uniform":
            return drawn(state, count, moment.random())
        memory = stored(state)
        done, turn = divmod(moment.turn, max(1, -(-len(memory) // count)))
        if moment.shuffle:
            memory = moment.random(2 + done % 8, at=moment.epoch).sample(memory, len(memory))
        return memory[turn * count : (turn + 1) * count]

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The experience's examples are offered, once."""
        return params, remembered(moment, self.policy, self.memory, addresses, state, moment.random(1))
