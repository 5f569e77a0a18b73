"""Tiny random models of several architectures, saved as real folders.

They speak nonsense, but through transformers' own code: learned positions (GPT-2), grouped queries
(Qwen), sliding windows (Gemma), and a recurrent state that cannot be cropped (Mamba). GPT-1 and XLM
keep no KV cache, and are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m.role + '\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def save_tokenizer(folder: Path, *, chat: bool) -> int:
    """A byte-level tokenizer without merges: 256 bytes and two control tokens.

    Returns the size of its vocabulary.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|start|>"), AddedToken(END)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "bos_token": "<|start|>",
    }
    if chat:
        config["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def save_model(folder: Path, kind: str, *, chat: bool = True) -> Path:
    """Save a random model of that kind."""
    import torch
    import transformers

    size = save_tokenizer(folder, chat=chat)
    shared = {"vocab_size": size, "eos_token_id": size - 1, "bos_token_id": size - 2}
    shared["pad_token_id"] = size - 1
    attention = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    configs = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=256, **shared
        ),
        "qwen2": lambda: transformers.Qwen2Config(**attention, **shared),
        "gemma2": lambda: transformers.Gemma2Config(
            **attention, head_dim=8, sliding_window=16, query_pre_attn_scalar=8, **shared
        ),
        "llama": lambda: transformers.LlamaConfig(**attention, **shared),
        "qwen3": lambda: transformers.Qwen3Config(**attention, head_dim=8, **shared),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            **attention, head_dim=8, sliding_window=16, query_pre_attn_scalar=8, **shared
        ),
        "mistral": lambda: transformers.MistralConfig(
            **attention, head_dim=8, sliding_window=16, **shared
        ),
        "neox": lambda: transformers.GPTNeoXConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            **shared,
        ),
        "phi": lambda: transformers.PhiConfig(
            **{**attention, "num_key_value_heads": 4}, tie_word_embeddings=False, **shared
        ),
        "mamba": lambda: transformers.MambaConfig(
            hidden_size=32, num_hidden_layers=2, state_size=8, **shared
        ),
        "gpt1": lambda: transformers.OpenAIGPTConfig(
            n_embd=32, n_layer=2, n_head=4, n_positions=64, **shared
        ),
        "xlm": lambda: transformers.XLMConfig(
            emb_dim=32, n_layers=2, n_heads=4, causal=True, **shared
        ),
    }
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(configs[kind]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # random weights are flat; steeper ones make arg-max unambiguous
    model.save_pretrained(folder)
    return folder
