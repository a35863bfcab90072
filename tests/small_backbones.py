"""Small backbones made from configs, with real tokenizers trained on the spot: no download, no mock."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, GPT2Config, PreTrainedTokenizerFast, Qwen3Config, T5Config, XLMRobertaConfig

SENTENCES = [
    "55 inch TV black", "smart television 55 inch", "red cotton dress for women", "TV 55", "rice cooker 1.8 l", "blue shoes size 42",
    "ทีวี 55 นิ้ว สีดำ", "ชุดเดรสผ้าฝ้ายสีแดง", "áo thun nam màu đen", "nồi cơm điện 1.8 lít", "sepatu biru ukuran 42", "kasut biru saiz 42",
    "لال سوتی لباس", "چاول پکانے والا", "লাল সুতির জামা", "নীল জুতা", "pulang damit pambabae", "sapatos na asul",
]  # fmt: skip


def train_tokenizer(special: dict[str, str], template: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys(special.values()))
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    if template:
        first, last = special.get("cls_token"), special["sep_token"]
        pattern = f"{first} $A {last}" if first else f"$A {last}"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=pattern, special_tokens=[(t, tokenizer.token_to_id(t)) for t in {first, last} if t]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
XLMR = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
QWEN = {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "sep_token": "<|endoftext|>"}

KINDS = {
    "bert": (BERT, lambda v: BertConfig(vocab_size=v, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)),
    "xlm-r": (XLMR, lambda v: XLMRobertaConfig(vocab_size=v, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, pad_token_id=1)),
    "t5": (T5, lambda v: T5Config(vocab_size=v, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)),
    "qwen3": (QWEN, lambda v: Qwen3Config(vocab_size=v, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8)),
}  # fmt: skip

# Causal language models: rotary positions and tied embeddings; learned positions. Large random weights, so that one row's text is not the next one's.
LLMS = {
    "qwen3-lm": lambda v: Qwen3Config(vocab_size=v, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=12, tie_word_embeddings=True, initializer_range=0.5, bos_token_id=None, eos_token_id=0),
    "gpt2": lambda v: GPT2Config(vocab_size=v, n_embd=24, n_layer=2, n_head=2, n_positions=128, initializer_range=0.5, bos_token_id=None, eos_token_id=0),
}  # fmt: skip

SMALL = {"width": 32, "num_bins": 4, "fusion_layers": 1, "fusion_heads": 2}


def stirred(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (model.lira.arca, model.lira.lasr):
            for parameter in part.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
