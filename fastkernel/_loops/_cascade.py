"""Sums of products of spectra and, on their way, the sums of these sums: weights for additions.

Written as LLVM's vectors. Numba's cache does not notice a change to this file: remove it after one.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from fastkernel._loops._lanes import LANES
from fastkernel._loops._processor import REGISTERS, VECTOR_BYTES

# Sums of sums that a march takes: of all these, and two complex factors, a register each.
MAX_DEPTH = 5

# Lags that are marched together, at most.
_MAX_LAGS = 5

# Sums, one a lag and order.
MOST_SUMS = _MAX_LAGS * MAX_DEPTH

_CONTRACT = ("contract",)


@register_jitable
def most_lags(depth):
    """Return how many lags can be marched together, with so many sums each."""
    return max(1, min(_MAX_LAGS, (REGISTERS - 4) // (2 * depth)))


def _march_plain(far, far_row, near, near_row, height, n, depth, sums):
    """March as `_march_typed` does, in NumPy: what runs when the JIT is off."""
    near = near.reshape(-1, 2, LANES)[near_row : near_row + height]
    far = far.reshape(-1, 2, LANES)
    for lag in range(n):
        ahead = far[far_row + lag : far_row + lag + height]
        product = (near[:, 0] - 1j * near[:, 1]) * (ahead[:, 0] + 1j * ahead[:, 1])
        for order in range(depth):
            if order:
                product = np.cumsum(product, axis=0)
            total = product.sum(axis=0)
            place = lag * depth + order
            sums.reshape(-1, 2, LANES)[place] = total.real, total.imag


class _Cascade:
    """Emits the march over some lags, with some sums of each."""

    def __init__(self, builder, far, near, sums, height):
        self.builder, self.height = builder, height
        self.far, self.near, self.sums = far, near, sums
        self.index, self.vector = ir.IntType(64), ir.VectorType(ir.DoubleType(), LANES)
        self.one = None
        if VECTOR_BYTES == 64:
            kind = ir.FunctionType(self.vector, [self.vector])
            one = ir.Constant(self.vector, [1.0] * LANES)
            # LLVM does not look into it, and so keeps the multiplication.
            self.one = builder.asm(kind, "", "=v,0", [one], side_effect=False)

    def _number(self, value):
        return ir.Constant(self.index, value)

    def _pointer(self, data, vector):
        b = self.builder
        return b.bitcast(
            b.gep(data, [b.mul(vector, self._number(LANES))]), self.vector.as_pointer()
        )

    def _row(self, data, row):
        """Return the real and the imaginary part of a row of spectra."""
        b = self.builder
        first = b.mul(row, self._number(2))
        places = first, b.add(first, self._number(1))
        return [b.load(self._pointer(data, place), align=8) for place in places]

    def _product(self, near, far, start):
        """Return the conjugate of one number times the other, added to what is given."""
        b = self.builder
        straight, crossed = (b.fmul(near[0], part, flags=_CONTRACT) for part in far)
        if start is not None:
            straight, crossed = (
                b.fadd(total, part, flags=_CONTRACT)
                for total, part in zip(start, (straight, crossed), strict=True)
            )
        return (
            b.fadd(straight, b.fmul(near[1], far[1], flags=_CONTRACT), flags=_CONTRACT),
            b.fsub(crossed, b.fmul(near[1], far[0], flags=_CONTRACT), flags=_CONTRACT),
        )

    def _summed(self, totals, added):
        """Return the sums of a lag after one more product."""
        found = []
        # A product takes four multiplications and two additions: so many more give both an even
        # share of the work.
        fused = len(totals) - 2
        for left, total in zip(range(len(totals) - 1, -1, -1), totals, strict=True):
            added = [
                self._added(*both, fused=2 * left + part < fused)
                for part, both in enumerate(zip(total, added, strict=True))
            ]
            found.append(added)
        return found

    def _added(self, total, added, *, fused):
        """Return a sum; ``fused`` with a multiplication by one, for which there may be more room.

        Processors that have vectors of 64 bytes add and multiply in separate units, or in either.
        Some older ones lend the multipliers what the adders are read by.
        """
        b = self.builder
        if self.one is None or not fused:
            return b.fadd(total, added, flags=_CONTRACT)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(b.module, kind, f"llvm.fma.v{LANES}f64")
        return b.call(function, [added, self.one, total])

    def emit(self, n, depth):
        """Emit the march, and continue after it."""
        b, zero = self.builder, ir.Constant(self.vector, None)
        before, body = b.block, b.append_basic_block("march")
        after = b.append_basic_block("marched")
        b.branch(body)
        b.position_at_end(body)
        row = b.phi(self.index)
        row.add_incoming(self._number(0), before)
        # A product is added to the only sum at once. To the first of several, of one lag, it comes
        # a turn later: two multiplications in a row are longer than all additions.
        late = depth > 1 and n == 1
        carried = depth + 1 if late else depth
        slots = [[[b.phi(self.vector) for _ in range(2)] for _ in range(carried)] for _ in range(n)]
        near = self._row(self.near, row)
        done = []
        for lag, totals in enumerate(slots):
            far = self._row(self.far, b.add(row, self._number(lag)))
            if depth == 1:
                done.append([self._product(near, far, totals[0])])
            elif late:
                product = self._product(near, far, None)
                done.append([product, *self._summed(totals[1:], totals[0])])
            else:
                done.append(self._summed(totals, self._product(near, far, None)))
        following = b.add(row, self._number(1))
        row.add_incoming(following, body)
        b.cbranch(b.icmp_signed("<", following, self.height), body, after)
        for slot, value in zip(_each(slots), _each(done), strict=True):
            slot.add_incoming(zero, before)
            slot.add_incoming(value, body)
        b.position_at_end(after)
        if late:
            done = [self._summed(totals, waiting) for waiting, *totals in done]
        for place, value in enumerate(_each(done)):
            b.store(value, self._pointer(self.sums, self._number(place)), align=8)


def _each(numbers):
    """Return the parts of lists of complex numbers of all lags."""
    return [part for lag in numbers for number in lag for part in number]


def _march_over(depths: range) -> Any:
    """Return the march that takes so many sums of sums."""

    def typed(typing_context, far, far_row, near, near_row, height, n, depth, sums):
        """March down two columns of spectra, ``n`` lags apart, and write the sums of sums."""
        i = types.intp

        def codegen(context, b, signature, values):
            far, near, sums = (
                cgutils.create_struct_proxy(signature.args[k])(context, b, value=values[k]).data
                for k in (0, 2, 7)
            )
            two_vectors = ir.Constant(ir.IntType(64), 2 * LANES)
            far, near = (
                b.gep(data, [b.mul(row, two_vectors)])
                for data, row in ((far, values[1]), (near, values[3]))
            )
            height, n, depth = values[4:7]
            emitted = _Cascade(b, far, near, sums, height)
            end = b.append_basic_block("end")
            most = ir.Constant(n.type, MAX_DEPTH + 1)
            switch = b.switch(b.add(b.mul(n, most), depth), end)
            for case in depths:
                for lags in range(1, most_lags(case) + 1):
                    block = b.append_basic_block(f"march_{lags}_{case}")
                    switch.add_case(ir.Constant(n.type, lags * (MAX_DEPTH + 1) + case), block)
                    b.position_at_end(block)
                    emitted.emit(lags, case)
                    b.branch(end)
            b.position_at_end(end)
            return context.get_dummy_value()

        return types.void(far, i, near, i, i, i, i, sums), codegen

    return _march_plain if config.DISABLE_JIT else intrinsic(typed)


march = _march_over(range(1, 2))
march_deep = _march_over(range(1, MAX_DEPTH + 1))
