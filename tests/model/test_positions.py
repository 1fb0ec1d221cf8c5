"""Codes of distances, and the shift that lines them up with the keys."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlnet_jax.model import positions
from xlnet_jax.model.backward import dense

SIZES = [(1, 1), (1, 4), (3, 3), (4, 6), (5, 13)]  # tokens, keys


def test_codes_literally():
    # Width 4: two waves, of frequency 1 and 10000^(-1/2) = 1/100; halves side by side.
    codes = positions.relative_position_codes(2, 3, 4)
    distances = [3, 2, 1, 0, -1]
    wanted = [[np.sin(d), np.sin(d / 100), np.cos(d), np.cos(d / 100)] for d in distances]
    np.testing.assert_allclose(codes, [wanted], atol=1e-6)
    assert codes.dtype == jnp.float32
    assert codes[0, 3].tolist() == [0, 0, 1, 1]


def test_reversed_rows_count_backwards():
    codes = positions.relative_position_codes(3, 5, 8, bi_data=True)
    forward = positions.relative_position_codes(3, 5, 8)
    assert codes.shape == (2, 8, 8)
    np.testing.assert_array_equal(codes[0], forward[0])
    # sin is odd, cos even
    np.testing.assert_array_equal(codes[1], forward[0] * np.repeat([-1, 1], 4).astype(np.float32))


@pytest.mark.parametrize("bi_data", [False, True])
def test_far_distances_look_alike_when_clamped(bi_data):
    clamped = positions.relative_position_codes(4, 6, 8, clamp_len=2, bi_data=bi_data)
    free = positions.relative_position_codes(4, 6, 8, bi_data=bi_data)
    rows = {distance: 6 - distance for distance in range(6, -4, -1)}
    wanted = [rows[max(-2, min(2, distance))] for distance in rows]
    np.testing.assert_array_equal(clamped, free[:, wanted])


def test_distances_above_256_are_exact():
    codes = positions.relative_position_codes(1, 1000, 2)
    np.testing.assert_allclose(codes[0, :, 0], np.sin(np.arange(1000.0, -1, -1)), atol=1e-4)


@pytest.mark.parametrize("bi_data", [False, True])
def test_what_is_dropped_of_a_distance_is_dropped_of_its_opposite(bi_data):
    keep = np.random.default_rng(0).random((7, 8)) < 0.5  # distances 0 ... 6

    def codes(**options):
        return positions.relative_position_codes(4, 6, 8, bi_data=bi_data, **options)

    kept = keep[np.abs(np.arange(6, -4, -1))]
    np.testing.assert_array_equal(codes(drop=lambda table: table * keep), codes() * kept)


@pytest.mark.parametrize(("num_tokens", "num_keys"), SIZES)
@pytest.mark.parametrize("options", [{}, {"bi_data": True}, {"clamp_len": 2}], ids=str)
def test_codes_are_projected_as_by_a_dense_layer(num_tokens, num_keys, options):
    random = np.random.default_rng(0)
    keep = random.random((num_keys + 1, 8)) < 0.7
    codes = positions.relative_position_codes(
        num_tokens, num_keys, 8, drop=lambda table: table * keep, **options
    ) - positions.code_of_here(8)
    kernel = jnp.asarray(random.normal(size=(8, 2, 3)), jnp.float32)

    def value_and_gradient(project):
        out, pull_back = jax.vjp(lambda kernel: project(codes, kernel), kernel)
        return out, *pull_back(jnp.cos(out))

    found = value_and_gradient(lambda *inputs: positions.project_codes(*inputs, num_tokens))
    for one, other in zip(found, value_and_gradient(dense), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_only_a_cpu_projects_half_of_the_codes():
    codes, kernel = jnp.zeros((2, 14, 8)), jnp.zeros((8, 2, 3))  # 5 tokens, 9 keys
    traced = jax.jit(positions.project_codes, static_argnums=2).trace(codes, kernel, 5)

    def rows(platform):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        dots = [line for line in text.splitlines() if "dot_general" in line]
        return [re.search(r"-> tensor<([0-9]+x[0-9]+)x2x3xf32", line)[1] for line in dots]

    assert rows("cpu") == ["1x10"] * 2  # sines, cosines
    assert rows("tpu") == ["2x14"]


def test_code_of_here_is_that_of_distance_0():
    codes = positions.relative_position_codes(3, 5, 6)
    np.testing.assert_array_equal(positions.code_of_here(6), codes[0, 5])


def test_shifts_literally():
    # Two tokens after one of memory: keys at distances 1 0 -1 from token 0, 2 1 0 from token 1.
    distances = jnp.asarray([[3.0, 2, 1, 0, -1], [3, 2, 1, 0, -1]])
    wanted = [[1, 0, -1], [2, 1, 0]]
    assert positions.shift_content(distances, 3).tolist() == wanted
    queries = jnp.asarray([[1, 0, 1]])  # tokens of one example's three query rows
    scores = jnp.broadcast_to(distances[0], (1, 1, 1, 3, 5))
    shifted = positions.shift_queries(scores, queries[None], 3)
    assert shifted[0, 0, 0].tolist() == [wanted[1], wanted[0], wanted[1]]


@pytest.mark.parametrize(("num_tokens", "num_keys"), SIZES)
def test_shift_content_is_its_definition(num_tokens, num_keys):
    shape = (2, num_tokens, num_keys + num_tokens)
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wanted = np.zeros((2, num_tokens, num_keys), np.float32)
    for i in range(num_tokens):
        for j in range(num_keys):
            wanted[:, i, j] = scores[:, i, num_tokens - i + j]
    np.testing.assert_array_equal(positions.shift_content(jnp.asarray(scores), num_keys), wanted)


@pytest.mark.parametrize(("num_tokens", "num_keys"), SIZES)
def test_unshift_content_is_the_transpose(num_tokens, num_keys):
    random = np.random.default_rng(1)
    scores = random.integers(-9, 9, (3, num_tokens, num_keys + num_tokens)).astype(np.float32)
    gradient = random.integers(-9, 9, (3, num_tokens, num_keys)).astype(np.float32)
    shifted = positions.shift_content(jnp.asarray(scores), num_keys)
    back = positions.unshift_content(jnp.asarray(gradient))
    assert back.shape == scores.shape
    assert (shifted * gradient).sum() == (scores * back).sum()
    np.testing.assert_array_equal(positions.shift_content(back, num_keys), gradient)


def test_shift_queries_is_its_definition():
    directions, heads, rows, predicted, num_tokens, num_keys = 2, 2, 3, 4, 5, 7
    random = np.random.default_rng(2)
    shape = (directions, heads, rows, predicted, num_keys + num_tokens)
    scores = random.normal(size=shape).astype(np.float32)
    tokens = random.integers(0, num_tokens, (directions, rows, predicted))
    wanted = np.zeros((*shape[:-1], num_keys), np.float32)
    for g, b, p in np.ndindex(directions, rows, predicted):
        for j in range(num_keys):
            wanted[g, :, b, p, j] = scores[g, :, b, p, num_tokens - tokens[g, b, p] + j]
    got = jax.jit(positions.shift_queries, static_argnums=2)(scores, tokens, num_keys)
    np.testing.assert_array_equal(got, wanted)
