"""llama.cpp's C library, found among the installed packages and called through cffi.

xllamacpp's extension module exports llama.cpp's public C API on Linux and macOS, which nobody
promised: so its version is pinned, and what the library says of itself is held against what is
declared here before anything is called. llama-cpp-python's library is taken instead where the user
installed it (built for a GPU, say); its own declarations then say how its two structs look.

The declarations are those of llama.h, llama.cpp build 11549.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatapp.chat.errors import EngineError

PINNED = "2026.10.11549"
"""The version of xllamacpp whose structs are declared here; pyproject.toml pins the same."""

_MODEL_PARAMS = """
    void *devices, *tensor_buft_overrides;
    int32_t n_gpu_layers;
    int split_mode, load_mode, lazy_mode;
    int32_t main_gpu;
    float *tensor_split;
    void *progress_callback, *progress_callback_user_data, *kv_overrides;
    bool vocab_only, check_tensors, use_extra_bufts, no_host, no_alloc, load_mtp;
"""
_CONTEXT_PARAMS = """
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch;
    int ctx_type, rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale, yarn_ext_factor, yarn_attn_factor;
    float yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void *cb_eval, *cb_eval_user_data;
    int type_k, type_v;
    size_t moe_cache_size;
    void *abort_callback, *abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void *samplers;
    size_t n_samplers;
    void *ctx_other;
"""
_FUNCTIONS = """
    typedef bool (*progress_callback)(float, void *);
    typedef bool (*abort_callback)(void *);
    typedef void (*log_callback)(int, const char *, void *);
    typedef struct {
        int32_t n_tokens, *token; float *embd; int32_t *pos, *n_seq_id, **seq_id; int8_t *logits;
    } llama_batch;

    llama_model_params llama_model_default_params(void);
    llama_context_params llama_context_default_params(void);
    void llama_backend_init(void);
    void llama_log_set(log_callback, void *);
    bool llama_supports_gpu_offload(void);

    void *llama_model_load_from_file(const char *, llama_model_params);
    void llama_model_free(void *);
    const void *llama_model_get_vocab(const void *);
    int32_t llama_model_n_ctx_train(const void *);
    int32_t llama_model_n_embd(const void *);
    int32_t llama_model_n_layer(const void *);
    int32_t llama_model_n_head(const void *);
    int32_t llama_model_n_head_kv(const void *);
    uint64_t llama_model_n_params(const void *);
    bool llama_model_has_encoder(const void *);
    bool llama_model_is_recurrent(const void *);
    bool llama_model_is_hybrid(const void *);
    int32_t llama_model_desc(const void *, char *, size_t);
    int32_t llama_model_meta_val_str(const void *, const char *, char *, size_t);
    const char *llama_model_chat_template(const void *, const char *);

    void *llama_init_from_model(void *, llama_context_params);
    void llama_free(void *);
    uint32_t llama_n_ctx(const void *);
    int32_t llama_decode(void *, llama_batch);
    float *llama_get_logits_ith(void *, int32_t);
    float *llama_get_embeddings_ith(void *, int32_t);
    void llama_set_embeddings(void *, bool);
    void llama_set_abort_callback(void *, abort_callback, void *);
    void *llama_get_memory(const void *);
    void llama_memory_clear(void *, bool);
    bool llama_memory_seq_rm(void *, int32_t, int32_t, int32_t);
    void llama_memory_seq_cp(void *, int32_t, int32_t, int32_t, int32_t);
    size_t llama_state_get_size(void *);
    size_t llama_state_get_data(void *, uint8_t *, size_t);
    size_t llama_state_set_data(void *, const uint8_t *, size_t);
    size_t llama_state_seq_get_size(void *, int32_t);
    size_t llama_state_seq_get_data(void *, uint8_t *, size_t, int32_t);
    size_t llama_state_seq_set_data(void *, const uint8_t *, size_t, int32_t);

    int32_t llama_vocab_n_tokens(const void *);
    const char *llama_vocab_get_text(const void *, int32_t);
    int llama_vocab_get_attr(const void *, int32_t);
    bool llama_vocab_is_eog(const void *, int32_t);
    int32_t llama_vocab_bos(const void *);
    int32_t llama_vocab_eos(const void *);
    int32_t llama_vocab_eot(const void *);
    int32_t llama_vocab_sep(const void *);
    int32_t llama_vocab_pad(const void *);
    int32_t llama_vocab_mask(const void *);
    bool llama_vocab_get_add_bos(const void *);
    int32_t llama_tokenize(const void *, const char *, int32_t, int32_t *, int32_t, bool, bool);
    int32_t llama_token_to_piece(const void *, int32_t, char *, int32_t, int32_t, bool);
"""

_DEFAULTS = {
    "llama_model_params": {
        "n_gpu_layers": -1, "split_mode": 1, "main_gpu": 0, "vocab_only": False,
        "check_tensors": False, "use_extra_bufts": True, "no_host": False, "no_alloc": False,
    },
    "llama_context_params": {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_threads": 4,
        "n_threads_batch": 4, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1,
        "flash_attn_type": -1, "type_k": 1, "type_v": 1, "embeddings": False, "offload_kqv": True,
        "no_perf": True, "op_offload": True, "swa_full": True, "kv_unified": False,
    },
}  # fmt: skip
"""What the defaults read as when the structs are laid out as declared."""

_LEVELS = {2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5
"""ggml's level of a piece of text that goes on with the line before."""

_log = logging.getLogger("llama.cpp")


class NoLibrary(EngineError):
    """llama.cpp can't be used here."""


@dataclass(frozen=True, slots=True)
class Library:
    """The C API, ready to call."""

    c: Any
    """Its functions, by their names in llama.h."""
    ffi: Any
    """cffi's FFI with the declarations."""
    version: str
    """Of the package that it comes with."""
    errors: list[str]
    """The error lines that it logged, the latest last; who reads them clears them."""
    _keep: tuple[Any, ...]
    """Callbacks that the library may call as long as it is loaded."""

    def last_error(self) -> str:
        """What it logged last when something failed, told once."""
        words = self.errors[-1][:200] if self.errors else "it doesn't say why; see the log"
        self.errors.clear()
        return words


@functools.cache
def library() -> Library:
    """Load and check the library, once a process. Raises NoLibrary."""
    try:
        import cffi
    except ImportError:
        raise NoLibrary("llama.cpp can't be called without the package cffi") from None
    file, version, structs = _users_own() or _pinned()
    ffi = cffi.FFI()
    for name, fields in structs.items():
        ffi.cdef(f"typedef struct {{ {fields} }} {name};")
    ffi.cdef(_FUNCTIONS)
    try:
        c = ffi.dlopen(str(file))
    except OSError as error:
        raise NoLibrary(f"llama.cpp's library in {version} can't be loaded: {error}") from None
    _shake_hands(c, version)
    errors: list[str] = []
    log = _logger(ffi, errors)
    c.llama_log_set(log, ffi.NULL)
    c.llama_backend_init()
    return Library(c, ffi, version, errors, (log,))


def _users_own() -> tuple[Path, str, dict[str, str]] | None:
    """llama-cpp-python's library; None where it isn't installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    try:
        binding: Any = importlib.import_module("llama_cpp.llama_cpp")
        version = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"
        structs = {
            name: _c_fields(getattr(binding, name)._fields_)
            for name in ("llama_model_params", "llama_context_params")
        }
        return Path(binding._lib._name), version, structs
    except Exception as error:  # a broken installation of another package says anything
        raise NoLibrary(f"llama-cpp-python is installed and can't be used: {error}") from None


def _c_fields(fields: list[tuple[str, Any]]) -> str:
    """A ctypes structure's fields as C declares them."""
    kinds = {
        ctypes.c_bool: "bool", ctypes.c_float: "float", ctypes.c_int32: "int32_t",
        ctypes.c_uint32: "uint32_t", ctypes.c_size_t: "size_t", ctypes.c_uint8: "uint8_t",
    }  # fmt: skip
    return "".join(f"{kinds.get(kind, 'void *')} {name};" for name, kind in fields)


def _pinned() -> tuple[Path, str, dict[str, str]]:
    """xllamacpp's extension module, which is not imported."""
    spec = importlib.util.find_spec("xllamacpp")
    folders = spec.submodule_search_locations if spec is not None else None
    files = [file for folder in folders or () for file in Path(folder).glob("xllamacpp.*.so")]
    if not files:
        raise NoLibrary("llama.cpp isn't installed here (the package xllamacpp has it)")
    found = importlib.metadata.version("xllamacpp")
    if found != PINNED:
        raise NoLibrary(
            f"xllamacpp {found} is installed and {PINNED} is needed;"
            f" pip install xllamacpp=={PINNED}"
        )
    structs = {"llama_model_params": _MODEL_PARAMS, "llama_context_params": _CONTEXT_PARAMS}
    return files[0], f"xllamacpp {found}", structs


def _shake_hands(c: Any, version: str) -> None:
    """See that every function is there and that the structs are laid out as declared."""
    missing = [name for name in dir(c) if not _has(c, name)]
    if missing:
        raise NoLibrary(f"the llama.cpp of {version} has no function {missing[0]}")
    for name, values in _DEFAULTS.items():
        read = getattr(c, name.replace("_params", "_default_params"))()
        for field, wanted in values.items():
            if (value := getattr(read, field, wanted)) != wanted:
                raise NoLibrary(
                    f"the llama.cpp of {version} is another build than expected:"
                    f" {field} is {value}, not {wanted}"
                )


def _has(c: Any, name: str) -> bool:
    try:
        return getattr(c, name) is not None
    except AttributeError:
        return False


def _logger(ffi: Any, errors: list[str]) -> Any:
    """What the library is to call with each piece of its log."""
    line: list[str] = []
    level = logging.DEBUG

    def write(kind: int, text: Any, _: Any) -> None:
        nonlocal level
        if kind != _CONTINUED:
            level = _LEVELS.get(kind, logging.DEBUG)
        line.append(ffi.string(text).decode("utf-8", "replace"))
        if not line[-1].endswith("\n"):
            return
        whole = "".join(line).strip()
        line.clear()
        if level >= logging.ERROR:
            errors.append(whole)
        _log.log(level, "%s", whole)

    return ffi.callback("log_callback", write)
