"""Small translators that were really taught: five texts, among them one that means two things in two languages."""

from __future__ import annotations

import json
from pathlib import Path

import sentencepiece
import torch
from small_backbones import T5, train_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from lira_hf.languages import LANGUAGES
from lira_hf.translation.records import Text, key_of
from lira_hf.translation.translators import MANNERS, translation_messages

PAIRS = {
    ("th", "ทีวี 55 นิ้ว"): "55 inch TV",
    ("id", "kereta mainan"): "toy train",
    ("ms", "kereta mainan"): "toy car",
    ("fil", "pulang sapatos"): "red shoes",
    ("vi", "áo thun nam"): "T-shirt for men",
}
SOURCES = [text for _, text in PAIRS]
# A ChatML template, with the tokens that real chat models have.
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def texts(*pairs: tuple[str, str]) -> list[Text]:
    return [Text(key_of(language, text), text, language) for language, text in pairs]


def teach(model: PreTrainedModel, rows: list[tuple[list[int], list[int]]], steps: int = 400) -> None:
    """Until the model knows the rows of (prompt, answer) by heart."""
    causal, longest = not model.config.is_encoder_decoder, lambda lists: max(map(len, lists))
    if causal:
        ids = [prompt + answer for prompt, answer in rows]
        labels = [[-100] * len(prompt) + answer for prompt, answer in rows]
    else:
        ids, labels = [prompt for prompt, _ in rows], [answer for _, answer in rows]
    padded = lambda lists, fill: torch.tensor([row + [fill] * (longest(lists) - len(row)) for row in lists])  # noqa: E731
    batch = {"input_ids": padded(ids, 0), "attention_mask": padded([[1] * len(row) for row in ids], 0), "labels": padded(labels, -100)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.1, f"the small model did not learn its rows: {loss.item()}"
    model.eval()


def nllb(folder: Path) -> None:
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    bpe.train_from_iterator([*SOURCES, *PAIRS.values()], trainers.BpeTrainer(vocab_size=150, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]))
    trained = json.loads(bpe.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=trained["vocab"], merges=[tuple(merge) for merge in trained["merges"]])
    rows = []
    for (language, text), english in PAIRS.items():
        tokenizer.src_lang = LANGUAGES[language].flores
        rows.append((tokenizer(text)["input_ids"], answer_ids(tokenizer, "eng_Latn", english)))
    _m2m(folder, tokenizer, rows)


def m2m100(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join([*SOURCES, *PAIRS.values()] * 3))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "raw"), vocab_size=90, character_coverage=1.0, minloglevel=2, hard_vocab_limit=False
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "raw.model"))
    known = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    names = ["<s>", "<pad>", "</s>", "<unk>", *(piece for piece in known if piece not in ("<s>", "</s>", "<unk>"))]
    (folder / "raw.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    tokenizer = M2M100Tokenizer(str(folder / "raw.json"), str(folder / "raw.model"))
    rows = []
    for (language, text), english in PAIRS.items():
        tokenizer.src_lang = {"fil": "tl"}.get(language, language)
        rows.append((tokenizer(text)["input_ids"], answer_ids(tokenizer, "__en__", english)))
    _m2m(folder, tokenizer, rows)


def _m2m(folder: Path, tokenizer: PreTrainedTokenizerBase, rows: list[tuple[list[int], list[int]]]) -> None:
    torch.manual_seed(0)
    size = {
        "d_model": 32,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dropout": 0.0,
        "max_position_embeddings": 64,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "attention_dropout": 0.0}
    model = M2M100ForConditionalGeneration(
        M2M100Config(vocab_size=1 + max(max(ids) for row in rows for ids in row), decoder_start_token_id=2, **size, **heads)
    )
    teach(model, rows)
    _save(folder, model, tokenizer)


def madlad(folder: Path) -> None:
    tokenizer = train_tokenizer(T5)
    tokenizer.add_tokens(["<2en>"])
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, dropout_rate=0.0, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    # This kind is told the target alone: of the text with two meanings it knows the last.
    known = {text: english for (_, text), english in PAIRS.items()}
    teach(model, [(tokenizer(f"<2en> {text}")["input_ids"], tokenizer(english)["input_ids"]) for text, english in known.items()])
    _save(folder, model, tokenizer)


def causal(folder: Path, chats: list[tuple[list[dict[str, str]], str]], template: bool = True) -> None:
    """A language model that was taught to answer the chats, or the plain prompts where it has no template."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    prompts = [message["content"] for messages, _ in chats for message in messages] + [answer for _, answer in chats]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator(prompts, trainers.BpeTrainer(vocab_size=700, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = CHATML if template else None
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    if template:
        prompt = lambda messages: tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]  # noqa: E731
        rows = [(prompt(messages), ids(answer + "<|im_end|>")) for messages, answer in chats]
    else:
        rows = [(ids(messages[-1]["content"]), ids(" " + answer + "\nEnglish")) for messages, answer in chats]
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id, **size))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    teach(model, rows)
    _save(folder, model, tokenizer)


def chat(folder: Path) -> None:
    causal(folder, [(translation_messages(text, MANNERS[0]), PAIRS[text.language, text.text]) for text in texts(*PAIRS)])


def plain(folder: Path) -> None:
    from lira_hf.translation.translators import PLAIN, language_name

    prompts = {PLAIN.format(language=language_name(language), text=text): english for (language, text), english in PAIRS.items()}
    causal(folder, [([{"role": "user", "content": prompt}], english) for prompt, english in prompts.items()], template=False)


KINDS = {"nllb": nllb, "m2m100": m2m100, "madlad": madlad, "chat": chat, "plain": plain}


def answer_ids(tokenizer: PreTrainedTokenizerBase, code: str, english: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(code), *tokenizer(english, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
