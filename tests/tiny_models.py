"""Tiny random models of several architectures, saved as real folders.

They speak nonsense, but through transformers' own code: learned positions (GPT-2), grouped queries
(Qwen), sliding windows (Gemma), and a recurrent state that cannot be cropped (Mamba). GPT-1 and XLM
keep no KV cache, and are refused. A tiny GGUF runs on llama.cpp, which starts without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
        "recurrent_gemma": lambda: transformers.RecurrentGemmaConfig(
            **{**attention, "num_hidden_layers": 3}, lru_width=32, attention_window_size=8, **shared
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


VOCABULARY = 259
"""Tokens of the tiny GGUF: 256 bytes, one merged pair, two control tokens."""


def save_gguf(
    path: Path,
    context: int = 512,
    *,
    bos: bool = False,
    template: str = CHAT_TEMPLATE,
    extra: Mapping[str, Sequence[int]] | None = None,
    rope_scaling: str = "",
    temperature: float | None = None,
) -> Path:
    """Save a random Llama of two layers as GGUF, with byte tokens and one merge.

    Args:
        path: where to.
        context: how many tokens it reads.
        bos: whether every text begins with the BOS token.
        template: its chat template.
        extra: further tensors, by name, with their shapes.
        rope_scaling: how it says that its positions are scaled; empty where they aren't.
        temperature: what its makers recommend, where they do.
    """
    import gguf
    import numpy as np
    from tokenizers import pre_tokenizers

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Āā", "<|start|>", END]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(VOCABULARY)
    if rope_scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope_scaling))
        writer.add_rope_scaling_factor(4.0)
    if temperature is not None:
        writer.add_sampling_temp(temperature)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([normal] * (VOCABULARY - 2) + [control] * 2)
    writer.add_token_merges(["Ā ā"])  # of the bytes 0 and 1; llama.cpp wants at least one
    writer.add_bos_token_id(VOCABULARY - 2)
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(bos)
    writer.add_chat_template(template)
    numbers = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        # Random weights are flat; steeper ones make arg-max unambiguous.
        writer.add_tensor(name, numbers.normal(0, 0.06, shape).astype(np.float32))

    add("token_embd.weight", VOCABULARY, 32)
    add("output.weight", VOCABULARY, 32)
    writer.add_tensor("output_norm.weight", np.full(32, 3, np.float32))
    for layer in range(2):
        for name, rows, columns in (
            ("attn_q", 32, 32), ("attn_k", 16, 32), ("attn_v", 16, 32), ("attn_output", 32, 32),
            ("ffn_gate", 64, 32), ("ffn_up", 64, 32), ("ffn_down", 32, 64),
        ):  # fmt: skip
            add(f"blk.{layer}.{name}.weight", rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(32, np.float32))
    for name, shape in (extra or {}).items():
        add(name, *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
