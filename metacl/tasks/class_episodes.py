"""N-way K-shot episodes over split classes: the sampler, and its promises.

An episode is a function of the address (split, seed, step, index) and the shape alone. Its classes are a uniform
sample without replacement of the split's (or of one uniformly drawn domain's), its texts one of each class's; support
and query share no text of a class. Every number comes from the address's own random stream, so tasks are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metacl.errors import DataError
from metacl.tasks.class_texts import ClassTexts
from metacl.tasks.episode import Episode, EpisodeShape, Split, TaskAddress
from metacl.tasks.names_in_words import in_words, unfit_as_examples
from metacl.tasks.randomness import AddressedRandom
from metacl.tasks.sizes import check_sizes
from metacl.tasks.splits import SPLITS

NAMES_SHOWN = "; the name of each class is in the support"
"""Ends the description of such a source."""


class ClassEpisodes:
    """Episodes over one split of a set of classes.

    Parameters
    ----------
    name : str
        What the data is, for messages.
    found : ClassTexts
        What each class has.
    classes : dict of split to class names
        Disjoint.
    within_domain : bool
        An episode takes its classes from one domain.
    out_of_scope : str or None
        A class that is one of the N of every episode, the last one.
    out_of_scope_texts : dict of split to positions
        Which of its texts each split has.
    joint : bool
        Every training episode has all training classes, sorted, so that a class is the same label in each.
    names_in_support : bool
        After the K texts of its classes, a support has each class's name in words.
    """

    def __init__(
        self,
        name: str,
        found: ClassTexts,
        classes: Mapping[Split, Sequence[str]],
        within_domain: bool = False,
        out_of_scope: str | None = None,
        out_of_scope_texts: Mapping[Split, Sequence[int]] | None = None,
        joint: bool = False,
        names_in_support: bool = False,
    ) -> None:
        self.name = name
        self.texts = found.texts
        self.domain_of = found.domain_of
        self.names = found.names
        self.duplicates = found.duplicates
        self.classes = {split: sorted(names) for split, names in classes.items()}
        self._split_of: dict[str, Split] = {name: split for split, names in self.classes.items() for name in names}
        self._by_domain = within_domain
        self._joint = joint
        self._names_in_support = names_in_support
        self._pools = {split: self._split_into_pools(names) for split, names in self.classes.items()}
        self._out_of_scope = out_of_scope
        self._out_of_scope_texts = {
            split: [found.texts[out_of_scope][position] for position in positions]
            for split, positions in (out_of_scope_texts or {}).items()
            if out_of_scope is not None
        }

    def _split_into_pools(self, names: list[str]) -> dict[str, list[str]]:
        """What an episode can take its classes from: a domain's, or all."""
        if not self._by_domain:
            return {"": names}
        pools: dict[str, list[str]] = {}
        for name in names:
            pools.setdefault(self.domain_of[name], []).append(name)
        return dict(sorted(pools.items()))

    def _texts_of(self, name: str, split: Split) -> Sequence[str]:
        return self._out_of_scope_texts[split] if name == self._out_of_scope else self.texts[name]

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Raise `DataError` unless every class of `split` can serve in episodes of this shape."""
        names = self.classes[split]
        self._check_names(names)
        beside = 0 if self._out_of_scope is None else 1
        if (shape.min_ways or shape.ways) <= beside:
            raise DataError(
                f"{self.name}: 1-way episodes would hold the out-of-scope class alone. Raise episodes.ways to 2."
            )
        if self._joint and split == "train" and {shape.min_ways or shape.ways, shape.ways} != {len(names)}:
            raise DataError(
                f"{self.name}: data.joint wants all training classes in every episode. Set episodes.ways={len(names)}."
            )
        for pool, members in self._pools[split].items() or [("", [])]:
            if shape.ways > len(members) + beside:
                where = f"split {split!r}" if not self._by_domain else f"domain {pool!r} of split {split!r}"
                raise DataError(
                    f"{self.name}: {shape.ways}-way episodes need {shape.ways} classes, but {where} has "
                    f"{len(members) + beside}. Lower episodes.ways, or give the split more classes."
                )
        here = [*names, *([self._out_of_scope] if self._out_of_scope is not None else [])]
        sizes = {name: len(self._texts_of(name, split)) for name in here}
        check_sizes(self.name, split, shape, sizes, "class")

    def _check_names(self, names: Sequence[str]) -> None:
        if self._names_in_support and (why := unfit_as_examples(names)):
            raise DataError(
                f"{self.name}: data.names_in_support: of the names of classes {why}. Leave it out, or give the classes "
                f"names that tell them apart."
            )

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> Episode:
        """Draw the classes, then different texts of each for support and query. Depends on the arguments alone."""
        random = AddressedRandom(address)
        ways = shape.ways if shape.min_ways is None else random.between(shape.min_ways, shape.ways)
        pools = self._pools[address.split]
        pool = pools[random.sample(list(pools), 1)[0]] if self._by_domain else pools[""]
        if self._joint and address.split == "train":
            names = self.classes["train"]
        else:
            names = random.sample(pool, ways if self._out_of_scope is None else ways - 1)
        if self._out_of_scope is not None:
            names.append(self._out_of_scope)
        shots = [shape.shots] * ways
        if shape.min_shots is not None:
            draws = [random.between(shape.min_shots, shape.shots) for _ in range(ways if shape.imbalanced else 1)]
            shots = draws if shape.imbalanced else draws * ways
        support: list[tuple[str, int]] = []
        query: list[tuple[str, int]] = []
        for label, (name, count) in enumerate(zip(names, shots, strict=True)):
            drawn = random.sample(self._texts_of(name, address.split), count + shape.queries)
            support += [(text, label) for text in drawn[:count]]
            query += [(text, label) for text in drawn[count:]]
        if self._names_in_support:
            named = [name for name in names if name != self._out_of_scope]
            support += [(in_words(name), label) for label, name in enumerate(named)]
        return Episode(
            address=address,
            class_names=tuple(names),
            support_texts=tuple(text for text, _ in support),
            support_labels=tuple(label for _, label in support),
            query_texts=tuple(text for text, _ in query),
            query_labels=tuple(label for _, label in query),
        )

    def describe(self) -> str:
        """One line: the name, the examples, the classes of each split."""
        parts = ", ".join(f"{len(self.classes[split])} {split}" for split in SPLITS)
        total = sum(map(len, self.texts.values()))
        dropped = f" ({self.duplicates} exact duplicates left out)" if self.duplicates else ""
        beside = "" if self._out_of_scope is None else f", and {self._out_of_scope!r} in every episode"
        named = NAMES_SHOWN if self._names_in_support else ""
        return f"{self.name}: {total} examples{dropped}, classes: {parts}{beside}{named}"

    def sizes(self) -> dict[Split, dict[str, int]]:
        """Different examples of every class of every split."""
        found = {split: {name: len(self.texts[name]) for name in names} for split, names in self.classes.items()}
        for split, texts in self._out_of_scope_texts.items():
            found[split][str(self._out_of_scope)] = len(texts)
        return found

    def split_of(self, name: str, text: str) -> Split | None:
        """Where an example of a class is drawn; None for in no split."""
        if name != self._out_of_scope:
            return self._split_of.get(name)
        return next((split for split, texts in self._out_of_scope_texts.items() if text in texts), None)

    def unassigned(self) -> list[str]:
        """Classes that no split has."""
        return sorted(name for name in self.texts if name not in self._split_of and name != self._out_of_scope)
