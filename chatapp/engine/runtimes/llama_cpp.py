"""GGUF files on llama.cpp, in this process: mapped into memory, never converted.

One context of the library holds the keys and values of all sequences, which share what they have in
common. It begins small and grows as texts do, up to what they need; growing copies its state and
changes no number. A text is always read in batches of `BATCH` from where the sequence ends, so that
the same text read the same way gives the same logits: llama.cpp's numbers depend, in their last
digits, on what is read together and on what else the context holds.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress, Report
from chatapp.engine.runtimes.base import (
    CannotFork,
    Floats,
    Reading,
    Stopped,
    Watch,
    check_memory,
    recommended,
)
from chatapp.engine.runtimes.gguf_tokenizer import GgufTokenizer
from chatapp.engine.runtimes.library import Library, library

BATCH = 512
"""Tokens read at once: llama.cpp's own default, for the server too."""
FIRST_CELLS = 2048
"""How many tokens the context has room for at first."""
FIRST_SEQUENCES = 4
"""How many texts it has room for at first: the chat, a title, what is scored meanwhile."""
MOST_SEQUENCES = 256
"""llama.cpp's bound (LLAMA_MAX_SEQ)."""
_WATCH_SECONDS = 0.05
"""How often, at most, whoever watches a reading is told."""
_SAMPLING_KEYS = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}
"""What a GGUF calls the sampling parameters that its makers recommend."""
_NO_ROOM, _STOPPED = 1, 2
"""What `llama_decode` returns when no cells are free, and when the abort callback stopped it."""
_VALUE_BYTES = 2
"""Keys and values are kept in half precision."""


class LlamaCppRuntime:
    """A GGUF file on llama.cpp; implements `base.Runtime`.

    All but the tokenizer and the facts belong to one thread at a time.
    """

    reads_in_pieces = True

    def __init__(self, source: ModelSource, options: LoadOptions, on_progress: Report) -> None:
        """Load a file.

        Raises NoLibrary: llama.cpp can't be used here. Raises EngineError: the file is no model
        that it runs, or doesn't fit into memory.
        """
        self._lib = lib = library()
        self._c, self._ffi = lib.c, lib.ffi
        gpu = _uses_gpu(lib, options.device)
        check_memory(
            _file_size(source),
            f"{source.name} needs",
            "of memory",
            "close something, or choose a smaller model",
        )
        self._model = _load_model(lib, source, gpu, on_progress)
        self.tokenizer = GgufTokenizer(lib, self._model)
        self._vocabulary: int = lib.c.llama_vocab_n_tokens(lib.c.llama_model_get_vocab(self._model))
        self._width: int = lib.c.llama_model_n_embd(self._model)
        self.carries_state = bool(
            lib.c.llama_model_is_recurrent(self._model) or lib.c.llama_model_is_hybrid(self._model)
        )
        self._threads = options.threads or _cores()
        self._cell_bytes = 0 if self.carries_state else self._bytes_of_a_token()
        self._context: Any = None
        self._cells, self._most = 0, FIRST_SEQUENCES
        self._free = list(range(self._most))
        self._watch: Watch | None = None
        self._watched = _Watched()
        self._abort = lib.ffi.callback("abort_callback", self._is_stopped)
        self.facts = self._facts(source, options, gpu)
        self._make_context(min(FIRST_CELLS, self.facts.context_length), self._most)
        self._warm_up()

    def sequence(self) -> LlamaCppSequence:
        if not self._free:
            if self._most >= MOST_SEQUENCES:
                raise CannotFork(f"llama.cpp reads at most {MOST_SEQUENCES} texts side by side")
            most = min(2 * self._most, MOST_SEQUENCES)
            known = self._most
            self._grow(self._cells, most)
            self._free = list(range(known, most))
        return LlamaCppSequence(self, heapq.heappop(self._free))

    def close(self) -> None:
        if self._context is not None:
            self._c.llama_free(self._context)
            self._context = None  # the model goes when nobody asks its tokenizer any more

    # What sequences ask for.

    def forget(self, number: int, start: int) -> bool:
        """Forget what a sequence holds from a place on; False where that can't be put back."""
        memory = self._c.llama_get_memory(self._context)
        if start == 0:
            self._c.llama_memory_seq_rm(memory, number, -1, -1)
            return True
        return bool(self._c.llama_memory_seq_rm(memory, number, start, -1))

    def copy(self, number: int, other: int, length: int) -> None:
        """Let another sequence hold the first tokens of one, too."""
        memory = self._c.llama_get_memory(self._context)
        self._c.llama_memory_seq_cp(memory, number, other, 0, -1 if self.carries_state else length)

    def release(self, number: int) -> None:
        if self._context is not None:
            self.forget(number, 0)
            heapq.heappush(self._free, number)

    def decode(
        self,
        ids: Sequence[int],
        places: Sequence[int],
        numbers: Sequence[int],
        last: int,
        *,
        watch: Watch | None = None,
        states: bool = False,
    ) -> Reading:
        """Read some tokens in one batch.

        Raises Stopped, EngineError.

        Args:
            ids: at most `BATCH` tokens.
            places: where each stands in its sequence.
            last: for how many, from the end, the logits are wanted.
            watch: as in `base.KVSequence.read`, with how many of these tokens are read.
        """
        c, ffi = self._c, self._ffi
        count = len(ids)
        wanted = count if states else last
        held = [ffi.new("int32_t[1]", [number]) for number in numbers]
        fields = {
            "n_tokens": count,
            "token": ffi.new("int32_t[]", list(ids)),
            "embd": ffi.NULL,
            "pos": ffi.new("int32_t[]", list(places)),
            "n_seq_id": ffi.new("int32_t[]", [1] * count),
            "seq_id": ffi.new("int32_t *[]", held),
            "logits": ffi.new("int8_t[]", [0] * (count - wanted) + [1] * wanted),
        }
        batch = ffi.new("llama_batch *", fields)
        self._lib.errors.clear()
        c.llama_set_embeddings(self._context, states)
        if watch is not None:
            self._watched.begin(count, watch)
            c.llama_set_abort_callback(self._context, self._abort, ffi.NULL)
        try:
            result: int = c.llama_decode(self._context, batch[0])
            if result == _NO_ROOM:
                self._grow(max(2 * self._cells, self._cells + count), self._most)
                if watch is not None:
                    c.llama_set_abort_callback(self._context, self._abort, ffi.NULL)
                c.llama_set_embeddings(self._context, states)
                result = c.llama_decode(self._context, batch[0])
        finally:
            if watch is not None:
                c.llama_set_abort_callback(self._context, ffi.NULL, ffi.NULL)
        if result == _STOPPED:
            raise Stopped("the reading was stopped")
        if result:
            raise EngineError(f"llama.cpp failed while it read: {self._lib.last_error()}")
        self._watched.whole()
        rows = range(count - last, count)
        logits = self._rows(c.llama_get_logits_ith, rows, self._vocabulary)
        hidden = self._rows(
            c.llama_get_embeddings_ith, range(count) if states else range(0), self._width
        )
        return Reading(logits, hidden)

    def state(self, number: int) -> bytes:
        """The keys and values of a sequence, in the library's own form; empty where it failed."""
        c = self._c
        size: int = c.llama_state_seq_get_size(self._context, number)
        state = self._ffi.new("uint8_t[]", size)
        size = c.llama_state_seq_get_data(self._context, state, size, number)
        return bytes(self._ffi.buffer(state, size))

    def take_state(self, number: int, state: bytes, length: int) -> bool:
        """Have a sequence hold a state of so many tokens. Returns whether it does."""
        if length > self._cells:
            self._grow(length + BATCH, self._most)
        self.forget(number, 0)
        read: int = self._c.llama_state_seq_set_data(self._context, state, len(state), number)
        return read == len(state)

    def _rows(self, get: Callable[[Any, int], Any], rows: range, width: int) -> Floats:
        """A copy of the library's numbers for some of the tokens read, (rows, width)."""
        found = np.empty((len(rows), width), dtype=np.float32)
        for place, row in enumerate(rows):
            pointer = get(self._context, row)
            if pointer == self._ffi.NULL:
                raise EngineError("llama.cpp gives no hidden states of this model")
            found[place] = np.frombuffer(self._ffi.buffer(pointer, 4 * width), dtype=np.float32)
        return found

    def _is_stopped(self, _: Any) -> bool:
        """The abort callback: the library asks it before every operation of a batch."""
        return self._watched.ask()

    def _make_context(self, cells: int, sequences: int) -> None:
        params = self._c.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self._threads
        params.kv_unified = True
        self._lib.errors.clear()
        context = self._c.llama_init_from_model(self._model, params)
        if context == self._ffi.NULL:
            raise EngineError(
                f"there is no memory for a context of {cells} tokens: {self._lib.last_error()};"
                " close something, or choose a smaller model"
            )
        self._context = context
        self._cells, self._most = int(self._c.llama_n_ctx(context)), sequences

    def _grow(self, cells: int, sequences: int) -> None:
        """A larger context with the same state in it. Raises EngineError, and nothing changed."""
        c, old = self._c, self._context
        check_memory(
            (cells - self._cells) * self._cell_bytes,
            f"a context of {cells} tokens needs",
            "more of memory",
            "start a new chat, or set a --context-length",
            share=0.9,
        )
        size: int = c.llama_state_get_size(old)
        state = self._ffi.new("uint8_t[]", size)
        size = c.llama_state_get_data(old, state, size)
        self._make_context(cells, sequences)
        if size and c.llama_state_set_data(self._context, state, size) != size:
            c.llama_free(self._context)
            self._context = old
            raise EngineError("llama.cpp can't take over the state of this model's context")
        c.llama_free(old)

    def _warm_up(self) -> None:
        """Read one token: maps the weights in, and counts the operations of a batch."""
        sequence = self.sequence()
        first = (*self.tokenizer.prefix_ids, *self.tokenizer.end_ids, 0)[0]
        sequence.read([first], watch=lambda _: True)
        sequence.close()

    def _bytes_of_a_token(self) -> int:
        heads = self._c.llama_model_n_head_kv(self._model)
        default = self._width // max(self._c.llama_model_n_head(self._model), 1)
        architecture = self._metadata("general.architecture")
        sizes = (
            self._metadata(f"{architecture}.attention.{kind}_length") for kind in ("key", "value")
        )
        numbers = sum(int(size) if size.isdigit() else default for size in sizes)
        layers = self._c.llama_model_n_layer(self._model)
        return int(layers * heads * numbers * _VALUE_BYTES)

    def _metadata(self, key: str) -> str:
        """A value of the file's header as text; empty where it has none."""
        buffer = self._ffi.new("char[]", 256)
        count = self._c.llama_model_meta_val_str(self._model, key.encode(), buffer, 256)
        return self._ffi.string(buffer).decode("utf-8", "replace") if count >= 0 else ""

    def _facts(self, source: ModelSource, options: LoadOptions, gpu: bool) -> ModelFacts:
        c, model = self._c, self._model
        own: int = c.llama_model_n_ctx_train(model)
        asked = options.context_length
        length = min(asked, own) if asked else own
        return ModelFacts(
            name=source.name,
            runtime="llama.cpp",
            architecture=self._metadata("general.architecture"),
            weight_format=source.weight_format or self._weight_format(),
            dtype="as stored",
            device="gpu" if gpu else "cpu",
            threads=self._threads,
            parameters=int(c.llama_model_n_params(model)),
            context_length=length,
            context_bytes=length * self._cell_bytes,
            vocab_size=self._vocabulary,
            layers=int(c.llama_model_n_layer(model)),
            heads=int(c.llama_model_n_head(model)),
            kv_heads=int(c.llama_model_n_head_kv(model)),
            hidden_size=self._width,
            end_ids=self.tokenizer.end_ids,
            control_ids=tuple(sorted(self.tokenizer.control_ids)),
            has_chat_template=self.tokenizer.chat_template is not None,
            sha256=source.sha256,
            note=self._recommended(),
        )

    def _recommended(self) -> str:
        told = {}
        for name, key in _SAMPLING_KEYS.items():
            with contextlib.suppress(ValueError):  # empty where the file doesn't say
                told[name] = float(self._metadata(f"general.sampling.{key}"))
        return recommended(told)

    def _weight_format(self) -> str:
        """The last word of what the library says of a model: "llama 135M Q4_1"."""
        buffer = self._ffi.new("char[]", 256)
        self._c.llama_model_desc(self._model, buffer, 256)
        words: list[str] = self._ffi.string(buffer).decode("utf-8", "replace").split(maxsplit=2)
        return words[-1] if words else "?"


class LlamaCppSequence:
    """One text in the context; implements `base.KVSequence`."""

    def __init__(self, runtime: LlamaCppRuntime, number: int) -> None:
        self._runtime = runtime
        self.number = number
        self.ids: list[int] = []

    def read(
        self, ids: Sequence[int], *, last: int = 1, watch: Watch | None = None, states: bool = False
    ) -> Reading:
        readings = []
        for start in range(0, len(ids), BATCH):
            piece = ids[start : start + BATCH]
            place = len(self.ids)
            ahead = len(ids) - start - len(piece)  # what will be read after this batch
            try:
                reading = self._runtime.decode(
                    piece,
                    range(place, place + len(piece)),
                    [self.number] * len(piece),
                    min(max(last - ahead, 0), len(piece)),
                    watch=None if watch is None else _later(watch, start),
                    states=states,
                )
            except Stopped:
                if not self._runtime.forget(self.number, place):
                    self.clear()
                raise
            except BaseException:
                self.clear()
                raise
            self.ids.extend(piece)
            readings.append(reading)
            if watch is not None and not watch(start + len(piece)):
                raise Stopped("the reading was stopped")
        if len(readings) == 1:
            return readings[0]
        return Reading(
            np.concatenate([reading.logits for reading in readings]),
            np.concatenate([reading.states for reading in readings]),
        )

    def state(self) -> bytes:
        """What it holds, in the library's own form; empty where that failed."""
        return self._runtime.state(self.number)

    def restore(self, ids: Sequence[int], state: bytes) -> bool:
        """Hold what another sequence held, these ids; nothing where that fails."""
        if self._runtime.take_state(self.number, state, len(ids)):
            self.ids = list(ids)
            return True
        self.clear()
        return False

    def crop(self, length: int) -> None:
        if length >= len(self.ids):
            return
        if length > 0 and self._runtime.forget(self.number, length):
            del self.ids[length:]
        else:
            self.clear()

    def clear(self) -> None:
        self._runtime.forget(self.number, 0)
        self.ids.clear()

    def fork(self, length: int) -> LlamaCppSequence:
        if self._runtime.carries_state and 0 < length < len(self.ids):
            raise CannotFork("this model's state can't be put back to an earlier token")
        other = self._runtime.sequence()
        if length:
            self._runtime.copy(self.number, other.number, length)
        other.ids = self.ids[:length]
        return other

    def rows(self) -> LlamaCppRows:
        return LlamaCppRows(self._runtime, [self.fork(len(self.ids))])

    def close(self) -> None:
        self._runtime.release(self.number)


class LlamaCppRows:
    """Sequences that are read together; implements `base.Rows`."""

    def __init__(self, runtime: LlamaCppRuntime, rows: list[LlamaCppSequence]) -> None:
        self._runtime = runtime
        self._rows = rows

    def select(self, rows: Sequence[int]) -> None:
        old, taken = self._rows, set[int]()
        for row in set(range(len(old))) - set(rows):
            old[row].close()  # first, so that its number can be used again
        self._rows = []
        for row in rows:
            source = old[row]
            self._rows.append(source.fork(len(source.ids)) if row in taken else source)
            taken.add(row)

    def read(self, ids: Sequence[int], *, states: bool = False) -> Reading:
        places = [len(row.ids) for row in self._rows]
        numbers = [row.number for row in self._rows]
        reading = self._runtime.decode(ids, places, numbers, len(ids), states=states)
        for row, token_id in zip(self._rows, ids, strict=True):
            row.ids.append(token_id)
        return reading

    def close(self) -> None:
        for row in self._rows:
            row.close()
        self._rows = []


class _Watched:
    """How far a batch is, told by how many of its operations the library has done."""

    def __init__(self) -> None:
        self._operations = 0  # of a whole batch, as far as known
        self._done = 0
        self._count = 0
        self._told = 0.0
        self._watch: Watch = lambda _: True

    def begin(self, count: int, watch: Watch) -> None:
        self._done, self._count, self._watch = 0, count, watch
        self._told = time.monotonic()

    def whole(self) -> None:
        self._operations = max(self._done, self._operations)

    def ask(self) -> bool:
        """One more operation is about to begin; True stops the batch."""
        self._done += 1
        now = time.monotonic()
        if now - self._told < _WATCH_SECONDS:
            return False
        self._told = now
        share = min(self._done / self._operations, 1.0) if self._operations else 0.0
        return not self._watch(int(share * self._count))


def _later(watch: Watch, start: int) -> Watch:
    """A watch that is told of what was read before, too."""
    return lambda done: watch(start + done)


def _uses_gpu(lib: Library, device: str) -> bool:
    """Whether layers go to a GPU. Raises EngineError for one that this library can't use."""
    able = bool(lib.c.llama_supports_gpu_offload())
    if device not in ("auto", "cpu") and not able:
        raise EngineError(
            f"the llama.cpp of {lib.version} uses no GPU; leave --device {device} away,"
            " or take --runtime transformers"
        )
    return able and device != "cpu"


def _load_model(lib: Library, source: ModelSource, gpu: bool, on_progress: Report) -> Any:
    """The library's model of a file. Raises EngineError."""

    def tell(share: float, _: Any) -> bool:
        on_progress(Progress("loading the weights", round(1000 * share), 1000, "steps"))
        return True

    told = lib.ffi.callback("progress_callback", tell)
    params = lib.c.llama_model_default_params()
    params.n_gpu_layers = -1 if gpu else 0
    params.progress_callback = lib.ffi.cast("void *", told)
    lib.errors.clear()
    model = lib.c.llama_model_load_from_file(os.fsencode(source.path), params)
    if model == lib.ffi.NULL:
        raise EngineError(f"llama.cpp can't load {source.path}: {lib.last_error()}")
    model = lib.ffi.gc(model, lib.c.llama_model_free)
    if lib.c.llama_model_has_encoder(model):
        raise EngineError(f"{source.name} reads with an encoder, which no chat can use")
    return model


def _file_size(source: ModelSource) -> int:
    try:
        return Path(source.path).stat().st_size
    except OSError as error:
        raise EngineError(f"cannot read {source.path}: {error.strerror}") from error


def _cores() -> int:
    """Physical cores: a second thread on a core slows matrix products down."""
    import psutil

    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
