"""What VECTOR does: each operator's operands in their order, its function, its result.

Sources are `machine.vector.OPERANDS` in their order: roles x, x1, x2, x3; a source named state
takes role `state`. Values become float32 first (an int32 beyond 2**24 is rounded), except where
an operator only moves or compares them. Beyond the operators' own words (``golden.vector``):

- SCALE, QUANTISE (static), LAYERNORM, RMSNORM, L2NORM, ROPE, SOFTMAX and MLGRU take their factor,
  scale, epsilon, theta, score factor and lower bound from the field `value` where no operand
  gives it. A score factor of 0 is 1, an L2NORM epsilon of 0 is 1e-12, a theta of 0 is 10000.
- SOFTMAX with `state` [..., 2 or more] leaves exp(x - m) in y, not divided, and the row's m and l
  in state[0] and state[1]. MERGE joins rows (m, l, o...) `x` into `state` and leaves o / l in y.
- ROPE takes the steps of its pairs from x1 where it is given, as words of `vector.rotary_words`.
- TOPK leaves places where y holds integers, values where it holds floats.
- QUANTISE writes the scales it finds to `scale`, one a row; by block, one each `k` elements.
"""

from collections.abc import Callable

import numpy as np

from golden import attention, vector
from golden.approx import exp
from golden.call import Call
from golden.floats import add, multiply, reduce_max, reduce_sum
from golden.tiles import fitted
from machine.approx import rotary_steps
from machine.errors import UserError, must_be
from machine.formats import Kind
from machine.vector import Mask, ReductionOrder, ScaleRule, VectorOp

__all__ = ["run_vector"]

Result = np.ndarray


def run_vector(call: Call) -> None:
    """Run one operation of the vector unit; raise `UserError` where it has no meaning."""
    try:
        vop = VectorOp(call.field("vop"))
    except ValueError:
        raise must_be("vop", "an operator of machine.vector", call.field("vop")) from None
    if call.field("axis"):
        raise must_be("axis", "0, the last axis", call.field("axis"))
    call.write("y", fitted(_OPERATORS[vop](call), call.tile("y").shape, f"{vop.name.lower()} y"))


def _floats(call: Call, role: str) -> np.ndarray:
    return call.read(role).astype(np.float32)


def _value(call: Call) -> float:
    """Return the field `value`, a number given by its float32 bits."""
    return float(np.uint32(call.field("value")).view(np.float32))


def _order(call: Call) -> tuple[ReductionOrder, int]:
    return ReductionOrder(call.field("reduction")), call.state.lanes


def _position(call: Call) -> int:
    """Return the position of the first row of the tile."""
    register = call.field("position_register")
    added = call.step.registers[register] if register < len(call.step.registers) else 0
    return call.field("position") + added


def _as_is(call: Call) -> Result:
    return call.read("x")


def _elementwise(call: Call) -> Result:
    return vector.ELEMENTWISE[VectorOp(call.field("vop"))](_floats(call, "x"))


def _add(call: Call) -> Result:
    return add(_floats(call, "x"), _floats(call, "x1"))


def _multiply(call: Call) -> Result:
    return multiply(_floats(call, "x"), _floats(call, "x1"))


def _scale(call: Call) -> Result:
    factor = _floats(call, "x1") if "x1" in call else np.float32(_value(call))
    return multiply(_floats(call, "x"), factor)


def _reduce_sum(call: Call) -> Result:
    return reduce_sum(_floats(call, "x"), *_order(call))


def _reduce_max(call: Call) -> Result:
    return reduce_max(_floats(call, "x"))


def _argmax(call: Call) -> Result:
    return vector.argmax(_floats(call, "x"))


def _topk(call: Call) -> Result:
    count = call.field("k") or call.tile("y").shape[-1]
    values, places = vector.topk(_floats(call, "x"), count)
    return values if call.format("y").is_float else places


def _softmax(call: Call) -> Result:
    x = _floats(call, "x")
    order, lanes = _order(call)
    mask, visible = Mask(call.field("mask")), None
    if mask is not Mask.NONE:
        queries = x.shape[-2] if x.ndim > 1 else 1
        visible = attention.visible_keys(mask, queries, x.shape[-1],
                                         position_base=_position(call),
                                         window=call.field("window"))
    scale = _value(call) or 1.0
    if "state" not in call:
        return attention.softmax(x, visible=visible, scale=scale, order=order, lanes=lanes)
    scaled = multiply(x, np.float32(scale))
    if visible is not None:
        scaled = np.where(visible, scaled, np.float32(-np.inf))
    maximum = reduce_max(scaled)
    nothing_seen = np.isneginf(maximum)
    weights = exp(add(scaled, -np.where(nothing_seen, np.float32(0), maximum)[..., None]))
    state = _floats(call, "state")
    state[..., 0], state[..., 1] = maximum, reduce_sum(weights, order, lanes)
    call.write("state", state)
    return weights


def _merge(call: Call) -> Result:
    mine, other = _floats(call, "state"), _floats(call, "x")
    if mine.shape != other.shape or mine.shape[-1] < 3:
        raise UserError(f"state {list(mine.shape)} and x {list(other.shape)} must be rows "
                        "(m, l, o...) of one shape")
    merged = attention.merge(_state_of(mine), _state_of(other))
    call.write("state", np.concatenate(
        [merged.maximum[..., None], merged.total[..., None], merged.output], axis=-1))
    return attention.finish(merged)


def _state_of(rows: np.ndarray) -> attention.State:
    return attention.State(rows[..., 0], rows[..., 1], rows[..., 2:])


def _layernorm(call: Call) -> Result:
    order, lanes = _order(call)
    return vector.layernorm(_floats(call, "x"), _floats(call, "x1"), _floats(call, "x2"),
                            epsilon=_value(call), order=order, lanes=lanes)


def _rmsnorm(call: Call) -> Result:
    order, lanes = _order(call)
    return vector.rmsnorm(_floats(call, "x"), _floats(call, "x1"), epsilon=_value(call),
                          order=order, lanes=lanes)


def _l2norm(call: Call) -> Result:
    order, lanes = _order(call)
    return vector.l2norm(_floats(call, "x"), epsilon=_value(call) or 1e-12, order=order,
                         lanes=lanes)


def _mean_pool(call: Call) -> Result:
    return vector.mean_pool(_floats(call, "x"), call.read("x1") != 0 if "x1" in call else None)


def _rope(call: Call) -> Result:
    x = _floats(call, "x")
    rows = x.shape[-2] if x.ndim > 1 else 1
    if "x1" in call:
        steps = vector.rotary_steps_of(call.read("x1"))
    else:
        steps = np.array(rotary_steps(_value(call) or 10000.0, x.shape[-1]))
    return vector.rope(x, *vector.rope_table(_position(call) + np.arange(rows), steps))


def _quantise(call: Call) -> Result:
    x, fmt = _floats(call, "x"), call.format("y")
    if fmt.kind is not Kind.INTEGER and not (fmt.is_float and fmt.bits <= 8):
        raise must_be("y of quantise", "of an integer format or a float of 8 bits", fmt.name)
    rule = ScaleRule(call.field("scale_rule"))
    if rule is ScaleRule.STATIC:
        scale = _floats(call, "x1") if "x1" in call else np.float32(_value(call))
        return vector.quantise(x, scale, fmt)
    rows = x
    if rule is ScaleRule.BLOCK:
        size = call.field("k")
        if not size or x.shape[-1] % size:
            raise must_be("k of quantise", f"a divisor of the row of {x.shape[-1]}", size)
        rows = x.reshape(*x.shape[:-1], -1, size)
    codes, scale = vector.quantise_rows(rows, fmt)
    tile = call.tile("scale")
    call.write_exact("scale", fitted(scale, tile.shape, "quantise scale"))
    return codes.reshape(x.shape)


def _dequantise(call: Call) -> Result:
    bias = _floats(call, "x3") if "x3" in call else None
    return vector.dequantise(call.read("x"), _floats(call, "x1"), _floats(call, "x2"), bias)


def _gather(call: Call) -> Result:
    return vector.gather(call.read("x"), call.read("x1"))


def _scatter(call: Call) -> Result:
    return vector.scatter(call.read("x"), call.read("x1"), call.read("y"))


def _table_precompute(call: Call) -> Result:
    return vector.table_precompute(call.read("x"))


def _mlgru(call: Call) -> Result:
    state = vector.mlgru(_floats(call, "x"), _floats(call, "x1"), _floats(call, "state"),
                         _value(call))
    call.write("state", state)
    return state


_OPERATORS: dict[VectorOp, Callable[[Call], Result]] = {
    VectorOp.COPY: _as_is,
    VectorOp.CONVERT: _as_is,
    VectorOp.ADD: _add,
    VectorOp.MUL: _multiply,
    VectorOp.SCALE: _scale,
    **dict.fromkeys(vector.ELEMENTWISE, _elementwise),
    VectorOp.REDUCE_SUM: _reduce_sum,
    VectorOp.REDUCE_MAX: _reduce_max,
    VectorOp.ARGMAX: _argmax,
    VectorOp.TOPK: _topk,
    VectorOp.SOFTMAX: _softmax,
    VectorOp.LAYERNORM: _layernorm,
    VectorOp.RMSNORM: _rmsnorm,
    VectorOp.L2NORM: _l2norm,
    VectorOp.MEAN_POOL: _mean_pool,
    VectorOp.ROPE: _rope,
    VectorOp.QUANTISE: _quantise,
    VectorOp.DEQUANTISE: _dequantise,
    VectorOp.GATHER: _gather,
    VectorOp.SCATTER: _scatter,
    VectorOp.MERGE: _merge,
    VectorOp.TABLE_PRECOMPUTE: _table_precompute,
    VectorOp.MLGRU: _mlgru,
}
