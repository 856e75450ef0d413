"""What a language model says after inner steps, against transformers, sacrebleu and rouge-score; and its reward."""

import json

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

import metacl
from metacl.cli import main
from metacl.config import config_from_dict
from metacl.coordination.flat import FlatLayout
from metacl.coordination.worker import Worker
from metacl.evaluation.completions import Completions, CompletionsAfter, completion_rows, examples_said
from metacl.evaluation.methods import META_LEARNED, PRETRAINED
from metacl.initialization import load_initialization, read_initialization
from metacl.learners.base import as_leaves
from metacl.learners.generation import Generation
from metacl.metagradients import plain_gradient, trajectory
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_models import save_family

SHAPE, ADDRESS = EpisodeShape(ways=1, shots=3, queries=4), TaskAddress("test", 1, 0, 0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    rows = [{"prompt": 3 * a, "completion": 2 * b} for a in "abcdefghijklmnopqrst" for b in "gh"]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "prompts",
        "output": str(folder / "run"),
        "learner": {
            "name": "causal_lm",
            "model": str(save_family("llama", folder / "llama", causal=True)),
            "max_length": 16,
            "completion_after": ". ",
            "completion_tokens": 3,
            "adapter": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]},
        },
        "data": {"name": "prompt_completion", "path": str(folder / "rows.jsonl"), "marker": ". "},
        "episodes": {"ways": 1, "shots": 3, "queries": 2},
        "objective": "maml",
        "inner": {"steps": 2, "step_size": {"value": 0.5}},
        "outer": {"steps": 1, "tasks_per_step": 1},
        "workers": {"executor": "local"},
    }


@pytest.fixture(scope="module")
def run(tree):
    return metacl.train(config_from_dict(tree))


def test_what_is_said_is_what_the_adapted_model_says(run):
    stored = read_initialization(run.initialization)
    worker = Worker(stored.config)
    episode = worker.source.episode(ADDRESS, SHAPE)
    meta = FlatLayout.of(stored.meta).flatten(stored.meta)
    found = CompletionsAfter((0, 3), SHAPE, Generation(new_tokens=5))(worker, ADDRESS, meta)[3]
    model = load_initialization(run.initialization).adapt_to_texts(list(episode.support_texts), steps=3)
    prompts, references = zip(*(text.split(". ") for text in episode.query_texts), strict=True)
    assert (found.prompts, found.references, found.reward) == (prompts, references, None)
    assert list(found.said) == [text.strip() for text in model.generate(prompts, Generation(new_tokens=5))]


def test_rows_are_the_libraries_figures_and_paired_gains():
    texts = {
        (PRETRAINED, 0): [("the card is lost", "no"), ("a b c d", "yes it is")],
        (PRETRAINED, 4): [("the card was lost today", "no"), ("a b", "yes")],
        (META_LEARNED, 0): [("my card", "no"), ("c d", "it is")],
        (META_LEARNED, 4): [("my card was lost today", "no"), ("c d e f", "yes it is so")],
    }
    references = [("my card was lost today", "no"), ("c d e f", "yes it is so")]
    answers = {
        row: [Completions(("p", "q"), said, known, 0.5) for said, known in zip(of, references, strict=True)]
        for row, of in texts.items()
    }
    rows = {(row.method, row.steps): row for row in completion_rows(answers)}
    assert rows[PRETRAINED, 0].gains == {}

    def bleus(row):
        return [sacrebleu.corpus_bleu(list(s), [list(r)]).score for s, r in zip(texts[row], references, strict=True)]

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for key, row in rows.items():
        assert row.metrics["bleu"].mean == pytest.approx(sum(bleus(key)) / 2)
        pairs = [
            (r, s) for of, known in zip(texts[key], references, strict=True) for s, r in zip(of, known, strict=True)
        ]
        rouge = [scorer.score(reference, said)["rougeL"].fmeasure for reference, said in pairs]
        assert row.metrics["rougeL"].mean == pytest.approx(sum(rouge) / 4)
        together = sacrebleu.corpus_bleu([s for _, s in pairs], [[r for r, _ in pairs]]).score
        assert row.corpus_bleu == pytest.approx(together)
        assert row.metrics["reward"].mean == 0.5
    assert rows[META_LEARNED, 4].metrics["exact_match"].mean == 1
    paired = stats.ttest_rel(bleus((META_LEARNED, 4)), bleus((PRETRAINED, 4)))
    assert rows[META_LEARNED, 4].gains["bleu"].p_value == pytest.approx(paired.pvalue)
    assert rows[PRETRAINED, 4].gains["exact_match"].mean == pytest.approx(0.0)
    assert examples_said(answers, 1) == [{"prompt": "p", "reference": references[0][0], "said": references[0][0]}]


def test_the_reward_is_of_the_answers_that_the_query_loss_is_made_of(tree):
    objective = {"name": "policy_gradient", "reward": "contains", "samples": 6}
    config = config_from_dict({**tree, "objective": objective})
    worker = Worker(config)
    meta = worker.layout.flatten(worker.initial)
    found = CompletionsAfter((0, 2), SHAPE, None)(worker, ADDRESS, meta)
    assert all(one.said == () and set(one.metrics()) == {"reward"} for one in found.values())
    task = worker.learner.prepare(worker.source.episode(ADDRESS, SHAPE))
    params = as_leaves(worker.initial)
    problem = config.objective.problem(worker.learner, params, task, config.inner)
    drawn = []
    original = worker.learner.sample

    def sample(theta, batch, *rest):
        drawn.append((batch, original(theta, batch, *rest)))
        return drawn[-1][1]

    worker.learner.sample = sample
    for step, state in enumerate(trajectory(problem, plain_gradient(problem), problem.start(params))):
        problem.query_loss(state.theta, params)
        batch, samples = drawn[-1]
        assert batch is task.query
        wanted = [
            sum(reference.strip() in text for text in texts) / 6
            for texts, reference in zip(samples.texts, samples.references, strict=True)
        ]
        if step in found:
            assert found[step].reward == pytest.approx(sum(wanted) / 4)


def test_on_the_command_line(run, tree, tmp_path, capsys):
    def ended(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["evaluate", str(run.folder), *map(str, arguments)])
        return exit_.value.code, " ".join((said := capsys.readouterr()).out.split() + said.err.split())

    asked = ("--queries", 2, "--episodes", 3, "--steps", "0,2")
    code, said = ended(*asked, "--new-tokens", 4, "--json", tmp_path / "found.json", "--report", tmp_path / "r")
    assert code == 0 and "ROUGE-L" in said and "At most 4 tokens" in said, said
    found = json.loads((tmp_path / "found.json").read_text())
    assert json.loads((tmp_path / "r/perplexity_3-shot.json").read_text()) == found
    rows = [(row["method"], row["steps"]) for row in found["completions"]]
    assert rows == [(method, steps) for method in (PRETRAINED, META_LEARNED) for steps in (0, 2)]
    assert set(found["completions"][0]["metrics"]) == {"bleu", "rouge1", "rouge2", "rougeL", "exact_match"}
    assert found["examples"][0]["reference"] in ("gg", "hh")
    code, said = ended("--data", "oos", "--ways", 2, "--new-tokens", 4)
    assert code == 2 and "--new-tokens: it is for the perplexity of a language model" in said
