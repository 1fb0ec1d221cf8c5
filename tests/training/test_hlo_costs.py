"""Reading compiled programs: loops, products, bytes."""

import jax
import jax.numpy as jnp
import pytest

from xlnet_jax.training import hlo, hlo_costs

# Three turns of a loop whose body multiplies matrices in a fusion and adds up over devices.
LOOP = """\
HloModule jit_f, is_scheduled=true

%inner (a: f32[8,16], b: f32[16,32]) -> f32[8,32] {
  %a = f32[8,16]{1,0:T(8,128)} parameter(0)
  %b = f32[16,32]{1,0:T(8,128)} parameter(1)
  ROOT %product = f32[8,32]{1,0:T(8,128)} dot(%a, %b), lhs_contracting_dims={1}
}

%body (state: (s32[], f32[8,16], f32[16,32], f32[3,8,32])) -> (s32[], f32[8,16]) {
  %state = (s32[]{:T(256)}, f32[8,16]{1,0:T(8,128)}, /*index=2*/f32[16,32]{1,0}) parameter(0)
  %turn = s32[]{:T(256)} get-tuple-element(%state), index=0
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %y = f32[16,32]{1,0:T(8,128)S(1)} get-tuple-element(%state), index=2
  %fusion = f32[8,32]{1,0:T(8,128)} fusion(%x, %y), kind=kOutput, calls=%inner, \
backend_config={"window_config":{"estimated_cycles":"470"}}
  %sum = f32[8,32]{1,0:T(8,128)} all-reduce(%fusion), replica_groups={}, to_apply=%add
  ROOT %next = (s32[]{:T(256)}, f32[8,16]{1,0:T(8,128)}) tuple(%turn, %x)
}

%condition (state: (s32[], f32[8,16], f32[16,32], f32[3,8,32])) -> pred[] {
  %state.1 = (s32[]{:T(256)}, f32[8,16]{1,0:T(8,128)}) parameter(0)
  %bound = s32[]{:T(256)} constant(3)
  %i = s32[]{:T(256)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(1024)} compare(%i, %bound), direction=LT
}

%keep (all: f32[3,8,32], row: f32[8,32], at: s32[]) -> f32[3,8,32] {
  %all = f32[3,8,32]{2,1,0:T(8,128)} parameter(0)
  %row = f32[8,32]{1,0:T(8,128)} parameter(1)
  %at = s32[]{:T(256)} parameter(2)
  %as_slice = f32[1,8,32]{2,1,0:T(8,128)} bitcast(%row)
  ROOT %updated = f32[3,8,32]{2,1,0:T(8,128)} dynamic-update-slice(%all, %as_slice, %at)
}

ENTRY %main (start: (s32[], f32[8,16], f32[16,32], f32[3,8,32])) -> f32[3,8,32] {
  %start = (s32[]{:T(256)}, f32[8,16]{1,0:T(8,128)}) parameter(0)
  %loop = (s32[]{:T(256)}, f32[8,16]{1,0}) while(%start), condition=%condition, body=%body
  %zero = s32[]{:T(256)} get-tuple-element(%loop), index=0
  %row.1 = f32[8,32]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  %all.1 = f32[3,8,32]{2,1,0:T(8,128)} get-tuple-element(%loop), index=3
  ROOT %result = f32[3,8,32]{2,1,0:T(8,128)} fusion(%all.1, %row.1, %zero), calls=%keep
}
"""
TILE = 8 * 128 * 4  # bytes of f32[8, up to 128]


def costs_by_name(text):
    return {cost.operation.name: cost for cost in hlo_costs.Program(text).costs()}


def test_loops_are_followed():
    costs = costs_by_name(LOOP)
    times = {name: cost.times for name, cost in costs.items()}
    assert times == {"fusion": 3, "sum": 3, "result": 1}
    assert costs["fusion"].flops == 2 * 8 * 16 * 32
    # x is read and the product written; y lies in memory of the core itself.
    assert costs["fusion"].bytes == 2 * TILE
    assert costs["fusion"].operation.cycles == 470
    assert hlo_costs.collective_kind(costs["sum"].operation) == "all-reduce"


def test_an_update_in_place_moves_the_slice_alone():
    # The slice is read and written, the rest stays where it is; a scalar is read as well.
    assert costs_by_name(LOOP)["result"].bytes == 2 * TILE + 4


def test_a_batched_product_written_as_a_convolution():
    # What the TPU compiler makes of "GNbIS,GNbSH->GNbIH": most pairs lie in gaps.
    text = """\
ENTRY %main (e: bf16[2,16,4,512,896], v: bf16[2,16,4,896,64]) -> f32[2,16,4,512,64] {
  %e = bf16[2,16,4,512,896]{4,3,2,1,0:T(8,128)(2,1)} parameter(0)
  %v = bf16[2,16,4,896,64]{3,4,2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %out = f32[2,16,4,512,64]{3,4,2,1,0:T(8,128)} convolution(%e, %v), \
window={size=2x16x4 stride=1x15x3 lhs_dilate=2x16x4}, dim_labels=012bf_012io->012bf
}
"""
    assert costs_by_name(text)["out"].flops == 2 * (2 * 16 * 4) * 512 * 896 * 64


def test_sizes_are_those_of_whole_tiles():
    shape = hlo.Shape("bf16", (2, 85, 896), "2,1,0:T(8,128)(2,1)")
    assert shape.bytes == 2 * 88 * 896 * 2
    assert hlo.Shape("f32", (3, 64), "0,1:T(8,128)").bytes == 64 * 128 * 4
    assert hlo.Shape("pred", (5,)).bytes == 5


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="not the text of a compiled program"):
        hlo_costs.Program("HloModule nothing")


def test_scanned_and_unrolled_programs_count_the_same():
    kernels = jnp.ones((5, 32, 32))

    def count(unroll):
        def network(x):
            return jax.lax.scan(lambda x, k: (jnp.tanh(x @ k), None), x, kernels, unroll=unroll)[0]

        compiled = jax.jit(network).lower(jnp.ones((8, 32))).compile()
        costs = list(hlo_costs.Program(compiled.as_text()).costs())
        return sum(c.flops * c.times for c in costs), sum(c.flops for c in costs)

    scanned, unrolled = count(1), count(5)
    assert scanned[0] == unrolled[0] == unrolled[1] == 2 * 5 * 8 * 32 * 32
    assert scanned[1] == scanned[0] / 5
