"""Vectors as values of loops: the same arithmetic on as many problems as a vector has lanes.

Small problems side by side fill whole vectors, where each by itself has loops too short for them.
Arrays of lanes are C-ordered float64, the last axis as long as `LANES`; their rows are counted
through all other axes. With the compiler off, a vector is a NumPy array.

Numba's cache does not notice a change to this file: remove it after one.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from fastkernel._loops._processor import VECTOR_BYTES

# Float64 numbers side by side.
LANES = VECTOR_BYTES // 8

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_ZEROS = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)


class _Lanes(types.Type):
    def __init__(self):
        super().__init__(name="Lanes")


_lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _VECTOR)


def _operator(function, instruction):
    """Have loops know an operator of two vectors; sums of products may be fused."""

    class Template(ConcreteTemplate):
        cases = [signature(_lanes, _lanes, _lanes)]  # noqa: RUF012

    def emit(context, builder, signature, values):
        return getattr(builder, instruction)(*values, flags=["contract"])

    infer_global(function)(Template)
    lower_builtin(function, _Lanes, _Lanes)(emit)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _instruction)


def _row(context, b, kind, array, row):
    data = cgutils.create_struct_proxy(kind)(context, b, value=array).data
    place = b.gep(data, [b.mul(row, ir.Constant(ir.IntType(64), LANES))])
    return b.bitcast(place, _VECTOR.as_pointer())


def _load_typed(typing_context, array, row):
    """Return a row of an array of lanes."""

    def codegen(context, b, signature, values):
        return b.load(_row(context, b, signature.args[0], *values), align=8)

    return _lanes(array, types.intp), codegen


def _store_typed(typing_context, array, row, vector):
    """Write a row of an array of lanes."""

    def codegen(context, b, signature, values):
        b.store(values[2], _row(context, b, signature.args[0], *values[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), codegen


def _alike_typed(typing_context, number):
    """Return a number in every lane."""

    def codegen(context, b, signature, values):
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = b.insert_element(empty, values[0], ir.Constant(ir.IntType(32), 0))
        return b.shuffle_vector(first, empty, _ZEROS)

    return _lanes(types.float64), codegen


def _of_each(name):
    """Return an operation that LLVM has for every number of a vector."""

    def typed(typing_context, vector):
        def codegen(context, b, signature, values):
            kind = ir.FunctionType(_VECTOR, [_VECTOR])
            function = cgutils.get_or_insert_function(b.module, kind, f"{name}.v{LANES}f64")
            return b.call(function, values)

        return _lanes(_lanes), codegen

    return typed


def _where_positive_typed(typing_context, vector, there, elsewhere):
    """Return lanes of ``there`` where a vector is above 0, and of ``elsewhere`` where it is not."""

    def codegen(context, b, signature, values):
        vector, there, elsewhere = values
        above = b.fcmp_ordered(">", vector, ir.Constant(_VECTOR, None))
        return b.select(above, there, elsewhere)

    return _lanes(_lanes, _lanes, _lanes), codegen


def _load_plain(array, row):
    return array.reshape(-1, LANES)[row].copy()


def _store_plain(array, row, vector):
    array.reshape(-1, LANES)[row] = vector


def _alike_plain(number):
    return np.full(LANES, number)


def _where_positive_plain(vector, there, elsewhere):
    return np.where(vector > 0, there, elsewhere)


load: Any = _load_plain if config.DISABLE_JIT else intrinsic(_load_typed)
store: Any = _store_plain if config.DISABLE_JIT else intrinsic(_store_typed)
alike: Any = _alike_plain if config.DISABLE_JIT else intrinsic(_alike_typed)
root: Any = np.sqrt if config.DISABLE_JIT else intrinsic(_of_each("llvm.sqrt"))
size: Any = np.abs if config.DISABLE_JIT else intrinsic(_of_each("llvm.fabs"))
where_positive: Any = (
    _where_positive_plain if config.DISABLE_JIT else intrinsic(_where_positive_typed)
)
