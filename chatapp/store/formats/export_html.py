"""The current path of a conversation as one HTML file that needs nothing else.

Each token of a reply is coloured by the model's probability and shows its candidates when pointed
at or reached by Tab. There is no script in it, and its own policy forbids any: all text is escaped,
and what cannot be seen in it (control characters, bidirectional overrides) is made visible. Colours
follow the reader's light or dark setting; the legend and the numbers say what they mean.
"""

from __future__ import annotations

import html
import math

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.numbers import decimal, percent
from chatapp.chat.record import Candidate, TokenRecord, perplexity
from chatapp.chat.served import entropy_at_least, id_words
from chatapp.chat.text import sanitise, visible_token
from chatapp.store.formats.export_markdown import SPEAKERS, about, title

_STEPS = ((0.9, "≥ 90 %"), (0.5, "50–90 %"), (0.2, "20–50 %"), (0.05, "5–20 %"), (0.0, "< 5 %"))
"""From which model probability on each colour holds, and how the legend calls it."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c1c1c; --dim: #666; --box: #f4f4f4;
  --p0: #d9f0dd; --p1: #eef3c9; --p2: #fdeab6; --p3: #fbd0a8; --p4: #f6b0b0; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #e6e6e6; --dim: #9a9a9a;
  --box: #23262a; --p0: #1d4428; --p1: #434a14; --p2: #5c4707; --p3: #6b350c; --p4: #752222; } }
body { max-width: 48rem; margin: 2rem auto; padding: 0 1rem; background: var(--page);
  color: var(--ink); font: 16px/1.6 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
.about, .sum, .legend { color: var(--dim); font-size: .85rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.t { position: relative; border-radius: 2px; cursor: help; }
.e::before { content: "▏"; color: var(--dim); }
.p0 { background: var(--p0); } .p1 { background: var(--p1); } .p2 { background: var(--p2); }
.p3 { background: var(--p3); } .p4 { background: var(--p4); }
.legend span { padding: 0 .4em; color: var(--ink); }
.c { display: none; position: absolute; left: 0; top: 1.5em; z-index: 1; padding: .5em .75em;
  background: var(--box); color: var(--ink); border: 1px solid var(--dim); border-radius: 4px;
  font: 12px/1.4 ui-monospace, monospace; white-space: pre; }
.t:hover > .c, .t:focus > .c { display: block; }
.t:hover, .t:focus { outline: 1px solid var(--ink); }
"""


def export_html(conversation: Conversation) -> str:
    name = _escape(title(conversation))
    body = [f"<h1>{name}</h1>", f'<p class="about">{_escape(about(conversation))}</p>', _legend()]
    if conversation.system:
        body.append(_section("System", f'<div class="text">{_escape(conversation.system)}</div>'))
    body.extend(_message(message) for message in conversation.path())
    lines = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>{_STYLE}</style>
</head>
<body>
{lines}
</body>
</html>
"""


def _probability(logprob: float) -> float:
    """exp(logprob); a file that was brought in may hold what no model computes."""
    return math.exp(min(logprob, 0.0))


def _message(message: Message) -> str:
    reply = message.reply
    if reply is None or not reply.records:
        return _section(SPEAKERS[message.role], f'<div class="text">{_escape(message.text)}</div>')
    tokens = "".join(_token(record) for record in reply.records)
    content = f'<div class="text">{tokens}</div>\n<p class="sum">{_escape(_summary(reply))}</p>'
    return _section(SPEAKERS[message.role], content)


def _section(name: str, content: str) -> str:
    return f'<section dir="auto">\n<h2>{name}</h2>\n{content}\n</section>'


def _summary(reply: Reply) -> str:
    reason = "cut off" if reply.finish_reason is None else reply.finish_reason.value
    return (
        f"{reply.model} · {len(reply.records)} tokens · perplexity "
        f"{decimal(perplexity(reply.logprobs))} · {reply.tokens_per_second:.1f} tok/s · {reason}"
    )


def _legend() -> str:
    steps = "".join(
        f'<span class="p{step}">{_escape(words)}</span>' for step, (_, words) in enumerate(_STEPS)
    )
    return f'<p class="legend">Colours: probability of the token under the model {steps}</p>'


def _token(record: TokenRecord) -> str:
    model = _probability(record.logprob)
    step = next((f" p{n}" for n, (least, _) in enumerate(_STEPS) if model >= least), "")
    empty = "" if record.text else " e"
    return (
        f'<span class="t{step}{empty}" tabindex="0">{_escape(record.text)}'
        f'<span class="c">{_escape(_details(record))}</span></span>'
    )


def _details(record: TokenRecord) -> str:
    """What stands beside a token: its own numbers, then every candidate's on a line."""
    lines = [
        f"{visible_token(record.bytes)}  {id_words(record.id)}  rank {record.rank or 'n/a'}",
        f"model {percent(_probability(record.logprob))}  T {record.temperature:g}: "
        f"{percent(record.tempered_prob)}  final {percent(record.prob)}",
        f"entropy {_entropy(record)}  P(end) {percent(record.p_end)}",
        "   model        T    final",
    ]
    lines.extend(_candidate(candidate, record.id) for candidate in record.candidates)
    lines.append(
        f"{_numbers(record.other_model_prob, record.other_tempered_prob, record.other_prob)}"
        f"    {record.other_count:,} others".replace(",", " ")
    )
    return "\n".join(lines)


def _entropy(record: TokenRecord) -> str:
    bound = entropy_at_least(record)
    if math.isnan(record.entropy_bits):  # what a server tells bounds it, or not even that
        return "n/a" if math.isnan(bound) else f"at least {bound:.2f} bit"
    return f"{record.entropy_bits:.2f} bit"


def _candidate(candidate: Candidate, chosen: int) -> str:
    mark = "›" if candidate.id == chosen else " "
    model = _probability(candidate.logprob)
    numbers = _numbers(model, candidate.tempered_prob, candidate.prob)
    line = f"{numbers}  {mark} {visible_token(candidate.bytes)}"
    if candidate.removed_by is not None:
        line += f"  cut by {candidate.removed_by.stage} {candidate.removed_by.setting:g}"
    return line


def _numbers(*probabilities: float) -> str:
    return " ".join(f"{percent(probability):>8}" for probability in probabilities)


def _escape(text: str) -> str:
    return html.escape(sanitise(text))
