"""A small run that tests here share."""

import pytest

from metacl.continual.config import continual_config_from_dict
from tests.continual.everything import EVERYTHING
from tests.small_runs import save_tiny_bert


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def files(tmp_path):
    """Four experiences of two classes each."""
    listed = []
    for k in range(4):
        for part, count in (("train", 9), ("test", 4)):
            rows = [f"{part} text {i} about {c} thing{k},class {c}{k}" for c in "ab" for i in range(count)]
            (tmp_path / f"{part}{k}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        listed.append(
            {"name": f"e{k}", "train": str(tmp_path / f"train{k}.csv"), "test": str(tmp_path / f"test{k}.csv")}
        )
    return listed


@pytest.fixture
def config(tmp_path, model, files):
    """Makes a config of a few seconds."""

    def make(output="run", experiences=3, **changes):
        tree = {
            "name": "small",
            "output": str(tmp_path / output),
            "learner": {
                "name": "text_classifier",
                "model": str(model),
                "max_length": 16,
                "adapter": {"rank": 4, "alpha": 4, "last_layers": 2},
            },
            "stream": {"name": "files", "experiences": files[:experiences]},
            "strategies": EVERYTHING,
            "training": {"epochs": 2, "batch_size": 6, "learning_rate": 0.05, "head": "class_means"},
            "measuring": {"curve": [0, 2]},
        }
        return continual_config_from_dict({**tree, **changes})

    return make
