"""LiraForCausalLM: what the language model reads, its loss, every way to generate, multiple choice, folders."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from small_backbones import LLMS, QWEN, SENTENCES, SMALL, stirred, train_tokenizer
from transformers import AutoModelForCausalLM, TextStreamer, Trainer, TrainingArguments

from lira_hf import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraProcessor
from lira_hf.modeling.objectives_lira import answer_loss

TEXTS = [SENTENCES[6], SENTENCES[9], "TV 55", SENTENCES[12]]
CANDIDATES = [["tv 55 inch black", "black tv"], [], ["red dress"], ["red cotton clothes for women", "a", "red"]]
SCORES = [[(9, 9, 9), (3, 3, 3)], None, None, [(2, 2, 2), (8, 8, 8), None]]
LANGUAGES = ["th", "vi", "xx", "ur"]
ANSWERS = ["55", "1.8 l", "red cotton", "42"]
CHOICES = [["1", "12", "123 tv"], ["red", "blue shoes"], ["TV"], ["42", "55", "1.8"]]


@pytest.fixture(scope="module", params=LLMS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def reader(backbones, llms, kind):
    return LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms[kind])


def made(backbones, llms, kind, **fields):
    torch.manual_seed(0)
    return stirred(LiraForCausalLM.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms[kind], **{**SMALL, **fields}))


@pytest.fixture(scope="module")
def original(backbones, llms, kind):
    return made(backbones, llms, kind)


@pytest.fixture
def lm(original):
    return copy.deepcopy(original)


def singles(reader, **more):
    for i in range(4):
        arguments = {name: values[i : i + 1] for name, values in more.items()}
        yield reader(TEXTS[i : i + 1], CANDIDATES[i : i + 1], [SCORES[i]], LANGUAGES[i], **arguments)


# ---- what is read ------------------------------------------------------------------------------------------------------


def test_the_language_model_reads_soft_prompt_boundary_and_text(lm, reader):
    batch = dict(reader(TEXTS, CANDIDATES, SCORES, LANGUAGES))
    ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
    embeds, whole, _ = lm.read(batch, ids, mask)
    states, _, _ = lm.lira.bin_states(lm.lira.encode_features(batch))
    part = lm.soft_prompt
    expected = part.scale * F.linear(F.layer_norm(states, (32,), part.norm.weight, part.norm.bias), part.projection.weight, part.projection.bias)
    torch.testing.assert_close(embeds[:, :8], expected)
    torch.testing.assert_close(embeds[:, 8], (part.scale * part.boundary).expand(4, -1))
    torch.testing.assert_close(embeds[:, 9:], lm.llm.get_input_embeddings()(ids))
    assert whole[:, :9].tolist() == [[1] * 9, [1] * 4 + [0] * 4 + [1], [1] * 9, [1] * 9]  # the second row has no translation
    torch.testing.assert_close(whole[:, 9:], mask)
    only_english = dict(reader(translations=[["a tv"]]))
    assert lm.read({k: v for k, v in only_english.items() if k not in ("input_ids", "attention_mask")})[1].tolist() == [[0] * 4 + [1] * 5]


def test_the_bin_states_are_those_that_the_embedding_is_read_from(lm, reader):
    features = lm.lira.encode_features(
        {k: v for k, v in reader(TEXTS, CANDIDATES, SCORES, LANGUAGES).items() if k not in ("input_ids", "attention_mask")}
    )
    seen = []
    hook = lm.lira.lasr.encoder.register_forward_hook(lambda module, arguments, output: seen.append(output))
    embeddings = lm.lira.fuse(features).embeddings
    states, there, _ = lm.lira.bin_states(features)
    hook.remove()
    assert embeddings.shape == (4, 56) and there.shape == (4, 8)
    torch.testing.assert_close(states, seen[0][:, 1:])


def test_the_soft_prompt_begins_as_long_as_the_models_own_embeddings(backbones, llms, kind):
    torch.manual_seed(0)
    model = LiraForCausalLM.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms[kind], **SMALL)
    own = model.llm.get_input_embeddings().weight.norm(dim=-1).mean()
    soft = model.soft_prompt(torch.randn(50, 8, 32, generator=torch.Generator().manual_seed(1)))
    assert soft.shape == (50, 9, 24)
    assert (soft[:, :8].norm(dim=-1).mean() / own).item() == pytest.approx(1, abs=0.03)
    assert (soft[0, 8].norm() / own).item() == pytest.approx(1, abs=0.4)  # one random vector of 24 numbers


def test_padding_of_the_text_and_of_the_sources_leaves_no_trace(lm, reader):
    whole = lm(**reader(TEXTS, CANDIDATES, SCORES, LANGUAGES)).logits[:, -1]
    for i, single in enumerate(singles(reader)):
        torch.testing.assert_close(lm(**single).logits[0, -1], whole[i], atol=2e-4, rtol=1e-4)


def test_the_order_of_candidates_changes_nothing(lm, reader):
    one = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES, prompt=["a"] * 4)
    other = reader(TEXTS, [each[::-1] for each in CANDIDATES], [each and each[::-1] for each in SCORES], LANGUAGES, prompt=["a"] * 4)
    torch.testing.assert_close(lm(**one).logits, lm(**other).logits, atol=2e-4, rtol=1e-4)


def test_the_soft_prompt_carries_both_paths(lm, reader):
    read = lambda text, translation: lm(**reader([text], [[translation]], prompt=["a"])).logits[0, -1]  # noqa: E731
    base = read(SENTENCES[6], "red dress")
    assert (read(SENTENCES[7], "red dress") - base).abs().max() > 1e-3 and (read(SENTENCES[6], "rice cooker") - base).abs().max() > 1e-3


# ---- training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_answer_tokens_of_a_computation_by_hand(lm, reader):
    batch = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES, answer=ANSWERS)
    total = count = 0
    for row, single in enumerate(singles(reader, answer=ANSWERS)):
        inputs = {k: v for k, v in single.items() if k not in ("input_ids", "attention_mask", "labels")}
        own = reader.llm_tokenizer(ANSWERS[row])["input_ids"]  # this tokenizer ends every text itself
        prompt = single["input_ids"][:, : -len(own)]
        assert own[-1] == reader.llm_tokenizer.eos_token_id and single["input_ids"][0, -len(own) :].tolist() == own
        embeds, mask, _ = lm.read(inputs, prompt)
        embeds = torch.cat([embeds, lm.llm.get_input_embeddings()(torch.tensor([own]))], 1)[:, mask[0].bool().tolist() + [True] * len(own)]
        logits = lm.llm(inputs_embeds=embeds).logits[0]  # nothing masked: an absent path is cut out
        for place, token in enumerate(own):
            total = total - logits[len(logits) - len(own) + place - 1].log_softmax(-1)[token]
            count += 1
    torch.testing.assert_close(lm(**batch).loss, total / count, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lm(**batch, num_items_in_batch=torch.tensor(7)).loss, total / 7, atol=1e-4, rtol=1e-4)


def test_the_answer_loss_in_closed_form():
    logits = torch.zeros(2, 3, 5)
    labels = torch.tensor([[-100, 1, 2], [-100, -100, 4]])
    assert answer_loss(logits, labels).item() == pytest.approx(torch.tensor(5.0).log().item())
    assert answer_loss(logits, labels, 6).item() == pytest.approx(0.5 * torch.tensor(5.0).log().item())
    assert answer_loss(logits, torch.full((2, 3), -100)).item() == 0


def test_a_label_in_the_first_column_counts(lm, reader):
    reader = LiraProcessor(reader.tokenizer, reader.english_tokenizer, reader.llm_tokenizer)
    batch = reader(TEXTS[:1], CANDIDATES[:1], prompt=[""], answer=["55"])
    assert (batch["labels"] != -100).all()
    boundary = lm(**{k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask", "labels")}).logits[:, -1]
    every = lm(**batch)
    torch.testing.assert_close(every.logits[:, 0], boundary, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(every.loss, F.cross_entropy(every.logits[0, :-1], batch["labels"][0]), atol=1e-4, rtol=1e-4)


def test_gradient_reaches_soft_prompt_fusion_and_adaptor_and_no_backbone(lm, reader):
    lm.train()
    assert not lm.llm.training and not lm.lira.multilingual.training and lm.lira.lasr.training
    lm(**reader(TEXTS, CANDIDATES, SCORES, LANGUAGES, answer=ANSWERS)).loss.backward()
    reached = {name for name, p in lm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for part in ("soft_prompt.projection.weight", "soft_prompt.boundary", "lira.lasr.encoder.layers.0.linear1.weight", "lira.lasr.position.weight",
                 "lira.lasr.language.weight", "lira.arca.adaptor.multilingual_projection.weight", "lira.arca.adaptor.english_projection.weight"):  # fmt: skip
        assert part in reached
    assert not [name for name in reached if name.startswith(("llm.", "lira.multilingual.", "lira.english."))]


def test_a_language_model_that_is_to_be_trained_is(backbones, llms, kind, reader):
    model = made(backbones, llms, kind, trainable_backbones=["llm"]).train()
    model(**reader(TEXTS, CANDIDATES, SCORES, LANGUAGES, answer=ANSWERS)).loss.backward()
    assert model.llm.training and model.llm.get_input_embeddings().weight.grad.abs().sum() > 0
    assert not model.lira.english.training


def test_accumulated_steps_end_where_one_big_batch_does(backbones, llms, tmp_path):
    """The rows differ in the number of labels: a mean of means would not be the same."""
    kind, reader = "gpt2", LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["gpt2"])
    rows = [{"text": TEXTS[i], "translations": CANDIDATES[i], "answer": ANSWERS[i]} for i in range(4)]
    collate = lambda rows: dict(reader(*([row[name] for row in rows] for name in ("text", "translations")), answer=[row["answer"] for row in rows]))  # noqa: E731
    weights = []
    for batch, accumulate in ((4, 1), (1, 4)):
        model = made(backbones, llms, kind, path_dropout=0.0, dropout=0.0)
        args = TrainingArguments(
            str(tmp_path / str(batch)), per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate, max_steps=2, learning_rate=1e-2,
            optim="sgd", max_grad_norm=0.0, remove_unused_columns=False, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, seed=0,
        )  # fmt: skip
        Trainer(model=model, args=args, train_dataset=rows, data_collator=collate).train()
        weights.append(torch.cat([p.flatten() for name, p in model.named_parameters() if name.startswith(("soft_prompt", "lira.lasr"))]))
    start = torch.cat([p.flatten() for name, p in made(backbones, llms, kind).named_parameters() if name.startswith(("soft_prompt", "lira.lasr"))])
    assert (weights[0] - start).abs().max() > 1e-3
    torch.testing.assert_close(weights[1], weights[0], atol=2e-5, rtol=0)


def test_it_learns_to_answer(lm, reader):
    batch = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES, prompt=["tv"] * 4, answer=ANSWERS)  # what differs is the soft prompt
    lm.train()
    optimizer = torch.optim.AdamW([p for p in lm.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(25):
        loss = lm(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# ---- generation --------------------------------------------------------------------------------------------------------


def test_greedy_generation_equals_a_loop_without_a_cache(lm, reader):
    batch = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES)
    found = lm.generate(**batch, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
    new = []
    with torch.no_grad():
        for _ in range(6):
            logits = lm(input_ids=ids, attention_mask=mask, **batch).logits[:, -1]
            logits[:, reader.llm_tokenizer.eos_token_id] = -torch.inf
            new.append(logits.argmax(-1))
            ids, mask = torch.cat([ids, new[-1][:, None]], 1), F.pad(mask, (0, 1), value=1)
    assert found.tolist() == torch.stack(new, 1).tolist()
    assert len({tuple(row) for row in found.tolist()}) == 4


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5}], ids=str)
def test_a_batch_of_unequal_rows_generates_what_each_row_does_alone(lm, reader, options):
    options = {"do_sample": False, "max_new_tokens": 5, "pad_token_id": 0, **options}
    returns = options.get("num_return_sequences", 1)
    whole = lm.generate(**reader(TEXTS, CANDIDATES, SCORES, LANGUAGES), **options)
    assert whole.shape[0] == 4 * returns and whole.shape[1] <= 5  # new tokens only
    for i, single in enumerate(singles(reader)):
        alone = lm.generate(**single, **options)
        assert F.pad(alone, (0, whole.shape[1] - alone.shape[1])).tolist() == whole[i * returns : (i + 1) * returns].tolist()


def test_scores_of_what_was_generated_can_be_asked_for(lm, reader):
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True, "output_scores": True}
    found = lm.generate(**reader(TEXTS, CANDIDATES, SCORES, LANGUAGES), **options)
    scores = lm.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    assert scores.shape == found.sequences.shape and torch.isfinite(scores).all() and (scores <= 0).all()


def test_sampling_follows_the_seed_and_returns_several(lm, reader):
    batch = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(lm.generate(**batch, do_sample=True, temperature=2.0, num_return_sequences=3, max_new_tokens=5, pad_token_id=0).tolist())
    assert len(drawn[0]) == 12 and drawn[0] == drawn[1] != drawn[2]


def test_streaming_prints_what_is_returned(lm, reader, capsys):
    class Tokens(TextStreamer):
        seen = ()

        def put(self, value):
            self.seen += tuple(value.flatten().tolist())

    batch, streamer = next(singles(reader)), Tokens(reader.llm_tokenizer)
    found = lm.generate(**batch, streamer=streamer, max_new_tokens=5, do_sample=False)
    assert streamer.seen == tuple(found[0].tolist())
    lm.generate(**batch, streamer=TextStreamer(reader.llm_tokenizer), max_new_tokens=5, do_sample=False)
    assert capsys.readouterr().out.strip() == reader.decode(found[0]).strip()


def test_what_cannot_be_generated_from_is_refused(lm, reader):
    batch = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES)
    with pytest.raises(ValueError, match="^attention_mask: 0 in the last column"):
        lm.generate(**{**batch, "attention_mask": batch["attention_mask"].flip(-1)})
    with pytest.raises(ValueError, match="^labels: not allowed"):
        lm.generate(**reader(TEXTS, CANDIDATES, answer=ANSWERS))
    with pytest.raises(ValueError, match="^input_ids: 2 rows, but the other inputs have 4"):
        lm.generate(**{**batch, "input_ids": batch["input_ids"][:2], "attention_mask": None})


def test_respond_gives_texts_in_input_order(lm, reader):
    options = {"max_new_tokens": 5, "do_sample": False}
    lm.train()
    found = lm.respond(TEXTS, processor=reader, translations=CANDIDATES, scores=SCORES, language=LANGUAGES, batch_size=3, **options)
    assert lm.training
    lm.eval()
    expected = [reader.batch_decode(lm.generate(**single, **options), skip_special_tokens=True)[0] for single in singles(reader)]
    assert found == expected and len(set(found)) == 4
    with pytest.raises(ValueError, match="^num_return_sequences: 2"):
        lm.respond(TEXTS, processor=reader, num_return_sequences=2)


# ---- multiple choice ---------------------------------------------------------------------------------------------------


def test_choice_log_likelihoods_equal_the_straightforward_computation(lm, reader):
    sums, means = lm.choice_log_likelihoods(
        TEXTS,
        CHOICES,
        processor=reader,
        translations=CANDIDATES,
        scores=SCORES,
        language=LANGUAGES,
        prompt=["tv 55", "a", "red dress for", "x"],
        batch_size=3,
    )
    assert sums.shape == means.shape == (4, 3)
    for i, (text, choices) in enumerate(zip(TEXTS, CHOICES, strict=True)):
        for k, choice in enumerate(choices):
            batch = reader([text], [CANDIDATES[i]], [SCORES[i]], LANGUAGES[i], prompt=[["tv 55", "a", "red dress for", "x"][i]], answer=[choice])
            count = (batch["labels"] != -100).sum()
            with torch.no_grad():
                mean = -lm(**batch).loss
            torch.testing.assert_close(means[i, k], mean, atol=2e-4, rtol=1e-4)
            torch.testing.assert_close(sums[i, k], mean * count, atol=2e-3, rtol=1e-4)
        assert (sums[i, len(choices) :] == -torch.inf).all()


@pytest.mark.parametrize("choices", ["ab", [], ["a", "b", "c", "d"], [["a"]], [[], ["a"], ["a"], ["a"]]])
def test_wrong_choices_are_refused(lm, reader, choices):
    with pytest.raises(ValueError, match="^choices: "):
        lm.choice_log_likelihoods(TEXTS, choices, processor=reader)


# ---- folders -----------------------------------------------------------------------------------------------------------


def test_a_saved_model_opens_whole(lm, reader, tmp_path):
    lm.generation_config.update(temperature=0.7, do_sample=True)
    lm.save_pretrained(tmp_path)
    reader.save_pretrained(tmp_path)
    again, report = LiraForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()) and again.generation_config.temperature == 0.7
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is LiraForCausalLM
    batch = LiraProcessor.from_pretrained(tmp_path)(TEXTS, CANDIDATES, SCORES, LANGUAGES)
    assert torch.equal(again(**batch).logits, lm(**batch).logits)
    assert not any(p.requires_grad for p in again.llm.parameters())
    retrieval = LiraForRetrieval.from_pretrained(tmp_path)
    assert torch.equal(retrieval.lira.lasr.position.weight, lm.lira.lasr.position.weight) and not hasattr(retrieval, "llm")


# Run by a Python that does not see this project.
OPEN = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

folder, given = sys.argv[1], json.loads(sys.argv[2])
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
retrieval, other = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
found = {
    "report": [sorted(keys) for keys in (*report.values(), *other.values())], "lira_hf": "lira_hf" in sys.modules,
    "classes": [type(each).__name__ for each in (processor, model, retrieval)],
    "written": model.generate(**processor(*given), max_new_tokens=5, do_sample=False, pad_token_id=0).tolist(),
    "sums": model.choice_log_likelihoods(given[0], [["1", "12"]] * 4, processor=processor)[0].tolist(),
}
print("FOUND" + json.dumps(found))
"""


@pytest.mark.slow
def test_a_clean_process_generates_what_this_one_does(backbones, llms, tmp_path):
    lm, reader = made(backbones, llms, "qwen3-lm"), LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["qwen3-lm"])
    lm.save_pretrained(tmp_path / "published")
    reader.save_pretrained(tmp_path / "published")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home")}
    given = [TEXTS, CANDIDATES, SCORES, LANGUAGES]
    done = subprocess.run(
        [sys.executable, "-I", "-c", OPEN, str(tmp_path / "published"), json.dumps(given)], cwd=tmp_path, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))[5:])
    assert found["classes"] == ["LiraProcessor", "LiraForCausalLM", "LiraForRetrieval"]
    assert not any(found["report"]) and found["lira_hf"] is False
    assert found["written"] == lm.generate(**reader(*given), max_new_tokens=5, do_sample=False, pad_token_id=0).tolist()
    expected = lm.choice_log_likelihoods(TEXTS, [["1", "12"]] * 4, processor=reader)[0]
    torch.testing.assert_close(torch.tensor(found["sums"]), expected, atol=1e-3, rtol=1e-4)


def test_a_stage_1_folder_opens_with_a_language_model_and_no_key_lost(backbones, llms, kind, tmp_path):
    torch.manual_seed(3)
    stage_1 = stirred(LiraForPreTraining.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL))
    stage_1.save_pretrained(tmp_path)
    model = LiraForCausalLM.from_anchored(tmp_path, llm=llms[kind], path_dropout=0.3)
    assert model.config.path_dropout == 0.3 and model.config.num_bins == 4
    for name, tensor in stage_1.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for name, tensor in AutoModelForCausalLM.from_pretrained(llms[kind]).state_dict().items():
        assert torch.equal(model.llm.state_dict()[name], tensor), name
    assert not any(p.is_meta for p in model.parameters()) and model.soft_prompt.scale > 0
    with pytest.raises(ValueError, match="^llm_config: None"):
        LiraForCausalLM.from_pretrained(tmp_path)


def test_half_precision_keeps_the_trained_part_whole(lm, reader, tmp_path):
    lm.save_pretrained(tmp_path)
    half = LiraForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.llm.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {p.dtype for p in (*half.soft_prompt.parameters(), half.soft_prompt.scale, *half.lira.lasr.parameters())} == {torch.float32}
    batch = reader(TEXTS, CANDIDATES, SCORES, LANGUAGES, answer=ANSWERS)
    assert half(**batch).loss.item() == pytest.approx(lm(**batch).loss.item(), rel=0.1)
    assert half.generate(**reader(TEXTS, CANDIDATES), max_new_tokens=3).shape[0] == 4


def test_what_makes_no_sense_is_refused(backbones, llms):
    pair = backbones["xlm-r"], backbones["bert"]
    with pytest.raises(ValueError, match="^llm_config: None"):
        LiraForCausalLM.from_backbones(*pair, **SMALL)
    with pytest.raises(ValueError, match="^fusion: 'pooled' is not allowed here"):
        LiraForCausalLM.from_backbones(*pair, llm=llms["gpt2"], **SMALL, fusion="pooled")
    with pytest.raises(ValueError, match="^llm: 'nowhere' is neither"):
        LiraForCausalLM.from_backbones(*pair, llm="nowhere", **SMALL)
    with pytest.raises(ValueError, match="^llm: .* LiraForRetrieval has no language model"):
        LiraForRetrieval.from_backbones(*pair, llm=llms["gpt2"], **SMALL)


# ---- the processor's third tokenizer -----------------------------------------------------------------------------------

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"


@pytest.fixture
def talker(backbones, llms):
    tokenizer = train_tokenizer(QWEN)
    tokenizer.chat_template = TEMPLATE
    processor = LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["gpt2"])
    return LiraProcessor(processor.tokenizer, processor.english_tokenizer, tokenizer, llm_prompt="Q: {question} A:")


def said(processor, batch):
    return [processor.llm_tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def test_without_a_prompt_the_best_candidate_is_asked_or_the_text(talker):
    plain = LiraProcessor(talker.tokenizer, talker.english_tokenizer, talker.llm_tokenizer, chat=False)
    scores = [[(1, 1, 1), (9, 9, 9)], None, None, [(2, 2, 2), (5, 5, 5), None]]  # 5.5 stands in for the last
    assert said(plain, plain(TEXTS, CANDIDATES, scores)) == ["black tv", TEXTS[1], "red dress", "red"]
    assert said(plain, plain(TEXTS[:1], [["one", "two"]], [[(4, 4, 4), (3, 5, 4)]])) == ["one"]  # the first of equals
    assert said(talker, talker(TEXTS[2:3], CANDIDATES[2:3])) == ["<user>Q: red dress A:<bot>"]


def test_chat_templates_are_respected(talker):
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "tv?"}]
    assert said(talker, talker(["a", "b"], prompt=["tv?", messages])) == ["<user>tv?<bot>", "<system>be kind<user>tv?<bot>"]
    batch = talker(["a", "b"], prompt=["tv?", messages], answer=["55", "red dress"])
    assert said(talker, batch) == ["<user>tv?<bot>55<|endoftext|>", "<system>be kind<user>tv?<bot>red dress<|endoftext|>"]
    for i, answer in enumerate(["55", "red dress"]):
        labels = batch["labels"][i]
        assert talker.llm_tokenizer.decode(labels[labels != -100]) == answer + "<|endoftext|>"
        assert (labels[labels != -100] == batch["input_ids"][i][labels != -100]).all()
    without = LiraProcessor(talker.tokenizer, talker.english_tokenizer, talker.llm_tokenizer, chat=False)
    assert said(without, without(["a"], prompt=["tv?"])) == ["tv?"] and said(without, without(["a"], prompt=[messages])) == [
        "<system>be kind<user>tv?<bot>"
    ]


def test_text_is_padded_on_the_left_and_long_prompts_lose_their_beginning(talker):
    batch = talker(["a", "b"], prompt=["t", "a long one about a tv"])
    assert batch["attention_mask"][0].tolist() == sorted(batch["attention_mask"][0].tolist()) and batch["attention_mask"][1].all()
    short = LiraProcessor(talker.tokenizer, talker.english_tokenizer, talker.llm_tokenizer, llm_max_length=6)
    assert short(["a"], prompt=["a long one about a tv"])["input_ids"].tolist() == batch["input_ids"][1:, -6:].tolist()


def test_a_processor_is_saved_with_and_without_its_third_tokenizer(talker, processor, tmp_path):
    talker.save_pretrained(tmp_path / "three")
    again = LiraProcessor.from_pretrained(tmp_path / "three")
    assert (again.llm_prompt, again.llm_max_length, again.chat) == ("Q: {question} A:", 1024, True)
    assert again.llm_tokenizer.chat_template == TEMPLATE
    one, two = talker(TEXTS, CANDIDATES, SCORES, LANGUAGES, answer=ANSWERS), again(TEXTS, CANDIDATES, SCORES, LANGUAGES, answer=ANSWERS)
    assert set(one) == set(two) == {*talker.model_input_names, "labels"} and all(torch.allclose(one[name], two[name], equal_nan=True) for name in one)
    processor.save_pretrained(tmp_path / "two")
    assert not (tmp_path / "two" / "llm_tokenizer").exists() and LiraProcessor.from_pretrained(tmp_path / "two").llm_tokenizer is None
    settings = json.loads((tmp_path / "two" / "processor_config.json").read_text())
    assert not [name for name in settings if "tokenizer" in name or "llm_folder" in name]
    shutil.rmtree(tmp_path / "three" / "llm_tokenizer")
    with pytest.raises((OSError, ValueError)):  # and not the tokenizer of the root in its place
        LiraProcessor.from_pretrained(tmp_path / "three")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ["one"]}, "prompt: .* for each of the 2 texts"),
        ({"prompt": ["one", 3]}, r"prompt\[1\]: 3 is not allowed"),
        ({"prompt": ["one", [{"role": "user"}]]}, r"prompt\[1\]: .* messages with role and content"),
        ({"prompt": ["one", "\ud800"]}, r"prompt\[1\]: a lone surrogate"),
        ({"answer": ["one"]}, "answer: .* for each of the 2 texts"),
        ({"answer": ["one", None]}, r"answer\[1\]: None is not a string"),
    ],
)
def test_wrong_prompts_and_answers_are_refused(talker, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        talker(["a", "b"], **arguments)


def test_a_processor_without_a_language_model_says_so(processor, talker):
    with pytest.raises(ValueError, match="^prompt: there is no language model"):
        processor(["a"], prompt=["b"])
    with pytest.raises(ValueError, match="^llm_prompt: 'Q:'"):
        LiraProcessor(talker.tokenizer, talker.english_tokenizer, talker.llm_tokenizer, llm_prompt="Q:")
    plain = LiraProcessor(talker.tokenizer, talker.english_tokenizer, train_tokenizer(QWEN))
    with pytest.raises(ValueError, match=r"^prompt\[0\]: .*has no chat template"):
        plain(["a"], prompt=[[{"role": "user", "content": "b"}]])
