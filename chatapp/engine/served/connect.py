"""What a server is, which models it has, and which of them is meant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource
from chatapp.chat.served import SERVERS
from chatapp.engine.served.http import Http
from chatapp.engine.served.kinds import LlamaServer, Ollama, OpenAI, Server


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: dict[str, Any] | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


def connect(source: ModelSource, options: LoadOptions) -> Server:
    """Find out what a server is and which model is meant. Raises EngineError."""
    http = Http(source)
    try:
        server = _connect(http, source, options)
    except BaseException:
        http.close()
        raise
    told = f"{server.facts.runtime} gives {SERVERS[server.facts.runtime].words}, and no trace"
    if not isinstance(server, LlamaServer):
        told += "; it goes on from text, not from tokens"
    if http.is_open:
        told += "; the key travels unencrypted (http)"
    server.facts = replace(server.facts, note=told)
    return server


def _connect(http: Http, source: ModelSource, options: LoadOptions) -> Server:
    answer = http.find(f"{http.base}/models")
    try:
        models = msgspec.convert(answer or {}, _Models).data
    except msgspec.ValidationError:
        raise EngineError(f"{http.host} does not say which models it has") from None
    model = _meant(models, source.name, http.host)
    owner = model.owned_by or ""
    facts = ModelFacts(
        name=model.id,
        runtime="server",
        device=http.host,
        context_length=model.max_model_len or 0,
        has_chat_template=True,
        # Of no file, which nobody here has seen: of where the model is.
        sha256=hashlib.sha256(f"{http.base}#{model.id}".encode()).hexdigest(),
    )
    if owner == "llamacpp":
        return _llama_server(http, replace(facts, runtime="llama-server"), model.meta or {})
    if owner in ("vllm", "sglang"):
        return OpenAI(http, replace(facts, runtime={"vllm": "vLLM"}.get(owner, "SGLang")))
    if isinstance(http.find(f"{http.root}/api/version"), dict):
        # It takes as much context as it is asked for.
        return _ollama(http, replace(facts, context_length=options.context_length))
    listed = http.find(f"{http.root}/api/v0/models")
    for one in listed.get("data", ()) if isinstance(listed, dict) else ():
        if isinstance(one, dict) and one.get("id") == model.id:
            length = one.get("loaded_context_length")
            facts = replace(
                facts,
                runtime="LM Studio",
                architecture=str(one.get("arch", "")),
                weight_format=str(one.get("quantization", "")),
                context_length=length if isinstance(length, int) else facts.context_length,
            )
    return OpenAI(http, facts)


def _meant(models: Sequence[_Model], name: str, host: str) -> _Model:
    # Ollama's names end in a tag, which is :latest where none is written.
    found = [one for one in models if name in ("", one.id, one.id.removesuffix(":latest"))]
    if len(found) == 1 or (found and name):
        return found[0]
    if not models:
        if name:
            return _Model(name)
        raise EngineError(f"{host} does not say which models it has; name one behind a #")
    known = ", ".join(one.id for one in models[:8]) + (", …" if len(models) > 8 else "")
    if name:
        raise EngineError(f"{host} has no model {name}; it has {known}")
    raise EngineError(f"{host} has several models; name one behind a #: {known}")


def _llama_server(http: Http, facts: ModelFacts, meta: Mapping[str, Any]) -> Server:
    props = http.find(f"{http.root}/props")
    props = props if isinstance(props, dict) else {}
    settings = props.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None

    def number(name: str) -> int:
        return value if isinstance(value := meta.get(name), int) else 0

    server = LlamaServer(
        http,
        replace(
            facts,
            weight_format=str(props.get("model_ftype", "")),
            context_length=context if isinstance(context, int) else number("n_ctx"),
            parameters=number("n_params"),
            vocab_size=number("n_vocab"),
            hidden_size=number("n_embd"),
        ),
    )
    ids: list[tuple[int, ...]] = []
    for mark in ("bos_token", "eos_token"):
        text = props.get(mark)
        pieces = server.tokenize(text, control=True) if isinstance(text, str) else ()
        ids.append((pieces[0].id,) if len(pieces) == 1 else ())
    name = facts.name
    if name.endswith(".gguf"):  # nobody named it: it goes by the path that the server knows
        name = name.rpartition("/")[2].removesuffix(".gguf")
    server.facts = replace(server.facts, name=name, end_ids=ids[1], control_ids=(*ids[0], *ids[1]))
    return server


def _ollama(http: Http, facts: ModelFacts) -> Server:
    shown = http.ask(f"{http.root}/api/show", {"model": facts.name})
    details = shown.get("details") if isinstance(shown, dict) else None
    details = details if isinstance(details, dict) else {}
    return Ollama(
        http,
        replace(
            facts,
            runtime="Ollama",
            architecture=str(details.get("family", "")),
            weight_format=str(details.get("quantization_level", "")),
        ),
    )
