"""The constants of exp, the normal tail, sine and cosine: ROM words, each the bits of a float32.

golden.approx computes with them and an RTL vector unit would load them; docs/numerics.md states
the methods and their errors. A test derives every word again from series in decimal arithmetic.
"""

from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

from machine.config import require

__all__ = [
    "EXP_HIGH", "EXP_LOW", "EXP_SERIES", "EXP_STEPS", "EXP_STEP_HIGH", "EXP_STEP_LOW",
    "GELU_TANH", "PHASE_BITS", "PHASE_UNIT", "SINE", "TAIL", "TAIL_POLE", "Stretch", "rotary_steps",
]

# exp(x) = 2**(k / 32) * (1 + r + r*r/2 + r*r*r/6): k steps of ln(2)/32 and a rest r.
EXP_STEPS = 0x4238AA3B  # 32 / ln(2)
EXP_STEP_HIGH = 0x3CB16000  # ln(2) / 32 cut to 11 bits, so that k times it is exact
EXP_STEP_LOW = 0x3710BFBF  # the rest of ln(2) / 32
EXP_SERIES = (0x3F000000, 0x3E2AAAAB)  # 1/2, 1/6

# 2**(j / 32) to 24 bits, and what that leaves out.
EXP_HIGH = (
    0x3F800000, 0x3F82CD87, 0x3F85AAC3, 0x3F88980F, 0x3F8B95C2, 0x3F8EA43A, 0x3F91C3D3, 0x3F94F4F0,
    0x3F9837F0, 0x3F9B8D3A, 0x3F9EF532, 0x3FA27043, 0x3FA5FED7, 0x3FA9A15B, 0x3FAD583F, 0x3FB123F6,
    0x3FB504F3, 0x3FB8FBAF, 0x3FBD08A4, 0x3FC12C4D, 0x3FC5672A, 0x3FC9B9BE, 0x3FCE248C, 0x3FD2A81E,
    0x3FD744FD, 0x3FDBFBB8, 0x3FE0CCDF, 0x3FE5B907, 0x3FEAC0C7, 0x3FEFE4BA, 0x3FF5257D, 0x3FFA83B3,
)
EXP_LOW = (
    0x00000000, 0xB34EA7A9, 0x334F9891, 0xB37EDA4B, 0xB260ABA1, 0xB3697465, 0x33675624, 0xB32E0212,
    0x33231B71, 0xB30C5563, 0x33412342, 0x30C3125A, 0xB32C9D5E, 0xB3162B08, 0xB22DEAF6, 0xB37C5AA8,
    0x32CFE77A, 0x330EC5F7, 0xB3414FE8, 0xB2D6663E, 0x320AA837, 0xB37323A2, 0x3228FC24, 0xB35C1DAA,
    0xB2D4A58A, 0xB3504A1C, 0xB21EAB59, 0xB2441BE6, 0xB24116DE, 0xB348464A, 0x32292436, 0xB2923758,
)

# The upper tail of the normal distribution, Q(t) = exp(-t*t/2) * polynomial(u) / (t + pole) with
# u = (t - pole) / (t + pole): interpolated at the 10 Chebyshev nodes, powers of u rising.
TAIL_POLE = 4
TAIL = (
    0x3F415A5E, 0xBF1B9F1C, 0x3EC636E5, 0xBE3F0032, 0x3D776114, 0xBBF674DD, 0xBB63D0E6, 0x3ACE8977,
    0x39079F7A, 0xB92A83FC,
)

# gelu_tanh(x) = x * sigmoid(x * (first + second * x*x)): 2 * sqrt(2/pi), and that times 0.044715.
GELU_TANH = (0x3FCC422A, 0x3D922279)

# Angles are phases: 2**48 to the turn. PHASE_UNIT is 2*pi / 2**48 radians.
PHASE_BITS = 48
PHASE_UNIT = 0x28C90FDB

# sin(pi/2 * j / 128), j = 0..128; read backwards it is the cosine.
SINE = (
    0x00000000, 0x3C490E90, 0x3CC90AB0, 0x3D16C32C, 0x3D48FB30, 0x3D7B2B74, 0x3D96A905, 0x3DAFB680,
    0x3DC8BD36, 0x3DE1BC2E, 0x3DFAB273, 0x3E09CF86, 0x3E164083, 0x3E22ABB6, 0x3E2F10A2, 0x3E3B6ECF,
    0x3E47C5C2, 0x3E541501, 0x3E605C13, 0x3E6C9A7F, 0x3E78CFCC, 0x3E827DC0, 0x3E888E93, 0x3E8E9A22,
    0x3E94A031, 0x3E9AA086, 0x3EA09AE5, 0x3EA68F12, 0x3EAC7CD4, 0x3EB263EF, 0x3EB8442A, 0x3EBE1D4A,
    0x3EC3EF15, 0x3EC9B953, 0x3ECF7BCA, 0x3ED53641, 0x3EDAE880, 0x3EE0924F, 0x3EE63375, 0x3EEBCBBB,
    0x3EF15AEA, 0x3EF6E0CB, 0x3EFC5D27, 0x3F00E7E4, 0x3F039C3D, 0x3F064B82, 0x3F08F59B, 0x3F0B9A6B,
    0x3F0E39DA, 0x3F10D3CD, 0x3F13682A, 0x3F15F6D9, 0x3F187FC0, 0x3F1B02C6, 0x3F1D7FD1, 0x3F1FF6CB,
    0x3F226799, 0x3F24D225, 0x3F273656, 0x3F299415, 0x3F2BEB4A, 0x3F2E3BDE, 0x3F3085BB, 0x3F32C8C9,
    0x3F3504F3, 0x3F373A23, 0x3F396842, 0x3F3B8F3B, 0x3F3DAEF9, 0x3F3FC767, 0x3F41D870, 0x3F43E200,
    0x3F45E403, 0x3F47DE65, 0x3F49D112, 0x3F4BBBF8, 0x3F4D9F02, 0x3F4F7A1F, 0x3F514D3D, 0x3F531849,
    0x3F54DB31, 0x3F5695E5, 0x3F584853, 0x3F59F26A, 0x3F5B941A, 0x3F5D2D53, 0x3F5EBE05, 0x3F604621,
    0x3F61C598, 0x3F633C5A, 0x3F64AA59, 0x3F660F88, 0x3F676BD8, 0x3F68BF3C, 0x3F6A09A7, 0x3F6B4B0C,
    0x3F6C835E, 0x3F6DB293, 0x3F6ED89E, 0x3F6FF573, 0x3F710908, 0x3F721352, 0x3F731447, 0x3F740BDD,
    0x3F74FA0B, 0x3F75DEC6, 0x3F76BA07, 0x3F778BC5, 0x3F7853F8, 0x3F791298, 0x3F79C79D, 0x3F7A7302,
    0x3F7B14BE, 0x3F7BACCD, 0x3F7C3B28, 0x3F7CBFC9, 0x3F7D3AAC, 0x3F7DABCC, 0x3F7E1324, 0x3F7E70B0,
    0x3F7EC46D, 0x3F7F0E58, 0x3F7F4E6D, 0x3F7F84AB, 0x3F7FB10F, 0x3F7FD397, 0x3F7FEC43, 0x3F7FFB11,
    0x3F800000,
)


class Stretch(NamedTuple):
    """How rotary frequencies are lowered for sequences longer than those trained on.

    A pair that turns at most `low` times within `length` positions turns `factor` times slower, one
    that turns at least `high` times as before, one between them by the blend linear in its turns
    (Llama 3.1: Hugging Face transformers, modeling_rope_utils.py). With `length` 0 every pair turns
    `factor` times slower (position interpolation, arXiv 2306.15595).
    """

    factor: float
    low: float = 0.0
    high: float = 0.0
    length: int = 0

    def check(self) -> None:
        """Raise `ValueError` unless the numbers make sense together."""
        require(self.factor >= 1, "factor", "at least 1", self.factor)
        if self.length:
            require(0 < self.low < self.high, "low_freq_factor",
                    f"above 0 and below high_freq_factor {self.high}", self.low)

    def apply(self, turns: Decimal) -> Decimal:
        """Return the turns a position of a pair that made `turns` a position without it."""
        slow = turns / Decimal(self.factor)
        if not self.length:
            return slow
        low, high = Decimal(self.low), Decimal(self.high)
        kept = min(max((turns * self.length - low) / (high - low), Decimal(0)), Decimal(1))
        return slow + (turns - slow) * kept


@cache
def rotary_steps(theta: float, width: int, stretch: Stretch | None = None) -> tuple[int, ...]:
    """Return the phase that rotary pair i of `width` // 2 advances per position.

    theta ** (-2i / width) / (2 pi) turns, lowered by `stretch`, in units of 2**-48 turn, rounded
    to nearest. Raises `ValueError` for an odd `width`, a `theta` that is not positive and a
    `stretch` that contradicts itself.
    """
    require(width >= 2 and width % 2 == 0, "width", "even and at least 2", width)
    require(theta > 0, "theta", "positive", theta)
    if stretch is not None:
        stretch.check()
    with localcontext() as context:
        context.prec = 50
        logarithm = Decimal(theta).ln()
        turn = 2 * Decimal("3.14159265358979323846264338327950288419716939937511")
        turns = [(-logarithm * 2 * i / width).exp() / turn for i in range(width // 2)]
        if stretch is not None:
            turns = [stretch.apply(each) for each in turns]
        return tuple(int((each * 2**PHASE_BITS).to_integral_value("ROUND_HALF_EVEN"))
                     for each in turns)
