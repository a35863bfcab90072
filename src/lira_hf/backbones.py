"""The tiny backbones of quickstart, benchmarks and tests: two small sentence encoders, trained here in about a minute, and a language model.

They are real models with real tokenizers, saved as any other, but they know nothing beyond the catalogue: the encoders are 2 layers,
128 wide, trained by InfoNCE on pairs that share no product family and no query intent with LiRA's rows; the language model is 3 layers,
128 wide, trained to write the solutions of English word problems. They stand in for models that cannot be downloaded; their scores say
nothing about those."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tqdm.auto import trange
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    XLMRobertaConfig,
    get_linear_schedule_with_warmup,
)

from lira_hf.catalogue import SIZES
from lira_hf.catalogue.backbone_text import pairs
from lira_hf.catalogue.problems.backbone_text import problem_pairs, solved_problems
from lira_hf.languages import check_languages
from lira_hf.modeling.arca_lira import sentence_pooling
from lira_hf.modeling.processing_lira import padded

WIDTH = 128  # of both encoders, unless others are asked for
ENGLISH_KINDS = ("bert", "qwen3")
SIZE = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 260}
MAX_LENGTH = 64
TEMPERATURE = 0.05  # of the InfoNCE loss, in units of cosine
LLM_SIZE = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256,
    "max_position_embeddings": 512, "initializer_range": 0.05, "tie_word_embeddings": True,
}  # fmt: skip
EQUATIONS = 0.1  # of the language model's rows are a solution alone, so that it learns to calculate too


def train_tiny_backbones(
    output: str | Path,
    languages: list[str] | None = None,
    seed: int = 0,
    steps: tuple[int, int] = (300, 150),
    types: int | None = SIZES["small"].types,
    batch_size: int = 128,
    show_progress_bar: bool = True,
    problems: bool = False,
    english: str = "bert",
    widths: tuple[int, int] = (WIDTH, WIDTH),
) -> dict[str, Path]:
    """Trains and saves OUTPUT/multilingual and OUTPUT/english; returns the two folders. Finished ones are kept as they are.

    Args:
        languages: of the multilingual encoder, None for all seven. seed: of text, weights and order.
        steps: of the multilingual and of the English encoder, each of batch_size pairs; together about a minute on two cores.
        types: the product types they read of, as many as the data set has; None for all.
        problems: whether every second batch holds word problems, in the wordings of their training split, and their translations.
        english: kind of the English encoder: bert, or qwen3, a decoder whose last token is the sentence.
        widths: of both, multiples of 8."""
    languages = check_languages(languages)
    if english not in ENGLISH_KINDS:
        raise ValueError(f"english: {english!r} is not allowed; one of {', '.join(ENGLISH_KINDS)} is")
    for width in widths:
        if width < 8 or width % 8:
            raise ValueError(f"widths: {width} is not allowed; a multiple of 8 is")
    folders = {}
    plans = (("multilingual", [*languages, "en"], steps[0], widths[0]), ("english", ["en"], steps[1], widths[1]))
    for path, codes, count, width in plans:
        decoder = path == "english" and english == "qwen3"
        folders[path] = Path(output) / path
        recipe = {"languages": codes, "seed": seed, "steps": count, "batch_size": batch_size, "types": types, "problems": problems}
        recipe |= ({"kind": english} if decoder else {}) | ({"width": width} if width != WIDTH else {})
        if is_made(folders[path], recipe):
            continue
        train_pairs = pairs(codes, count * batch_size, seed, types)
        if problems:
            train_pairs = alternating(train_pairs, problem_pairs(codes, count * batch_size, seed), batch_size)
        tokenizer, encoder = build(path, [text for _, *two in train_pairs for text in two], seed, width, decoder)
        text_pairs = [(anchor, positive) for _, anchor, positive in train_pairs]
        train(encoder, tokenizer, text_pairs, batch_size, seed, show_progress_bar, path, "last" if decoder else "mean")
        keep(folders[path], recipe, encoder, tokenizer)
    return folders


def is_made(folder: Path, recipe: dict) -> bool:
    done = folder / "recipe.json"
    return done.exists() and json.loads(done.read_text()) == recipe


def keep(folder: Path, recipe: dict, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """Model, tokenizer and what they were made by, whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / "recipe.json").write_text(json.dumps(recipe))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def alternating(first: list, second: list, size: int) -> list:
    """The two lists in turns of size."""
    return [item for start in range(0, len(first), size) for items in (first, second) for item in items[start : start + size]]


def build(path: str, texts: list[str], seed: int, width: int = WIDTH, decoder: bool = False) -> tuple[PreTrainedTokenizerFast, torch.nn.Module]:
    """A tokenizer trained on texts and an untrained encoder: Unigram and XLM-R for the multilingual path, WordPiece and BERT, or with
    `decoder` Qwen3, for English."""
    if path == "multilingual":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        names = ["<s>", "<pad>", "</s>", "<unk>"]  # XLM-R's ids: 0, 1, 2, 3
        tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=6000, special_tokens=names, unk_token="<unk>", show_progress=False))
        first, last = "<s>", "</s>"
        special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=3000, special_tokens=names, show_progress=False))
        first, last = "[CLS]", "[SEP]"
        special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    ids = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)
    torch.manual_seed(seed)
    size = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": width, "intermediate_size": 2 * width, **SIZE}
    if path == "multilingual":
        config = XLMRobertaConfig(pad_token_id=1, bos_token_id=0, eos_token_id=2, **size)
    elif decoder:
        ends = tokenizer.token_to_id(last)
        heads = {"num_key_value_heads": 2, "head_dim": width // SIZE["num_attention_heads"]}
        config = Qwen3Config(pad_token_id=0, bos_token_id=None, eos_token_id=ends, **heads, **size)
    else:
        config = BertConfig(pad_token_id=0, **size)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **special), AutoModel.from_config(config)


def train(
    encoder: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    text_pairs: list[tuple[str, str]],
    batch_size: int,
    seed: int,
    progress: bool,
    name: str,
    pooling: str,
) -> None:
    """One pass of symmetric InfoNCE over text_pairs."""
    steps = len(text_pairs) // batch_size
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    torch.manual_seed(seed)
    encoder.train()
    for step in trange(steps, desc=f"tiny {name} encoder", disable=not progress, unit="step"):
        batch = text_pairs[step * batch_size : (step + 1) * batch_size]
        vectors = []
        for side in (0, 1):
            tokens = tokenizer([pair[side] for pair in batch], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            states = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
            vectors.append(sentence_pooling(states, tokens["attention_mask"], pooling))
        logits = vectors[0] @ vectors[1].T / TEMPERATURE  # [B, B]
        labels = torch.arange(len(batch))
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    encoder.eval()


# ---- a language model that solves English word problems --------------------------------------------------------------------


def train_tiny_llm(
    output: str | Path, seed: int = 0, steps: int = 1500, rows: int = 20_000, batch_size: int = 64, show_progress_bar: bool = True
) -> Path:
    """Trains and saves OUTPUT/llm, a causal language model that goes on after an English word problem with its solution ("3 * 5 = 15");
    returns the folder. A finished one is kept as it is.

    It reads `rows` problems, in English and in recombined wordings of the training split alone; a quarter of them ask for something else
    than the data set's problems do, so that it minds what a text says. A number is one token.

    Args:
        seed: of text, weights and order. steps: each of batch_size problems; some ten minutes on two cores."""
    folder = Path(output) / "llm"
    recipe = {"seed": seed, "steps": steps, "rows": rows, "batch_size": batch_size}
    if is_made(folder, recipe):
        return folder
    solved = solved_problems(rows, seed)
    tokenizer, model = build_llm(solved, seed)
    train_llm(model, tokenizer, solved, steps, batch_size, seed, show_progress_bar)
    keep(folder, recipe, model, tokenizer)
    return folder


def build_llm(solved: list[tuple[str, str]], seed: int) -> tuple[PreTrainedTokenizerFast, torch.nn.Module]:
    """A tokenizer of whole words and numbers, those of solved and every number below 200, and an untrained Llama."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [text for two in solved for text in two] + [str(number) for number in range(200)]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", model_input_names=["input_ids", "attention_mask"], **names)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(fast), pad_token_id=0, eos_token_id=1, bos_token_id=None, **LLM_SIZE)
    return fast, AutoModelForCausalLM.from_config(config)


def train_llm(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    solved: list[tuple[str, str]],
    steps: int,
    batch_size: int,
    seed: int,
    progress: bool,
) -> None:
    """Next-token loss on solutions, each behind its problem or, for a tenth of the steps and a tenth of the rows after them, alone."""
    end = [tokenizer.eos_token_id]
    questions = tokenizer([question for question, _ in solved])["input_ids"]
    solutions = [ids + end for ids in tokenizer([solution for _, solution in solved])["input_ids"]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    rng = Random(seed)
    model.train()
    for step in trange(steps, desc="tiny language model", disable=not progress, unit="step"):
        picked = [rng.randrange(len(solved)) for _ in range(batch_size)]
        asked = [[] if step < steps * EQUATIONS or rng.random() < EQUATIONS else questions[place] for place in picked]
        written = [solutions[place] for place in picked]
        ids, mask = padded([a + b for a, b in zip(asked, written, strict=True)], tokenizer.pad_token_id)
        labels, _ = padded([[-100] * len(a) + b for a, b in zip(asked, written, strict=True)], -100)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
