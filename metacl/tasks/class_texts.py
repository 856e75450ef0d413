"""Examples by class: what every class has to draw from, each text once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from metacl.errors import DataError
from metacl.tasks.readers import Example

Labelled = tuple[str | None, str]
"""A domain, or None where data have no domains, and a label in it."""


@dataclass(frozen=True)
class ClassTexts:
    """The different texts of each class.

    texts : class -> its texts, in the order they were read; exact duplicates within a class are left out, so that a
    class never has one sentence in support and query. A text that carries two labels stays in both classes.
    domain_of : class -> its domain; empty where data have no domains.
    duplicates : how many were left out.
    names : what each class is called, by the domain and label of its rows.
    """

    texts: Mapping[str, Sequence[str]]
    domain_of: Mapping[str, str]
    duplicates: int
    names: Mapping[Labelled, str]


def group_examples(examples: Iterable[Example]) -> ClassTexts:
    """Collect examples in memory."""
    texts: dict[Labelled, dict[str, None]] = {}
    read = 0
    for example in examples:
        texts.setdefault((example.domain, example.label), {})[example.text] = None
        read += 1
    return class_texts({key: list(unique) for key, unique in texts.items()}, read)


def class_texts(texts: Mapping[Labelled, Sequence[str]], read: int) -> ClassTexts:
    """Name the classes of grouped texts. read : how many examples there were with their duplicates."""
    names = class_names(texts)
    return ClassTexts(
        {names[key]: of for key, of in texts.items()},
        {names[key]: key[0] for key in texts if key[0] is not None},
        read - sum(map(len, texts.values())),
        names,
    )


def class_names(keys: Iterable[Labelled]) -> dict[Labelled, str]:
    """A name for each class: its label; "domain/label" for a label that several domains have."""
    keys = list(keys)
    domains: dict[str, int] = {}
    for _, label in keys:
        domains[label] = domains.get(label, 0) + 1
    names = {(domain, label): label if domains[label] == 1 else f"{domain}/{label}" for domain, label in keys}
    if len(set(names.values())) < len(names):
        raise DataError("data.label_column: two classes get the same name from a domain and a label. Rename a label.")
    return names


def with_domains(found: ClassTexts, domains: Mapping[str, Sequence[str]], where: str, beside: str | None) -> ClassTexts:
    """The same classes with domains from a list of the classes of each. beside : a class that belongs to none.

    Raises `DataError` if a class has no domain, or two.
    """
    domain_of: dict[str, str] = {}
    for domain, classes in domains.items():
        for name in classes:
            if name in domain_of:
                raise DataError(f"{where}: class {name!r} stands in two domains, {domain_of[name]!r} and {domain!r}.")
            domain_of[name] = domain
    lacking = [name for name in found.texts if name not in domain_of and name != beside]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise DataError(
            f"{where}: no domain lists {', '.join(map(repr, lacking[:5]))}{more}. Add every class to a domain, or say "
            f"with data.out_of_scope which class belongs to none."
        )
    return replace(found, domain_of={name: domain_of[name] for name in found.texts if name in domain_of})
