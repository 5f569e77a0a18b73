"""One reply as it is asked for and as it comes: options, events, and the end.

The engine yields these in order: any number of `Progress` (prefill), one `PromptRead`, a
`TokenStep` for every token, a `Paused` before one whenever the reply is held, one `GenerationEnd`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chatapp.chat.facts import Progress
from chatapp.chat.inspection import StepTrace
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.thinking import Thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """What holds for a whole reply. The sampling parameters may be replaced while it runs."""

    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    max_tokens: int = 0
    """0 is as many as the context has room for."""
    stop: tuple[str, ...] = ()
    """Stop sequences, besides those of the format."""
    top_logprobs: int = 20
    """How many candidates each record carries."""
    trace: bool = False
    """Whether each step tells what every stage of the sampler did to its candidates."""
    forced_ids: tuple[int, ...] = ()
    """The first tokens are these instead of drawn ones; their records tell the real numbers."""
    forced_bytes: tuple[bytes, ...] = ()
    """The bytes of these as far as they are known: a server may know tokens by their text alone."""
    schedule: tuple[SamplingSpan, ...] = ()
    """Parameters that take over at later tokens of this request, as a recorded reply had them."""
    is_aside: bool = False
    """No part of a conversation: the KV cache and the kept logits stay those of the replies."""


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt is in the KV cache; the first token comes next."""

    prompt_ids: tuple[int, ...]
    cached_tokens: int
    """How many of the prompt's tokens the KV cache held already."""
    seconds: float
    """From the request to here."""
    note: str = ""
    """Words for the user about what was read otherwise than it is recorded."""
    thinking: Thinking | None = None
    """How the reply would mark its thinking; None where the format tells of none."""


@dataclass(frozen=True, slots=True)
class TokenStep:
    """One token was taken."""

    record: TokenRecord
    sampling: SamplingParams | None = None
    """The parameters it was drawn with, when they differ from those of the token before."""
    trace: StepTrace | None = None
    """What each stage did to the record's candidates, where that was asked for."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The reply is held before its next token. Nothing is taken yet."""

    next: TokenRecord
    """What may come, under the parameters as they are now; `id` is the most probable one."""
    sampling: SamplingParams
    """These parameters."""


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The reply is over. Its text is the joined texts of its records."""

    reason: FinishReason
    seconds: float
    """Decoding alone, from the first token to the last, without the time it was held."""
    time_to_first_token: float
    message: str = ""
    """For reason error, where a limit was reached, and where tokens that were chosen could not be
    taken: what happened and what to do."""


GenerationEvent = Progress | PromptRead | TokenStep | Paused | GenerationEnd
