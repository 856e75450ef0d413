"""Inner loops from a start: the pretrained model, what was learned, or what another run learned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, NonNegativeInt

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.evaluation.methods.base import (
    META_LEARNED,
    METHODS,
    PRETRAINED,
    AdaptationMethod,
    Predictor,
    Row,
    Scene,
)
from metacl.evaluation.walk import bound_after
from metacl.initialization.folder import StoredInitialization, read_initialization
from metacl.learners.base import LearnerConfig, Params
from metacl.tasks import seen_classes

Steps = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


def _several(value: Any) -> Any:
    """One folder is a list of one."""
    return (value,) if isinstance(value, str | Path) else value


Starts = Annotated[
    tuple[Path, ...], BeforeValidator(_several), Field(min_length=1, examples=["runs/a", "[runs/a, runs/b]"])
]


class InnerSteps(AdaptationMethod):
    """The steps of a config's inner loop, with predictions after some of them.

    steps : after how many.
    """

    steps: Steps
    reads_batches: ClassVar[bool] = True


class OneStart(InnerSteps):
    """The run's own inner loop from one start."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The rows' method."""

    @abstractmethod
    def start(self, scene: Scene) -> Params:
        """The parameters to begin from."""

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(self.label, step) for step in sorted(set(self.steps))]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """A predictor after every number of steps asked for; its scores are logits."""
        for step, predictor in after_steps(scene, scene.worker.config, self.start(scene), self.steps):
            yield Row(self.label, step), predictor


@METHODS.register("meta_learned")
class MetaLearned(OneStart):
    """The inner loop from the learned initialization, with the learned step sizes."""

    @property
    def label(self) -> str:
        """What was trained."""
        return META_LEARNED

    def start(self, scene: Scene) -> Params:
        """What was learned."""
        return scene.worker.parameters(scene.meta)


@METHODS.register("pretrained")
class Pretrained(OneStart):
    """The same inner loop from the pretrained model, with the config's step sizes."""

    @property
    def label(self) -> str:
        """What training began from."""
        return PRETRAINED

    def start(self, scene: Scene) -> Params:
        """The parameters before training."""
        return scene.worker.parameters(scene.worker.layout.flatten(scene.worker.initial))


@METHODS.register("other_starts")
class OtherStarts(InnerSteps):
    """What other runs learned, each with its own inner loop: another algorithm, other data.

    starts : folders of runs or initializations on the same pretrained model with the same adapter.
    """

    starts: Starts

    def obstacle(self, config: RunConfig) -> str | None:
        """Each start must fit the model. Raises `DataError` if one cannot be read."""
        check_starts(self, self.starts, config)
        check_heads(self, self.starts, config)
        return super().obstacle(config)

    def rows(self) -> list[Row]:
        """One a start and number of steps."""
        return [Row(f"from {start}", step) for start in self.starts for step in sorted(set(self.steps))]

    def prepare(self, scene: Scene) -> None:
        """Read the starts."""
        for start in self.starts:
            stored_start(start)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """One start after another."""
        for start in self.starts:
            stored = stored_start(start)
            for step, predictor in after_steps(scene, stored.config, on_device(stored, scene), self.steps):
                yield Row(f"from {start}", step), predictor


def after_steps(scene: Scene, config: RunConfig, params: Params, steps: Steps) -> Iterator[tuple[int, Predictor]]:
    """A predictor after each number of inner steps in `steps`, by the objective and inner loop of `config`."""
    for step, bound in bound_after(scene.worker.learner, config, params, scene.task, steps):
        yield step, partial(scene.outputs, config.objective, bound)


@lru_cache(maxsize=16)
def stored_start(path: Path) -> StoredInitialization:
    """What a run's folder, or an initialization's, holds; read once a process."""
    return read_initialization(path / "init" if (path / "init" / "adaptation.json").exists() else path)


def on_device(stored: StoredInitialization, scene: Scene) -> Params:
    """Its parameters where the worker's model is."""
    return {name: tensor.to(scene.worker.learner.device) for name, tensor in stored.meta.items()}


def check_starts(method: AdaptationMethod, starts: Starts, config: RunConfig) -> None:
    """Raise `ConfigError` unless each start is of the same model and adapter and trained on none of what is asked.

    `DataError` if one cannot be read.
    """
    for start in starts:
        own = stored_start(start).config
        if _what_it_is_of(own.learner) != _what_it_is_of(config.learner):
            raise ConfigError(
                f"--methods {method.registered_name}: {start} is of another learner (model, adapter or head) than this "
                f"run. Name runs with the same learner section."
            )
        seen = seen_classes(own.data, config.data)
        if seen:
            more = f" and {len(seen) - 3} more" if len(seen) > 3 else ""
            raise ConfigError(
                f"--methods {method.registered_name}: {start} was trained on classes that this evaluation tests or "
                f"tunes with: {', '.join(seen[:3])}{more}. Name a run of the same class split, or of other data."
            )


def check_heads(method: AdaptationMethod, starts: Starts, config: RunConfig) -> None:
    """Raise `ConfigError` where a start's own objective scores other than as many classes as the episodes have."""
    for start in starts:
        own = stored_start(start).config
        has_head = own.objective.fixed_ways and own.learner.classifies
        if config.evaluation is not None and has_head and own.episodes.ways != config.evaluation.shape.ways:
            raise ConfigError(
                f"--methods {method.registered_name}: {start} learned a head for {own.episodes.ways} classes, and "
                f"these episodes have {config.evaluation.shape.ways}. Give --ways {own.episodes.ways}, or take all but "
                f"the head: --methods fine_tuned_start."
            )


def _what_it_is_of(learner: LearnerConfig) -> dict[str, object]:
    """What decides which parameters a learner has, and what they mean."""
    how_it_runs = ("max_length", "padding", "attention", "base_dtype", "completion_tokens")
    return {option: value for option, value in learner.to_dict().items() if option not in how_it_runs}
