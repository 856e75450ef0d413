"""Completions of prompts by a causal language model: drawn from it, and how probable they are.

A text's prompt is what stands before the tokens that count in its loss (`completion_after`); those tokens are the
reference, which a reward may read. Each token is drawn by a forward over everything before it, without a cache, so a
completion of L tokens costs L forwards; the probabilities of all L come from one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metacl.errors import ConfigError, DataError
from metacl.learners.base import Batch, Params
from metacl.learners.samples import Samples, choose
from metacl.learners.transformer import TransformerLearner

SCORED = "scored"
"""Key of a group's inputs: which tokens count in the loss, (G, L); not given to the model."""


class Completions:
    """What a language model says after the prompts of a batch.

    Parameters
    ----------
    learner : TransformerLearner
        With a language model's head, padding on the right.
    tokens : int
        L, how many are drawn; what comes after the tokenizer's end-of-text token is masked.
    limit : int
        Tokens that fit into a row, the prompt's included.
    """

    def __init__(self, learner: TransformerLearner, tokens: int, limit: int) -> None:
        self._learner = learner
        self._tokens = tokens
        self._limit = limit

    def draw(self, params: Params, batch: Batch, count: int, seed: int) -> Samples:
        """`count` completions of each prompt, by the arguments alone; actions and mask are (B, count, L)."""
        end = self._learner.tokenizer.eos_token_id
        prompts, references = self._prompts_and_references(batch)
        bound = self._learner.bound(params)
        actions = torch.zeros(len(prompts), count, 0, dtype=torch.long, device=self._learner.device)
        with torch.no_grad():
            for place in range(self._tokens):
                following = self._scores(bound, prompts, actions, place + 1)[:, :, -1].flatten(0, 1)
                drawn = choose(following, 1, seed + place).view(len(prompts), count, 1)
                actions = torch.cat([actions, drawn], -1)
        ends = torch.zeros_like(actions) if end is None else (actions == end).long()
        mask = (ends.cumsum(-1) == ends).long()  # the end itself was chosen, so it counts
        lengths = (mask - ends * mask).sum(-1).tolist()
        texts = [
            [self._text(tokens[:length]) for tokens, length in zip(group, of_group, strict=True)]
            for group, of_group in zip(actions.tolist(), lengths, strict=True)
        ]
        return Samples(actions, mask, texts, [self._text(tokens) for tokens in references])

    def log_probabilities(self, params: Params, batch: Batch, samples: Samples) -> Tensor:
        """Of every token given the prompt and the tokens before it, (B, G, L), differentiable in `params`."""
        prompts, _ = self._prompts_and_references(batch)
        actions = samples.actions
        scores = self._scores(self._learner.bound(params), prompts, actions[..., :-1], actions.shape[-1])
        exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return exact.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def _text(self, tokens: list[int]) -> str:
        return str(self._learner.tokenizer.decode(tokens))

    def _scores(self, bound: Params, prompts: list[list[int]], actions: Tensor, last: int) -> Tensor:
        """Scores of each of the `last` tokens that follow a prompt and the actions (B, G, ·): (B, G, last, V)."""
        count = actions.shape[1]
        rows = [
            [*prompt, *tokens]
            for prompt, answers in zip(prompts, actions.tolist(), strict=True)
            for tokens in answers
        ]
        group = self._learner.laid_out(rows, max(map(len, rows)))
        logits = self._learner.forward(bound, group, use_cache=False).logits  # (B·G, T, V)
        first = torch.tensor([len(prompt) - 1 for prompt in prompts], device=logits.device).repeat_interleave(count)
        places = first.unsqueeze(-1) + torch.arange(last, device=logits.device)
        return logits[torch.arange(len(rows), device=logits.device).unsqueeze(-1), places].unflatten(0, (-1, count))

    def _prompts_and_references(self, batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
        if self._learner.ranks.size > 1:
            raise ConfigError(
                "objective: completions are drawn by one rank, and the ranks of a group have a part of a batch each. "
                "Set workers.ranks_per_group=1."
            )
        rows = [
            (ids[kept & ~scored].tolist(), ids[scored].tolist())
            for group in batch.groups
            for ids, kept, scored in zip(
                group.inputs["input_ids"], group.inputs["attention_mask"].bool(), group.inputs[SCORED], strict=True
            )
        ]
        prompts, references = zip(*(rows[place] for place in batch.order.tolist()), strict=True)
        longest = max(map(len, prompts))
        if longest + self._tokens > self._limit:
            raise DataError(
                f"learner.max_length: {self._limit} tokens, but a prompt of {longest} and a completion of "
                f"{self._tokens} do not fit. Raise learner.max_length, or lower learner.completion_tokens."
            )
        return list(prompts), list(references)
