"""A stream learned on worker groups, killed or stopped or not, leaves the bytes that one process leaves."""

import os
import signal

import pytest
import yaml

from metacl import api
from metacl.cli import main
from metacl.continual.config import continual_config_from_dict
from metacl.errors import RunInterrupted, TrainingError
from tests.continual.everything import EVERYTHING
from tests.continual.test_run import timeless
from tests.small_runs import save_tiny_bert

pytestmark = pytest.mark.ray


class Stream:
    """Runs of two seeds on three experiences, with every memory there is, and the one that nothing disturbed."""

    def __init__(self, folder):
        self.folder, self.mark = folder, folder / "struck"
        save_tiny_bert(folder / "model")
        for k in range(3):
            for part, count in (("train", 9), ("test", 4)):
                rows = [f"{part} text {i} about {c} thing{k},class {c}{k}" for c in "ab" for i in range(count)]
                (folder / f"{part}{k}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        self.mark.touch()
        self.run("undisturbed")

    def config(self, name, seeds=(0, 1), training=None, **workers):
        files = [
            {"name": f"e{k}", **{part: str(self.folder / f"{part}{k}.csv") for part in ("train", "test")}}
            for k in range(3)
        ]
        tree = {
            "name": "small",
            "output": str(self.folder / name),
            "seeds": seeds,
            "plugins": ["tests.ray.killing"],
            "learner": {
                "name": "text_classifier",
                "model": str(self.folder / "model"),
                "max_length": 16,
                "adapter": {"rank": 3, "alpha": 4, "last_layers": 2},
            },
            "stream": {"name": "files", "experiences": files},
            "strategies": [*EVERYTHING, {"name": "killed_once", "mark": str(self.mark)}],
            "training": {"batch_size": 6, "learning_rate": 0.05, "head": "class_means", **(training or {})},
            "measuring": {"curve": [0, 2]},
        }
        return continual_config_from_dict({**tree, **({"workers": workers} if workers else {})})

    def run(self, name, notify=lambda _: None, **changes):
        api.continual(self.config(name, **changes), notify)

    def same(self, name, undisturbed="undisturbed"):
        """Whether a run left what the undisturbed one did: R and all else that is measured, every tensor."""
        expected, found = self.folder / undisturbed, self.folder / name
        files = sorted(path.relative_to(expected) for path in expected.rglob("*.safetensors"))
        seeds = len(list(expected.glob("seed-*")))
        assert len(files) == seeds * (2 * 2 + 2)  # of each seed two checkpoints, an adapter and a head
        assert timeless(found) == timeless(expected)
        return all((found / file).read_bytes() == (expected / file).read_bytes() for file in files)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    return Stream(tmp_path_factory.mktemp("stream"))


def test_two_groups_one_of_which_is_killed_in_the_middle_of_an_experience(ray_cluster, stream):
    stream.mark.unlink()
    notes = []
    stream.run("killed", notes.append, groups=2)
    assert stream.mark.exists()
    assert any("is lost" in note for note in notes)
    assert [note for note in notes if "reissuing 1 task(s): train/" in note and "step=1" in note]
    assert stream.same("killed")


def test_stopped_on_two_groups_and_resumed_in_one_process(ray_cluster, stream):
    def stop(line):
        if ": 1/3 " in line:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunInterrupted, match="The same command continues"):
        stream.run("stopped", stop, groups=2)
    assert not (stream.folder / "stopped/results.json").exists()
    stream.run("stopped")
    assert stream.same("stopped")


def test_a_rank_of_a_group_is_killed_in_the_middle_of_an_experience(ray_cluster, stream):
    """The bits are those of two ranks, with the optimizer's state in parts or not."""
    stream.run("ranks", seeds=[0], ranks_per_group=2)
    stream.mark.unlink()
    notes = []
    stream.run("rank killed", notes.append, seeds=[0], ranks_per_group=2, zero_stage=1)
    assert stream.mark.exists()
    assert any("worker group 0 is lost" in note for note in notes)
    assert [note for note in notes if "reissuing 1 task(s): train/" in note and "step=1" in note]
    assert stream.same("rank killed", "ranks")


def test_a_loss_that_is_not_finite_is_told_in_one_message(ray_cluster, stream, capfd):
    """By two groups of two ranks, all of which meet it."""
    config = stream.config("diverges", training={"learning_rate": 1e30}, groups=2, ranks_per_group=2)
    path = stream.folder / "diverges.yaml"
    # La-MAML among the strategies would set its own step sizes.
    path.write_text(yaml.safe_dump({**config.to_dict(), "strategies": []}))
    with pytest.raises(SystemExit) as ended:
        main(["continual", str(path)])
    assert ended.value.code == TrainingError.exit_code
    told = capfd.readouterr()
    assert "error: the loss is not finite in experience 0, step 1 of seed" in told.err
    assert "Traceback" not in told.err + told.out and "Unhandled" not in told.err + told.out
    assert not (stream.folder / "diverges/results.json").exists()
