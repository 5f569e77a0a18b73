"""Rules for single tokens, the end and the order of stages; presets of all of them."""

from __future__ import annotations

import math
from dataclasses import replace

from textual.content import Content
from textual.widgets import Static

from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import Candidate
from chatapp.chat.sampling import ORDERS, TRANSFORMERS_ORDER, EndRule, SamplingParams
from chatapp.chat.text import visible_token
from chatapp.session.token_names import Bias, TokenNameError, token_named, unquoted
from chatapp.settings.presets import PresetError, Presets
from chatapp.ui.control.model import ModelState
from chatapp.ui.drawing import MUTED
from chatapp.ui.numbers import decimal
from chatapp.ui.screens.chat_scores import ChatScores
from chatapp.ui.screens.chat_what_if import TITLE
from chatapp.ui.screens.order import OrderScreen

_END_WORDS: dict[EndRule, str] = {
    "allow": "the model may end its replies",
    "forbid": "no reply may end by itself; Esc stops it",
    "force": "the very next token ends the reply",
}


class ChatRules(ChatScores):
    """Bans, biases, the end, the order, presets."""

    # Tokens

    def action_ban(self) -> None:
        """Ban the candidate under the row cursor, or allow it again."""
        if (one := self._candidate()) is not None:
            self._turn_ban(one.id, one.bytes, "x")

    async def turn_ban(self, name: str) -> None:
        """Ban the token of that name, or allow it again. Raises ChatappError."""
        piece = await self._named(name)
        self._turn_ban(piece.id, piece.bytes, "the same")

    def _turn_ban(self, id_: int, token: bytes, how: str) -> None:
        banned = self.sampling.banned
        allowed = id_ in banned
        kept = tuple(one for one in banned if one != id_)
        self.set_sampling(replace(self.sampling, banned=kept if allowed else (*kept, id_)))
        what = "may be taken again" if allowed else f"is banned; {how} allows it again"
        self.say(f"{visible_token(token)} ({id_}) {what}")

    def action_bias(self, steps: int) -> None:
        """Add to the logit of the candidate under the row cursor."""
        if (one := self._candidate()) is not None:
            bias = dict(self.sampling.logit_bias).get(one.id, 0.0) + steps
            self._bias(one.id, one.bytes, bias, "; + and − turn it")

    async def set_bias(self, bias: Bias) -> None:
        """Add to a token's logit from now on; 0 is as if nothing were said. Raises ChatappError."""
        piece = await self._named(bias.token)
        if bias.value == -math.inf:
            raise TokenNameError(f"a bias of −∞ is a ban: /ban {piece.id}")
        self._bias(piece.id, piece.bytes, bias.value)

    def _bias(self, id_: int, token: bytes, bias: float, more: str = "") -> None:
        biases = {**dict(self.sampling.logit_bias), id_: bias}
        pairs = tuple((one, value) for one, value in biases.items() if value)
        self.set_sampling(replace(self.sampling, logit_bias=pairs))
        self.say(f"{visible_token(token)} ({id_}) has a bias of {decimal(bias)}{more}")

    async def _named(self, name: str) -> TokenPiece:
        facts = self.session.facts
        if self.models.state is not ModelState.READY or facts is None:
            # To wait would hold up all that is typed meanwhile.
            raise TokenNameError("only a loaded model knows its tokens; try again once it is here")
        return await token_named(unquoted(name), self.session.engine, facts.vocab_size)

    def _candidate(self) -> Candidate | None:
        one = self.panel.candidates.candidate
        if one is None:
            self.say("choose a candidate in the panel first", "warning")
        return one

    def clear_rules(self) -> None:
        """No token is banned or biased, and the end is the model's."""
        self.set_sampling(replace(self.sampling, banned=(), logit_bias=(), end="allow"))
        self.say("no token is banned or biased, and the end is left to the model")

    async def tell_rules(self) -> None:
        """Say which tokens have a rule of their own. Raises ChatappError."""
        sampling = self.sampling
        ids = [*sampling.banned, *(id_ for id_, _ in sampling.logit_bias)]
        if not ids:
            self.say("no token is banned or biased; x, + and − in the candidates do it")
            return
        pieces = await self.session.engine.pieces(ids)
        names = [f"{visible_token(piece.bytes)} ({piece.id})" for piece in pieces]
        count = len(sampling.banned)
        words = [f"banned: {', '.join(names[:count])}"] if count else []
        biased = zip(names[count:], sampling.logit_bias, strict=True)
        words += [f"{name} {'+' if bias > 0 else ''}{decimal(bias)}" for name, (_, bias) in biased]
        self.say(" · ".join(words))

    def set_end(self, rule: EndRule) -> None:
        """Leave, forbid or force the end of replies."""
        self.set_sampling(replace(self.sampling, end=rule))
        self.say(_END_WORDS[rule])

    # Order and presets

    def set_order(self, name: str) -> None:
        """Take a known order of the stages."""
        self.set_sampling(replace(self.sampling, order=ORDERS[name]))
        self.say(f"the stages run in {name} order")

    def open_order(self) -> None:
        """Change the order of the stages."""
        self.app.push_screen(OrderScreen(self.sampling, self.set_sampling))

    @property
    def presets(self) -> Presets:
        """All presets. Raises PresetError where none are kept."""
        if self.services.presets is None:
            raise PresetError("presets are not kept in this session")
        return self.services.presets

    def use_preset(self, name: str) -> None:
        """Take all parameters of a preset. Raises PresetError."""
        self.set_sampling(self.presets.load(name))
        self.say(f"preset {name}")

    def save_preset(self, name: str) -> None:
        """Keep the present parameters under a name. Raises PresetError."""
        file = self.presets.save(name, self.sampling)
        self.say(f"kept as preset {name}, in {file}")

    # What is shown

    def show_sampling(self) -> None:
        """Name over the panel what it has no rows for."""
        super().show_sampling()
        title = TITLE if self.what_if.on else "sampling"
        rules = rule_words(self.sampling)
        style = "bold $text-warning" if self.what_if.on else MUTED
        text = Content.styled(" · ".join([title, *rules]), style)
        self.query_one("#sampling-title", Static).update(text, layout=False)


def rule_words(sampling: SamplingParams) -> list[str]:
    """What holds besides the numbers, in few words."""
    words: list[str] = []
    if sampling.banned:
        words.append(f"{len(sampling.banned)} banned")
    if sampling.logit_bias:
        words.append(f"{len(sampling.logit_bias)} biased")
    if sampling.end != "allow":
        words.append("end forbidden" if sampling.end == "forbid" else "end forced")
    if sampling.order != TRANSFORMERS_ORDER:
        known = [name for name, order in ORDERS.items() if order == sampling.order]
        words.append(f"{known[0] if known else 'own'} order")
    return words
