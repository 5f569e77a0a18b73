"""How tokens are drawn, from the next one on, of a running reply too: the numbers, rules for single
tokens, the end, the order of the stages, and presets of all of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from chatapp.chat.numbers import decimal
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import Candidate
from chatapp.chat.sampling import (
    MOST,
    MOST_SEED,
    ORDERS,
    PARAMETERS,
    TRANSFORMERS_ORDER,
    EndRule,
    SamplingParams,
    find,
)
from chatapp.chat.text import visible_token
from chatapp.chat.thinking import THINK
from chatapp.session.grammars import grammar_words, read_grammar
from chatapp.session.token_names import TokenNameError, parse_bias, token_named, unquoted
from chatapp.ui.actions import CommandError, action, path_of
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.models import Models
from chatapp.ui.chat.what_if import WhatIf
from chatapp.ui.dialogs.order import OrderScreen
from chatapp.ui.services import ModelState

_OTHERS = ("seed", "max_tokens", "format", "stop")
"""What /set sets besides the sampler's numbers."""
_END_WORDS: dict[EndRule, str] = {
    "allow": "the model may end its replies",
    "forbid": "no reply may end by itself; Esc stops it",
    "force": "the very next token ends the reply",
}


def _number(word: str, name: str, text: str = "") -> Callable[[Sampling, str], None]:
    """The action that sets one of the sampler's numbers, or tells it."""

    @action(word, text or PARAMETERS[name].text, usage="[N]")
    def turn(self: Sampling, value: str = "") -> None:
        self._set_number(name, value)

    return turn


class Sampling:
    """Sets numbers and rules by name."""

    def __init__(
        self, chat: ChatBase, conversations: Conversations, models: Models, what_if: WhatIf
    ) -> None:
        self._chat = chat
        self._session = chat.session
        self._conversations = conversations
        self._models = models
        self._presets = chat.services.presets
        self._what_if = what_if

    temperature = _number(
        "temp", "temperature", "Temperature (Ctrl+Up, Ctrl+Down): lower is stricter, 0 greedy."
    )
    top_k = _number("top-k", "top_k")
    top_p = _number("top-p", "top_p")
    min_p = _number("min-p", "min_p")

    @action("seed", usage="[N]")
    def seed(self, value: str = "") -> None:
        """Same seed, same reply; off takes a fresh one each time."""
        session = self._session
        if not value:
            words = "a fresh one for every reply" if session.seed is None else str(session.seed)
            self._chat.say(f"seed is {words}; /seed N fixes it, /seed off frees it")
        elif value == "off":
            session.seed = None
            self._chat.say("every reply takes a fresh seed")
        else:
            session.seed = _whole("seed", value)
            self._chat.say(f"seed is {session.seed} from the next reply on")

    @action(
        "set", usage="NAME VALUE", values=lambda _: [f"{name} " for name in (*PARAMETERS, *_OTHERS)]
    )
    async def set(self, argument: str) -> None:
        """Any number of the sampler, seed, max_tokens, format, stop."""
        name, _, value = argument.partition(" ")
        value = value.strip()
        match name.lower().replace("-", "_"):
            case "seed":
                self.seed(value)
            case "max_tokens":
                if value:
                    self._session.max_tokens = _whole("max_tokens", value)
                limit = self._session.max_tokens
                self._chat.say(f"max_tokens is {limit or '0: as many as the context has room for'}")
            case "format":
                if value:
                    await self._conversations.set_format(value)
                self._chat.say(f"format is {self._session.conversation.format}")
            case "stop":
                if value:
                    texts = () if value == "off" else (_unescape(value),)
                    await self._conversations.keep(lambda now: replace(now, stop=texts))
                said = ", ".join(repr(text) for text in self._session.conversation.stop)
                self._chat.say(f"replies end before {said}" if said else "no stop sequence is set")
            case _:
                self._set_number(name, value)

    @action("think", usage="on|off|auto", takes=tuple(THINK))
    async def think(self, argument: str = "") -> None:
        """Have the model think before it answers, or not."""
        if argument:
            await self._conversations.keep(lambda now: replace(now, think=THINK[argument]))
        chosen = self._session.conversation.think
        words = next(name for name, value in THINK.items() if value is chosen)
        facts = self._session.facts
        if facts is not None and not facts.thinking_switch and chosen is not None:
            self._chat.say(
                f"think is {words}, but the template of {facts.name} has no switch for it:"
                " this model does as it was trained",
                "warning",
            )
        else:
            self._chat.say(f"think is {words}, from the next reply on")

    def _set_number(self, name: str, text: str) -> None:
        """Raises ParameterError: no such number, or no such value; it says what is allowed."""
        parameter = find(name)
        if not text:
            value = getattr(self._chat.sampling, parameter.name)
            self._chat.say(f"{parameter.name} is {parameter.format(value)}: {parameter.text}")
            return
        sampling = self._chat.sampling.with_text(parameter.name, text)
        self._chat.set_sampling(sampling)
        value = getattr(sampling, parameter.name)
        when = ", tried on this reply" if self._what_if.on else " from the next token on"
        self._chat.say(f"{parameter.name} is {parameter.format(value)}{when}")

    # Tokens

    @action("ban", usage="[TOKEN]")
    async def ban(self, name: str = "") -> None:
        """Never take a token, by id or text; again allows it."""
        if not name:
            await self._tell_rules()
            return
        piece = await self._named(name)
        self._turn_ban(piece.id, piece.bytes, "the same")

    def ban_candidate(self) -> None:
        """Ban the candidate under the row cursor, or allow it again."""
        if (one := self._candidate()) is not None:
            self._turn_ban(one.id, one.bytes, "x")

    def _turn_ban(self, id_: int, token: bytes, how: str) -> None:
        sampling = self._chat.sampling
        allowed = id_ in sampling.banned
        kept = tuple(one for one in sampling.banned if one != id_)
        self._chat.set_sampling(replace(sampling, banned=kept if allowed else (*kept, id_)))
        what = "may be taken again" if allowed else f"is banned; {how} allows it again"
        self._chat.say(f"{visible_token(token)} ({id_}) {what}")

    @action("bias", usage="[TOKEN=N]", values=lambda _: ("clear",))
    async def bias(self, argument: str = "") -> None:
        """Add to a token's logit; none tells what holds, clear frees all."""
        if argument == "clear":
            sampling = self._chat.sampling
            self._chat.set_sampling(replace(sampling, banned=(), logit_bias=(), end="allow"))
            self._chat.say("no token is banned or biased, and the end is left to the model")
        elif not argument:
            await self._tell_rules()
        else:
            bias = parse_bias(argument)
            piece = await self._named(bias.token)
            if bias.value == -math.inf:
                raise TokenNameError(f"a bias of −∞ is a ban: /ban {piece.id}")
            self._bias(piece.id, piece.bytes, bias.value)

    def bias_candidate(self, steps: int) -> None:
        """Add to the logit of the candidate under the row cursor."""
        if (one := self._candidate()) is not None:
            bias = dict(self._chat.sampling.logit_bias).get(one.id, 0.0) + steps
            self._bias(one.id, one.bytes, bias, "; + and − turn it")

    def _bias(self, id_: int, token: bytes, bias: float, more: str = "") -> None:
        sampling = self._chat.sampling
        biases = {**dict(sampling.logit_bias), id_: bias}
        pairs = tuple((one, value) for one, value in biases.items() if value)
        self._chat.set_sampling(replace(sampling, logit_bias=pairs))
        self._chat.say(f"{visible_token(token)} ({id_}) has a bias of {decimal(bias)}{more}")

    async def _named(self, name: str) -> TokenPiece:
        session = self._chat.session
        if self._models.state is not ModelState.READY or session.facts is None:
            # To wait would hold up all that is typed meanwhile.
            raise TokenNameError("only a loaded model knows its tokens; try again once it is here")
        return await token_named(unquoted(name), session.engine, session.facts.vocab_size)

    def _candidate(self) -> Candidate | None:
        one = self._chat.panel.candidates.candidate
        if one is None:
            self._chat.say("choose a candidate in the panel first", "warning")
        return one

    async def _tell_rules(self) -> None:
        """Say which tokens have a rule of their own. Raises ChatappError."""
        sampling = self._chat.sampling
        ids = [*sampling.banned, *(id_ for id_, _ in sampling.logit_bias)]
        if not ids:
            self._chat.say("no token is banned or biased; x, + and − in the candidates do it")
            return
        pieces = await self._chat.session.engine.pieces(ids)
        names = [f"{visible_token(piece.bytes)} ({piece.id})" for piece in pieces]
        count = len(sampling.banned)
        words = [f"banned: {', '.join(names[:count])}"] if count else []
        biased = zip(names[count:], sampling.logit_bias, strict=True)
        words += [f"{name} {'+' if bias > 0 else ''}{decimal(bias)}" for name, (_, bias) in biased]
        self._chat.say(" · ".join(words))

    # The end, the order, presets

    @action("end", usage="RULE", takes=tuple(_END_WORDS))
    def end(self, rule: str) -> None:
        """The end of a reply: allow, forbid, or force it now."""
        named = cast(EndRule, rule)
        self._chat.set_sampling(replace(self._chat.sampling, end=named))
        self._chat.say(_END_WORDS[named])

    @action("schema", usage="[FILE]", files="")
    async def schema(self, file: str = "") -> None:
        """Hold replies to a schema (.json), a grammar (.lark), a pattern (.regex); off: don't."""
        if file:
            wanted = file != "off"
            grammar = await asyncio.to_thread(read_grammar, path_of(file)) if wanted else ""
            self._chat.set_sampling(replace(self._chat.sampling, grammar=grammar))
        held = grammar_words(self._chat.sampling.grammar)
        self._chat.say(f"replies are held to {held}" if held else "replies are held to nothing")

    @action("order", usage="[NAME]", takes=tuple(ORDERS))
    def order(self, name: str = "") -> None:
        """The order of the sampler's stages: transformers, llama.cpp, your own."""
        if not name:
            screen = OrderScreen(self._chat.sampling, self._chat.set_sampling)
            self._chat.app.push_screen(screen)
        else:
            self._chat.set_sampling(replace(self._chat.sampling, order=ORDERS[name]))
            self._chat.say(f"the stages run in {name} order")

    @action(
        "preset", usage="[NAME]", values=lambda self: [*self._presets.names(), "save ", "remove "]
    )
    def preset(self, argument: str = "") -> None:
        """Take a preset; save NAME and remove NAME keep your own."""
        first, _, rest = argument.partition(" ")
        name = rest.strip()
        if not argument:
            names = ", ".join(self._presets.names())
            self._chat.say(f"presets: {names}; /preset save NAME keeps another")
        elif first == "save" and name:
            file = self._presets.save(name, self._chat.sampling)
            self._chat.say(f"kept as preset {name}, in {file}")
        elif first == "remove" and name:
            self._presets.remove(name)
            self._chat.say(f"preset {name} is removed")
        else:
            self._chat.set_sampling(self._presets.load(argument))
            self._chat.say(f"preset {argument}")


def _unescape(text: str) -> str:
    """A text in which \\n and \\t are written out, since a command is one line."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _whole(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    most = MOST_SEED if name == "seed" else MOST
    if not 0 <= number <= most:
        bounds = f"of at most {most}" if number > most else "of at least 0"
        raise CommandError(f"{name} must be a whole number {bounds}, not {text!r}")
    return number


def rule_words(sampling: SamplingParams) -> list[str]:
    """What holds besides the numbers, in few words."""
    words: list[str] = []
    if sampling.banned:
        words.append(f"{len(sampling.banned)} banned")
    if sampling.logit_bias:
        words.append(f"{len(sampling.logit_bias)} biased")
    if sampling.grammar:
        words.append(f"held to {grammar_words(sampling.grammar)}")
    if sampling.end != "allow":
        words.append("end forbidden" if sampling.end == "forbid" else "end forced")
    if sampling.order != TRANSFORMERS_ORDER:
        known = [name for name, order in ORDERS.items() if order == sampling.order]
        words.append(f"{known[0] if known else 'own'} order")
    return words
