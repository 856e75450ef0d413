"""Frozen prototypes by a sampler of its own, on test and validation classes: where frozen.py is not as others measured.

Nothing of metacl but its encoder is in it: numpy draws the episodes and takes the means. Prints a line a row; some
minutes, most of them for encoding.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from frozen import SHAPES, SPLITS, config, source
from numpy.typing import NDArray

from metacl.coordination.worker import Worker
from metacl.evaluation import mean_interval
from metacl.evaluation.frozen_features import KeptFeatures

EPISODES, QUERIES = 2000, 5


def accuracies(texts: list[NDArray[np.float32]], ways: int, shots: int, random: np.random.Generator) -> list[float]:
    """Of `EPISODES` episodes; texts : unit-length features (texts, D) of each class."""
    found = []
    for _ in range(EPISODES):
        drawn = [
            of[random.choice(len(of), shots + QUERIES, replace=False)]
            for of in (texts[place] for place in random.choice(len(texts), ways, replace=False))
        ]
        means = np.stack([of[:shots].mean(0) for of in drawn])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        answers = (np.stack([of[shots:] for of in drawn]) @ means.T).argmax(-1)
        found.append(float((answers == np.arange(ways)[:, None]).mean()))
    return found


def main() -> None:
    """OOS and HuffPost."""
    for dataset in ("oos", "huffpost"):
        with tempfile.TemporaryDirectory() as folder:
            opened = {split: config(source(dataset, split, Path(folder))) for split in SPLITS}
            worker = Worker(opened[SPLITS[0]])
            features = KeptFeatures.by(worker).pretrained
            texts = worker.source.texts
            features.encode_ahead(text for of in texts.values() for text in of)
            classes = {split: opened[split].data.open().classes for split in SPLITS}
        of_class = {name: features.of_texts(of).numpy() for name, of in texts.items()}
        for part in ("test", "valid"):
            for shape in ("5w1s", "5w5s"):
                random = np.random.default_rng(7)
                pooled = [
                    accuracy
                    for split in SPLITS
                    for accuracy in accuracies(
                        [of_class[name] for name in classes[split][part]], *SHAPES[shape], random
                    )
                ]
                said = mean_interval(pooled)
                print(f"{dataset} {shape}, {part} classes: {100 * said.mean:.2f} ± {50 * (said.high - said.low):.2f}")


if __name__ == "__main__":
    main()
