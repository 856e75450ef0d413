"""Retrieval: what is nearest to a text decides its class or stands in the prompt.

Feature vectors are searched by a faiss index; where a learner gives none, texts by the parts of their words.
A classifier votes among the nearest support examples (Khandelwal et al. 2020, "Generalization through Memorization",
eq. 2, without the language model's share). A causal language model gets them as its examples, the nearest last (Liu et
al. 2022, "What Makes Good In-Context Examples for GPT-3?", sec. 3). A user's documents, which have no labels, are
fetched in the same way: their features move those of a text (Rocchio 1971), or they open the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from metacl.config import RunConfig
from metacl.coordination.worker import Worker
from metacl.errors import DataError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.evaluation.methods.in_context import asked, prompt, shown_examples
from metacl.evaluation.neighbours import Vectors, index_of, unit, votes, without_faiss
from metacl.learners import CausalLanguageModelConfig
from metacl.tasks.readers import read_lines


@METHODS.register("retrieval")
class Retrieval(AdaptationMethod):
    """The nearest support examples, found in an index, vote by exp(cosine / temperature), or fill the prompt.

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
        """faiss must be there for feature vectors. Raises `DataError` if the documents cannot be read."""
        if config.learner.has_features and (missing := without_faiss()):
            return missing
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

    def prepare(self, scene: Scene) -> None:
        """Index the documents."""
        if self.documents is None:
            return
        if scene.worker.config.learner.has_features:
            _known_features(scene, self.documents)
        else:
            _known_words(self.documents)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """An index of the support."""
        (row,) = self.rows()
        yield row, self._voting(scene) if scene.worker.config.learner.has_features else self._prompting(scene)

    def _voting(self, scene: Scene) -> Predictor:
        documents = None if self.documents is None else _known_features(scene, self.documents)
        support = self._moved(unit(scene.frozen.of(scene.support)), documents)
        index, labels = index_of(support), np.asarray(scene.targets.cpu())

        def scores(examples: Examples) -> Tensor:
            asked_for = self._moved(unit(scene.frozen.of(examples)), documents)
            found = votes(index, labels, asked_for, self.neighbours, self.temperature, scene.ways)
            return found.to(scene.worker.learner.device)

        return scores

    def _moved(self, features: Vectors, documents: tuple[Vectors, Any] | None) -> Vectors:
        """Towards the mean of the nearest documents."""
        if documents is None:
            return features
        known, index = documents
        _, places = index.search(features, min(self.fetched, len(known)))
        moved = (1 - self.document_share) * features + self.document_share * known[places].mean(1)
        return moved / np.linalg.norm(moved, axis=1, keepdims=True).clip(1e-12)

    def _prompting(self, scene: Scene) -> Predictor:
        learner, params = asked(scene)
        examples, shown = _Words(scene.support.inputs), shown_examples(learner, scene)
        documents = None if self.documents is None else _known_words(self.documents)

        def written(text: str) -> str:
            before = [shown[place] for place in reversed(examples.nearest(text, self.neighbours))]
            if documents is not None:
                fetched = documents.nearest(text, self.fetched)
                before = [*(documents.texts[place] for place in reversed(fetched)), *before]
            return prompt(learner, before, text, scene.class_names)

        return lambda examples: learner.class_scores(
            params, [written(text) for text in examples.inputs], scene.class_names
        )


class _Words:
    """Texts that are found by their words' parts of three to five letters, weighed as these texts have them.

    TF-IDF (Salton & Buckley 1988, "Term-Weighting Approaches in Automatic Text Retrieval").
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # here, as it takes long to import

        self.texts = texts
        self._vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32)
        self._known = self._vectorizer.fit_transform(texts)  # sparse: there are far more parts than a text has

    def nearest(self, text: str, count: int) -> list[int]:
        """The positions of the `count` texts of the greatest cosine, the nearest first; of equals the first."""
        from sklearn.metrics.pairwise import linear_kernel

        (cosines,) = linear_kernel(self._vectorizer.transform([text]), self._known)
        return np.argsort(-cosines, kind="stable")[:count].tolist()


@lru_cache(maxsize=4)
def _documents(path: Path) -> list[str]:
    """Read once a process."""
    if not path.is_file():
        raise DataError(f"--method-option retrieval.documents={path}: no such file; name one with a text a line.")
    texts = read_lines(path)
    if not texts:
        raise DataError(f"--method-option retrieval.documents={path}: it has no text.")
    return texts


@lru_cache(maxsize=4)
def _known_words(path: Path) -> _Words:
    """Of the documents, once a process."""
    return _Words(_documents(path))


def _known_features(scene: Scene, path: Path) -> tuple[Vectors, Any]:
    """The documents' features and their index, once a worker."""
    known = _FEATURES.setdefault(scene.worker, {})
    if path not in known:
        features = unit(scene.frozen.of_texts(_documents(path)))
        known[path] = features, index_of(features)
    return known[path]


_FEATURES: WeakKeyDictionary[Worker, dict[Path, tuple[Vectors, Any]]] = WeakKeyDictionary()
