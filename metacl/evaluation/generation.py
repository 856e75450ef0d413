"""How near generated texts are to references: BLEU, ROUGE, exact match; by the libraries of published figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

ROUGE = ("rouge1", "rouge2", "rougeL")


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 of B texts, 0 … 100 (Papineni et al. 2002; sacrebleu's 13a tokens, exponential smoothing).

    Parameters
    ----------
    references : B lists
        Of one or more references for each text.
    """
    _as_many(texts, references)
    from sacrebleu import corpus_bleu  # here, as it takes long to import

    most = max(map(len, references))
    # sacrebleu wants a list for the first reference of every text, one for the second, …; None where there is none.
    columns = [[own[place] if place < len(own) else None for own in references] for place in range(most)]
    return float(corpus_bleu(list(texts), cast(list[list[str]], columns)).score)


def rouge(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean F of ROUGE-1, -2 and -L over B texts, 0 … 1, with stemming (Lin 2004); of several references the best."""
    _as_many(texts, references)
    from rouge_score.rouge_scorer import RougeScorer  # here, as it takes long to import

    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    scores = [scorer.score_multi(list(own), text) for text, own in zip(texts, references, strict=True)]
    return {kind: sum(score[kind].fmeasure for score in scores) / len(scores) for kind in ROUGE}


def exact_match(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of B texts that equal one of their references but for case, space and closing punctuation."""
    _as_many(texts, references)
    right = [_plain(text) in {_plain(one) for one in own} for text, own in zip(texts, references, strict=True)]
    return sum(right) / len(right)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".!?").casefold()


def _as_many(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not texts or len(texts) != len(references) or not all(references):
        raise ValueError(f"each text needs a reference: got {len(texts)} texts and references for {len(references)}")
