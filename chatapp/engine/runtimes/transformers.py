"""Models in folders, and GGUF files where that is asked for, on transformers and torch.

A GGUF file takes transformers long to read (its tensors are dequantized one by one), so it is
converted once into a prepared folder: float32 safetensors, exactly the values that the quantized
file stands for. Its tokens are still those of the file, as llama.cpp reads it.

Weights come from safetensors or GGUF only, and no code from a model's folder is ever run.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatapp.chat.errors import EngineError, first_line
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Report
from chatapp.engine.runtimes.base import (
    CannotFork,
    Floats,
    Reading,
    Stopped,
    Watch,
    check_memory,
    recommended,
)
from chatapp.engine.runtimes.folder_tokenizer import FolderTokenizer
from chatapp.engine.runtimes.gguf_tokenizer import GgufTokenizer, read_vocabulary
from chatapp.engine.runtimes.library import NoLibrary
from chatapp.engine.runtimes.prepare import PREPARED_FACTS, prepare_gguf
from chatapp.engine.runtimes.progress import report_weights
from chatapp.engine.runtimes.tokenizer import ModelTokenizer, check_tokenizer
from chatapp.engine.runtimes.whole import (
    check_parameters,
    check_plain_files,
    check_sizes,
    check_steps,
    check_used,
)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params")
"""What forward calls its cache: since transformers 5.24, before, and before for state spaces."""

_WRITES = ("ForCausalLM", "LMHeadModel", "WithLMHead")
_TURNED_ANEW = ("dynamic", "longrope")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")

PIECE = 128
"""Tokens read at once: whoever watches is told between pieces."""


@dataclass(slots=True)
class TransformersRuntime:
    """A causal language model of transformers, in eval mode; implements `base.Runtime`."""

    model: Any
    tokenizer: ModelTokenizer
    facts: ModelFacts
    cache_argument: str
    """What its forward takes the KV cache as, and gives it back as."""
    recurrent: bool
    """Whether any layer carries a state from token to token instead of keys and values.

    transformers' scans over several tokens begin from nothing, whatever the cache holds, and only
    single tokens go on from it. So such a model reads a text in one go, and is never put back.
    """
    input_device: torch.device
    """Where token ids have to be."""

    @property
    def reads_in_pieces(self) -> bool:
        return not self.recurrent

    def sequence(self) -> TransformersSequence:
        return TransformersSequence(self, None, [])

    def close(self) -> None:
        self.model = None

    def run(
        self, ids: Sequence[Sequence[int]], cache: Any, last: int, *, states: bool
    ) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """One pass of the model over (rows, n) further ids.

        Returns the cache; the logits of the last ids, (rows, last, V); the hidden states of all of
        them, (rows, n, d), where n is 0 if they aren't wanted. Raises EngineError: the model
        failed.
        """
        arguments: dict[str, Any] = {"use_cache": True, "logits_to_keep": max(last, 1)}
        if cache is not None:
            arguments[self.cache_argument] = cache
        if states:
            arguments["output_hidden_states"] = True
        try:
            with torch.inference_mode():
                tokens = torch.tensor([list(row) for row in ids], device=self.input_device)
                output = self.model(tokens, **arguments)
                logits = output.logits[:, output.logits.shape[1] - last :].float()
                hidden = output.hidden_states[-1].float() if states else logits[:, :0, :0]
        except (RuntimeError, MemoryError) as error:
            raise EngineError(f"the model failed: {first_line(error)}") from error
        return getattr(output, self.cache_argument), logits, hidden


class TransformersSequence:
    """One text and transformers' cache of it; implements `base.KVSequence`."""

    def __init__(self, runtime: TransformersRuntime, cache: Any, ids: list[int]) -> None:
        """Go on from a cache object that holds these ids; None and no ids is nothing."""
        self._runtime = runtime
        self.cache = cache
        self.ids = ids

    def read(
        self, ids: Sequence[int], *, last: int = 1, watch: Watch | None = None, states: bool = False
    ) -> Reading:
        size = PIECE
        if self._runtime.recurrent:
            size = 1 if self.ids else len(ids)
        logits, hidden = [], []
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            ahead = len(ids) - start - len(piece)  # what will be read after this piece
            wanted = min(max(last - ahead, 0), len(piece))
            try:
                self.cache, rows, vectors = self._runtime.run(
                    [piece], self.cache, wanted, states=states
                )
            except BaseException:
                self.clear()  # half of the layers may have taken the ids, the others not
                raise
            self.ids.extend(piece)
            logits.append(_numbers(rows[0]))
            hidden.append(_numbers(vectors[0]))
            if watch is not None and not watch(start + len(piece)):
                raise Stopped("the reading was stopped")
        return Reading(np.concatenate(logits), np.concatenate(hidden))

    def crop(self, length: int) -> None:
        surplus = len(self.ids) - length
        if surplus <= 0:
            return
        if length > 0 and self._is_croppable():
            self.cache.crop(-surplus)
            del self.ids[length:]
        else:
            self.clear()

    def clear(self) -> None:
        self.cache = None
        self.ids = []

    def fork(self, length: int) -> TransformersSequence:
        if 0 < length < len(self.ids) and not self._is_croppable():
            raise CannotFork("this model's state can't be put back to an earlier token")
        if length == 0:
            return self._runtime.sequence()
        other = TransformersSequence(self._runtime, copy.deepcopy(self.cache), list(self.ids))
        other.crop(length)
        return other

    def rows(self) -> TransformersRows:
        if self.cache is not None and not hasattr(self.cache, "reorder_cache"):
            facts = self._runtime.facts
            raise CannotFork(
                f"{facts.name} ({facts.architecture}) keeps its state in a form that cannot be"
                " split into several continuations; use sampling with this model"
            )
        return TransformersRows(self._runtime, copy.deepcopy(self.cache))

    def close(self) -> None:
        self.clear()

    def _is_croppable(self) -> bool:
        """Whether every layer can be put back; asked first, since a failed crop ruins the cache."""
        if self._runtime.recurrent:
            return False
        for layer in self.cache.layers:
            if not getattr(layer, "is_croppable", False):
                return False
            full = getattr(layer, "is_sliding", False) and (
                layer.get_seq_length() >= layer.sliding_window
            )
            if full:
                return False
        return True


class TransformersRows:
    """Rows of a batch in one cache; implements `base.Rows`.

    All rows are of one length, so there is no padding and no attention mask: a row's numbers are
    those it would have alone, up to rounding.
    """

    def __init__(self, runtime: TransformersRuntime, cache: Any) -> None:
        """Start from transformers' cache object (one row), which is changed."""
        self._runtime = runtime
        self._cache = cache

    def select(self, rows: Sequence[int]) -> None:
        # The name is transformers': it was made for beam search.
        self._cache.reorder_cache(torch.tensor(list(rows), device=self._runtime.input_device))

    def read(self, ids: Sequence[int], *, states: bool = False) -> Reading:
        self._cache, logits, hidden = self._runtime.run(
            [[token_id] for token_id in ids], self._cache, 1, states=states
        )
        return Reading(_numbers(logits[:, -1]), _numbers(hidden[:, -1:].flatten(1)))

    def close(self) -> None:
        self._cache = None


def _numbers(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.cpu().numpy()
    return array


def load_transformers(
    source: ModelSource, options: LoadOptions, prepared: Path, on_progress: Report
) -> TransformersRuntime:
    """Load a causal language model from a folder or a GGUF file. Raises EngineError."""
    if source.kind == "gguf":
        folder = prepare_gguf(source, prepared, on_progress)
    else:
        folder = Path(source.path)
        check_plain_files(folder)
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    dtype = _pick_dtype(options.dtype, device, folder)
    elements, tensors = _count_weights(folder)
    check_sizes(folder, _read_json(folder / "config.json"), elements, tensors)
    check_memory(
        elements * dtype.itemsize,
        f"{folder.name} needs",
        f"of memory as {str(dtype)[6:]}",
        "close something, or choose a smaller model or dtype",
        more=torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0,
    )
    try:
        # The tokenizer first: what is wrong with it is known sooner than the weights are read.
        tokenizer = _load_tokenizer(source, folder)
        check_tokenizer(tokenizer, source.path)
        model = _load_weights(folder, source, device, dtype, elements, on_progress)
        runtime = TransformersRuntime(
            model=model,
            tokenizer=tokenizer,
            facts=_facts(model, tokenizer, source, folder, options),
            cache_argument=_cache_argument(model, source),
            recurrent=_is_recurrent(model),
            input_device=model.get_input_embeddings().weight.device,
        )
        check_steps(runtime, source.name)
    except (EngineError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # what a file makes a library raise; Rust's panics, too
        raise EngineError(f"{source.path} can't be loaded: {first_line(error)}") from error
    return runtime


def _load_tokenizer(source: ModelSource, folder: Path) -> ModelTokenizer:
    """A GGUF's own, as llama.cpp reads it; the folder's where there is no llama.cpp."""
    if source.kind == "gguf":
        try:
            return read_vocabulary(Path(source.path))
        except NoLibrary:
            pass
    try:
        return FolderTokenizer.from_folder(folder)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot read the tokenizer of {source.path}: {first_line(error)}"
        ) from error


def pick_device(wanted: str) -> torch.device:
    """The device to run on; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises EngineError: no such device here.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise EngineError(
            f"device must be auto, cpu, cuda, cuda:N or mps, not {wanted!r}"
        ) from None
    there = {
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, True):
        raise EngineError(f"there is no device {wanted!r} here; use --device auto or cpu")
    return device


def _pick_dtype(wanted: str, device: torch.device, folder: Path) -> torch.dtype:
    """float32 on a CPU, where narrower types gain nothing; elsewhere what the files hold."""
    if wanted != "auto":
        if wanted not in _DTYPES:
            raise EngineError(f"dtype must be auto, {', '.join(_DTYPES)}, not {wanted!r}")
        return _DTYPES[wanted]
    config = _read_json(folder / "config.json")
    stored = config.get("dtype") or config.get("torch_dtype")
    if device.type == "cpu" or not isinstance(stored, str):
        return torch.float32
    return _DTYPES.get(stored, torch.float32)


def _count_weights(folder: Path) -> tuple[int, int]:
    shapes = [tensor["shape"] for tensor in _tensors(folder)]
    return sum(map(math.prod, shapes)), len(shapes)


def _tensors(folder: Path) -> Iterator[dict[str, Any]]:
    """What the headers of a folder's files say of each tensor: its shape, its dtype."""
    for file in sorted(folder.glob("*.safetensors")):
        header = _safetensors_header(file)
        header.pop("__metadata__", None)
        yield from header.values()


def _safetensors_header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
    except (OSError, ValueError) as error:
        raise EngineError(f"{file} is damaged: {first_line(error)}; fetch it again") from error
    if not isinstance(header, dict):
        raise EngineError(f"{file} is damaged: its header is no table; fetch it again")
    return header


def _load_weights(
    folder: Path,
    source: ModelSource,
    device: torch.device,
    dtype: torch.dtype,
    elements: int,
    on_progress: Report,
) -> Any:
    """Read the weights onto the device; spread or offload them where it is too small."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kwargs: dict[str, Any] = {}
    if device.type == "cuda":
        fits = elements * dtype.itemsize < 0.9 * torch.cuda.mem_get_info(device)[0]
        # accelerate places layers on all GPUs, then in memory; it moves them in as they run.
        kwargs["device_map"] = {"": device} if fits else "auto"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _check_kind(config, source)
        if getattr(config, "quantization_config", None) is None:  # packed numbers can't be counted
            check_parameters(folder, config, elements)
        with report_weights(on_progress):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **kwargs,
            )
        model, info = loaded
        check_used(source.path, info)
        if device.type == "mps":
            model = model.to(device)
    except torch.cuda.OutOfMemoryError as error:
        raise EngineError(f"{source.name} does not fit on {device}; use --device cpu") from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError) as error:
        raise EngineError(f"cannot load {source.path}: {first_line(error)}") from error
    return model.eval()


def _check_kind(config: Any, source: ModelSource) -> None:
    """Refuse what isn't made to go on with a text. Raises EngineError."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = str(config.model_type)
    for scaling, _ in _ropes(config):
        if scaling not in (known := {"default", *ROPE_INIT_FUNCTIONS}):
            raise EngineError(
                f"{source.name} scales its positions by {scaling!r}, and transformers knows"
                f" {', '.join(sorted(known))}; install a newer one, or choose another model"
            )
    if getattr(config, "is_encoder_decoder", False):
        raise EngineError(
            f"{source.name} ({kind}) reads with one half and writes with another, as translators"
            " do; it can't go on with a chat: choose a model that only writes"
        )
    classes = [str(one) for one in config.architectures or ()]
    masked = any(one.endswith(("ForMaskedLM", "ForPreTraining", "Model")) for one in classes)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        why = (
            "it reads pictures or sound, too, or is of a kind that transformers doesn't write with"
        )
        raise EngineError(f"{source.name} ({kind}) can't be loaded as a model of text: {why}")
    if masked and not any(one.endswith(_WRITES) for one in classes):
        raise EngineError(
            f"{source.name} ({classes[0]}) fills in or reads texts and can't go on with one; choose"
            " a model with a head for writing (…ForCausalLM)"
        )


def _cache_argument(model: Any, source: ModelSource) -> str:
    """The name of forward's cache; without it every token would be read without those before."""
    taken = inspect.signature(model.forward).parameters
    for name in _CACHE_ARGUMENTS:
        # XLM and Flaubert call a table of their own "cache"; it holds nothing from call to call.
        if name in taken and "dict" not in str(taken[name].annotation):
            return name
    raise EngineError(
        f"{source.name} is a {type(model).__name__}, which keeps no KV cache that this program"
        " knows; choose a model of another architecture"
    )


def _is_recurrent(model: Any) -> bool:
    from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

    layers = DynamicCache(config=model.config).layers
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)


def _facts(
    model: Any,
    tokenizer: ModelTokenizer,
    source: ModelSource,
    folder: Path,
    options: LoadOptions,
) -> ModelFacts:
    config = model.config.get_text_config()
    prepared = _read_json(folder / PREPARED_FACTS)
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    whole_context = _context_length(config, folder)
    own_context = _exact_context(config, whole_context)
    makers, note = _read_json(folder / "generation_config.json"), ""
    if own_context < whole_context:
        note = (
            f"the context is {own_context} tokens, not {whole_context}: beyond it this model turns"
            " positions anew, and what is kept of earlier tokens would no longer be exact"
        )
    asked = options.context_length
    length = min(asked, own_context) if asked else own_context
    return ModelFacts(
        name=source.name,
        runtime="transformers",
        architecture=str(config.model_type),
        weight_format=source.weight_format or prepared.get("weight_format", "") or _stored(folder),
        dtype=str(model.dtype)[6:],
        device=str(model.device),
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        context_length=length,
        context_bytes=length * _bytes_of_a_token(model, config, heads, kv_heads),
        vocab_size=int(config.vocab_size),
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=kv_heads,
        hidden_size=int(config.hidden_size),
        end_ids=_end_ids(model, tokenizer),
        control_ids=tuple(sorted(tokenizer.control_ids)),
        has_chat_template=tokenizer.chat_template is not None,
        sha256=source.sha256 or prepared.get("sha256", "") or fingerprint(folder),
        note="; ".join(filter(None, (note, _adapter(folder), recommended(makers)))),
    )


def _bytes_of_a_token(model: Any, config: Any, heads: int, kv_heads: int) -> int:
    """The keys and values of one token; 0 for a model that carries a state instead."""
    if _is_recurrent(model):
        return 0
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return int(2 * config.num_hidden_layers * kv_heads * width * model.dtype.itemsize)


def _end_ids(model: Any, tokenizer: ModelTokenizer) -> tuple[int, ...]:
    """All ids that end a reply: of the generation config, the config and the tokenizer."""
    found: set[int] = set()
    for holder in (model.generation_config, model.config.get_text_config()):
        ids = getattr(holder, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else [ids] if ids is not None else [])
    if (own := tokenizer.eos_id) is not None:
        found.add(own)
    if isinstance(tokenizer, GgufTokenizer):
        found.update(tokenizer.end_ids)
    return tuple(sorted(int(item) for item in found))


def _context_length(config: Any, folder: Path) -> int:
    """How many tokens the model can read; a state-space model has no limit of its own."""
    for key in _CONTEXT_KEYS:
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = _read_json(folder / "tokenizer_config.json").get("model_max_length")
    # Tokenizers say "none" by a number of thirty digits.
    return int(limit) if isinstance(limit, int | float) and 0 < limit < 1e9 else 1 << 20


def _exact_context(config: Any, length: int) -> int:
    """How many tokens can be read with keys that stay true.

    Rotary scalings of the kinds "dynamic" and "longrope" turn all positions otherwise once a text
    is longer than the model was trained on, and a KV cache holds keys that were turned before.
    """
    for kind, one in _ropes(config):
        if kind in _TURNED_ANEW:
            original = one.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            if isinstance(original, int) and original > 0:
                length = min(length, original)
    return length


def _ropes(config: Any) -> Iterator[tuple[object, dict[str, Any]]]:
    """How positions are turned: the kind of scaling with its numbers, of each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for one in (rope, *rope.values()):
        if isinstance(one, dict) and (kind := one.get("rope_type", one.get("type"))) is not None:
            yield kind, one


def _adapter(folder: Path) -> str:
    """What to say of an adapter that lies beside its base; empty where there is none."""
    if not (folder / "adapter_config.json").is_file():
        return ""
    return "the adapter beside the model (adapter_config.json) isn't used; merge it to have it"


def _stored(folder: Path) -> str:
    """How the weights are stored, by the first matrix of the first file: F32, BF16, F16."""
    return next((str(one["dtype"]) for one in _tensors(folder) if len(one["shape"]) > 1), "?")


def fingerprint(folder: Path) -> str:
    """A hash that tells models in folders apart without reading all of their weights.

    SHA-256 over the configuration, the tokenizer, and each weight file's size and header.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        file = folder / name
        digest.update(file.read_bytes() if file.is_file() else b"-")
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        digest.update(json.dumps(_safetensors_header(file), sort_keys=True).encode())
    return digest.hexdigest()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
