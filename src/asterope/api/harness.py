"""A model as lm-evaluation-harness asks: likelihoods of continuations, and greedy answers.

This module needs lm-eval: `api.tasks` imports it when tasks are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from asterope import llm
from asterope.api.language_model import LanguageModel
from asterope.errors import ConfigError

__all__ = ["HarnessModel"]

_BATCH_TOKENS = 2048
_NEW_TOKENS = 256
_Pair = tuple[list[int], list[int]]
"""Tokens of a context, and those of what follows."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """Answers the harness' requests with a model's own forward pass.

    `progress(done, total)` counts requests. Contexts longer than the model's lose their beginning.
    """

    def __init__(
        self, model: LanguageModel, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        super().__init__()
        self._model, self._progress = model, progress

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document.

        Raises: ConfigError if config.json names none.
        """
        ends = self._model.config.eos_ids
        if not ends:
            raise ConfigError("names no eos_token_id", where="config.json")
        return ends[0]

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text."""
        first = self._model.config.bos_id
        return self.eot_token_id if first is None else first

    @property
    def max_length(self) -> int:
        """Tokens that the model sees at once."""
        return self._model.config.max_context

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the tokens of a text, without those that open documents."""
        return self._model.encode(string)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return the likelihood of each continuation, and whether nothing is likelier."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the likelihood of each whole text, each token scored once."""
        totals = []
        for done, request in enumerate(requests):
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            )
            pairs = [make_disjoint_window(window) for window in windows]
            totals.append(sum(value for _, value, _ in self._scored(pairs)))
            self._progress(done + 1, len(requests))
        return totals

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        answers: dict[int, tuple[float, bool]] = {}
        for place, value, is_greedy in self._scored([(c, e) for _, c, e in requests]):
            answers[place] = value, is_greedy
            self._progress(len(answers), len(requests))
        return [answers[place] for place in range(len(requests))]

    @torch.inference_mode()
    def _scored(self, pairs: Sequence[_Pair]) -> Iterator[tuple[int, float, bool]]:
        """Yield places, likelihoods, and whether nothing is likelier; the longest pairs first."""
        model = self._model.model
        rows = [(context + end)[-(self.max_length + 1) :] for context, end in pairs]
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        while order:
            length = len(rows[order[0]]) - 1
            count = max(1, _BATCH_TOKENS // max(length, 1))
            batch, order = order[:count], order[count:]
            # Causal: what is behind a row's end changes nothing before it.
            tokens = torch.zeros((len(batch), length), dtype=torch.int64)
            for row, place in enumerate(batch):
                tokens[row, : len(rows[place]) - 1] = torch.tensor(rows[place][:-1])
            logits = model.forward(tokens, model.new_cache(len(batch), length))
            for row, place in enumerate(batch):
                end = torch.tensor(pairs[place][1][-length:])
                last = len(rows[place]) - 1
                found = logits[row, last - len(end) : last].double().log_softmax(-1)
                value = float(found.gather(-1, end[:, None]).sum())
                yield place, value, bool((found.argmax(-1) == end).all())

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes behind each context, up to where it is to stop."""
        made = []
        for done, request in enumerate(requests):
            context, given = request.args
            made.append(self._answer(context, dict(given)))
            self._progress(done + 1, len(requests))
        return made

    def _answer(self, context: str, given: dict[str, Any]) -> str:
        until = given.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        most = int(given.get("max_gen_toks", _NEW_TOKENS))
        temperature = float(given.get("temperature", 0.0)) if given.get("do_sample") else 0.0
        room = max(1, self.max_length - most)
        prompt = (self.tok_encode(context) or [self.prefix_token_id])[-room:]
        assert self._model.tokenizer is not None
        tokens: list[int] = []
        text = ""
        for token in llm.generate(
            self._model.model, prompt, max_new_tokens=most,
            sampling=llm.Sampling(temperature=temperature),
        ):  # fmt: skip
            tokens.append(token)
            text = self._model.tokenizer.decode(tokens)
            if any(stop and stop in text for stop in stops):
                break
        ends = [text.index(stop) for stop in stops if stop and stop in text]
        return text[: min(ends, default=len(text))]
