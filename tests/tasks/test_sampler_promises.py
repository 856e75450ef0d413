"""What every episode promises, whatever its shape: ranges of N and K, imbalance, domains, out-of-scope, mixtures."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2_contingency, chisquare

from metacl.errors import DataError
from metacl.tasks import ClassEpisodes, EpisodeShape, Mixture, TaskAddress
from metacl.tasks.class_texts import group_examples
from metacl.tasks.mixture import MixedEpisodes
from metacl.tasks.readers import Example
from metacl.tasks.splits import SPLITS
from tests.helpers import write_labelled_csv

PER_CLASS = 9
OOS = "nothing of these"


def source_of(domains: int = 3, per_domain: int = 4, **options) -> ClassEpisodes:
    """Domains of classes of texts; the first domain is train, the second valid, the rest test."""
    examples = [
        Example(f"text {i} of {d}.{c}", f"{d}.{c}", 1, f"domain {d}")
        for d in range(domains)
        for c in range(per_domain)
        for i in range(PER_CLASS)
    ]
    if options.get("out_of_scope"):
        examples += [Example(f"stray {i}", OOS, 1, None) for i in range(3 * PER_CLASS)]
    classes = {split: [f"{d}.{c}" for d in of for c in range(per_domain)] for split, of in split_domains(domains)}
    return ClassEpisodes("some data", group_examples(examples), classes, **options)


def split_domains(domains: int):
    return ("train", [0]), ("valid", [1]), ("test", list(range(2, domains)))


addresses = st.builds(
    TaskAddress, st.sampled_from(SPLITS), st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(0, 10**6)
)


@st.composite
def shapes(draw):
    ways, shots = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    low_shots = draw(st.none() | st.integers(1, shots))
    return EpisodeShape(
        ways=ways,
        shots=shots,
        queries=draw(st.integers(1, 4)),
        min_ways=draw(st.none() | st.integers(2, ways)),
        min_shots=low_shots,
        imbalanced=low_shots is not None and draw(st.booleans()),
    )


@settings(max_examples=150)
@given(addresses, shapes(), st.booleans(), st.booleans())
def test_promises_for_any_shape(address, shape, within_domain, beside):
    options = {"within_domain": within_domain}
    if beside:
        thirds = {split: range(place, 3 * PER_CLASS, 3) for place, split in enumerate(SPLITS)}
        options.update(out_of_scope=OOS, out_of_scope_texts=thirds)
    source = source_of(5, **options)
    source.check(address.split, shape)
    episode = source.episode(address, shape)

    assert source.episode(address, shape) == source_of(5, **options).episode(address, shape) == episode
    ways = len(episode.class_names)
    assert (shape.min_ways or shape.ways) <= ways <= shape.ways
    shots, queries = Counter(episode.support_labels), Counter(episode.query_labels)
    assert set(shots) == set(queries) == set(range(ways)) and len(set(episode.class_names)) == ways
    assert all((shape.min_shots or shape.shots) <= count <= shape.shots for count in shots.values())
    assert shape.imbalanced or len(set(shots.values())) == 1
    assert set(queries.values()) == {shape.queries}
    texts = episode.support_texts + episode.query_texts
    assert len(set(texts)) == len(texts)
    for text, label in zip(texts, episode.support_labels + episode.query_labels, strict=True):
        name = episode.class_names[label]
        assert text.endswith(f" of {name}") if name != OOS else text.startswith("stray")
    assert (episode.class_names[-1] == OOS) == beside
    seen = {source.domain_of[name] for name in episode.class_names if name != OOS}
    assert seen <= {f"domain {d}" for d in dict(split_domains(5))[address.split]}
    assert not within_domain or len(seen) == 1


def test_out_of_scope_texts_of_one_split_are_in_no_other():
    thirds = {split: range(place, 3 * PER_CLASS, 3) for place, split in enumerate(SPLITS)}
    source = source_of(3, out_of_scope=OOS, out_of_scope_texts=thirds)
    shape = EpisodeShape(ways=2, shots=3, queries=3)
    seen = {split: set() for split in SPLITS}
    for split in SPLITS:
        for index in range(60):
            episode = source.episode(TaskAddress(split, 0, 0, index), shape)
            seen[split] |= {t for t in episode.support_texts + episode.query_texts if t.startswith("stray")}
    assert [len(texts) for texts in seen.values()] == [PER_CLASS] * 3
    assert len(set.union(*seen.values())) == 3 * PER_CLASS


def test_ranges_are_drawn_uniformly():
    """Chi-square; the addresses are fixed, so the p-values are, too."""
    source = source_of(3, per_domain=6)
    shape = EpisodeShape(ways=6, min_ways=3, shots=5, min_shots=2, queries=1)
    episodes = [source.episode(TaskAddress("train", 3, step, 0), shape) for step in range(1200)]
    ways = Counter(len(e.class_names) for e in episodes)
    shots = Counter(e.support_labels.count(0) for e in episodes)
    assert set(ways) == {3, 4, 5, 6} and set(shots) == {2, 3, 4, 5}
    assert chisquare(list(ways.values())).pvalue > 0.01 and chisquare(list(shots.values())).pvalue > 0.01
    table = Counter((len(e.class_names), e.support_labels.count(0)) for e in episodes)
    assert chi2_contingency([[table[n, k] for k in range(2, 6)] for n in range(3, 7)]).pvalue > 0.01


@pytest.mark.parametrize("vary", ["seed", "step", "index", "split"])
def test_neighbouring_addresses_are_independent(vary):
    """Of two episodes a step apart in one coordinate, the first classes agree as often as chance has it."""
    names = [str(number) for number in range(8)]
    found = group_examples(Example(f"{i} {name}", name, 1) for name in names for i in range(2))
    source = ClassEpisodes("same classes", found, dict.fromkeys(SPLITS, names))
    shape, table = EpisodeShape(ways=1, shots=1, queries=1), Counter()
    for step in range(1600):
        here = {"split": "train", "seed": 5, "step": 2 * step, "index": 7}
        there = {**here, vary: "valid" if vary == "split" else here[vary] + 1}
        if vary == "seed":
            here, there = ({**of, "seed": 2 * step + of["seed"], "step": 0} for of in (here, there))
        first, second = (source.episode(TaskAddress(**of), shape).class_names[0] for of in (here, there))
        table[first, second] += 1
    counts = [[table[a, b] for b in names] for a in names]
    assert chi2_contingency(counts).pvalue > 0.001
    assert chisquare([sum(row) for row in counts]).pvalue > 0.001


def test_every_class_and_every_text_is_drawn_and_all_alike():
    source = source_of(3, per_domain=6)
    shape = EpisodeShape(ways=3, shots=1, queries=2)
    texts, classes = Counter(), Counter()
    for index in range(1200):
        episode = source.episode(TaskAddress("train", 0, 0, index), shape)
        classes.update(episode.class_names)
        texts.update(episode.support_texts + episode.query_texts)
    assert len(classes) == 6 and len(texts) == 6 * PER_CLASS
    # An episode has each class with probability 1/2, and each text with 1/2 · 3/9; six sigma of 1200 draws.
    for counts, chance in ((classes, 1 / 2), (texts, 1 / 6)):
        spread = 6 * binom.std(1200, chance)
        assert all(abs(count - 1200 * chance) < spread for count in counts.values())


def test_domains_are_drawn_alike_whatever_they_hold():
    classes = [(domain, number) for domain, count in (("a", 2), ("b", 12)) for number in range(count)]
    found = group_examples(Example(f"{d}{c}{i}", f"{d}{c}", 1, d) for d, c in classes for i in "xy")
    source = ClassEpisodes("uneven", found, {"train": list(found.texts), "valid": [], "test": []}, within_domain=True)
    shape = EpisodeShape(ways=2, shots=1, queries=1)
    drawn = Counter(source.episode(TaskAddress("train", 0, s, 0), shape).class_names[0][0] for s in range(400))
    assert abs(drawn["a"] - 200) < 6 * 10


def test_a_label_of_several_domains_is_a_class_in_each():
    examples = [Example(f"{d} {label} {i}", label, 1, d) for d in ("books", "films") for label in "+-" for i in "ab"]
    found = group_examples([*examples, Example("x", "only here", 1, "films")])
    assert set(found.texts) == {"books/+", "books/-", "films/+", "films/-", "only here"}
    assert found.domain_of["films/+"] == "films" and found.domain_of["only here"] == "films"


def test_two_classes_that_would_share_a_name_are_refused():
    examples = [Example("1", "x", 1, "a"), Example("2", "x", 1, "b"), Example("3", "a/x", 1, "c")]
    with pytest.raises(DataError, match="two classes get the same name"):
        group_examples(examples)


def test_too_few_classes_in_a_domain_names_it():
    source = source_of(3, within_domain=True)
    with pytest.raises(DataError, match="5-way episodes need 5 classes, but domain 'domain 0' of split 'train' has 4"):
        source.check("train", EpisodeShape(ways=5))


def mixture_of(tmp_path, weights, temperature=1.0):
    parts = []
    for number, weight in enumerate(weights):
        path = tmp_path / f"{number}.csv"
        rows = [f"{number} text {i} of {c},{number}.{c}" for c in range(4) for i in range(6)]
        path.write_text("text,label\n" + "\n".join(rows) + "\n")
        source = {"name": "labelled_text", "path": path, "fractions": (1.0, 0.0, 0.0)}
        parts.append({"source": source, **({} if weight is None else {"weight": weight})})
    return Mixture(sources=parts, temperature=temperature)


def test_a_mixture_at_a_temperature_near_zero_draws_the_largest(tmp_path):
    source = mixture_of(tmp_path, [900.0, 1000.0], temperature=1e-3).open()
    drawn = [source.episode(TaskAddress("train", 0, step, 0), EpisodeShape(ways=1)) for step in range(20)]
    assert {episode.class_names[0][0] for episode in drawn} == {"1"}


@pytest.mark.parametrize(("temperature", "chance"), [(1.0, 0.9), (2.0, 0.75), (1e9, 0.5)])
def test_mixture_draws_by_weight_and_temperature(tmp_path, temperature, chance):
    source = mixture_of(tmp_path, [9.0, 1.0], temperature).open()
    shape = EpisodeShape(ways=2, shots=1, queries=1)
    source.check("train", shape)
    episodes = [source.episode(TaskAddress("train", 1, s, 0), shape) for s in range(1000)]
    first = sum(e.class_names[0].startswith("0.") for e in episodes)
    assert abs(first - 1000 * chance) < 5 * math.sqrt(1000 * chance * (1 - chance))
    assert all(len({name[0] for name in e.class_names}) == 1 for e in episodes)
    assert source.episode(episodes[5].address, shape) == episodes[5]


def test_which_source_is_independent_of_what_it_draws(tmp_path):
    """Both are drawn at one address; from one stream, the first class would follow from the choice."""
    source = mixture_of(tmp_path, [1.0, 1.0]).open()
    shape, table = EpisodeShape(ways=1, shots=1, queries=1), Counter()
    for step in range(1600):
        part, name = source.episode(TaskAddress("train", 0, step, 0), shape).class_names[0].split(".")
        table[part, name] += 1
    assert chi2_contingency([[table[p, c] for c in "0123"] for p in "01"]).pvalue > 0.001


def test_weights_left_out_are_the_numbers_of_training_examples(tmp_path):
    write_labelled_csv(tmp_path / "big.csv", classes=6, per_class=16)
    small = mixture_of(tmp_path, [None, None])
    big = {"source": {"name": "labelled_text", "path": tmp_path / "big.csv", "fractions": (1.0, 0.0, 0.0)}}
    source = Mixture(sources=[small.sources[0].to_dict(), big]).open()
    assert isinstance(source, MixedEpisodes) and source._weights.at(TaskAddress("train", 0, 9, 0)) == [0.25, 1.0]
    assert source.describe().startswith("20.0% ")


def test_what_cannot_be_mixed_is_refused(tmp_path):
    labelled = {"source": {"name": "labelled_text", "dataset": "banking77"}}
    domains = {"source": {"name": "domain_text", "path": "texts"}}
    with pytest.raises(ValueError, match="all must have classes or none"):
        Mixture(sources=[labelled, domains])
    with pytest.raises(ValueError, match="a mixture is of sources of text"):
        Mixture(sources=[labelled, {"source": "omniglot"}])
    with pytest.raises(ValueError, match="at least 2"):
        Mixture(sources=[labelled])


@given(st.integers(1, 40), st.data())
def test_sparse_sampling_is_the_textbook_shuffle(size, data):
    """Fisher-Yates on a list, by the same draws."""
    from metacl.tasks.randomness import AddressedRandom

    count = data.draw(st.integers(0, size))
    address = data.draw(addresses)
    random, pool = AddressedRandom(address), list(range(size))
    for position in range(count):
        other = position + random.below(size - position)
        pool[position], pool[other] = pool[other], pool[position]
    assert AddressedRandom(address).sample(range(size), count) == pool[:count]


def test_a_curriculum_goes_from_the_first_weights_to_the_final_ones(tmp_path):
    """From 3:1 to 0:1 over 400 steps: at step s the first source has 3 (1 − s/400) parts to one."""
    parts = mixture_of(tmp_path, [3.0, 1.0]).to_dict()["sources"]
    source = Mixture(sources=[{**parts[0], "final_weight": 0.0}, parts[1]], curriculum_steps=400).open()
    shape = EpisodeShape(ways=1, shots=1, queries=1)

    def first(split, step, count=300):
        drawn = (source.episode(TaskAddress(split, 2, step, index), shape) for index in range(count))
        return sum(episode.class_names[0].startswith("0.") for episode in drawn)

    for step, left in ((0, 3.0), (200, 1.5), (300, 0.75)):
        low, high = binom.interval(0.9999, 300, left / (left + 1))
        assert low <= first("train", step) <= high, step
    assert first("train", 400) == first("train", 900) == 0
    assert source.describe().startswith("over 400 steps: 75.0% → 0.0% ")
    assert source.episode(TaskAddress("train", 2, 7, 1), shape) == source.episode(TaskAddress("train", 2, 7, 1), shape)
