"""Where a continual run starts: a meta-learned initialization, or what another continual run ended with."""

from __future__ import annotations

import json
from pathlib import Path

from metacl.errors import ConfigError
from metacl.initialization import read_initialization
from metacl.initialization.folder import FORMAT, load_params, read_about, save_params, written_whole
from metacl.learners import LEARNERS, LearnerConfig
from metacl.learners.base import HEAD, STEP_SIZE, Learner, Params

ABOUT = "continual.json"
"""The file by which a folder with a continual run's model is known."""


def read_start(path: Path, learner: LearnerConfig, seed: int) -> Params:
    """The adaptable parameters in a folder, without head and step sizes.

    Parameters
    ----------
    path : of an initialization, of a run of `metacl train`, of a run of `metacl continual` (then of its run with the
        same seed), or of the ``model`` folder in that.
    learner : what they have to fit.

    Raises
    ------
    ConfigError
        The folder is none of these, or its parameters are of another learner.
    DataError
        It is damaged.
    """
    init = path / "init" if (path / "init" / "adaptation.json").exists() else path
    model = path / f"seed-{seed}" / "model"
    model = model if (model / ABOUT).exists() else path
    if (init / "adaptation.json").exists():
        stored = read_initialization(init)
        found, params = stored.config.learner.to_dict(), dict(stored.meta)
    elif (model / ABOUT).exists():
        # Read as a config is: what was written before an option was there has its default.
        found = LEARNERS.build(read_about(model / ABOUT, "a continual run's model", ("learner",))["learner"]).to_dict()
        params = load_params(model, learner) if found == learner.to_dict() else {}
    else:
        raise ConfigError(
            f"start: {path} holds no initialization (init/adaptation.json) and no model of a continual run with this "
            f"seed (seed-{seed}/model). Give the folder of a finished run, or start=null."
        )
    wanted = learner.to_dict()
    different = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    # How texts are laid out and weighed changes nothing of what the parameters are.
    different = [key for key in different if key not in ("padding", "max_length", "attention", "logit_scale")]
    if different:
        raise ConfigError(
            f"start: {path} is of another learner (learner.{different[0]}: {found.get(different[0])!r}, here "
            f"{wanted.get(different[0])!r}). Make the learner sections equal."
        )
    return {name: tensor for name, tensor in params.items() if not name.startswith((HEAD, STEP_SIZE))}


def write_model(
    path: Path, learner: Learner, config: LearnerConfig, params: Params, class_names: tuple[str, ...]
) -> None:
    """What a run ended with: the adapter as PEFT stores it, the head, and which class each of its rows is."""
    with written_whole(path, ABOUT, "a continual run's model") as aside:
        save_params(params, learner, aside)
        about = {"format": FORMAT, "learner": config.to_dict(), "classes": list(class_names)}
        (aside / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
