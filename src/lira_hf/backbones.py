"""The tiny backbones of quickstart and tests: two small sentence encoders, trained here in about a minute.

They are real encoders with real tokenizers, saved as any other, but they know nothing beyond catalogue text: 2 layers, 128 wide,
trained by InfoNCE on pairs that share no product family and no query intent with LiRA's rows. They stand in for encoders that cannot
be downloaded; their scores say nothing about those."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tqdm.auto import trange
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast, XLMRobertaConfig, get_linear_schedule_with_warmup

from lira_hf.catalogue import SIZES
from lira_hf.catalogue.backbone_text import pairs
from lira_hf.languages import check_languages
from lira_hf.modeling.arca_lira import sentence_pooling

SIZE = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 260}
MAX_LENGTH = 64
TEMPERATURE = 0.05  # of the InfoNCE loss, in units of cosine


def train_tiny_backbones(
    output: str | Path,
    languages: list[str] | None = None,
    seed: int = 0,
    steps: tuple[int, int] = (300, 150),
    types: int | None = SIZES["small"].types,
    batch_size: int = 128,
    show_progress_bar: bool = True,
) -> dict[str, Path]:
    """Trains and saves OUTPUT/multilingual and OUTPUT/english; returns the two folders. Finished ones are kept as they are.

    Args:
        languages: of the multilingual encoder, None for all seven. seed: of text, weights and order.
        steps: of the multilingual and of the English encoder, each of batch_size pairs; together about a minute on two cores.
        types: the product types they read of, as many as the data set has; None for all."""
    languages = check_languages(languages)
    folders = {}
    for path, codes, count in (("multilingual", [*languages, "en"], steps[0]), ("english", ["en"], steps[1])):
        folders[path] = Path(output) / path
        recipe = {"languages": codes, "seed": seed, "steps": count, "batch_size": batch_size, "types": types}
        done = folders[path] / "recipe.json"
        if done.exists() and json.loads(done.read_text()) == recipe:
            continue
        train_pairs = pairs(codes, count * batch_size, seed, types)
        part = folders[path].with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        tokenizer, encoder = build(path, [text for _, *two in train_pairs for text in two], seed)
        train(encoder, tokenizer, [(anchor, positive) for _, anchor, positive in train_pairs], batch_size, seed, show_progress_bar, path)
        encoder.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / "recipe.json").write_text(json.dumps(recipe))
        shutil.rmtree(folders[path], ignore_errors=True)
        part.rename(folders[path])
    return folders


def build(path: str, texts: list[str], seed: int) -> tuple[PreTrainedTokenizerFast, torch.nn.Module]:
    """A tokenizer trained on texts and an untrained encoder: Unigram and XLM-R for the multilingual path, WordPiece and BERT for English."""
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
    if path == "multilingual":
        config = XLMRobertaConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZE)
    else:
        config = BertConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=0, **SIZE)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **special), AutoModel.from_config(config)


def train(
    encoder: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    text_pairs: list[tuple[str, str]],
    batch_size: int,
    seed: int,
    progress: bool,
    name: str,
) -> None:
    """One pass of symmetric InfoNCE with mean pooling over text_pairs."""
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
            vectors.append(sentence_pooling(states, tokens["attention_mask"], "mean"))
        logits = vectors[0] @ vectors[1].T / TEMPERATURE  # [B, B]
        labels = torch.arange(len(batch))
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    encoder.eval()
