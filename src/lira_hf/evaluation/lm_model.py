"""LiraForCausalLM as a model of lm-evaluation-harness.

The harness hands over a prompt and the row of the data set; the row says what LiRA reads beside the prompt: `source` (the text), `language`,
and `candidates` (JSON text of its translations, see translations.given_candidates), columns that evaluation.reasoning_benchmarks adds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lira_hf.collation.retrieval import candidates
from lira_hf.evaluation.translations import given_candidates
from lira_hf.modeling import LiraForCausalLM, LiraProcessor

MAX_TOKENS = 256  # where a task names no limit, as the harness has it


class LiraLM(LM):
    """Greedy or sampled text by LiraForCausalLM.respond, choices by choice_log_likelihoods."""

    def __init__(self, model: LiraForCausalLM, processor: LiraProcessor, batch_size: int = 16, show_progress_bar: bool = False):
        super().__init__()
        self.model, self.processor, self.batch_size, self.show_progress_bar = model, processor, batch_size, show_progress_bar
        self._device = model.device

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each prompt, up to the first of the strings in `until`, which are cut off."""
        found: dict[int, str] = {}
        settings = [json.dumps(request.args[1], sort_keys=True) for request in requests]
        order = sorted(range(len(requests)), key=settings.__getitem__)
        for _, group in itertools.groupby(order, key=settings.__getitem__):
            index = list(group)
            until, options = generation_options(requests[index[0]].args[1])
            if until:
                options |= {"stop_strings": until, "tokenizer": self.processor.llm_tokenizer}
            written = self.model.respond(
                **self._inputs([requests[i] for i in index]), batch_size=self.batch_size, show_progress_bar=self.show_progress_bar, **options
            )
            found |= zip(index, (cut(text, until) for text in written), strict=True)
        return [found[i] for i in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """log p of each continuation, and whether it is what the model writes greedily: as an answer of its own, without the space before it, and
        with the end of text after it, as LiRA learns answers."""
        same = [(json.dumps(request.doc, sort_keys=True, default=str), request.args[0]) for request in requests]
        groups = [list(group) for _, group in itertools.groupby(range(len(requests)), key=same.__getitem__)]  # of one row: its choices
        choices = [[requests[i].args[1].lstrip() for i in group] for group in groups]
        inputs = self._inputs([requests[group[0]] for group in groups]) | {"batch_size": self.batch_size}
        sums, _ = self.model.choice_log_likelihoods(choices=choices, show_progress_bar=self.show_progress_bar, **inputs)
        longest = self.processor.answers([choice for each in choices for choice in each])[0].shape[1]  # their end included
        written = self.model.respond(**inputs, max_new_tokens=longest, do_sample=False, num_beams=1)
        found: dict[int, tuple[float, bool]] = {}
        for group, texts, values, text in zip(groups, choices, sums.tolist(), written, strict=True):
            found |= {i: (value, choice == text) for i, choice, value in zip(group, texts, values, strict=False)}  # values go on to the longest row's
        return [found[i] for i in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Not of this model: a whole text's perplexity has no prompt, and so no source to translate."""
        raise NotImplementedError("perplexity: LiRA reads a source text and answers; it gives no probability of a text that stands alone")

    def _inputs(self, requests: Sequence[Instance]) -> dict:
        docs = [request.doc for request in requests]
        given = [candidates(given_candidates(doc["candidates"]) or []) for doc in docs]
        return {
            "texts": [doc["source"] for doc in docs],
            "translations": [texts for texts, _ in given],
            "scores": [scores for _, scores in given],
            "language": [doc["language"] for doc in docs],
            "prompt": [request.args[0] for request in requests],
            "prompt_name": "query",
            "processor": self.processor,
        }


def generation_options(given: dict) -> tuple[list[str], dict]:
    """The strings to stop at, and options of generate(), of the harness's generation settings."""
    given = dict(given)
    until = given.pop("until", None) or []
    options = {"max_new_tokens": int(given.pop("max_gen_toks", MAX_TOKENS)), "do_sample": bool(given.pop("do_sample", False))}
    if options["do_sample"]:
        options |= given
    else:
        options["num_beams"] = given.get("num_beams", 1)  # a temperature means nothing here
    return [until] if isinstance(until, str) else [each for each in until if each], options


def cut(text: str, until: Sequence[str]) -> str:
    """A text up to the first of some strings."""
    return text[: min((place for each in until if (place := text.find(each)) >= 0), default=len(text))]
