"""What a continual run is: a stream, a learner, where it starts, how it learns, and what it does against forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from metacl.config import Stragglers, Workers, read_tree
from metacl.config.fitting import check_prompt
from metacl.continual.probe import ProbeConfig
from metacl.continual.strategies import STRATEGIES, Strategy, asked_by_name
from metacl.continual.streams import STREAMS, StreamSource, TextDomains
from metacl.continual.training import Training
from metacl.errors import ConfigError
from metacl.learners import LEARNERS, LearnerConfig
from metacl.learners.seq2seq_lm import SequenceToSequenceConfig
from metacl.plugins import import_plugins
from metacl.registry import Component, chosen_from, explain


class Measuring(Component):
    """What is measured beside R.

    curve : steps of each experience after which its own test is asked. rows : test examples asked together.
    """

    curve: tuple[NonNegativeInt, ...] = ()
    rows: PositiveInt = 256


class StreamWorkers(Workers):
    """As `metacl.config.Workers`, but a slow group is always waited for: experiences differ in length."""

    stragglers: Stragglers = Stragglers(policy="wait")


class ContinualConfig(Component):
    """A continual run. `output` defaults to ``runs/<name>``.

    seeds : a run each; a seed draws the adapter's random values, the stream, the order of examples and what strategies
    draw. start : null for the pretrained model; or the folder of an initialization, or of a run of `metacl train` or
    `metacl continual` (what it ended with), on the same learner; of it everything but the head is taken.
    scenario : what a text's class is told apart from: all classes of the stream ("class"), those met so far ("seen"),
    or those of its own experience, which is then known in the test, too ("task"). strategies : none is fine-tuning.
    probe : a set of texts that the stream does not teach, asked before it and after each experience; null for none.
    workers : as in a training's config; without the section it is one process without Ray. Seeds are learned side by
    side, and tests are spread over the groups; the ranks of a group share every batch. A slow group is waited for:
    experiences differ. zero_stage : from 1 on the ranks hold a part each of the optimizer's state, too.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    output: Path | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (0,)
    plugins: Annotated[tuple[str, ...], BeforeValidator(import_plugins)] = ()
    learner: Annotated[LearnerConfig, chosen_from(LEARNERS)]
    start: Path | None = None
    stream: Annotated[StreamSource, chosen_from(STREAMS)]
    scenario: Literal["class", "seen", "task"] = "class"
    strategies: tuple[Annotated[Strategy, chosen_from(STRATEGIES)], ...] = ()
    training: Training = Training()
    measuring: Measuring = Measuring()
    probe: ProbeConfig | None = None
    workers: StreamWorkers = StreamWorkers(executor="local")

    @property
    def compiles(self) -> bool:
        """Nothing here is compiled."""
        return False

    @property
    def less_memory(self) -> str:
        """What a user can do whose work does not fit, a sentence."""
        return "Lower training.batch_size, measuring.rows or learner.max_length."

    @model_validator(mode="after")
    def _fits_together(self) -> ContinualConfig:
        if self.learner.takes != "text":
            raise ValueError(
                f"learner: {self.learner.registered_name} takes arrays, and a config's stream is text. "
                f"Set learner=text_classifier, or use metacl.continual from Python"
            )
        if isinstance(self.learner, SequenceToSequenceConfig):
            raise ValueError("learner: seq2seq_lm does not learn streams yet. Set learner=causal_lm")
        by_name = not self.learner.classifies and asked_by_name(self.strategies)
        if self.learner.classifies == isinstance(self.stream, TextDomains) and not by_name:
            needed = (
                "classes, domains or files"
                if self.learner.classifies
                else "text_domains; or strategies to [prompt_only], which asks it about classes and trains nothing"
            )
            raise ValueError(
                f"stream: {self.stream.registered_name} does not fit learner {self.learner.registered_name}. "
                f"Set stream.name to {needed}"
            )
        if self.probe is not None and by_name:
            raise ValueError("probe: prompt_only trains nothing that a probe set could tell. Leave it out")
        if self.probe is not None and self.probe.classes != self.learner.classifies:
            needed = "labelled_text" if self.learner.classifies else "domain_text or prompt_completion"
            raise ValueError(
                f"probe.data: {self.probe.data.registered_name} does not fit learner {self.learner.registered_name}. "
                f"Set probe.data.name to {needed}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one stands there twice")
        if self.scenario == "task" and self.stream.blur:
            raise ValueError("stream.blur: with blurred borders no example has one task. Set scenario=class, or blur=0")
        if self.training.head == "class_means" and not self.learner.has_features:
            raise ValueError("training.head: class_means needs feature vectors. Set training.head=zeros")
        for strategy in self.strategies:
            if strategy.needs_double_backward and not self.learner.double_backward:
                raise ValueError(
                    f"strategies: {strategy.registered_name} differentiates twice, and fused attention has no second "
                    f"derivative. Set learner.attention=eager, or its estimator to first_order"
                )
        self._check_workers()
        return self

    def _check_workers(self) -> None:
        reasons = (
            (
                self.workers.zero_stage == 3 and self.learner.adapts_whole_model,
                "zero_stage: 3 puts what is learned in parts, and strategies look at whole parameters. Set it to 2, or "
                "learner.adapter to an adapter: then only the frozen base lies in shards",
            ),
            (
                self.workers.gradient_shards > 1,
                "gradient_shards: a group's gradients stay in it. Set it to 1; workers.ranks_per_group shares a batch",
            ),
            (
                self.workers.tasks_per_forward > 1,
                "tasks_per_forward: experiences come one by one. Set it to 1; seeds and tests are spread over "
                "workers.groups",
            ),
            (
                self.workers.stragglers.policy != "wait",
                f"stragglers.policy: {self.workers.stragglers.policy}, but experiences differ in length, so none is "
                f"late. Set it to wait; workers.task_timeout_s ends a group that hangs",
            ),
        )
        for holds, reason in reasons:
            if holds:
                raise ValueError(f"workers.{reason}")
        check_prompt(self.learner, self.workers)

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return self.output.expanduser() if self.output is not None else Path("runs") / self.name


def load_continual_config(path: str | Path, overrides: Sequence[str] = ()) -> ContinualConfig:
    """Read a YAML config and apply ``key.sub=value`` overrides. Raises `ConfigError` as `metacl.config.load_config`."""
    return continual_config_from_dict(read_tree(Path(path), overrides, ContinualConfig), origin=str(path))


def continual_config_from_dict(tree: dict[str, Any], origin: str = "config") -> ContinualConfig:
    """Check a tree of plain values and build the config. Raises `ConfigError` prefixed with `origin`."""
    try:
        return ContinualConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, ContinualConfig)}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
