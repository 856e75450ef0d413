"""A minibatch of any examples is what the learner makes of those examples."""

import pytest
import torch

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.pool import Pool
from metacl.errors import ConfigError
from metacl.learners import TextClassifierConfig
from tests.small_runs import save_tiny_bert


def stream():
    """Two experiences with texts of very different lengths."""
    texts = [" ".join(["card"] * length) for length in (1, 9, 3, 28, 2, 5)]
    experiences = [
        Experience(name, Examples([f"{name} {text}" for text in texts], (0, 1, 0, 1, 0, 1)), Examples(["x"], (0,)))
        for name in ("lost", "my new")
    ]
    return Stream(tuple(experiences), ("a", "b"))


@pytest.mark.parametrize("last_layers", [1, None])  # with activations computed once, and without
def test_rows_of_two_experiences(tmp_path, last_layers):
    model = str(save_tiny_bert(tmp_path / "tiny"))
    learner = TextClassifierConfig(model=model, adapter={"rank": 2, "last_layers": last_layers}).build(0)
    made = stream()
    addresses = [(0, 3), (1, 0), (1, 3), (0, 0), (1, 4), (0, 3), (1, 2)]
    pool = Pool(learner, made, rows=4)
    found = pool.minibatch(addresses)
    texts = [made.experiences[k].train.inputs[place] for k, place in addresses]
    params = {name: tensor + 0.1 for name, tensor in learner.initial.items()}
    with torch.no_grad():
        alone = torch.cat([learner.features(params, learner.encode([text], None)) for text in texts])
        assert torch.allclose(learner.features(params, found.batch), alone, atol=1e-5)
    pool.keep({(0, 3), (1, 4)})
    assert all(
        torch.equal(a, b) for a, b in zip(pool.minibatch(addresses).batch.tensors(), found.batch.tensors(), strict=True)
    )
    assert found.batch.targets.tolist() == [1, 0, 1, 0, 0, 1, 0] and len(found.batch.groups) > 1


def test_packed_texts_are_refused(tmp_path):
    model = str(save_tiny_bert(tmp_path / "tiny"))
    learner = TextClassifierConfig(model=model, padding="packed", adapter={"rank": 2}).build(0)
    with pytest.raises(ConfigError, match=r"learner\.padding: packed"):
        Pool(learner, stream(), rows=4).minibatch([(0, 0)])
