"""Using an initialization: what is no text is refused in words, what is damaged or not finite is said to be."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

import metacl
from metacl import api
from metacl.errors import ConfigError, DataError, ResourceError, TrainingError
from metacl.initialization import AdaptedClassifier, Initialization, StoredInitialization, write_initialization
from metacl.initialization.folder import written_whole
from tests.small_runs import save_tiny_bert, small_config

TEXTS, LABELS = ["a card", "a pin", "my card", "my pin"], ["card", "pin", "card", "pin"]


@pytest.fixture(scope="module")
def initialization(tmp_path_factory):
    """Never trained."""
    folder = tmp_path_factory.mktemp("start")
    config = small_config(save_tiny_bert(folder / "tiny"), folder / "out")
    _, meta = api.starting_point(config)
    return Initialization(StoredInitialization(config, meta, 0))


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ("a card", ["card"], r"texts: one str was given; pass a list"),
        (TEXTS, "card", r"labels: one str was given; pass a list"),
        (["a card", None], ["card", "pin"], r"text 2 is a NoneType"),
        (["a card", "a pin"], [0, 1], r"label 1 is a int \(0\); labels must be text, for example str\(label\)"),
    ],
)
def test_adapting_to_what_is_no_text(initialization, texts, labels, message):
    with pytest.raises(DataError, match=message):
        initialization.adapt(texts, labels)


def test_predicting_what_is_no_text(initialization):
    model = initialization.adapt(TEXTS, LABELS, steps=1)
    with pytest.raises(DataError, match="one str was given; pass a list"):
        model.predict("a card")
    with pytest.raises(DataError, match="text 2 is a int"):
        model.predict(["a card", 7])
    with pytest.raises(DataError, match="text 2 is empty"):
        model.predict(["a card", " "])
    assert model.predict([]) == []


def test_an_adapted_model_that_is_not_finite_is_refused(initialization, monkeypatch):
    def walk(problem, gradient, start):
        end = real(problem, gradient, start)
        next(iter(end.theta.values())).fill_(float("inf"))
        return end

    real = metacl.initialization.adapt.walk
    monkeypatch.setattr(metacl.initialization.adapt, "walk", walk)
    with pytest.raises(TrainingError, match=r"not finite after 1 inner steps. Take fewer steps"):
        initialization.adapt(TEXTS, LABELS, steps=1)


def test_labels_are_read_as_names_where_training_had_them_in_the_support(initialization):
    tree = initialization.config.to_dict()
    config = metacl.RunConfig.model_validate({**tree, "data": {**tree["data"], "names_in_support": True}})
    reads_names = Initialization(StoredInitialization(config, initialization.meta, 0))
    labels, asked = ["card", "pin", "card", "lostPin"], ["a new card", "what is a pin", "I lost it"]
    found = reads_names.adapt(TEXTS, labels, steps=0).predict(asked)
    by_hand = initialization.adapt([*TEXTS, "card", "lost pin", "pin"], [*labels, "card", "lostPin", "pin"], steps=0)
    assert found == by_hand.predict(asked)
    assert found != initialization.adapt(TEXTS, labels, steps=0).predict(asked)
    with pytest.raises(DataError, match=r"of the labels '1' is no word, .* Give labels that say what they mean"):
        reads_names.adapt(TEXTS, ["1", "2", "1", "2"])


def test_the_label_of_what_is_out_of_scope_is_not_read(initialization, tmp_path):
    tree, scope = initialization.config.to_dict(), {"names_in_support": True, "out_of_scope": "oos"}
    data = {"name": "labelled_text", "path": str(tmp_path / "texts.csv"), **scope}
    config = metacl.RunConfig.model_validate({**tree, "data": data})
    reads_names = Initialization(StoredInitialization(config, initialization.meta, 0))
    labels, asked = ["card", "pin", "oos", "card"], ["a new card", "what is a pin", "I lost it"]
    found = reads_names.adapt(TEXTS, labels, steps=0).predict(asked)
    by_hand = initialization.adapt([*TEXTS, "card", "pin"], [*labels, "card", "pin"], steps=0)
    assert found == by_hand.predict(asked)


@pytest.fixture
def saved(initialization, tmp_path):
    initialization.adapt(TEXTS, LABELS, steps=1).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(format=99), "written in format 99"),
        (lambda about: about.pop("labels"), r"damaged \(labels missing\)"),
        (lambda about: about.pop("config"), r"damaged \(config missing\)"),
    ],
)
def test_adapted_models_that_cannot_be_read(saved, change, message):
    about = json.loads((saved / "adapted.json").read_text())
    change(about)
    (saved / "adapted.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=message):
        metacl.load_adapted(saved)


def test_initialization_with_a_missing_key(initialization, tmp_path):
    path = tmp_path / "init"
    write_initialization(path, initialization.config, initialization.learner, initialization.meta, 0, "card")
    about = json.loads((path / "adaptation.json").read_text())
    del about["step_sizes"]
    (path / "adaptation.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"damaged \(step_sizes missing\)"):
        metacl.load_initialization(path)


def test_adapted_model_without_its_head(saved, initialization):
    model = metacl.load_adapted(saved)
    assert isinstance(model, AdaptedClassifier)
    save_file({"bias": model.params["head.bias"]}, saved / "head.safetensors")
    with pytest.raises(DataError, match=r"damaged \(head\.weight missing\)"):
        metacl.load_adapted(saved)


def test_the_old_folder_stays_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    def refuse_new(self, target):
        if ".tmp-" in self.name:
            raise OSError(5, "Input/output error")
        return real(self, target)

    path = tmp_path / "model"
    path.mkdir()
    (path / "mark").write_text("old")
    real = Path.rename
    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(ResourceError, match="Input/output error"), written_whole(path, "mark", "a thing") as aside:
        (aside / "mark").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (path / "mark").read_text() == "old"


def test_something_else_is_refused_before_writing(tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ConfigError, match="not a thing"), written_whole(tmp_path, "mark", "a thing"):
        pytest.fail("began")
