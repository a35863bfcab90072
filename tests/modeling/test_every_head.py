"""What every head promises, in one body: a head is a `Case`, and so is the one that CONTRIBUTING shows how to add."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_backbones import SENTENCES, SMALL, stirred
from transformers import Trainer, TrainingArguments

from lira_hf import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraProcessor
from lira_hf.modeling import modeling_lira

STILL = {"dropout": 0.0, "path_dropout": 0.0}
TEXTS = SENTENCES[6:12]
CANDIDATES = [
    ["tv 55 inch black", "black tv", "tv"],
    ["red cotton dress"],
    ["black t-shirt for men", "shirt"],
    [],
    ["blue shoes", "shoe 42"],
    ["shoes"],
]
SCORES = [[(9, 9, 9), (6, 5, 6), (3, 4, 2)], [(8, 8, 8)], [(4, 4, 4), (9, 7, 7)], [], [(7, 7, 7), (5, 5, 5)], [None]]
LANGUAGES = ["th", "th", "vi", "vi", "id", "ms"]


def inputs(processor, rows, order: Callable[[list], list] = list, text: str = "text", prefix: str = "") -> dict:
    """The batch of rows; order rearranges the candidates of each."""
    given = {
        text: [TEXTS[i] for i in rows], f"{prefix}translations": [order(CANDIDATES[i]) for i in rows],
        f"{prefix}scores": [order(SCORES[i]) for i in rows], f"{prefix}language": [LANGUAGES[i] for i in rows],
    }  # fmt: skip
    return given


@dataclass
class Case:
    """A head and how to feed it. batch(processor, rows, order): model inputs of rows, with what the loss needs; answer: what of the output
    must not depend on padding or order, and its width; own: parameters, by the start of their names, that must learn beside Arca's adaptor."""

    head: type
    batch: Callable[..., dict]
    answer: Callable
    width: int
    own: tuple[str, ...]
    fields: dict = field(default_factory=dict)
    llm: str | None = None


def retrieval_batch(processor, rows, order=list) -> dict:
    batch = dict(processor(**inputs(processor, rows, order)))
    products = dict(processor([f"{TEXTS[i]} x" for i in rows], [order(CANDIDATES[i]) for i in rows], language="th"))
    return batch | {"products": products, "relevances": torch.where(torch.eye(len(rows)).bool(), 3, -1), "product_ids": torch.tensor(list(rows))}


def pair_batch(processor, rows, order=list) -> dict:
    pair = inputs(processor, [(i + 1) % 6 for i in rows], order, "text_pair", "pair_")
    return dict(processor(**inputs(processor, rows, order), **pair)) | {"labels": torch.tensor([0.5 * i for i in rows])}


def answer_batch(processor, rows, order=list) -> dict:
    questions = [f"{TEXTS[i]} how many" for i in rows]
    return dict(processor(**inputs(processor, rows, order), prompt=questions, answer=[str(7 * i) for i in rows]))


def contributed() -> type:
    """The class of CONTRIBUTING's "Add a head", as it stands there."""
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(class Lira.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) < 80
    space = dict(vars(modeling_lira))
    exec(code, space)  # noqa: S102
    return space["LiraForDistillation"]


def distillation_batch(processor, rows, order=list) -> dict:
    vectors = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    return dict(processor(**inputs(processor, rows, order))) | {"labels": vectors[list(rows)]}


SCORE = {"problem_type": "regression", "num_labels": 1}
FUSED = ("lira.lasr.correction", "lira.lasr.encoder")
CASES = {
    "pretraining": Case(
        LiraForPreTraining, lambda p, rows, order=list: dict(p(**inputs(p, rows, order))), lambda out: out.multilingual_embeds, 32, ()
    ),
    "retrieval": Case(LiraForRetrieval, retrieval_batch, lambda out: out.embeddings, 56, FUSED),
    "classification": Case(LiraForSequenceClassification, pair_batch, lambda out: out.logits, 1, (*FUSED, "comparison"), SCORE),
    "causal-lm": Case(LiraForCausalLM, answer_batch, lambda out: out.logits[:, -1], 400, ("lira.lasr.encoder", "soft_prompt"), llm="qwen3-lm"),
    "distillation": Case(contributed(), distillation_batch, lambda out: out.logits, 5, ("lira.lasr.correction", "student"), {"num_labels": 5}),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request) -> Case:
    return request.param


@pytest.fixture
def processor(case, backbones, llms):
    return LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], **({"llm": llms[case.llm]} if case.llm else {}))


@pytest.fixture
def head(case, backbones, llms):
    torch.manual_seed(0)
    fields = {**SMALL, **STILL, **case.fields} | ({"llm": llms[case.llm]} if case.llm else {})
    return stirred(case.head.from_backbones(backbones["xlm-r"], backbones["bert"], **fields))


def answer(case, head, batch):
    with torch.no_grad():
        return case.answer(head.eval()(**batch))


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_loss_and_an_answer_of_the_promised_shape(case, head, processor):
    output = head(**case.batch(processor, range(6)))
    assert output.loss.shape == () and output.loss.isfinite()
    assert case.answer(output).shape == (6, case.width)


def test_a_row_is_answered_alike_in_every_batch(case, head, processor):
    together = answer(case, head, case.batch(processor, range(6)))
    close(torch.cat([answer(case, head, case.batch(processor, [row])) for row in (0, 1, 2, 4, 5)]), together[[0, 1, 2, 4, 5]])
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_padding_and_the_order_of_candidates_do_not_matter(case, head, processor):
    batch = case.batch(processor, range(6))
    expected = answer(case, head, batch)
    close(answer(case, head, case.batch(processor, range(6), lambda row: row[::-1])), expected)
    for name in ("multilingual_input_ids", "multilingual_attention_mask", "english_input_ids", "english_attention_mask"):
        batch[name] = F.pad(batch[name], (0, 5), value=1 if name.endswith("ids") else 0)
    close(answer(case, head, batch), expected)


def test_saving_and_loading_keeps_everything(case, head, processor, tmp_path):
    batch = case.batch(processor, range(6))
    head.save_pretrained(tmp_path)
    again, report = type(head).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    close(answer(case, again, batch), answer(case, head, batch))
    assert head.eval()(**batch).loss.item() == pytest.approx(again(**batch).loss.item(), abs=1e-5)


def test_a_stage_1_folder_opens_with_no_key_lost(case, head, llms, tmp_path):
    stage_1 = LiraForPreTraining(head.config)
    stirred(stage_1).save_pretrained(tmp_path)
    again = case.head.from_anchored(tmp_path, **({"llm": llms[case.llm]} if case.llm else {}))
    for name, tensor in stage_1.lira.state_dict().items():
        assert torch.equal(again.lira.state_dict()[name], tensor), name


def test_gradients_reach_the_trained_part_and_nothing_frozen(case, head, processor):
    head.train()(**case.batch(processor, range(6))).loss.backward()
    reached = {name for name, parameter in head.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    assert not any(name.startswith(("lira.multilingual", "lira.english", "llm")) for name in reached)
    frozen = [head.lira.multilingual, head.lira.english, *([head.llm] if case.llm else [])]
    assert not any(part.training for part in frozen)
    for part in ("lira.arca.adaptor.multilingual_projection", "lira.arca.adaptor.english_projection", *case.own):
        assert any(name.startswith(part) for name in reached), part


def test_the_plain_trainer_trains_it(case, head, processor, tmp_path):
    arguments = TrainingArguments(
        str(tmp_path), max_steps=12, per_device_train_batch_size=6, learning_rate=3e-3, use_cpu=True, report_to="none", logging_steps=1,
        remove_unused_columns=False, save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    collate = lambda rows: case.batch(processor, sorted(rows))  # noqa: E731
    trainer = Trainer(head, arguments, collate, train_dataset=list(range(6)))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12 and losses[-1] < losses[0]
