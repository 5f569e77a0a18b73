"""Answers about what happens inside the model: embeddings, attention, layers, parts.

Layers and heads are counted from 0, positions of tokens too. All numbers come from the model's
weights in float32, whichever runtime writes the replies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chatapp.chat.prompt import TokenPiece

Matrix = Literal["input", "output"]
"""The embedding that a token is read with, or the one that its logit is made with."""
Measure = Literal["cosine", "dot"]

MOST_FOR_ALL = 1024
"""Of longer texts only single rows of attention are computed: all would be n² numbers a head."""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token and how near it is, or how probable."""

    piece: TokenPiece
    score: float


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The tokens whose embeddings are nearest to that of one token, which is left out."""

    piece: TokenPiece
    spaced: bool
    """Whether the word was taken with a space before it."""
    matrix: Matrix
    by: Measure
    neighbors: tuple[ScoredToken, ...]
    row: tuple[float, ...] = ()
    """The token's own row of the matrix."""


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a sum of embeddings."""

    sign: int
    """1 or −1."""
    piece: TokenPiece
    spaced: bool


@dataclass(frozen=True, slots=True)
class AnalogyResult:
    """A token by its cosine to the sum."""

    rank: int
    """1 for the nearest of all tokens."""
    piece: TokenPiece
    score: float
    is_input: bool
    """Whether it is one of the terms; they are ranked like all others."""


@dataclass(frozen=True, slots=True)
class Analogy:
    """What is nearest to a sum of raw input embeddings, by cosine."""

    terms: tuple[Term, ...]
    results: tuple[AnalogyResult, ...]


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike two texts are, as cosines."""

    embedding: float
    """Of the means of their input embeddings."""
    hidden: float
    """Of the means of their last hidden states, behind the final norm."""


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A word on the map."""

    text: str
    piece: TokenPiece
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """Input embeddings of some words in two dimensions."""

    method: Literal["pca", "tsne"]
    explained: tuple[float, ...]
    """The share of the variance that each axis holds; empty for t-SNE, whose axes hold none."""
    points: tuple[MapPoint, ...]


@dataclass(frozen=True, slots=True)
class Attention:
    """How much one token attends to each token up to itself, or every token of a text."""

    tokens: tuple[TokenPiece, ...]
    token: int
    """Whose row it is; with all rows, the last one."""
    layer: int
    head: int | None
    """None is the mean over the heads of the layer."""
    rows: tuple[tuple[float, ...], ...]
    """One row, or one for each token; a row sums to 1 and is as long as the text."""


@dataclass(frozen=True, slots=True)
class HeadProfile:
    """What one head does at one token, as shares of its attention."""

    layer: int
    head: int
    entropy_bits: float
    first: float
    """On the very first token."""
    previous: float
    """On the token before."""
    same: float
    """On earlier tokens of the same id."""
    induction: float
    """On what followed earlier tokens of the same id."""


@dataclass(frozen=True, slots=True)
class LensLayer:
    """What the model would predict if it ended behind a layer."""

    layer: int
    """0 is the embedding; the last one is the model's own output."""
    top: tuple[ScoredToken, ...]
    """The most probable tokens, with their probabilities."""
    kl_bits: float
    """The divergence of this prediction from the final one: Σ p_final log2(p_final / p_layer)."""
    rank: int
    """The place of the model's own first choice in this prediction; 1 leads."""


@dataclass(frozen=True, slots=True)
class Lens:
    """The logit lens at one token (nostalgebraist, 2020)."""

    tokens: tuple[TokenPiece, ...]
    token: int
    layers: tuple[LensLayer, ...]


@dataclass(frozen=True, slots=True)
class AttributionPart:
    """What one part of the model adds to a logit."""

    layer: int
    """-1 for what belongs to no layer."""
    kind: Literal["embedding", "attention", "mlp", "bias", "softcap"]
    head: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """Direct logit attribution, with the final norm's scale as it is at this token."""

    tokens: tuple[TokenPiece, ...]
    token: int
    target: TokenPiece
    parts: tuple[AttributionPart, ...]
    sum: float
    logit: float
    """The model's own logit of the target behind that token."""


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A kind of weights."""

    name: Literal["embedding", "attention", "mlp", "norm", "head", "other"]
    parameters: int
    bytes: int
    """As the file holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What the model is made of, as its file says."""

    architecture: str
    parameters: int
    """A tied matrix is counted once."""
    tied: bool
    """Whether the head is the embedding's matrix."""
    layers: int
    heads: int
    kv_heads: int
    width: int
    head_width: int
    mlp_width: int
    vocabulary: int
    context: int
    position: str
    """rotary, learned, alibi, or none."""
    activation: str
    norm: str
    weight_format: str
    parts: tuple[ModelPart, ...]
    kv_bytes_per_token: int
    operations_per_token: int
    """Multiplications and additions of one step without its attention to what came before: 2 for
    each weight that a token is multiplied with."""
    bytes_per_token: int
    """Bytes of weights that one step reads."""
    memory_bytes_per_second: float
    """Bytes a second that memory gave here just now: weights can't be read faster."""


@dataclass(frozen=True, slots=True)
class Positions:
    """How the model knows the order of tokens."""

    kind: Literal["rotary", "learned", "none"]
    position: int
    angles: tuple[float, ...]
    """Rotary: by how much each pair of dimensions is turned at the position, in radians."""
    wavelengths: tuple[float, ...]
    """Rotary: after how many tokens each pair has turned once."""
    falloff: tuple[tuple[int, float], ...]
    """Rotary: distance, and the mean over all pairs of the cosine of the angle between a query and
    a key that are alike. Learned: other position, and the cosine of the two vectors."""


@dataclass(frozen=True, slots=True)
class CachePoint:
    """One length of text."""

    tokens: int
    seconds_with: float
    """Seconds to read it token by token, keeping keys and values."""
    seconds_without: float
    """Seconds to read it anew for every token."""
    passes_with: int
    """Tokens that went through the layers: n."""
    passes_without: int
    """n(n+1)/2."""


@dataclass(frozen=True, slots=True)
class CacheRun:
    """The KV cache, measured."""

    kv_bytes_per_token: int
    points: tuple[CachePoint, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to look at: plain, or exactly the ids that a prompt or a reply has."""

    text: str = ""
    """Read as plain text, behind what the model expects before any text."""
    ids: tuple[int, ...] | None = None
    """In place of the text."""
