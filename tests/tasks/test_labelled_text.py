"""Episodes: their promises for any shape and address, and the refusals of shapes that cannot be drawn."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacl.errors import ConfigError, DataError
from metacl.registry import explain
from metacl.tasks import ClassEpisodes, EpisodeShape, LabelledText, TaskAddress
from metacl.tasks.class_texts import group_examples
from metacl.tasks.readers import Example
from tests.helpers import write_labelled_csv

SPLITS = ("train", "valid", "test")


def examples_of(sizes: dict[str, int]) -> list[Example]:
    return [Example(f"{label} text {i}", label, 1) for label, size in sizes.items() for i in range(size)]


def source_of(sizes: dict[str, int], **classes: list[str]) -> ClassEpisodes:
    found = group_examples(examples_of(sizes))
    return ClassEpisodes("some data", found, {split: classes.get(split, []) for split in SPLITS})


@st.composite
def drawable(draw):
    """A source, a shape it can serve, and an address in a split that has classes enough."""
    shape = EpisodeShape(ways=draw(st.integers(1, 4)), shots=draw(st.integers(1, 3)), queries=draw(st.integers(1, 3)))
    need = shape.shots + shape.queries
    per_split = [draw(st.integers(shape.ways, 6)) for _ in SPLITS]
    names = [f"{split}{number}" for split, count in zip(SPLITS, per_split, strict=True) for number in range(count)]
    sizes = {name: draw(st.integers(need, need + 4)) for name in names}
    source = source_of(sizes, **{split: [n for n in names if n.startswith(split)] for split in SPLITS})
    address = TaskAddress(
        draw(st.sampled_from(SPLITS)),
        draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(0, 10**6)),
        draw(st.integers(0, 10**6)),
    )
    return source, shape, address


@given(drawable())
def test_promises_of_an_episode(case):
    source, shape, address = case
    source.check(address.split, shape)
    episode = source.episode(address, shape)

    assert not set(episode.support_texts) & set(episode.query_texts)
    assert len(set(episode.support_texts)) == len(episode.support_texts) == shape.ways * shape.shots
    assert len(set(episode.query_texts)) == len(episode.query_texts) == shape.ways * shape.queries
    assert Counter(episode.support_labels) == dict.fromkeys(range(shape.ways), shape.shots)
    assert Counter(episode.query_labels) == dict.fromkeys(range(shape.ways), shape.queries)
    assert len(set(episode.class_names)) == shape.ways
    assert set(episode.class_names) <= set(source.classes[address.split])
    for text, label in zip(
        episode.support_texts + episode.query_texts, episode.support_labels + episode.query_labels, strict=True
    ):
        assert text.startswith(episode.class_names[label] + " text ")
    assert episode.address == address
    assert source.episode(address, shape) == episode


@given(drawable())
def test_order_of_the_given_classes_does_not_matter(case):
    source, shape, address = case
    examples = [Example(text, label, 1) for label, texts in source.texts.items() for text in texts]
    reordered = {split: list(reversed(names)) for split, names in source.classes.items()}
    other = ClassEpisodes("other", group_examples(examples), reordered)
    assert other.episode(address, shape) == source.episode(address, shape)


def test_every_class_is_drawn_about_equally_often():
    names = [f"c{number}" for number in range(8)]
    source = source_of(dict.fromkeys(names, 4), train=names)
    shape = EpisodeShape(ways=2, shots=1, queries=1)
    drawn = Counter(
        name for index in range(400) for name in source.episode(TaskAddress("train", 0, 0, index), shape).class_names
    )
    assert set(drawn) == set(names)
    # Binomial(400, 1/4): 100 expected, standard deviation 8.7.
    assert all(abs(count - 100) < 4 * 8.7 for count in drawn.values())


def test_every_text_is_eventually_support_and_eventually_query():
    source = source_of({"a": 5, "b": 5}, train=["a", "b"])
    shape = EpisodeShape(ways=2, shots=1, queries=1)
    episodes = [source.episode(TaskAddress("train", 0, step, 0), shape) for step in range(80)]
    everything = {text for texts in source.texts.values() for text in texts}
    assert {text for episode in episodes for text in episode.support_texts} == everything
    assert {text for episode in episodes for text in episode.query_texts} == everything


def test_duplicates_within_a_class_are_left_out_and_counted():
    examples = [Example(text, label, 1) for text, label in [("hi", "a"), ("yo", "a"), ("hi", "a"), ("hi", "b")]]
    source = ClassEpisodes("some data", group_examples(examples), {"train": ["a", "b"], "valid": [], "test": []})
    assert source.texts == {"a": ["hi", "yo"], "b": ["hi"]}
    assert source.duplicates == 1
    assert source.describe() == "some data: 3 examples (1 exact duplicates left out), classes: 2 train, 0 valid, 0 test"


def test_more_ways_than_classes():
    source = source_of({"a": 9, "b": 9}, test=["a", "b"])
    with pytest.raises(DataError, match=r"3-way episodes need 3 classes, but split 'test' has 2.*episodes\.ways"):
        source.check("test", EpisodeShape(ways=3))
    source.check("test", EpisodeShape(ways=2))


def test_class_with_too_few_examples():
    source = source_of({"big": 9, "small": 5, "exact": 6}, train=["big", "small", "exact"])
    shape = EpisodeShape(ways=2, shots=1, queries=5)
    with pytest.raises(DataError, match=r"need 6 different examples.*'small' \(5\).*episodes\.shots") as caught:
        source.check("train", shape)
    assert "'exact'" not in str(caught.value)
    source.check("train", EpisodeShape(ways=2, shots=1, queries=4))


def test_many_small_classes_are_not_all_listed():
    names = [f"c{number}" for number in range(9)]
    with pytest.raises(DataError, match=r"'c4' \(2\) and 4 more\."):
        source_of(dict.fromkeys(names, 2), train=names).check("train", EpisodeShape(ways=2))


def test_own_file_is_split_by_fractions(tmp_path):
    path = write_labelled_csv(tmp_path / "own.csv", classes=20)
    source = LabelledText(path=path, fractions=(0.5, 0.2, 0.3)).open()
    assert {split: len(names) for split, names in source.classes.items()} == {"train": 10, "valid": 4, "test": 6}
    every = [name for names in source.classes.values() for name in names]
    assert sorted(every) == sorted(f"class{number}" for number in range(20))
    assert str(path) in source.describe()


def test_own_file_is_split_by_its_seed(tmp_path):
    path = write_labelled_csv(tmp_path / "own.csv", classes=20)
    first, again, other = (LabelledText(path=path, split_seed=seed).open().classes for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_share_of_nothing_gets_no_class(tmp_path):
    path = write_labelled_csv(tmp_path / "own.csv", classes=5)
    assert LabelledText(path=path, fractions=(0.5, 0.5, 0.0)).open().classes["test"] == []


def message_of(**options) -> str:
    with pytest.raises(ValueError) as caught:
        LabelledText(**options)
    return explain(caught.value, LabelledText, prefix="data.")


@pytest.mark.parametrize("options", [{}, {"dataset": "oos", "path": "x.csv"}])
def test_exactly_one_origin(options):
    message = message_of(**options)
    assert "exactly one of data.dataset (bundled: banking77, hwu64, oos) and data.path" in message


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_are_parts_of_one(fractions):
    assert "data.fractions must be three parts of 1" in message_of(path="x.csv", fractions=fractions)


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"data\.dataset: no bundled data set 'bankng77'. Did you mean 'banking77'"):
        LabelledText(dataset="bankng77").open()


def test_unknown_class_split_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"data\.class_split: oos has no split '06'. Known: 01, 02, 03, 04, 05"):
        LabelledText(dataset="oos", class_split="06").open()


def test_negative_split_seed_is_refused(tmp_path):
    path = write_labelled_csv(tmp_path / "own.csv")
    with pytest.raises((ValueError, ConfigError), match="split_seed"):
        LabelledText(path=path, split_seed=-1).open()


def test_out_of_scope_texts_are_split_as_the_file_of_splits_was_drawn(tmp_path):
    rows = [{"text": f"{c} {i}", "label": c} for c in ("a", "b", "c", "oos") for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"train": ["a"], "valid": ["b"], "test": ["c"]}

    def sizes(**said):
        (tmp_path / "s.json").write_text(json.dumps({"by": "class", **names, **said}))
        source = LabelledText(path=tmp_path / "a.jsonl", splits=tmp_path / "s.json", out_of_scope="oos").open()
        return {split: of["oos"] for split, of in source.sizes().items()}

    assert sizes(fractions=[0.5, 0.25, 0.25], seed=3) == {"train": 10, "valid": 5, "test": 5}
    assert sizes() == {"train": 8, "valid": 4, "test": 8}  # data.fractions
    with pytest.raises(DataError, match="'fractions', three parts of 1"):
        sizes(fractions=[0.5, 0.5], seed=3)


def test_names_in_the_support_come_after_the_same_texts():
    found = group_examples(examples_of({"lostCard": 4, "new_pin": 4, "top-up": 4}))
    classes = {"train": ["lostCard", "new_pin", "top-up"], "valid": [], "test": []}
    without, named = (ClassEpisodes("some data", found, classes, names_in_support=shown) for shown in (False, True))
    shape, address = EpisodeShape(ways=3, shots=2, queries=1), TaskAddress("train", 0, 0, 7)
    plain, episode = without.episode(address, shape), named.episode(address, shape)
    words = {"lostCard": "lost card", "new_pin": "new pin", "top-up": "top up"}
    assert episode.support_texts == (*plain.support_texts, *(words[name] for name in plain.class_names))
    assert episode.support_labels == (*plain.support_labels, 0, 1, 2)
    assert (episode.query_texts, episode.query_labels) == (plain.query_texts, plain.query_labels)
    assert "the name of each class is in the support" in named.describe()


def test_names_that_are_no_words_are_refused():
    found = group_examples(examples_of({"card": 4, "39": 4}))
    source = ClassEpisodes("some data", found, {"train": ["card", "39"]}, names_in_support=True)
    with pytest.raises(DataError, match=r"names_in_support: of the names of classes '39' is no word. Leave it out"):
        source.check("train", EpisodeShape(ways=2, shots=1, queries=1))


def test_names_of_the_same_words_are_refused():
    found = group_examples(examples_of({"lost_card": 4, "lostCard": 4}))
    source = ClassEpisodes("some data", found, {"train": ["lost_card", "lostCard"]}, names_in_support=True)
    with pytest.raises(DataError, match=r"'lostCard' and 'lost_card' are the same words. Leave it out, or give"):
        source.check("train", EpisodeShape(ways=2, shots=1, queries=1))


def test_the_name_of_what_is_out_of_scope_is_no_example():
    found = group_examples(examples_of({"card": 4, "pin": 4, "oos": 4}))
    scope = {"out_of_scope": "oos", "out_of_scope_texts": {"train": range(4)}}
    source = ClassEpisodes("some data", found, {"train": ["card", "pin"]}, names_in_support=True, **scope)
    shape = EpisodeShape(ways=3, shots=1, queries=1)
    source.check("train", shape)
    episode = source.episode(TaskAddress("train", 0, 0, 7), shape)
    assert episode.class_names[-1] == "oos" and episode.support_labels == (0, 1, 2, 0, 1)
    assert episode.support_texts[3:] == episode.class_names[:2]
