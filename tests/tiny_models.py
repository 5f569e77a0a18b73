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
    size = save_tokenizer(folder, chat=chat)
    make_model(kind, size).save_pretrained(folder)
    return folder


def make_model(kind: str, size: int, **more: Any) -> Any:
    """A random model of transformers' with a vocabulary of that size; `more` of its config."""
    import torch
    import transformers

    shared = {"vocab_size": size, "eos_token_id": size - 1, "bos_token_id": size - 2}
    shared["pad_token_id"] = size - 1
    attention = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        **more,
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
        "phi3": lambda: transformers.Phi3Config(**attention, **shared),
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
    return model


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
    _add_vocabulary(writer, bos=bos, template=template)
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
    return _written(writer, path)


def _add_vocabulary(writer: Any, *, bos: bool = False, template: str = CHAT_TEMPLATE) -> None:
    import gguf
    from tokenizers import pre_tokenizers

    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*sorted(pre_tokenizers.ByteLevel.alphabet()), "Āā", "<|start|>", END])
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([normal] * (VOCABULARY - 2) + [control] * 2)
    writer.add_token_merges(["Ā ā"])  # of the bytes 0 and 1; llama.cpp wants at least one
    writer.add_bos_token_id(VOCABULARY - 2)
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(bos)
    writer.add_chat_template(template)


def _written(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {},
    "gemma3": {"num_hidden_layers": 6},  # five with a window, one without
    "phi3": {},
    "mamba": {},
}
"""Those that a GGUF is made of, with what their configs have besides."""


def save_gguf_of(path: Path, kind: str) -> Any:
    """Save a random model of transformers' as GGUF, as llama.cpp's converter would.

    Returns the model: what is read out of the file can be held against it.
    """
    import gguf
    import numpy as np

    model = make_model(kind, VOCABULARY, **ARCHITECTURES[kind]).eval()
    config = model.config
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("Tiny")  # llama.cpp looks for some names
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(512)
    if kind == "mamba":
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_ssm_conv_kernel(config.conv_kernel)
        writer.add_ssm_inner_size(config.intermediate_size)
        writer.add_ssm_state_size(config.state_size)
        writer.add_ssm_time_step_rank(config.time_step_rank)
        writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    else:
        width = getattr(config, "head_dim", None) or config.hidden_size // 4
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(width)
        writer.add_value_length(width)
        writer.add_rope_dimension_count(width)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if kind == "gemma3":
        writer.add_rope_freq_base(1_000_000.0)
    _add_vocabulary(writer)
    names = gguf.get_tensor_name_map(
        next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == kind),
        config.num_hidden_layers,
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            halves = values.reshape(heads, 2, -1, values.shape[-1])
            values = halves.swapaxes(1, 2).reshape(values.shape)  # pairs side by side
        if name.endswith("A_log"):
            values = -np.exp(values)
        if "conv1d.weight" in name:
            values = values.squeeze(1)
        told = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert told is not None, name
        writer.add_tensor(told, np.ascontiguousarray(values, np.float32))
    _written(writer, path)
    return model
