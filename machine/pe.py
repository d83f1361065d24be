"""The processing element of an array: what it multiplies, how deep it is and how often it works.

An element takes ``k_lanes`` activations and as many weights a beat and adds the sum of their
products to its accumulator. In steps of the array, from the beat at its inputs:

``multiply_cycles``  after so many the products' sum is at the adder,
``add_cycles``       so many later the total is in the sum register,
``initiation_interval_cycles``  after so many the next beat may come.

An adder of more than one step serves output-stationary tiles alone. Beat j of a tile is then added
to partial sum ``j % partial_sums``, and the partial sums are added at the end, in ascending order.
"""

from dataclasses import dataclass
from typing import Literal

from machine.config import config, require
from machine.formats import Format, Kind, format_named

__all__ = ["PE_KINDS", "PeConfig", "PeKind", "limits"]

PeName = Literal["int_mac", "mixpe", "bit_serial", "shift", "ternary", "bipolar", "qoq",
                 "float_mac", "float_shift_add", "mx"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeKind:
    """What the kind of an element fixes; ``{}`` in a format is the array's bits."""

    act: str = "int{}"  # format of an activation, unless the configuration names another
    weight: str = "int{}"  # format of a weight, likewise
    operand: str = ""  # what the element multiplies by, where the weights are decoded before
    act_kinds: tuple[Kind, ...] = (Kind.INTEGER,)
    weight_kinds: tuple[Kind, ...] = (Kind.INTEGER,)
    act_bits: tuple[int, int] = (1, 16)  # fewest and most bits
    weight_bits: tuple[int, int] = (1, 16)
    act_shared_bits: int = 0  # of a beat, shared by an element's lanes: the scale of a block
    weight_shared_bits: int = 0
    masked: bool = False  # code 0 of an activation is no zero: unused elements are told apart
    serial: bool = False  # one bit of the weight a step
    integer: bool = True  # sums are signed integers that wrap


PE_KINDS: dict[str, PeKind] = {
    # A multiplier and an adder, any signs.
    "int_mac": PeKind(),
    # Shift and add, no multiplier: MixPE, arXiv 2411.16158.
    "mixpe": PeKind(weight_bits=(1, 8)),
    # One adder, one bit of the weight a step.
    "bit_serial": PeKind(serial=True),
    # Powers of two without zero: DenseShift, arXiv 2208.09708.
    "shift": PeKind(weight="shift{}", weight_kinds=(Kind.SHIFT,), weight_bits=(2, 4)),
    # Add, subtract or nothing: MatMul-free LM, arXiv 2406.02528.
    "ternary": PeKind(weight="ternary", weight_kinds=(Kind.TERNARY,), weight_bits=(2, 2)),
    # XNOR and population count: arXiv 2409.17870.
    "bipolar": PeKind(act="bipolar{}", weight="bipolar{}", act_kinds=(Kind.BIPOLAR,),
                      weight_kinds=(Kind.BIPOLAR,), act_bits=(1, 8), weight_bits=(1, 8),
                      masked=True),
    # int_mac of 8-bit weights behind a decoder, one a column: QServe, arXiv 2405.04532.
    "qoq": PeKind(weight="qoq_w4", operand="int8", weight_kinds=(Kind.BLOCK,),
                  weight_bits=(8, 8)),
    # The exact product of two floats, added to a float or to an exact (Kulisch) sum.
    "float_mac": PeKind(act="float{}", weight="float{}", act_kinds=(Kind.FLOAT,),
                        weight_kinds=(Kind.FLOAT,), act_bits=(4, 32), weight_bits=(4, 32),
                        masked=True, integer=False),
    # MixPE W4A16, arXiv 2411.16158: a float by an integer, added up at the integer's bits.
    "float_shift_add": PeKind(act="float{}", act_kinds=(Kind.FLOAT,), act_bits=(4, 32),
                              weight_bits=(1, 8), masked=True, integer=False),
    # A block of OCP MX a beat: exact inside, one float32 addition.
    "mx": PeKind(act="mxint{}", weight="mxint{}", act_kinds=(Kind.BLOCK,),
                 weight_kinds=(Kind.BLOCK,), act_bits=(4, 8), weight_bits=(4, 8),
                 act_shared_bits=8, weight_shared_bits=8, masked=True, integer=False),
}


@config
class PeConfig:
    """One multiply-accumulate element, repeated over an array."""

    kind: PeName = "int_mac"  # what multiplies, a key of `PE_KINDS`
    a_format: str = ""  # format of an activation; "": the kind's, of the array's a_bits
    w_format: str = ""  # format of a weight; "": the kind's, of the array's w_bits
    acc_format: str = ""  # format of a sum; "": signed integers of the array's acc_bits
    depth_cycles: int = 1  # 1: multiply and add in one step; then a register each: 2: product;
    # 3: operands; 4: operands again; 5: product again
    add_cycles: int = 1  # steps of the adder
    partial_sums: int = 1  # interleaved accumulators of an output-stationary tile
    k_lanes: int = 1  # products of one element a beat, added exactly

    def __post_init__(self) -> None:
        depth, lanes = self.depth_cycles, self.k_lanes
        require(1 <= depth <= 5, "depth_cycles", "from 1 to 5", depth)
        require(1 <= self.add_cycles <= 64, "add_cycles", "from 1 to 64", self.add_cycles)
        require(1 <= self.partial_sums <= self.add_cycles, "partial_sums",
                f"from 1 to the {self.add_cycles} add_cycles", self.partial_sums)
        require(1 <= lanes <= 256, "k_lanes", "from 1 to 256", lanes)
        require(lanes == 1 or not self.fixed.serial, "k_lanes", f"1 for {self.kind}", lanes)
        self._check_format("a_format", self.a_format, self.fixed.act_kinds)
        self._check_format("w_format", self.w_format, self.fixed.weight_kinds)
        decoded = self.fixed.weight if self.fixed.operand else self.w_format
        require(self.w_format in ("", decoded), "w_format", f"{decoded!r} for {self.kind}",
                self.w_format)
        require(not (self.fixed.integer and self.acc_format), "acc_format",
                f"'' (signed integers of acc_bits) for {self.kind}", self.acc_format)
        require(lanes == 1 or self.fixed.integer or self.kind == "mx", "k_lanes",
                f"1 for {self.kind}", lanes)

    def _check_format(self, name: str, value: str, kinds: tuple[Kind, ...]) -> None:
        """Raise ``ValueError`` unless `value` is empty or a format of one of `kinds`."""
        legal = value == "" or format_named(value, where=name).kind in kinds
        what = " or ".join(kind.value for kind in kinds)
        require(legal, name, f"of kind {what} for {self.kind}", value)

    @property
    def fixed(self) -> PeKind:
        """What the kind fixes."""
        return PE_KINDS[self.kind]

    @property
    def merge_cycles(self) -> int:
        """Steps in which the partial sums of an output-stationary tile are added up."""
        return (self.partial_sums - 1) * self.add_cycles

    def multiply_cycles(self, w_bits: int) -> int:
        """Steps from a beat at the inputs to the sum of its products at the adder."""
        return self.depth_cycles - 1 + (w_bits - 1 if self.fixed.serial else 0)

    def initiation_interval_cycles(self, w_bits: int) -> int:
        """Steps between two beats of one element: of its adder, or of its `w_bits` in turn."""
        adder = -(-self.add_cycles // self.partial_sums)
        return max(adder, w_bits if self.fixed.serial else 1)


def limits(fmt: Format) -> tuple[int, int]:
    """Return the lowest and the highest number of a format that holds integers."""
    highest = int(fmt.largest)
    if fmt.kind is Kind.INTEGER:
        return (-highest - 1 if fmt.signed else 0), highest
    return -highest, highest
