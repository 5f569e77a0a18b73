"""Tiny tokenizers of the two great families, built here so that no test needs a download."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '[INST] ' + message['content'] | trim + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)

BYTE_LEVEL_ADDED = [
    AddedToken("<|endoftext|>", special=True, normalized=False),
    AddedToken("<|im_start|>", special=True, normalized=False),
    AddedToken("<|im_end|>", special=True, normalized=False),
    AddedToken("<think>", special=False, normalized=False),
    AddedToken("</think>", special=False, normalized=False),
    AddedToken("    ", special=False, normalized=False),
    AddedToken("░", special=False, normalized=False),
    AddedToken("<|strip|>", special=True, normalized=False, lstrip=True, rstrip=True),
]

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "< |", "| >", "Ġ Ġ", "Ċ Ċ", "i m"]


def byte_level() -> Tokenizer:
    """Byte-level BPE with a few merges, as GPT-2 and its descendants have it.

    One control token stands in the model's own vocabulary too, with a merge that leads to it.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    merges = [(first, second) for first, second in (merge.split(" ") for merge in MERGES)]
    for first, second in merges:
        vocabulary[first + second] = len(vocabulary)
    spelling = ["im", "_", "e", "n", "d"]
    for end in range(2, len(spelling) + 1):
        merges.append(("".join(spelling[: end - 1]), spelling[end - 1]))
        vocabulary["".join(spelling[:end])] = len(vocabulary)
    merges += [("<|", "im_end"), ("<|im_end", "|>")]
    vocabulary["<|im_end"] = len(vocabulary)
    vocabulary["<|im_end|>"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern="\n\n\n", behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(BYTE_LEVEL_ADDED)
    return tokenizer


def sentencepiece(scheme: str = "legacy") -> Tokenizer:
    """BPE with byte fallback and "▁" for spaces, as Llama 2 has it.

    `legacy` puts a space before every stretch of text (a normalizer does); `first` only before
    the whole text (the pre-tokenizer does).
    """
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz[]/INSTHP<>.?!\n"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("h", "i"), ("▁", "hi"), ("▁", "▁")]
    pieces += [first + second for first, second in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if scheme == "legacy":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return tokenizer


def unigram() -> Tokenizer:
    """A unigram model whose own pieces spell its control tokens, as T5's and others' do."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz</>"]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("▁the", -1.0)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("</s>"), AddedToken("<unk>")])
    return tokenizer


def save(
    tokenizer: Tokenizer, folder: Path, *, chat_template: str | None = None, **special: str
) -> Path:
    """A folder as models come in."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
