"""Retrieval: what is nearest to a text, found by a faiss index, decides its class or stands in the prompt.

A classifier votes among the nearest support examples (Khandelwal et al. 2020, "Generalization through Memorization",
eq. 2, without the language model's share). A causal language model gets them as its examples, the nearest last (Liu et
al. 2022, "What Makes Good In-Context Examples for GPT-3?", sec. 3). A user's documents, which have no labels, are
fetched in the same way: their features move those of a text (Rocchio 1971), or they open the prompt.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.nn.functional import normalize

from metacl.config import RunConfig
from metacl.errors import DataError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.evaluation.methods.in_context import asked, prompt, shown_examples
from metacl.learners import CausalLanguageModelConfig
from metacl.tasks.readers import read_lines

Vectors = Callable[[Sequence[str]], np.ndarray]
"""Unit vectors (B, D) of B texts, float32."""


@METHODS.register("retrieval")
class Retrieval(AdaptationMethod):
    """The nearest support examples, found in a faiss index, vote by exp(cosine / temperature), or fill the prompt.

    neighbours : how many examples, at most. temperature : of their votes.
    documents : a UTF-8 file of your own, one text a line; null for none. document_share : how far the mean of the
    nearest of them moves a text's features, 0 to 1. fetched : how many of them.
    """

    neighbours: PositiveInt = 5
    temperature: PositiveFloat = 0.1
    documents: Path | None = None
    document_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    fetched: PositiveInt = 3
    reads_features: ClassVar[bool] = True

    def obstacle(self, config: RunConfig) -> str | None:
        """faiss must be there. Raises `DataError` if the documents cannot be read."""
        if importlib.util.find_spec("faiss") is None:
            return "it needs faiss, which is not installed. Install it: pip install faiss-cpu"
        if not (config.learner.has_features or isinstance(config.learner, CausalLanguageModelConfig)):
            return f"it reads feature vectors, and learner {config.learner.registered_name!r} gives none."
        if self.documents is not None:
            if config.data.gives != "text":
                return f"documents are texts, and data {config.data.registered_name!r} gives none."
            _documents(self.documents)
        return super().obstacle(config)

    def rows(self) -> list[Row]:
        """One."""
        what = "support" if self.documents is None else "support and documents"
        return [Row(f"retrieval, {what}", None)]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """An index of the support."""
        (row,) = self.rows()
        yield row, self._prompting(scene) if not scene.worker.config.learner.has_features else self._voting(scene)

    def _voting(self, scene: Scene) -> Predictor:
        documents = self._documents_by(lambda texts: _array(normalize(scene.frozen.of_texts(texts), dim=-1)))
        support = self._moved(_array(normalize(scene.frozen.of(scene.support), dim=-1)), documents)
        index, labels = _index(support), np.asarray(scene.targets.cpu())

        def scores(examples: Examples) -> Tensor:
            asked_for = self._moved(_array(normalize(scene.frozen.of(examples), dim=-1)), documents)
            cosines, places = index.search(asked_for, min(self.neighbours, len(labels)))
            votes = np.zeros((len(asked_for), scene.ways))
            rows = np.arange(len(asked_for))[:, None]
            np.add.at(votes, (rows, labels[places]), np.exp((cosines - 1) / self.temperature))
            least = np.finfo(np.float64).tiny  # a class without a vote
            return torch.from_numpy(np.log(votes + least)).to(scene.worker.learner.device)

        return scores

    def _moved(self, features: np.ndarray, documents: tuple[list[str], np.ndarray] | None) -> np.ndarray:
        """Towards the mean of the nearest documents."""
        if documents is None:
            return features
        known = documents[1]
        _, places = _index(known).search(features, min(self.fetched, len(known)))
        moved = (1 - self.document_share) * features + self.document_share * known[places].mean(1)
        return moved / np.linalg.norm(moved, axis=1, keepdims=True).clip(1e-12)

    def _prompting(self, scene: Scene) -> Predictor:
        learner, params = asked(scene)
        texts = list(scene.support.inputs)
        vectors = _tf_idf([*texts, *(_documents(self.documents) if self.documents else ())])
        documents = self._documents_by(vectors)
        documents_index = None if documents is None else _index(documents[1])
        examples_index, shown = _index(vectors(texts)), shown_examples(learner, scene)

        def written(text: str) -> str:
            (nearest,) = examples_index.search(vectors([text]), min(self.neighbours, len(texts)))[1]
            before = [shown[place] for place in reversed(nearest)]
            if documents is not None and documents_index is not None:
                (fetched,) = documents_index.search(vectors([text]), min(self.fetched, len(documents[0])))[1]
                before = [*(documents[0][place] for place in reversed(fetched)), *before]
            return prompt(learner, before, text, scene.class_names)

        return lambda examples: learner.class_scores(
            params, [written(text) for text in examples.inputs], scene.class_names
        )

    def _documents_by(self, vectors: Vectors) -> tuple[list[str], np.ndarray] | None:
        if self.documents is None:
            return None
        texts = _documents(self.documents)
        return texts, vectors(texts)


@lru_cache(maxsize=4)
def _documents(path: Path) -> list[str]:
    """Read once a process."""
    if not path.is_file():
        raise DataError(f"--method-option retrieval.documents={path}: no such file; name one with a text a line.")
    texts = read_lines(path)
    if not texts:
        raise DataError(f"--method-option retrieval.documents={path}: it has no text.")
    return texts


def _tf_idf(texts: Sequence[str]) -> Vectors:
    """By words and their parts of three to five letters, as these texts have them (Salton & Buckley 1988)."""
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(texts)
    return lambda asked_for: vectorizer.transform(asked_for).toarray().astype(np.float32)


def _array(features: Tensor) -> np.ndarray:
    return features.float().cpu().numpy()


def _index(vectors: np.ndarray) -> Any:
    """Exact search by inner product."""
    import faiss  # optional, and looked for in `obstacle`

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index
