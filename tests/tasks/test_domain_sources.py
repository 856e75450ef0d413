"""Documents by domain and prompts with completions: what an episode shows, and that no document is on both sides."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacl.config import config_from_dict
from metacl.errors import ConfigError, DataError
from metacl.tasks import DomainText, EpisodeShape, PromptCompletion, TaskAddress
from metacl.tasks.domain_source import DomainEpisodes

SHAPE = EpisodeShape(ways=1, shots=2, queries=3)


def documents(domains=("code", "law", "verse"), count=8, words=60):
    """Every word names its document, so that a window says where it is from."""
    return {d: [" ".join(f"{d}-{n}:{w}" for w in range(words + n)) for n in range(count)] for d in domains}


DOCUMENTS = documents()


@pytest.fixture
def folder(tmp_path):
    for domain, texts in documents(("a", "b", "c", "d", "e")).items():
        (tmp_path / f"{domain}.txt").write_text("\n\u241e\n".join(texts))
    return tmp_path


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4), st.integers(20, 2000))
def test_windows_come_from_different_documents_of_one_domain(seed, step, shots, queries, window):
    source = DomainEpisodes("data", {"train": DOCUMENTS, "valid": {}, "test": {}}, window, 0)
    shape, address = EpisodeShape(ways=1, shots=shots, queries=queries), TaskAddress("train", seed, step, 0)
    source.check("train", shape)
    episode = source.episode(address, shape)
    texts = episode.support_texts + episode.query_texts
    assert source.episode(address, shape) == episode
    assert (len(episode.support_texts), len(episode.query_texts)) == (shots, queries)
    assert all(0 < len(text) <= window for text in texts)
    assert all(any(shown in text for of in DOCUMENTS.values() for text in of) for shown in texts)
    if window >= 200:  # long enough to hold a whole word that names the document
        names = [Counter(word.rsplit(":", 1)[0] for word in text.split()[1:-1]).most_common(1)[0][0] for text in texts]
        assert len(set(names)) == len(names)
        assert {name.split("-")[0] for name in names} == {episode.class_names[0]}


def test_windows_begin_at_words_and_reach_every_part():
    source = DomainEpisodes("data", {"train": documents(count=2), "valid": {}, "test": {}}, 120, 0)
    shape = EpisodeShape(ways=1, shots=1, queries=1)
    begins = set()
    for step in range(400):
        text = source.episode(TaskAddress("train", 0, step, 0), shape).support_texts[0]
        assert text.split()[0].count("-") == 1 and text.split()[0].split("-")[0] in ("code", "law", "verse")
        begins.add(int(text.split()[0].rsplit(":", 1)[1]))
    assert min(begins) <= 1 and max(begins) >= 45 and len(begins) > 40


def test_domains_of_the_splits_are_disjoint_and_follow_the_seed(folder):
    first, again, other = (DomainText(path=folder, split_seed=s).open().sizes() for s in (0, 0, 1))
    assert first == again != other
    assert sorted(name for of in first.values() for name in of) == ["a", "b", "c", "d", "e"]
    assert [len(of) for of in first.values()] == [3, 1, 1]


def test_documents_can_be_split_instead(folder):
    source = DomainText(path=folder, split_by="example", fractions=(0.5, 0.25, 0.25)).open()
    assert [set(of.values()) for of in source.sizes().values()] == [{4}, {2}, {2}]
    every = [text for of in source.documents.values() for texts in of.values() for text in texts]
    assert len(set(every)) == len(every) == 40


def test_domains_from_a_file_of_splits(folder, tmp_path_factory):
    splits = tmp_path_factory.mktemp("splits") / "splits.json"
    splits.write_text(json.dumps({"by": "domain", "train": ["e"], "valid": [], "test": ["a", "b"]}))
    source = DomainText(path=folder, splits=splits).open()
    assert [list(of) for of in source.sizes().values()] == [["e"], [], ["a", "b"]]


def test_exact_duplicates_are_left_out_and_said(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": t, "domain": "d"}) + "\n" for t in ("one", "two", "one")))
    described = DomainText(path=path, fractions=(1.0, 0.0, 0.0)).open().describe()
    assert "2 documents (1 exact duplicates left out), domains: 1 train, 0 valid, 0 test" in described


def prompts(tmp_path, **more):
    path = tmp_path / "problems.jsonl"
    rows = [{"question": f"what is {i} + 1?", "answer": f"it is {i + 1}", **more} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_and_completions_without_domains(tmp_path):
    source = PromptCompletion(path=prompts(tmp_path), marker=" => ").open()
    assert source.sizes() == {"train": {"problems": 12}, "valid": {"problems": 4}, "test": {"problems": 4}}
    assert "guessed: prompt_column 'question', completion_column 'answer'" in source.describe()
    episode = source.episode(TaskAddress("train", 0, 0, 0), SHAPE)
    for text in episode.support_texts + episode.query_texts:
        number = int(text.split()[2])
        assert text == f"what is {number} + 1? => it is {number + 1}"
    assert len({*episode.support_texts, *episode.query_texts}) == 5


def test_survey_places_every_document_in_its_split(folder):
    config = DomainText(path=folder)
    survey, sizes = config.survey(), config.open().sizes()
    assert survey.splits == sizes and survey.unit == "domain" and survey.window == 400
    counted = Counter((example.split, example.group) for example in survey.examples())
    assert counted == {(split, name): size for split, of in sizes.items() for name, size in of.items()}


def test_one_way_only(folder):
    with pytest.raises(DataError, match=r"2-way episodes, but a task is one domain\. Set episodes\.ways=1"):
        DomainText(path=folder).open().check("train", EpisodeShape(ways=2))


def test_the_learner_must_score_after_the_marker(tmp_path):
    tree = {
        "name": "x",
        "learner": {"name": "causal_lm", "model": "none", "completion_after": "A:"},
        "data": {"name": "prompt_completion", "path": str(tmp_path), "marker": "\nA:"},
        "episodes": {"ways": 1},
        "objective": "maml",
    }
    with pytest.raises(ConfigError, match=r"learner\.completion_after: 'A:', but data 'prompt_completion' puts"):
        config_from_dict(tree)
    tree["learner"]["completion_after"] = "\nA:"
    assert config_from_dict(tree).data.completion_marker == "\nA:"
