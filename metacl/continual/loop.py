"""The loop over experiences: learn one, measure all, go on.

A run's whole state is a `Standing`: parameters, what the strategies remember, and what was measured. Learning an
experience is a function from one standing to the next, in parts that may be computed in different places: `fit`, and
`ask` for each test. Every random number has an address, so there is no state of a generator to keep, and a run that is
stopped and goes on takes the same steps.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.model import HEAD_BIAS, HEAD_WEIGHT, Model, among, kl_divergence
from metacl.continual.moment import Moment
from metacl.continual.parted_optimizer import displacement_in_parts
from metacl.continual.pool import Minibatch, Pool
from metacl.continual.probe import Probe, Probed, ProbeTexts
from metacl.continual.record import Record
from metacl.continual.strategies import State, Strategy, asked_by_name, stored
from metacl.continual.training import Training
from metacl.continual.travel import Travels
from metacl.errors import ConfigError, TrainingError
from metacl.learners.base import Batch, Learner, Params, as_leaves, parameter_count
from metacl.learners.label_words import LabelWords
from metacl.learners.named_classes import NamedClasses
from metacl.objectives.proto_maml import class_means
from metacl.tasks.episode import TaskAddress
from metacl.tasks.randomness import AddressedRandom


@dataclass(frozen=True)
class Trained(Travels):
    """Parameters, and what the strategies remember.

    params : what is trained. states : one for each strategy.
    """

    params: Params
    states: tuple[State, ...]


@dataclass(frozen=True)
class Learned(Trained):
    """What learning an experience left, before any test but those of its curve. Entries are those of `Record`."""

    curve: dict[str, float]
    replay_bytes: int
    state_bytes: int
    parameter_norm: float
    seconds: float


@dataclass(frozen=True)
class Asked:
    """The test of one experience.

    value : the measure. kl : of each batch KL(start ‖ now), summed over its examples, and how many these are; empty
    where there is none.
    """

    value: float
    kl: tuple[tuple[float, int], ...]
    seconds: float


@dataclass(frozen=True)
class Standing(Trained):
    """A run after some experiences. record : what was measured so far."""

    record: Record

    def after(self, learned: Learned, asked: Sequence[Asked], probed: Probed | None = None) -> Standing:
        """With one experience more, the tests of all of them after it, and the probe set if there is one."""
        k = len(self.record.rows)
        probe = {} if probed is None else {"probe": probed.value, "probe_kl": probed.kl}
        record = self.record.with_experience(
            row=[one.value for one in asked],
            curves=learned.curve,
            kl_to_start=_mean_kl(asked[: k + 1]),
            replay_bytes=learned.replay_bytes,
            state_bytes=learned.state_bytes,
            parameter_norm=learned.parameter_norm,
            learn_seconds=learned.seconds,
            test_seconds=sum(one.seconds for one in asked),
            **probe,
        )
        return Standing(learned.params, learned.states, record)


class ContinualLoop:
    """One stream, one model, one seed.

    Parameters
    ----------
    learner : Learner
    stream : Stream
    training : Training
    strategies : the listed ones, applied in this order
    seed : int
        Of the order of examples and of what strategies draw.
    start : Params
        Values for some or all of the learner's adaptable parameters, by name; the others start as the learner has them.
    scenario : str
        What is told apart: "class", all classes of the stream; "seen", those met so far; "task", those of an example's
        own experience, which is known in the test, too. Domain-incremental streams share their classes: "class".
    curve : ints
        Steps of an experience after which its test is asked.
    test_rows : int
        Examples that are asked together.
    optimizer_in_parts : bool
        Whether the ranks that share the learner's batches hold a part each of the optimizer's state.
    probe : ProbeTexts
        Asked before the stream and after each experience.

    Raises
    ------
    ConfigError
        A strategy does not fit the model or the stream.
    """

    def __init__(
        self,
        learner: Learner,
        stream: Stream,
        training: Training,
        strategies: Sequence[Strategy] = (),
        *,
        seed: int = 0,
        start: Params | None = None,
        scenario: str = "class",
        curve: Sequence[int] = (),
        test_rows: int = 256,
        optimizer_in_parts: bool = False,
        probe: ProbeTexts | None = None,
    ) -> None:
        classes = len(stream.class_names)
        if classes and isinstance(learner, LabelWords):
            learner = _asked_about(learner if start else learner.without_prompt(), stream, strategies)
        whole = Model(learner, classes).start()
        unknown = sorted(set(start or {}) - set(whole))
        if unknown:
            raise ConfigError(f"start: the learner has no {unknown[0]}. Start from an initialization of this learner.")
        whole.update({name: tensor.to(learner.device) for name, tensor in (start or {}).items()})
        trained, frozen = training.split(whole)
        self.model = Model(learner, classes, frozen)
        if self.model.has_own_head and HEAD_WEIGHT in frozen:
            raise ConfigError("training.only: the head starts at zeros and must be trained. Add head.*.")
        self.start = trained
        self.stream = stream
        self.training = training
        self.strategies = tuple(strategies)
        self.curve = tuple(sorted(set(curve)))
        self._displacement = training.optimizer.displacement
        if optimizer_in_parts and learner.ranks.size > 1:
            self._displacement = partial(displacement_in_parts, training.optimizer, learner.ranks)
        self._seed = seed
        self._scenario = scenario
        self._pool = Pool(learner, stream, test_rows, self._columns(), by_time=scenario == "seen")
        self._moment = Moment(self.model, self._pool, self.start, seed, training.batch_size, training.shuffle)
        for place, strategy in enumerate(self.strategies):
            if place and strategy.moves_at_end:
                raise ConfigError(
                    f"strategies: {strategy.registered_name} moves the parameters when an experience is over, and what "
                    f"stands before it would remember others. List it first."
                )
            strategy.check(self.model, stream)
        own = [s for s in self.strategies if type(s).loss_gradient is not Strategy.loss_gradient]
        if len(own) > 1:
            raise ConfigError(
                f"strategies: {' and '.join(str(s.registered_name) for s in own)} descend an objective of their own "
                f"each, and a step has one. Leave one out."
            )
        answering = [s for s in self.strategies if type(s).predict is not Strategy.predict]
        if len(answering) > 1:
            raise ConfigError(
                f"strategies: {' and '.join(str(s.registered_name) for s in answering)} answer tests in the model's "
                f"place each, and a test has one answer. Leave one out."
            )
        self._separate = any(strategy.wants_task_gradient for strategy in self.strategies)
        self._rates = training.rates(self.start)
        self._probe = None if probe is None else Probe(self.model, self.start, probe, test_rows)
        self._first_answers: dict[int, list[Tensor]] = {}

    def start_fingerprint(self) -> str:
        """A hash of all that the run begins from but the head, which grows with the stream."""
        digest = hashlib.sha256()
        for name, tensor in sorted({**self.model.frozen, **self.start}.items()):
            if name not in (HEAD_WEIGHT, HEAD_BIAS):
                digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def begin(self) -> Standing:
        """Before the first experience, with everything asked once."""
        record = Record.new(self.stream, self.model.measure, parameter_count(self.start), self.start_fingerprint())
        standing = Standing(self.start, tuple({} for _ in self.strategies), record)
        record = record.with_baseline(self._row(standing, 0), self._at_random())
        if (probed := self.probed(standing)) is not None:
            record = replace(record, probe_baseline=probed.value)
        return replace(standing, record=record)

    def extended(self, standing: Standing) -> Standing:
        """A stored standing for this stream, which may be longer: the head grows, and the new experiences are asked."""
        standing = replace(standing, record=replace(standing.record, random=tuple(self._at_random())))
        known = len(standing.record.experiences)
        if known == len(self.stream):
            return standing
        params = dict(standing.params)
        if any(params[name].shape != tensor.shape for name, tensor in self.start.items()):
            for name in (HEAD_WEIGHT, HEAD_BIAS):
                params[name] = torch.cat([params[name], self.start[name][len(params[name]) :]])
            states = tuple(s.grown(t, self.start) for s, t in zip(self.strategies, standing.states, strict=True))
            standing = Standing(params, states, standing.record)
        new = range(known, len(self.stream))
        baseline = self._row(Standing(self.start, tuple({} for _ in self.strategies), standing.record), 0, new)
        last = self._row(standing, max(len(standing.record.rows) - 1, 0), new)
        record = standing.record.extended(self.stream, baseline, last)
        return Standing(params, standing.states, record)

    def learn(self, standing: Standing) -> Standing:
        """The next experience, and then the test of every one.

        Raises
        ------
        TrainingError
            A loss is not finite.
        """
        k = len(standing.record.rows)
        learned = self.fit(k, standing)
        asked = [self.ask(k, learned, experience) for experience in range(len(self.stream))]
        return standing.after(learned, asked, self.probed(learned))

    def fit(self, k: int, before: Trained) -> Learned:
        """Experience `k`, from what the one before it left. Raises as `learn`."""
        began = time.perf_counter()
        moment = self._moment.at(k)
        params, states = before.params, list(before.states)
        addresses = self.stream.train_addresses(k)
        for place, strategy in enumerate(self.strategies):
            addresses = strategy.training_set(moment.of(place), addresses, states[place])
        params = headed = self._with_head(moment, params, addresses)
        for place, strategy in enumerate(self.strategies):
            params, states[place] = strategy.begin(moment.of(place), params, states[place])
        if params is not headed:  # a strategy begins from other parameters, whose features have other means
            params = self._with_head(moment, params, addresses)
        params, states, curve = self._steps(k, params, states, addresses)
        moment = self._moment.at(k)
        for place, strategy in enumerate(self.strategies):
            params, states[place] = strategy.end(moment.of(place), params, addresses, states[place])
        memory = [address for state in states for address in stored(state)]
        self._pool.keep(set(memory))
        return Learned(
            params,
            tuple(states),
            curve=curve,
            replay_bytes=self.stream.nbytes([*memory, *(address for address in addresses if address[0] != k)]),
            state_bytes=sum(tensor.nbytes for state in states for tensor in state.values()),
            parameter_norm=float(torch.stack([t.double().square().sum() for t in params.values()]).sum().sqrt()),
            seconds=time.perf_counter() - began,
        )

    def ask(self, k: int, after: Trained, experience: int) -> Asked:
        """The test of one experience, after experience `k` was learned."""
        began = time.perf_counter()
        if not self._can_be_right(k, experience):
            return Asked(0.0, (), time.perf_counter() - began)
        answers = self._answered(after, k, experience)
        value = self._measured(k, experience, answers)
        kl = self._kl_to_start(experience, answers) if self.model.classes and experience <= k else ()
        return Asked(value, kl, time.perf_counter() - began)

    def probed(self, after: Trained) -> Probed | None:
        """The probe set; None without one."""
        return None if self._probe is None else self._probe.ask(after.params)

    def _steps(
        self, k: int, params: Params, states: list[State], addresses: list[Address]
    ) -> tuple[Params, list[State], dict[str, float]]:
        curve: dict[str, float] = {}
        optimizer_state: dict[str, Params] = {}
        step = 0
        for epoch in range(self.training.epochs if addresses else 0):
            order = self._order(k, epoch, addresses)
            for first in range(0, len(order), self.training.batch_size):
                if step in self.curve:
                    curve[str(step)] = self._asked(Trained(params, tuple(states)), k, k)
                chosen = order[first : first + self.training.batch_size]
                moment = self._moment.at(k, step, epoch, first // self.training.batch_size)
                params, states, optimizer_state = self._step(moment, params, states, optimizer_state, chosen)
                step += 1
        if step in self.curve:
            curve[str(step)] = self._asked(Trained(params, tuple(states)), k, k)
        return params, states, curve

    def _step(
        self, moment: Moment, params: Params, states: list[State], optimizer_state: Any, chosen: list[Address]
    ) -> tuple[Params, list[State], Any]:
        together = list(zip([moment.of(place) for place in range(len(states))], self.strategies, states, strict=True))
        replayed = [address for at, strategy, state in together for address in strategy.replayed(at, state)]
        minibatch = moment.minibatch([*chosen, *replayed])
        leaves = as_leaves(params)
        gradient, task_gradient, states = self._gradients(moment, minibatch, leaves, together)
        together = [(at, strategy, state) for (at, strategy, _), state in zip(together, states, strict=True)]
        rates = self._rates
        for at, strategy, state in together:
            gradient = strategy.gradient(at, params, gradient, state)
            rates = strategy.rates(at, rates, state)
        moved, optimizer_state = self._displacement(params, gradient, optimizer_state, rates, moment.step)
        after = {name: tensor - moved[name] for name, tensor in params.items()}
        settled = []
        for at, strategy, state in together:
            after, state = strategy.settle(at, params, after, task_gradient, rates, state)
            settled.append(state)
        return after, settled, optimizer_state

    def _gradients(
        self, moment: Moment, minibatch: Minibatch, leaves: Params, together: list[tuple[Moment, Strategy, State]]
    ) -> tuple[Params, Params, list[State]]:
        """That of loss and penalties, that of the loss alone if a strategy wants it, and the strategies' states.

        The loss is the mean over the minibatch, or what a strategy descends in its place.
        """
        outputs = self.model.outputs(leaves, minibatch.batch)
        loss = self.model.loss(outputs, minibatch.batch.targets, minibatch.allowed)
        penalties = [strategy.penalty(at, leaves, minibatch, outputs, state) for at, strategy, state in together]
        added = [penalty for penalty in penalties if penalty is not None]
        total = reduce(add, added, loss)
        if not bool(torch.isfinite(total)):
            raise TrainingError(
                f"the loss is not finite in experience {moment.experience}, step {moment.step} of seed {moment.seed}. "
                f"Lower training.learning_rate, or the strategies' strength (ewc has step=proximal, which is stable)."
            )
        states = [state for _, _, state in together]
        params = {name: tensor.detach() for name, tensor in leaves.items()}
        for place, (at, strategy, state) in enumerate(together):
            if (own := strategy.loss_gradient(at, params, minibatch, state)) is not None:
                task, states[place] = own
                if not added:
                    return task, task, states
                more = _gradient(reduce(add, added), leaves, keep=False)
                return {name: task[name] + more[name] for name in task}, task, states
        task = _gradient(loss, leaves, keep=bool(added)) if self._separate else {}
        if task and not added:
            return task, task, states
        return _gradient(total, leaves, keep=False), task, states

    def _order(self, k: int, epoch: int, addresses: list[Address]) -> list[Address]:
        if not self.training.shuffle:
            return addresses
        return AddressedRandom(TaskAddress("train", self._seed, k, epoch)).sample(addresses, len(addresses))

    def _with_head(self, moment: Moment, params: Params, addresses: list[Address]) -> Params:
        """Rows of the head from the means of their examples, for classes not met before or begun afresh."""
        if self.training.head != "class_means" or HEAD_WEIGHT not in params or not self.model.has_own_head:
            return params
        asked = sorted({self.stream.label(address) for address in addresses})
        new = [c for c in asked if c not in moment.seen or not bool(params[HEAD_WEIGHT][c].any())]
        chosen = [address for address in addresses if self.stream.label(address) in new]
        if not chosen:
            return params
        with torch.no_grad():
            parts = [self.model.features(params, p.batch) for p in moment.minibatches(chosen, 256)]
        features = torch.cat(parts)
        places = torch.tensor([new.index(self.stream.label(address)) for address in chosen], device=features.device)
        means = class_means(features, places, len(new))
        weight, bias = params[HEAD_WEIGHT].clone(), params[HEAD_BIAS].clone()
        weight[new], bias[new] = 2 * means, -(means * means).sum(-1)
        return {**params, HEAD_WEIGHT: weight, HEAD_BIAS: bias}

    def _row(self, standing: Trained, k: int, experiences: Sequence[int] | None = None) -> list[float]:
        """The measure on each experience, as things stand in experience `k`."""
        asked = range(len(self.stream)) if experiences is None else experiences
        return [self._asked(standing, k, experience) for experience in asked]

    def _asked(self, standing: Trained, k: int, experience: int) -> float:
        if not self._can_be_right(k, experience):
            return 0.0
        return self._measured(k, experience, self._answered(standing, k, experience))

    def _answered(self, standing: Trained, k: int, experience: int) -> list[Tensor]:
        with torch.no_grad():
            return [self._answers(standing, k, batch) for batch in self._pool.test(experience)]

    def _measured(self, k: int, experience: int, answers: Sequence[Tensor]) -> float:
        allowed = self._allowed(k, experience)
        found = []
        for batch, outputs in zip(self._pool.test(experience), answers, strict=True):
            assert batch.targets is not None
            found.append((among(outputs, allowed), batch.targets))
        return self.model.measured(found)

    def _answers(self, standing: Trained, k: int, batch: Batch) -> Tensor:
        """What a strategy says in the model's place, or the model."""
        moment = self._moment.at(k)
        for place, strategy in enumerate(self.strategies):
            answers = strategy.predict(moment.of(place), standing.params, batch, standing.states[place])
            if answers is not None:
                return answers
        return self.model.outputs(standing.params, batch)

    def _kl_to_start(self, experience: int, now: Sequence[Tensor]) -> tuple[tuple[float, int], ...]:
        """See `Asked.kl`."""
        if experience not in self._first_answers:
            with torch.no_grad():
                batches = self._pool.test(experience)
                self._first_answers[experience] = [self.model.outputs(self.start, batch) for batch in batches]
        pairs = zip(self._first_answers[experience], now, strict=True)
        return tuple((float(kl_divergence(before, after)) * len(after), len(after)) for before, after in pairs)

    def _at_random(self) -> list[float | None]:
        """b̄: each experience at random initialization, told apart as it is when it comes next."""
        places = [(max(i - 1, 0), i) for i in range(len(self.stream))]
        if self.model.has_random_start:
            initial = Trained(self.model.start(), tuple({} for _ in self.strategies))
            return [self._asked(initial, k, i) if self._can_be_right(k, i) else None for k, i in places]
        return [
            self.model.chance(self.stream.experiences[i].test.labels, self._allowed(k, i))
            if self._can_be_right(k, i)
            else None
            for k, i in places
        ]

    def _columns(self) -> Tensor | None:
        """The classes that examples of each experience are told apart from, (T, N); None for all."""
        if self._scenario == "class" or not self.stream.class_names:
            return None
        columns = torch.zeros(len(self.stream), len(self.stream.class_names), dtype=torch.bool)
        for k, experience in enumerate(self.stream.experiences):
            columns[k, experience.classes()] = True
        columns = columns.cumsum(0).bool() if self._scenario == "seen" else columns
        return columns.to(self.model.learner.device)

    def _can_be_right(self, k: int, experience: int) -> bool:
        """Whether any class of an experience's test may be answered; if none, asking tells nothing."""
        allowed = self._allowed(k, experience)
        return allowed is None or bool(allowed[sorted({*self.stream.experiences[experience].test.labels})].any())

    def _allowed(self, k: int, experience: int) -> Tensor | None:
        if self._pool.columns is None:
            return None
        return self._pool.columns[k if self._scenario == "seen" else experience]


def _asked_about(learner: LabelWords, stream: Stream, strategies: Sequence[Strategy]) -> NamedClasses:
    """A language model as classifier. Raises `ConfigError` if it would be trained as one."""
    if not asked_by_name(strategies):
        raise ConfigError(
            "strategies: a language model is asked about classes by their names and learns none. Set them to "
            "[prompt_only], or give it a stream without classes."
        )
    return NamedClasses(learner, stream.class_names)


def _mean_kl(asked: Sequence[Asked]) -> float | None:
    """Mean over the test examples met so far; None for a language model, and where answers exclude a class."""
    batches = [batch for one in asked for batch in one.kl]
    total = 0.0
    for summed, _ in batches:  # one after the other: what `sum` does depends on the version of Python
        total += summed
    return total / sum(count for _, count in batches) if batches and math.isfinite(total) else None


def _gradient(value: Tensor, leaves: Params, keep: bool) -> Params:
    found = torch.autograd.grad(
        value, list(leaves.values()), retain_graph=keep, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))
