"""Class- or domain-disjoint splits of a config's data, as a file that data.splits takes."""

from __future__ import annotations

from collections.abc import Sequence

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.tasks.domain_source import DomainSource
from metacl.tasks.episode import Unit
from metacl.tasks.labelled_text import LabelledText
from metacl.tasks.splits import SPLITS, Names, split_at_random


def propose_splits(config: RunConfig, by: Unit, fractions: Sequence[float], seed: int) -> Names:
    """Draw the splits.

    Raises
    ------
    ConfigError
        The data have no such units, or none for one of the splits that `fractions` asks for.
    """
    units = _units(config, by)
    names = split_at_random(units, fractions, seed)
    empty = [split for split, share in zip(SPLITS, fractions, strict=True) if share > 0 and not names[split]]
    if empty:
        raise ConfigError(
            f"--fractions: {len(units)} {by} names, cut in parts of {tuple(fractions)}, leave none for {empty[0]}. "
            f"Change --fractions or --by."
        )
    return names


def _units(config: RunConfig, by: Unit) -> list[str]:
    data = config.data
    if isinstance(data, LabelledText) and data.path is not None:
        if by == "domain" and data.domains is None and data.domain_column is None:
            raise ConfigError("--by domain: the data have no domains. Set data.domain_column or data.domains.")
        chosen = data.model_copy(update={"split_by": by})
        return chosen.units(chosen.read())
    if isinstance(data, DomainSource):
        if by == "class":
            raise ConfigError(f"--by class: data {data.registered_name!r} has domains, no classes. Use --by domain.")
        return data.domains()
    raise ConfigError(f"data: {data.registered_name!r} as configured has splits of its own; there is nothing to split.")
