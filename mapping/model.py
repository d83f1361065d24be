"""A transformer in neutral words: what every family's config.json is read into."""

from typing import Literal

from machine.config import config, require

__all__ = [
    "Activation", "Attention", "FeedForward", "Model", "Norm", "Position", "RopeScaling",
    "RopeScalingKind",
]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]  # gelu is the erf form
RopeScalingKind = Literal["linear", "dynamic", "llama3", "yarn"]


@config
class Attention:
    """Attention of one layer; query head h reads key and value head ``h // group``."""

    heads: int  # query heads
    kv_heads: int  # key and value heads; fewer than `heads` is grouped-query attention
    head_dim: int
    qkv_bias: bool
    out_bias: bool
    qk_norm: bool = False  # RMS norm of each query and key head before the rotation
    window: int | None = None  # a query sees itself and the window - 1 keys before it

    def __post_init__(self) -> None:
        for field in ("heads", "kv_heads", "head_dim"):
            require(getattr(self, field) >= 1, field, "at least 1", getattr(self, field))
        require(self.heads % self.kv_heads == 0, "kv_heads", f"a divisor of {self.heads} heads",
                self.kv_heads)
        require(self.window is None or self.window >= 1, "window", "at least 1 or none",
                self.window)

    @property
    def group(self) -> int:
        """Query heads that share one key and value head."""
        return self.heads // self.kv_heads

    @property
    def q_width(self) -> int:
        """Elements of all query heads of one token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of all key heads of one token; as many again are the values."""
        return self.kv_heads * self.head_dim


@config
class FeedForward:
    """The feed-forward part of one layer: down(act(up x)), or down(act(gate x) * up x) if gated."""

    width: int  # outputs of `up`, and of `gate`
    gated: bool
    activation: Activation
    bias: bool

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", "at least 1", self.width)


@config
class Norm:
    """The normalisation of a model and where it stands."""

    kind: Literal["layernorm", "rmsnorm"]  # a layernorm has a gain and a bias, an rmsnorm a gain
    eps: float  # added to the variance (layernorm) or the mean square (rmsnorm)
    placement: Literal["pre", "post"]  # pre: of the input of each part; post: of the residual sum
    embedding: bool = False  # of the sum of the embeddings
    final: bool = True  # after the last layer

    def __post_init__(self) -> None:
        require(self.eps > 0, "eps", "above 0", self.eps)


@config
class RopeScaling:
    """How rotary frequencies are stretched beyond the positions the model was first trained on."""

    kind: RopeScalingKind
    factor: float
    original_max_positions: int | None = None
    low_freq_factor: float | None = None  # llama3
    high_freq_factor: float | None = None  # llama3
    beta_fast: float | None = None  # yarn
    beta_slow: float | None = None  # yarn
    attention_factor: float | None = None  # yarn

    def __post_init__(self) -> None:
        require(self.factor >= 1, "factor", "at least 1", self.factor)


@config
class Position:
    """How a token's place enters: a table added to the embedding, or a rotation of q and k."""

    kind: Literal["learned", "rope"]
    max_positions: int  # the longest sequence the model was made for
    rows: int = 0  # learned: rows of the table
    offset: int = 0  # learned: row of position 0
    theta: float = 0.0  # rope: base of the frequencies
    scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        require(self.max_positions >= 1, "max_positions", "at least 1", self.max_positions)
        if self.kind == "learned":
            need = self.max_positions + self.offset
            require(self.rows >= need, "rows", f"at least {need}", self.rows)
        else:
            require(self.theta > 0, "theta", "above 0", self.theta)


@config
class Model:
    """One transformer; all its layers are equal."""

    name: str
    family: str  # model_type of the config.json
    kind: Literal["decoder", "encoder"]
    layers: int
    d_model: int  # width of the residual stream
    vocab: int
    attention: Attention
    ffn: FeedForward
    norm: Norm
    position: Position
    tied_embeddings: bool = False  # the language model head is the token embedding
    type_vocab: int = 0  # rows of the segment embedding; 0 is none
    pooler: bool = False  # tanh(W x + b) of the first token (BERT)
    notes: tuple[str, ...] = ()  # every value the config.json did not give, and where it is from

    def __post_init__(self) -> None:
        for field in ("layers", "d_model", "vocab"):
            require(getattr(self, field) >= 1, field, "at least 1", getattr(self, field))

    @property
    def kv_elements_per_token(self) -> int:
        """Elements one token adds to the key and value cache of all layers."""
        return 2 * self.layers * self.attention.kv_width
