"""The journey of one token of a reply: from the text to the text, one stage after another.

Every number is of the user's own reply: what was recorded while it was written, what the sampler's
trace tells, and what the model's weights say of the same ids.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace

from chatapp.chat.facts import Report
from chatapp.chat.inspection import StageTrace
from chatapp.chat.numbers import bits, count, decimal, percent, size, temperature
from chatapp.chat.record import FinishReason
from chatapp.chat.text import sanitise, visible_token
from chatapp.chat.xray import Attribution, Passage
from chatapp.explain import views
from chatapp.explain.cells import fit_token
from chatapp.explain.plots import bar
from chatapp.explain.views import TOKEN_WIDTH, Made, Page, View
from chatapp.session.inspector import Inspector
from chatapp.session.session import Session

_CANDIDATES = 8
_BAR = 24
_ENDS = {
    FinishReason.STOP: "the model chose an end token: its own way to say that it is done",
    FinishReason.STOP_SEQUENCE: "the text reached a stop sequence",
    FinishReason.LENGTH: "it reached the most tokens it was allowed",
    FinishReason.CONTEXT: "the context was full",
    FinishReason.CANCELLED: "it was stopped by hand",
    FinishReason.ERROR: "the engine failed",
}


class Journey:
    """One token of a reply. What makes a page raises EngineError."""

    def __init__(self, session: Session, message_id: str, index: int) -> None:
        """`index` is the token's place in the reply, from 0. Raises EngineError."""
        self._engine = session.engine
        self._inspector = Inspector(session)
        reply = session.reply(message_id)
        self._reply = reply
        self._step = self._inspector.step(message_id, index)
        self._index = index
        self._record = reply.records[index]
        self._before = (*reply.prompt_ids, *reply.ids[:index])
        self._word = visible_token(self._record.bytes)
        self._attribution: Attribution | None = None
        self.pages = (
            Page("text", self._text, "tokens"),
            Page("tokens", self._tokens, "tokens"),
            Page("vectors", self._vectors, "words"),
            Page("position", self._position, "position"),
            Page("attention", self._attention, "attention"),
            Page("MLP", self._parts, "parts"),
            Page("layers", self._layers, "layers"),
            Page("logits", self._logits, ""),
            Page("softmax", self._softmax, ""),
            Page("filters", self._filters, ""),
            Page("draw", self._draw, ""),
            Page("appended", self._appended, "anatomy"),
            Page("again", self._again, ""),
            Page("end", self._end, ""),
        )

    async def _text(self, _: Report) -> Made:
        pieces = await self._engine.pieces(self._before)
        text = b"".join(piece.bytes for piece in pieces).decode("utf-8", "replace")

        def view(width: int) -> View:
            rows = sanitise(text).expandtabs(4).split("\n")
            cut = [line for row in rows for line in textwrap.wrap(row, width) or [""]]
            return View(
                "1 · The text",
                "A language model does one thing again and again: it reads a text and says what may"
                " come next. This is the end of what it had read before it wrote"
                f" {self._word}: the whole conversation in the form that it was trained on, with"
                " special marks for who speaks.",
                tuple(cut[-14:]),
                f"{count(len(text))} characters in all. /prompt shows everything.",
            )

        return view

    async def _tokens(self, _: Report) -> Made:
        pieces = await self._engine.pieces(self._before)
        first = max(0, len(pieces) - 10)
        lines = [f"{'place':>6} {'id':>8}  token"]
        lines += [
            f"{first + number:>6} {piece.id:>8}  {fit_token(piece.bytes, TOKEN_WIDTH)}"
            for number, piece in enumerate(pieces[first:])
        ]
        view = View(
            "2 · Tokens and their numbers",
            f"The text is cut into {count(len(pieces))} tokens from a fixed list; each is known by"
            " its number in that list. The model never sees letters, only these numbers.",
            tuple(lines),
            "The last ten tokens. The text between special marks can never turn into one.",
        )
        return lambda _: view

    async def _vectors(self, report: Report) -> Made:
        near = await self._engine.neighbors(f"id:{self._before[-1]}", count=5, on_progress=report)
        last = visible_token(near.piece.bytes)
        shown = ", ".join(decimal(value, 3) for value in near.row[:6])
        nearest = ", ".join(visible_token(one.piece.bytes) for one in near.neighbors)
        view = View(
            "3 · Vectors",
            "Each number picks a row of a table that was learned, the embedding: a list of"
            f" {count(len(near.row))} numbers that stands for what the token means.",
            (
                f"last token   {last}",
                f"id           {near.piece.id}",
                f"vector       {shown}, …",
                f"             {count(len(near.row))} numbers in all",
                "",
                f"nearest      {nearest}",
            ),
            "Tokens that are used alike have vectors that point the same way (cosine).",
        )
        return lambda _: view

    async def _position(self, report: Report) -> Made:
        place = len(self._before) - 1
        found = await self._engine.positions(place, on_progress=report)
        return lambda width: replace(views.positions(found, width), title="4 · Position")

    async def _parts_found(self, report: Report) -> Attribution:
        if self._attribution is None:
            passage = Passage(ids=(*self._before, self._record.id))
            self._attribution = await self._engine.attribution(
                passage, len(self._before) - 1, on_progress=report
            )
        return self._attribution

    async def _attention(self, report: Report) -> Made:
        parts = (await self._parts_found(report)).parts
        most = max((one for one in parts if one.kind == "attention"), key=lambda one: one.value)
        found = await self._engine.attention(
            Passage(ids=self._before), layer=most.layer, on_progress=report
        )

        return lambda width: replace(
            views.attention(found, width, most=10),
            title="5 · Attention",
            sentence="In every layer the last token looks back and fetches from earlier tokens what"
            f" it needs. This is where layer {most.layer} looked, the layer whose attention spoke"
            f" most for {self._word}.",
        )

    async def _parts(self, report: Report) -> Made:
        found = await self._parts_found(report)
        largest = sorted(found.parts, key=lambda part: -abs(part.value))[:12]
        kept = replace(found, parts=tuple(sorted(largest, key=lambda part: part.layer)))
        return lambda width: replace(
            views.attribution(kept, width),
            title="6 · Attention and MLP, layer after layer",
            sentence="Behind attention in each layer an MLP works on what was fetched; both add"
            f" something to the vector. These twelve of {len(found.parts)} parts did most for"
            f" or against {self._word}.",
            remark="What each adds to the logit in the end; all parts together are the logit."
            " Stages 3 to 7 are computed from the weights in float32; what follows was recorded"
            " while the reply was written, so the last digits may differ.",
        )

    async def _layers(self, report: Report) -> Made:
        found = await self._engine.lens(Passage(ids=self._before), on_progress=report)

        def view(width: int) -> View:
            made = views.lens(found, width)
            step = max(1, (len(made.lines) - 2) // 12)
            kept = (made.lines[0], *made.lines[1:-1:step], made.lines[-1])
            return replace(made, title="7 · The prediction grows", lines=kept)

        return view

    async def _traced(self) -> tuple[tuple[StageTrace, ...], dict[int, bytes]]:
        shown = [one.id for one in self._record.candidates[:_CANDIDATES]]
        if self._record.id not in shown:
            shown.append(self._record.id)
        traced = await self._inspector.trace(self._step, shown)
        return traced.trace.stages, {one.id: one.bytes for one in traced.candidates}

    async def _logits(self, _: Report) -> Made:
        stages, names = await self._traced()
        model = stages[0]
        lines = [f"{'token':<{TOKEN_WIDTH}} {'logit':>8}"]
        lines += [
            f"{fit_token(names[one.id], TOKEN_WIDTH)} {decimal(one.logit or 0.0):>8}"
            f"{self._mark(one.id)}"
            for one in model.tokens
        ]
        view = View(
            "8 · Logits",
            "At the end the vector is compared with every token of the vocabulary: each gets a"
            f" score, its logit. The best of {count(model.alive)} scores:",
            tuple(lines),
            f"Layers and weights are done here; what follows is the sampler, which your settings"
            f" rule. ← is {self._word}, which was taken.",
        )
        return lambda _: view

    async def _softmax(self, _: Report) -> Made:
        stages, names = await self._traced()
        model = stages[0]
        tempered = next((one for one in stages if one.temperature is not None), model)
        setting = self._record.temperature
        head = f"at T = {temperature(setting)}"
        lines = [f"{'token':<{TOKEN_WIDTH}} {'model':>9} {head:>12}"]
        after = {one.id: one.prob for one in tempered.tokens}
        for one in model.tokens:
            lines.append(
                f"{fit_token(names[one.id], TOKEN_WIDTH)} {percent(one.prob):>9}"
                f" {percent(after[one.id]):>12}  {bar(after[one.id], _BAR)}{self._mark(one.id)}"
            )
        others = tempered.other_prob
        lines.append(
            f"{'all others':<{TOKEN_WIDTH}} {percent(model.other_prob):>9} {percent(others):>12}"
            f"  {bar(others, _BAR)}"
        )
        strict = "the best token alone" if setting == 0 else "stricter below 1, freer above"
        view = View(
            "9 · Softmax and temperature",
            "Softmax turns the scores into probabilities that sum to 100 %. The temperature divides"
            f" the scores first: {strict}.",
            tuple(lines),
            "p = exp(logit / T) ÷ the sum of that over all tokens. Logit edits such as penalties"
            " come before the temperature and are part of the second column.",
        )
        return lambda _: view

    async def _filters(self, _: Report) -> Made:
        stages, _names = await self._traced()
        return lambda width: replace(
            views.filters(stages, self._record, width), title="10 · Filters"
        )

    async def _draw(self, _: Report) -> Made:
        record = self._record
        alive = sorted(
            (one for one in record.candidates if one.prob > 0), key=lambda one: -one.prob
        )[:_CANDIDATES]
        if record.id not in [one.id for one in alive]:
            alive += [one for one in record.candidates if one.id == record.id]
        stretches = []
        for one in alive:
            found = (await self._inspector.find_tokens(self._step, one.id, 1))[0]
            stretches.append((found.draw_from or 0.0, found.draw_to or 0.0, one))
        lines = [
            f"{fit_token(one.bytes, TOKEN_WIDTH)} {percent(one.prob):>8}  {low:.4f} – {high:.4f}"
            f"  {bar(one.prob, _BAR)}{self._mark(one.id)}"
            for low, high, one in sorted(stretches, key=lambda stretch: stretch[0])
        ]
        if record.draw is not None:
            drawn = f"The number was {record.draw:.4f}, so {self._word} was taken"
        elif record.temperature == 0:
            drawn = "Here none was needed: at temperature 0 the best token is taken"
        elif record.prob == 1:
            drawn = f"Here none was needed: {self._word} was the only token left"
        else:
            drawn = f"Here none was: {self._word} was chosen by hand"
        view = View(
            "11 · The draw",
            "Chance decides now: a number from 0 to 1 is drawn, and every token owns a stretch as"
            f" long as its share. {drawn}.",
            tuple(lines),
            f"The seed is {self._reply.seed}: seed, settings and text together settle every draw.",
        )
        return lambda _: view

    async def _appended(self, _: Report) -> Made:
        built = await self._engine.anatomy()
        number = len(self._before)
        text = "".join(one.text for one in self._reply.records[: self._index + 1])
        cached = self._reply.cached_tokens
        view = View(
            "12 · Appended",
            f"{self._word} is put behind the text, as token {count(number)}. What the layers made"
            " of all earlier tokens is kept (the KV cache), so that only the new one is read next.",
            (
                f"the reply so far   {sanitise(' '.join(text.split()))[-52:]}",
                f"tokens in all      {count(number + 1)} of {count(built.context)}",
                f"prompt             {count(len(self._reply.prompt_ids))} tokens,"
                f" {count(cached)} of them kept from the turn before",
                f"KV cache           {size((number + 1) * built.kv_bytes_per_token)}, a token more"
                f" is {size(built.kv_bytes_per_token)}",
                f"passes so far      {count(number + 1)} with the cache,"
                f" {count((number + 1) * (number + 2) // 2)} without",
            ),
            "Passes: how many tokens went through all layers, had the text been read token by"
            " token: n with the cache, n(n+1)/2 without.",
        )
        return lambda _: view

    async def _again(self, _: Report) -> Made:
        following = self._reply.records[self._index : self._index + 12]
        lines = [f"{'token':<{TOKEN_WIDTH}} {'model':>9} {'final':>9} {'rank':>6} {'entropy':>10}"]
        lines += [
            f"{fit_token(one.bytes, TOKEN_WIDTH)} {percent(one.model_prob):>9}"
            f" {percent(one.prob):>9} {count(one.rank):>6} {bits(one.entropy_bits):>10}"
            for one in following
        ]
        left = len(self._reply.records) - self._index - len(following)
        more = f" {count(left)} more follow." if left > 0 else ""
        view = View(
            "13 · Again",
            "Then everything begins anew, with a text that is one token longer. That loop is all"
            f" there is to writing.{more}",
            tuple(lines),
            "model: the model's own probability; final: what it was drawn with; rank 1 is the most"
            " probable; entropy: how open the choice was.",
        )
        return lambda _: view

    async def _end(self, _: Report) -> Made:
        records = self._reply.records
        shown = records[-16:]
        lines = [f"{'token':<{TOKEN_WIDTH}} {'P(end)':>9}"]
        lines += [
            f"{fit_token(one.bytes, TOKEN_WIDTH)} {percent(one.p_end):>9}  {bar(one.p_end, 24)}"
            for one in shown
        ]
        reason = self._reply.finish_reason
        how = f"ended because {_ENDS[reason]}" if reason is not None else "goes on still"
        view = View(
            "14 · The end",
            "An end is a token like any other, with a probability at every step. This reply"
            f" {how}.",
            tuple(lines),
            f"P(end): the model's probability of all end tokens, before each of the last"
            f" {len(shown)} of {count(len(records))} tokens was taken.",
        )
        return lambda _: view

    def _mark(self, token_id: int) -> str:
        return "  ←" if token_id == self._record.id else ""
