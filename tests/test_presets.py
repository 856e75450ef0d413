"""Presets: every one loads and passes the checks; a config's own keys win; a wrong name is told the nearest."""

import pytest

from metacl.adaptation import PRECONDITIONERS
from metacl.cli import main
from metacl.config import config_to_yaml, load_config
from metacl.errors import ConfigError
from metacl.metagradients import ESTIMATORS
from metacl.objectives import OBJECTIVES, REWARDS
from metacl.presets import CHOICES, preset, preset_names, preset_summary, with_preset
from metacl.testing import check_estimator, check_objective
from tests.helpers import tiny_config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_passes_the_checks(name, tmp_path):
    tree = preset(name)
    assert set(tree) <= set(CHOICES)
    config = tiny_config(tmp_path, **tree)
    loop = config.inner.model_copy(update={"steps": min(config.inner.steps, 3)})
    assert check_objective(config.objective, loop=loop).failures == ()
    assert check_estimator(config.estimator).failures == ()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_names_its_paper(name):
    assert any(str(year) in preset_summary(name) for year in range(2015, 2027)), preset_summary(name)


def test_own_keys_win_and_neighbours_stay():
    tree = with_preset({"preset": "imaml", "inner": {"steps": 3}, "estimator": "reverse"})
    assert tree["inner"]["steps"] == 3
    assert tree["inner"]["proximal"] == 2.0
    assert tree["estimator"] == {"name": "reverse"}, "another estimator does not take over iMAML's options"
    assert with_preset({"preset": "imaml", "estimator": {"iterations": 2}})["estimator"] == {
        "name": "implicit",
        "iterations": 2,
    }
    assert preset("imaml")["inner"]["steps"] == 16, "the preset itself stays as it is"


def test_without_one_nothing_changes():
    assert with_preset({"inner": {"steps": 3}}) == {"inner": {"steps": 3}}


def test_in_a_config_and_back(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: x\nlearner: mlp\ndata: sinusoid\npreset: fomaml\n")
    config = load_config(path, ["inner.steps=2", "objective=anil"])
    assert (config.objective.registered_name, config.estimator.registered_name) == ("anil", "first_order")
    path.write_text(config_to_yaml(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("given", "said"),
    [("fomalm", r"'fomalm'\. Did you mean 'fomaml'\?"), ("[maml]", "unknown preset"), ("3", "Known: ")],
)
def test_misspelt(tmp_path, given, said):
    path = tmp_path / "run.yaml"
    path.write_text(f"name: x\nlearner: mlp\ndata: sinusoid\npreset: {given}\n")
    with pytest.raises(ConfigError, match=rf"run\.yaml: preset: .*{said}"):
        load_config(path)


def test_list_shows_presets_and_everything_else(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["list"])
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    names = [*preset_names(), *OBJECTIVES.names(), *REWARDS.names(), *PRECONDITIONERS.names(), *ESTIMATORS.names()]
    assert [name for name in names if name not in said] == []
