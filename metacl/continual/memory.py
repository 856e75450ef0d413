"""Which examples a memory of M places keeps.

Each policy takes the memory and what came since, and gives the memory afterwards; the experience and class of an
example are known by its address. Random numbers come from the caller's stream.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from metacl.continual.experience import Address
from metacl.tasks.randomness import AddressedRandom

Policy = Literal["reservoir", "class_balanced", "experience_balanced"]


def reservoir(
    memory: Sequence[Address], offered: int, new: Sequence[Address], size: int, random: AddressedRandom
) -> list[Address]:
    """A uniform sample of everything that was ever offered (Vitter 1985, algorithm R).

    After n offers each of the n examples is in memory with probability min(1, size / n), whenever it came.

    Parameters
    ----------
    memory : what is held. offered : how many were offered before `new`.
    new : the next examples, in order. size : M.
    """
    kept = list(memory)
    for count, address in enumerate(new, start=offered + 1):
        if len(kept) < size:
            kept.append(address)
        elif (place := random.below(count)) < size:
            kept[place] = address
    return kept


def balanced(
    memory: Sequence[Address],
    new: Sequence[Address],
    size: int,
    group: Callable[[Address], Hashable],
    random: AddressedRandom,
) -> list[Address]:
    """The same number from every group, or one more for the first ones; what small groups leave is the others'.

    Where there are more groups than places, which have one is drawn at random. What a group gives up is a uniform
    choice, and so is what it keeps of its new examples; a group that comes again (a class in another experience)
    chooses among what it holds and what is new, so its earlier examples get rarer.
    """
    groups: dict[Hashable, list[Address]] = {}
    for address in [*memory, *new]:
        groups.setdefault(group(address), []).append(address)
    order = list(groups) if len(groups) <= size else random.sample(list(groups), len(groups))
    quota, left = dict.fromkeys(groups, 0), size
    while wanting := [name for name in order if quota[name] < len(groups[name])] if left else []:
        share, rest = divmod(left, len(wanting))
        for place, name in enumerate(wanting):
            more = min(share + (place < rest), len(groups[name]) - quota[name])
            quota[name], left = quota[name] + more, left - more
    kept: list[Address] = []
    for name, members in groups.items():
        chosen = set(random.sample(range(len(members)), quota[name]))
        kept += [address for position, address in enumerate(members) if position in chosen]
    return kept


def keep(
    policy: Policy,
    memory: Sequence[Address],
    offered: int,
    new: Sequence[Address],
    size: int,
    label: Callable[[Address], int],
    random: AddressedRandom,
) -> list[Address]:
    """The memory after `new`, by a policy's name. label : class of an address."""
    if policy == "reservoir":
        return reservoir(memory, offered, new, size, random)
    if policy == "class_balanced":
        return balanced(memory, new, size, label, random)
    return balanced(memory, new, size, lambda address: address[0], random)
