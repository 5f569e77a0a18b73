"""The kinds of servers: what each is asked, and how it answers.

Three manners of speaking: llama-server's own, which takes and gives token ids; OpenAI's chat
completions, with what vLLM, SGLang and LM Studio add; and Ollama's own. Each turns one line of an
answer into one `Chunk`.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import ModelFacts
from chatapp.chat.prompt import TokenPiece, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import PARAMETERS, SamplingParams
from chatapp.chat.served import UNTOLD
from chatapp.chat.text import escape_bytes
from chatapp.engine.served.http import Http, message_in

Names = Mapping[str, str]
"""Our settings by a server's names for them."""


def _same(*names: str) -> Names:
    return {name: name for name in names}


_OPENAI = _same("temperature", "top_p", "presence_penalty", "frequency_penalty")
_VLLM = {**_OPENAI, **_same("top_k", "min_p", "repetition_penalty", "min_tokens")}
_LM_STUDIO = {**_OPENAI, "top_k": "top_k", "repetition_penalty": "repeat_penalty"}
_OLLAMA = {
    **_LM_STUDIO,
    **_same("min_p", "typical_p"),
    "penalty_window": "repeat_last_n",
}
_LLAMA_ONLY = ("dry_", "dynatemp_", "xtc_", "mirostat_", "top_n_")
_LLAMA = {**_OLLAMA, **_same(*(name for name in PARAMETERS if name.startswith(_LLAMA_ONLY)))}
_STAGES = {"typical": "typ_p"}
"""llama-server's names of stages, where they are not ours."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A token, as a server tells of it."""

    bytes: bytes
    """Empty where only its id is told."""
    logprob: float
    """NaN where no number is told."""
    id: int | None = None
    top: tuple[Weighed, ...] = ()
    """What it was chosen from, best first."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one line of an answer tells."""

    data: bytes = b""
    """Text of the reply, which need not be that of the tokens beside it."""
    thought: str = ""
    """The same of what the server takes for the model's reasoning; it comes before the text."""
    tokens: tuple[Weighed, ...] = ()
    finish: FinishReason | None = None
    prompt_ids: tuple[int, ...] = ()
    """What the model reads, where the server tells it with the answer."""
    cached: int = 0
    """How many tokens of the prompt the server had read before."""
    prompt_done: int = 0
    prompt_total: int = 0
    """How much of it is read; 0 where it does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a server is asked for."""

    turns: tuple[Turn, ...]
    """With the system text as the first one; without the reply that is under way."""
    prompt_ids: tuple[int, ...]
    """Their ids, where the server tells ids."""
    reply: str
    """The text of the reply so far: it is to go on from there."""
    reply_ids: tuple[int, ...] | None
    """Its ids; None where not all are known."""
    sampling: SamplingParams
    seed: int
    limit: int
    """Tokens at most; 0 is as many as it likes."""
    stop: tuple[str, ...]
    top: int
    """How many candidates a token; None of its numbers at all where this is negative."""


# What is read of the answers. Fields that a server adds are passed over.


class _Top(msgspec.Struct):
    token: str = ""
    logprob: float | None = None
    bytes: list[int] | str | None = None
    id: int | None = None
    top_logprobs: list[_Top] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Top] | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None


class _Choice(msgspec.Struct):
    delta: _Message = msgspec.field(default_factory=_Message)
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    matched_stop: int | str | None = None
    token_ids: list[int] | None = None


class _ChatLine(msgspec.Struct):
    choices: list[_Choice] = []
    prompt_token_ids: list[int] | None = None


class _PromptProgress(msgspec.Struct):
    total: int
    cache: int
    processed: int


class _LlamaLine(msgspec.Struct):
    tokens: list[int] = []
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int | None = None
    prompt_progress: _PromptProgress | None = None
    completion_probabilities: list[_Top] | None = None


class _OllamaLine(msgspec.Struct):
    message: _Message | None = None
    logprobs: list[_Top] | None = None
    done: bool = False
    done_reason: str = ""


class Server(ABC):
    """One server with one of its models."""

    names: Names
    path: str
    """Where it is asked, behind its root."""
    most: int
    """Candidates a token that may be asked for."""
    least = 0
    """... and how many it takes for the token's own number."""
    takes_bias = True
    """Whether single tokens can be banned or biased, by id."""
    can_forbid_end = False
    """Whether the model's end tokens can be kept from being chosen."""
    orders = False
    """Whether the stages run in the order that is asked for."""

    def __init__(self, http: Http, facts: ModelFacts) -> None:
        self.http = http
        self.url = http.root + self.path
        self.model = facts.name
        """What the server calls it."""
        self.facts = facts
        self.said: set[str] = set()
        """What the user has been told once already."""
        self.gives_numbers = True

    @abstractmethod
    def body(self, wish: Wish) -> dict[str, Any]:
        """The question."""

    @abstractmethod
    def chunk(self, data: bytes) -> Chunk:
        """What a line tells. Raises msgspec.MsgspecError, ValueError."""

    def turns_ids(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """What the model reads of complete turns, in ids; empty where the server tells none."""
        return ()

    def token_bytes(self, token_id: int) -> bytes:
        """A token's bytes, as far as the server tells them."""
        return b""

    def effective(self, sampling: SamplingParams) -> SamplingParams:
        """What holds of the settings: those that the server does not know do nothing."""
        values: dict[str, Any] = {
            name: parameter.default if parameter.off is None else parameter.off
            for name, parameter in PARAMETERS.items()
            if name not in self.names
        }
        end = sampling.end if sampling.end == "forbid" and self.can_forbid_end else "allow"
        values |= {
            "grammar": "",
            "end": end,
            "order": sampling.order if self.orders else SamplingParams().order,
        }
        if not self.takes_bias:
            values |= {"logit_bias": (), "banned": ()}
        return sampling.with_values(values)

    def settings(self, wish: Wish) -> dict[str, Any]:
        """The settings under the server's own names: all of them, else its defaults would hold."""
        return {theirs: getattr(wish.sampling, ours) for ours, theirs in self.names.items()}

    def line(self, line: bytes) -> Chunk | None:
        """What a line of the answer tells; None for one that is only there to keep it going.

        Raises EngineError: it is none, or the server tells of a failure.
        """
        if not (data := self._content(line)):
            return None
        try:
            return self.chunk(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise EngineError(
                f"{self.http.host} sent something that no {self.facts.runtime} sends"
            ) from None

    def _content(self, line: bytes) -> bytes:
        """The JSON in a line of server-sent events."""
        kind, _, data = line.partition(b":")
        data = data.strip()
        if kind == b"error" or (kind == b"data" and data.startswith(b'{"error"')):
            raise self._failure(data)
        return data if kind == b"data" and data != b"[DONE]" else b""

    def _failure(self, data: bytes) -> EngineError:
        words = self.http.shown(message_in(data)) or "it does not say why"
        return EngineError(f"{self.http.host} failed: {words}")

    def _in_turns(self, wish: Wish) -> dict[str, Any]:
        """The question of a server that takes messages; a reply that is to go on is the last."""
        messages = [{"role": turn.role, "content": turn.text} for turn in wish.turns]
        if wish.reply:
            messages.append({"role": "assistant", "content": wish.reply})
        numbers = {"logprobs": True, "top_logprobs": min(wish.top, self.most)}
        asked: dict[str, Any] = numbers if wish.top >= 0 else {}
        return {"model": self.model, "messages": messages, "stream": True, **asked}


class OpenAI(Server):
    """OpenAI's chat completions: vLLM, SGLang, LM Studio, and whatever is like them."""

    path = "/chat/completions"
    most = 20

    def __init__(self, http: Http, facts: ModelFacts) -> None:
        super().__init__(http, facts)
        self.url = http.base + self.path
        self.can_forbid_end = facts.runtime in ("vLLM", "SGLang")
        self.names = {"vLLM": _VLLM, "SGLang": _VLLM, "LM Studio": _LM_STUDIO}.get(
            facts.runtime, _OPENAI
        )

    def body(self, wish: Wish) -> dict[str, Any]:
        body = {**self._in_turns(wish), "seed": wish.seed, **self.settings(wish)}
        if wish.limit:
            body["max_tokens"] = wish.limit
        if wish.stop:
            body["stop"] = list(wish.stop)
        bias = {**dict.fromkeys(wish.sampling.banned, -100.0), **dict(wish.sampling.logit_bias)}
        if bias:
            body["logit_bias"] = {str(i): max(min(b, 100.0), -100.0) for i, b in bias.items()}
        if self.can_forbid_end:  # vLLM and SGLang
            body["top_k"] = wish.sampling.top_k or -1
            body["ignore_eos"] = wish.sampling.end == "forbid"
            if wish.reply:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self.facts.runtime == "vLLM":
            body["return_token_ids"] = True
        return body

    def chunk(self, data: bytes) -> Chunk:
        line = _CHAT_LINES.decode(data)
        choice = line.choices[0] if line.choices else _Choice()
        listed = (choice.logprobs.content if choice.logprobs else None) or []
        ids: Sequence[int | None] = choice.token_ids or ()
        if len(ids) != len(listed):
            ids = [None] * len(listed)
        thought = choice.delta.reasoning_content or choice.delta.reasoning or ""
        return Chunk(
            data=(choice.delta.content or "").encode("utf-8", "replace"),
            thought=thought,
            tokens=tuple(_weighed(one, id_) for one, id_ in zip(listed, ids, strict=True)),
            finish=_finish(choice),
            prompt_ids=tuple(line.prompt_token_ids or ()),
        )


class Ollama(Server):
    """Ollama's own chat, one JSON object a line."""

    names = _OLLAMA
    path = "/api/chat"
    most = 20
    takes_bias = False

    def body(self, wish: Wish) -> dict[str, Any]:
        options = {
            **self.settings(wish),
            "repeat_last_n": wish.sampling.penalty_window or -1,
            "num_predict": wish.limit or -1,
            "seed": wish.seed,
            "stop": list(wish.stop),
        }
        if self.facts.context_length:
            options["num_ctx"] = self.facts.context_length
        return {**self._in_turns(wish), "options": options}

    def chunk(self, data: bytes) -> Chunk:
        line = _OLLAMA_LINES.decode(data)
        message = line.message or _Message()
        finish = None
        if line.done:
            finish = FinishReason.LENGTH if line.done_reason == "length" else FinishReason.STOP
        return Chunk(
            data=(message.content or "").encode("utf-8", "replace"),
            thought=message.thinking or "",
            tokens=tuple(_weighed(one) for one in line.logprobs or ()),
            finish=finish,
        )

    def _content(self, line: bytes) -> bytes:
        if line.startswith(b'{"error"'):
            raise self._failure(line)
        return line.strip()


class LlamaServer(Server):
    """llama.cpp's own server, by its own completion endpoint: ids in, ids out."""

    names = _LLAMA
    path = "/completion"
    most = 1 << 20
    least = 1
    can_forbid_end = True
    orders = True

    def __init__(self, http: Http, facts: ModelFacts) -> None:
        super().__init__(http, facts)
        self._bytes: dict[int, bytes] = {}
        self._count = 0
        # A chat's earlier messages are read alike again and again.
        self._read = functools.lru_cache(maxsize=256)(self._read_anew)

    def body(self, wish: Wish) -> dict[str, Any]:
        self._count = 0
        sampling = wish.sampling
        reply = wish.reply_ids
        if reply is None:
            reply = tuple(piece.id for piece in self.tokenize(wish.reply))
        return {
            "model": self.model,
            "prompt": [*wish.prompt_ids, *reply],
            "stream": True,
            "cache_prompt": True,
            "return_tokens": True,
            "return_progress": True,
            "n_predict": wish.limit or -1,
            "n_probs": max(wish.top, 0),
            "seed": wish.seed,
            "stop": list(wish.stop),
            "ignore_eos": sampling.end == "forbid",
            "logit_bias": [*([i, False] for i in sampling.banned), *map(list, sampling.logit_bias)],
            **self.settings(wish),
            "repeat_last_n": sampling.penalty_window or self.facts.context_length,
            "dry_penalty_last_n": self.facts.context_length,
            "top_n_sigma": sampling.top_n_sigma or -1,
            "mirostat": 2 if sampling.mirostat_tau else 0,
            "samplers": [
                "penalties",
                "dry",
                *(_STAGES.get(stage, stage) for stage in sampling.order if stage != "mirostat"),
            ],
        }

    def chunk(self, data: bytes) -> Chunk:
        """A piece of text and the token that ended it.

        The server holds text back inside a character or a possible stop sequence, and puts all of
        it under the token that ends the wait, as if it were that token's; the token's own bytes
        stand among its candidates. Inside a character it leaves the other tokens out altogether.
        """
        line = _LLAMA_LINES.decode(data)
        if line.prompt_progress is not None:
            done = line.prompt_progress
            return Chunk(cached=done.cache, prompt_done=done.processed, prompt_total=done.total)
        if line.stop:
            finish = {"word": FinishReason.STOP_SEQUENCE, "limit": FinishReason.LENGTH}
            return Chunk(finish=finish.get(line.stop_type, FinishReason.STOP))
        told = line.completion_probabilities or [
            _Top(id=id_, token=line.content) for id_ in line.tokens
        ]
        text = b"".join(_bytes_of(one) for one in told) if told else line.content.encode()
        tokens: list[Weighed] = []
        for one in told:
            top = tuple(self._named(_weighed(other)) for other in one.top_logprobs or ())
            tokens.append(replace(_weighed(one), bytes=self.token_bytes(one.id or 0), top=top))
        count = line.tokens_predicted or self._count + len(tokens)
        if count > self._count + len(tokens) and tokens:
            lost = text.removesuffix(tokens[-1].bytes) if tokens[-1].bytes else b""
            tokens.insert(0, Weighed(lost, math.nan))
        self._count = count
        return Chunk(data=text, tokens=tuple(tokens))

    def _named(self, token: Weighed) -> Weighed:
        """A candidate with its bytes; control tokens come without."""
        if token.id is None:
            return token
        if token.bytes:
            self._bytes[token.id] = token.bytes
        return replace(token, bytes=self._bytes.get(token.id, b""))

    def tokenize(
        self, text: str, *, control: bool = False, first: bool = False
    ) -> tuple[TokenPiece, ...]:
        """A text in tokens. Raises EngineError.

        `control`: what spells a control token becomes it. `first`: the model's BOS token is put
        before it, where it wants one.
        """
        body = {"content": text, "parse_special": control, "add_special": first}
        answer = self.http.ask(f"{self.http.root}/tokenize", body | {"with_pieces": True})
        try:
            found = msgspec.convert(answer, _Tokenized).tokens
            for one in found:
                data = one.piece.encode() if isinstance(one.piece, str) else bytes(one.piece)
                self._bytes[one.id] = data
        except (msgspec.ValidationError, ValueError):
            raise EngineError(f"{self.http.host} does not say how it splits a text") from None
        return tuple(self.piece(one.id) for one in found)

    def piece(self, token_id: int) -> TokenPiece:
        data = self.token_bytes(token_id)
        return TokenPiece(token_id, escape_bytes(data), data, token_id in self.facts.control_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """A token's bytes; empty for part of a character that was never among the candidates."""
        if token_id not in self._bytes:
            answer = self.http.ask(f"{self.http.root}/detokenize", {"tokens": [token_id]})
            text = answer.get("content", "") if isinstance(answer, dict) else ""
            self._bytes[token_id] = b"" if "\ufffd" in text else text.encode("utf-8", "replace")
        return self._bytes[token_id]

    def turns_ids(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """What the model reads: the server's own template around texts that become no control token
        and replies in the very ids that the model wrote."""
        whole = self._templated([turn.text for turn in turns], turns)
        spells = self._spells_control("\n".join(turn.text for turn in turns))
        exact: dict[int, tuple[int, ...]] = {}
        for place, turn in enumerate(turns):
            if turn.ids and max(turn.ids) < UNTOLD:
                exact[place] = turn.ids
            elif spells and self._spells_control(turn.text):
                exact[place] = tuple(piece.id for piece in self.tokenize(turn.text))
        marks = {place: f"\ue000{place}\ue001" for place in exact}
        marked = self._templated(
            [marks.get(place, turn.text) for place, turn in enumerate(turns)], turns
        )
        restored = marked
        for place, mark in marks.items():
            restored = restored.replace(mark, turns[place].text)
        # A template may look into the texts, or say one twice: take them as it makes them then.
        if restored != whole or any(marked.count(mark) != 1 for mark in marks.values()):
            if spells:
                raise EngineError(
                    f"{self.http.host} would read control tokens in these messages, and its"
                    " template can't be kept from it; take them out of the text"
                )
            return self._read(whole, first=True)
        ids: list[int] = []
        for place, mark in marks.items():
            before, _, marked = marked.partition(mark)
            ids += [*self._read(before, first=not ids), *exact[place]]
        return (*ids, *self._read(marked, first=not ids))

    def _read_anew(self, text: str, *, first: bool) -> tuple[int, ...]:
        return tuple(piece.id for piece in self.tokenize(text, control=True, first=first))

    def _spells_control(self, text: str) -> bool:
        """Whether something in a text would be read as a control token."""
        return self.tokenize(text) != self.tokenize(text, control=True)

    def _templated(self, texts: Sequence[str], turns: Sequence[Turn]) -> str:
        messages = [
            {"role": turn.role, "content": text} for turn, text in zip(turns, texts, strict=True)
        ]
        body = {"model": self.model, "messages": messages}
        answer = self.http.ask(f"{self.http.root}/apply-template", body)
        text = answer.get("prompt") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise EngineError(f"{self.http.host} does not say what the model reads; update it")
        return text


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]


class _Tokenized(msgspec.Struct):
    tokens: list[_Piece]


_CHAT_LINES = msgspec.json.Decoder(_ChatLine)
_LLAMA_LINES = msgspec.json.Decoder(_LlamaLine)
_OLLAMA_LINES = msgspec.json.Decoder(_OllamaLine)


def _bytes_of(one: _Top) -> bytes:
    if isinstance(one.bytes, list):
        return bytes(one.bytes)
    return one.token.encode("utf-8", "replace")


def _weighed(one: _Top, id_: int | None = None) -> Weighed:
    logprob = math.nan if one.logprob is None else min(one.logprob, 0.0)
    if logprob <= -9999:  # vLLM's word for a token without a chance
        logprob = -math.inf
    top = tuple(_weighed(other) for other in one.top_logprobs or ())
    found = one.id if id_ is None else id_
    if one.token.startswith("token_id:") and one.token[9:].isdecimal():
        return Weighed(b"", logprob, int(one.token[9:]), top)
    return Weighed(_bytes_of(one), logprob, found, top)


def _finish(choice: _Choice) -> FinishReason | None:
    if choice.finish_reason is None:
        return None
    if choice.finish_reason == "length":
        return FinishReason.LENGTH
    stopped_by = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
    return FinishReason.STOP_SEQUENCE if isinstance(stopped_by, str) else FinishReason.STOP
