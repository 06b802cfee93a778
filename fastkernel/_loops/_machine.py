"""What loops ask of the processor beyond arithmetic.

Numba's cache does not notice a change to this file; none can change an answer.
"""

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


def _register_bytes() -> int:
    features = binding.get_host_cpu_features()
    return next((size for name, size in (("avx512f", 64), ("avx", 32)) if features.get(name)), 16)


VECTOR_BYTES = _register_bytes()

_LINE_BYTES = 64


def _fetch_typed(typing_context, x, row, start, count):
    """Have a part of a row of a C-ordered image, if there is that row, brought to the caches.

    Rows of a tile begin far from each other, where the processor does not look ahead by itself.
    """
    i = types.intp

    def codegen(context, b, signature, values):
        x = cgutils.create_struct_proxy(signature.args[0])(context, b, value=values[0])
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        rows, cols = cgutils.unpack_tuple(b, x.shape)
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        line = ir.Constant(ir.IntType(64), _LINE_BYTES // size)
        start = b.add(b.mul(values[1], cols), values[2])
        flags = [ir.Constant(flag, value) for value in (0, 3, 1)]  # read, keep, data
        with (
            b.if_then(b.icmp_signed("<", values[1], rows)),
            cgutils.for_range_slice(b, start, b.add(start, values[3]), line) as (place, _),
        ):
            b.call(prefetch, [b.bitcast(b.gep(x.data, [place]), byte), *flags])
        return context.get_dummy_value()

    return types.void(x, i, i, i), codegen


fetch = (lambda *_: None) if config.DISABLE_JIT else intrinsic(_fetch_typed)
