"""What loops ask of the processor beyond arithmetic: its ways of moving pixels.

Numba's cache does not notice a change to this file; none can change an answer.
"""

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

_FEATURES = binding.get_host_cpu_features()
_WIDTHS = {"avx512f": 64, "avx": 32}
VECTOR_BYTES = next((size for name, size in _WIDTHS.items() if _FEATURES.get(name)), 16)

# Vectors that stay in registers.
REGISTERS = 16 if _FEATURES.get("sse2") and not _FEATURES.get("avx512f") else 32

_LINE_BYTES = 64


# Rows of a tile begin far from each other, where the processor does not look ahead by itself. So
# far below the row in work a line arrives in time.
ROWS_AHEAD = 4

# Bytes of an image from which on it is written past the caches, which then need not read it first.
STREAMED = 8 << 20


def _pointer(b, data, place, kind):
    return b.bitcast(b.gep(data, [place]), kind.as_pointer())


def _fetch_typed(typing_context, x, start, count):
    """Have some pixels of a C-ordered image brought to the second cache, if it has as many."""
    i = types.intp

    def codegen(context, b, signature, values):
        x = cgutils.create_struct_proxy(signature.args[0])(context, b, value=values[0])
        byte, flag = ir.IntType(8), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), flag, flag, flag])
        prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        line = ir.Constant(ir.IntType(64), _LINE_BYTES // size)
        end = b.add(values[1], values[2])
        flags = [ir.Constant(flag, value) for value in (0, 2, 1)]  # read, second cache, data
        with (
            b.if_then(b.icmp_signed("<=", end, x.nitems)),
            cgutils.for_range_slice(b, values[1], end, line) as (place, _),
        ):
            b.call(prefetch, [_pointer(b, x.data, place, byte), *flags])
        return context.get_dummy_value()

    return types.void(x, i, i), codegen


def _stream_plain(x, start, out, out_start, count):
    """Copy as `_stream_typed` does, in NumPy: what runs when the JIT is off."""
    out.reshape(-1)[out_start : out_start + count] = x.ravel()[start : start + count]


def _stream_typed(typing_context, x, start, out, out_start, count):
    """Copy ``count`` pixels past the caches, which whole cache lines can be."""
    i = types.intp

    def codegen(context, b, signature, values):
        x, out = (
            cgutils.create_struct_proxy(signature.args[k])(context, b, value=values[k]).data
            for k in (0, 2)
        )
        _, start, _, out_start, count = values
        pixel, number = context.get_data_type(signature.args[0].dtype), ir.IntType(64)
        size = context.get_abi_sizeof(pixel)
        lanes = ir.Constant(number, VECTOR_BYTES // size)
        vector = ir.VectorType(pixel, VECTOR_BYTES // size)
        address = b.ptrtoint(b.gep(out, [out_start]), number)
        ahead = b.and_(b.neg(address), ir.Constant(number, VECTOR_BYTES - 1))
        ahead = b.udiv(ahead, ir.Constant(number, size))
        ahead = b.select(b.icmp_signed("<", ahead, count), ahead, count)
        whole = b.sub(count, ahead)
        end = b.add(ahead, b.sub(whole, b.urem(whole, lanes)))
        once = b.module.add_metadata([ir.Constant(ir.IntType(32), 1)])

        def copy_one(place):
            value = b.load(b.gep(x, [b.add(start, place)]))
            b.store(value, b.gep(out, [b.add(out_start, place)]))

        with cgutils.for_range(b, ahead) as one:
            copy_one(one.index)
        with cgutils.for_range_slice(b, ahead, end, lanes) as (place, _):
            value = b.load(_pointer(b, x, b.add(start, place), vector), align=size)
            at = _pointer(b, out, b.add(out_start, place), vector)
            b.store(value, at, align=VECTOR_BYTES).set_metadata("nontemporal", once)
        with cgutils.for_range_slice(b, end, count, ir.Constant(number, 1)) as (place, _):
            copy_one(place)
        return context.get_dummy_value()

    return types.void(x, i, out, i, i), codegen


def _copy_typed(typing_context, x, start, out, out_start, count):
    """Copy some pixels that follow each other from one C-ordered array into another."""
    i = types.intp

    def codegen(context, b, signature, values):
        x, out = (
            cgutils.create_struct_proxy(signature.args[k])(context, b, value=values[k]).data
            for k in (0, 2)
        )
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        given, into = b.gep(x, [values[1]]), b.gep(out, [values[3]])
        cgutils.raw_memcpy(b, into, given, values[4], size)
        return context.get_dummy_value()

    return types.void(x, i, out, i, i), codegen


def _settle_typed(typing_context):
    """Wait until other threads see all that was streamed."""

    def codegen(context, b, signature, values):
        b.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def _transpose_plain(x, start, stride, out, out_start, out_stride):
    """Transpose as `_transpose_typed` does, in NumPy: what runs when the JIT is off."""
    lines = np.arange(VECTOR_BYTES // x.itemsize)
    block = x.ravel()[start + np.add.outer(lines * stride, lines)]
    out.reshape(-1)[out_start + np.add.outer(lines * out_stride, lines)] = block.T


def _transpose_typed(typing_context, x, start, stride, out, out_start, out_stride):
    """Transpose a block of as many rows as a vector has lanes."""
    i = types.intp

    def codegen(context, b, signature, values):
        x, out = (
            cgutils.create_struct_proxy(signature.args[k])(context, b, value=values[k]).data
            for k in (0, 3)
        )
        _, start, stride, _, out_start, out_stride = values
        pixel = context.get_data_type(signature.args[0].dtype)
        size = context.get_abi_sizeof(pixel)
        count, at, lines = VECTOR_BYTES // size, start, []
        vector = ir.VectorType(pixel, count)
        for _ in range(count):
            lines.append(b.load(_pointer(b, x, at, vector), align=size))
            at = b.add(at, stride)
        number = ir.IntType(32)
        half = [k // 2 + (k % 2) * count for k in range(count)]
        low, high = (
            ir.Constant(ir.VectorType(number, count), [ir.Constant(number, k + s) for k in half])
            for s in (0, count // 2)
        )
        # A perfect shuffle of all elements moves the bits of their numbers around by one.
        for _ in range(count.bit_length() - 1):
            pairs = list(zip(lines[: count // 2], lines[count // 2 :], strict=True))
            lines = [b.shuffle_vector(u, v, mask) for u, v in pairs for mask in (low, high)]
        at = out_start
        for line in lines:
            b.store(line, _pointer(b, out, at, vector), align=size)
            at = b.add(at, out_stride)
        return context.get_dummy_value()

    return types.void(x, i, i, out, i, i), codegen


fetch = (lambda *_: None) if config.DISABLE_JIT else intrinsic(_fetch_typed)
copy = _stream_plain if config.DISABLE_JIT else intrinsic(_copy_typed)
_stream = _stream_plain if config.DISABLE_JIT else intrinsic(_stream_typed)
settle = (lambda: None) if config.DISABLE_JIT else intrinsic(_settle_typed)
transpose = _transpose_plain if config.DISABLE_JIT else intrinsic(_transpose_typed)


@register_jitable
def write_row(x, row, width, out, out_row, left):
    """Write the beginning of a row of a tile into one of a C-ordered image; `settle` when done."""
    if out.size * out.itemsize >= STREAMED:
        _stream(x, row * x.shape[1], out, out_row * out.shape[1] + left, width)
    else:
        pixels, y = x[row, :width], out[out_row, left : left + width]
        for c in range(width):
            y[c] = pixels[c]


@register_jitable
def turn_over(x, start, stride, rows, cols, out, out_start, out_stride):
    """Transpose ``rows`` by ``cols`` pixels in blocks.

    Parameters
    ----------
    x, out : arrays
        C order; the pixels begin at flat indices ``start`` and ``out_start``, their rows ``stride``
        and ``out_stride`` apart. ``out`` is overwritten.
    rows, cols : int
        Multiples of the lanes of a vector.

    Notes
    -----
    Cost: ``log2(lanes)`` shuffles a vector.
    """
    width = VECTOR_BYTES // x.itemsize
    for row in range(0, rows, width):
        for col in range(0, cols, width):
            place, out_place = start + row * stride + col, out_start + col * out_stride + row
            transpose(x, place, stride, out, out_place, out_stride)
