"""What `information.py` promises: identities, the bottleneck against brute force, the bounds with their gaps."""

import math
from itertools import pairwise

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st

from mbib_core import information
from mbib_core.information import (
    contraction_coefficient,
    entropy,
    gaussian_information,
    gaussian_information_bottleneck,
    gaussian_rate,
    information_bottleneck,
    information_curve,
    kl_divergence,
    marginal,
    mutual_information,
    squared_maximal_correlation,
    variational_bounds,
    vib_loss,
)

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=50, deadline=None)
ASYMMETRIC = np.array([[0.81, 0.09], [0.01, 0.09]])  # p(x) = (.9, .1) through a binary symmetric channel with error .1


def rows(rng, n, size, *, zeros=True):
    """n random distributions, some nearly one-hot, some with zeros."""
    p = rng.dirichlet(np.full(size, rng.choice([0.2, 1.0, 5.0])), n)
    if zeros:
        p = p * (rng.random(p.shape) < 0.8) + 1e-3 * (np.arange(size) == rng.integers(size, size=(n, 1)))
    return p / p.sum(1, keepdims=True)


def joint(rng, *shape, zeros=True):
    return rows(rng, 1, math.prod(shape), zeros=zeros).reshape(shape)


def channel(rng, n_x, n_y):
    """A joint where X tells much of Y, so that the bottleneck has something to do."""
    return rng.dirichlet(np.full(n_y, 0.3), n_x) * rng.dirichlet(np.ones(n_x))[:, None]


def objective(ib, beta):
    return -ib.i_ty + beta * ib.i_xt


# --- entropies


def test_entropy_and_information_of_known_cases():
    assert entropy(np.full(8, 1 / 8), "x", axes="x", base=2) == pytest.approx(3)
    assert entropy(np.full(8, 1 / 8), "x", axes="x") == pytest.approx(math.log(8))
    xor = np.zeros((2, 2, 2))
    xor[0, 0, 0] = xor[0, 1, 1] = xor[1, 0, 1] = xor[1, 1, 0] = 0.25
    assert mutual_information(xor, "x", "y", axes="xyz") == pytest.approx(0)
    assert mutual_information(xor, "x", "y", given="z", axes="xyz", base=2) == pytest.approx(1)
    assert mutual_information(xor, "xy", "z", axes="xyz", base=2) == pytest.approx(1)
    assert mutual_information(xor, "x", "x", axes="xyz") == pytest.approx(entropy(xor, "x", axes="xyz"))


def test_marginals_come_from_the_joint_not_from_the_caller():
    # A well-known book passes p(x) = (.2, .8) and p(y) = (.75, .25) along with this joint, and prints 0.72 bits.
    p_xy = np.array([[0.1, 0.5], [0.1, 0.3]])
    assert mutual_information(p_xy, "x", "y", axes="xy", base=2) == pytest.approx(0.0074, abs=1e-4)


@quick
@given(seeds)
def test_information_equals_plain_loops(seed):
    p = joint(np.random.default_rng(seed), 3, 2, 4)
    p_xz, p_yz, p_z = p.sum(1), p.sum(0), p.sum((0, 1))
    loops = 0.0
    for x, y, z in np.ndindex(*p.shape):
        if p[x, y, z] > 0:
            loops += p[x, y, z] * math.log(p[x, y, z] * p_z[z] / (p_xz[x, z] * p_yz[y, z]))
    assert mutual_information(p, "x", "y", given="z", axes="xyz") == pytest.approx(loops, abs=1e-12)


@quick
@given(seeds)
def test_chain_rules(seed):
    p = joint(np.random.default_rng(seed), 3, 4, 2)

    def h(of, given=""):
        return entropy(p, of, given=given, axes="xyz")

    def i(a, b, given=""):
        return mutual_information(p, a, b, given=given, axes="xyz")

    assert h("xyz") == pytest.approx(h("x") + h("y", "x") + h("z", "xy"), abs=1e-12)
    assert i("xy", "z") == pytest.approx(i("x", "z") + i("y", "z", "x"), abs=1e-12)
    assert i("x", "y") == pytest.approx(h("x") + h("y") - h("xy"), abs=1e-12)
    assert i("x", "y", "z") == pytest.approx(i("y", "x", "z"), abs=1e-12)
    assert 0 <= i("x", "y", "z") <= h("x", "z") + 1e-12


@pytest.mark.equation(1)
@quick
@given(seeds)
def test_information_is_the_divergence_from_independence(seed):
    p = joint(np.random.default_rng(seed), 4, 5)
    product = np.outer(p.sum(1), p.sum(0))
    assert mutual_information(p, "x", "y", axes="xy") == pytest.approx(kl_divergence(p, product), abs=1e-12)
    assert mutual_information(p, "x", "y", axes="xy", base=2) == pytest.approx(kl_divergence(p, product, base=2))


@pytest.mark.equation(3)
@quick
@given(seeds)
def test_theorem_3_2_on_every_markov_chain(seed):
    rng = np.random.default_rng(seed)
    p_yv, p_z_given_v = joint(rng, 3, 5), rows(rng, 5, 4)
    p = p_yv[:, :, None] * p_z_given_v

    def i(a, b, given=""):
        return mutual_information(p, a, b, given=given, axes="yvz")

    assert i("v", "z") == pytest.approx(i("z", "y") + i("v", "z", "y"), abs=1e-12)
    assert i("v", "y") - i("z", "y") == pytest.approx(i("v", "y", "z"), abs=1e-12)


@pytest.mark.equation(3)
def test_a_sufficient_representation_need_not_compress_and_a_compressed_one_need_not_suffice():
    p_yv = joint(np.random.default_rng(0), 3, 5, zeros=False)

    def both(p_z_given_v):
        p = p_yv[:, :, None] * p_z_given_v
        lost = mutual_information(p, "v", "y", given="z", axes="yvz")
        return lost, mutual_information(p, "v", "z", given="y", axes="yvz")

    assert both(np.eye(5)) == pytest.approx((0, entropy(p_yv, "v", given="y", axes="yv")))
    assert both(np.ones((5, 1))) == pytest.approx((mutual_information(p_yv, "v", "y", axes="yv"), 0))


@pytest.mark.equation(10)
@quick
@given(seeds)
def test_data_processing_loses_information(seed):
    rng = np.random.default_rng(seed)
    p = joint(rng, 4, 5)
    informations = []
    for _ in range(4):
        informations.append(mutual_information(p, "y", "v", axes="yv"))
        p = p @ rows(rng, p.shape[1], rng.integers(1, 6))
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(informations))


def test_axes_are_named_by_letters_or_by_words():
    p = joint(np.random.default_rng(1), 2, 3, 4)
    words = mutual_information(p, "v1", ["y"], given="v2", axes=["v1", "v2", "y"])
    assert words == mutual_information(p, "a", "c", given="b", axes="abc")
    np.testing.assert_allclose(marginal(p, ["y", "v1"], axes=["v1", "v2", "y"]), p.sum(1))
    np.testing.assert_allclose(marginal(p, "", axes="abc"), 1)


def test_kl_divergence_is_infinite_where_q_misses_mass():
    assert kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == math.inf
    assert kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5]), base=2) == pytest.approx(1)
    for tiny in (1e-305, 5e-324):
        expected = math.log(0.5) - 0.5 * math.log(tiny)
        assert kl_divergence([0.5, 0.5], [tiny, 1]) == pytest.approx(expected, rel=1e-12), "no floor below q"


@pytest.mark.parametrize(
    ("p", "sentence"),
    [
        ([[0.1, 0.5], [0.1, 0.4]], r"a joint distribution sums to 1, this one sums to 1\.1$"),
        ([[0.1, 0.5], [0.1, 0.3 + 2e-6]], r"a joint distribution sums to 1, this one sums to 1\.000002$"),
        ([[1.1, -0.1], [0.0, 0.0]], "a joint distribution has no negative entry, this one has -0.1"),
        ([[0.5, math.nan], [0.5, 0.0]], "a joint distribution has finite entries, this one has 1 that are not"),
    ],
)
def test_what_is_no_joint_is_refused_in_one_sentence(p, sentence):
    p = np.array(p)
    for call in (
        lambda: entropy(p, "x", axes="xy"),
        lambda: mutual_information(p, "x", "y", axes="xy"),
        lambda: information_bottleneck(p, 0.5),
        lambda: contraction_coefficient(p),
        lambda: variational_bounds(p, np.eye(2), np.eye(2), np.full(2, 0.5)),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


HALVES, ONE, FOURTHS = np.full(2, 0.5), np.eye(1), np.full((2, 2), 0.25)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: entropy(FOURTHS, "x", axes="xyz"), "axes name each of the 2 axes once"),
        (lambda: entropy(FOURTHS, "t", axes="xy"), "'t' is not one of the axes"),
        *(
            (lambda f=f, base=base: f(base=base), f"base is a finite number above 1, got {base}")
            for base in (0.5, 1, 0, -2, math.inf, math.nan)
            for f in (
                lambda base: entropy(HALVES, "x", axes="x", base=base),
                lambda base: mutual_information(FOURTHS, "x", "y", axes="xy", base=base),
                lambda base: kl_divergence(HALVES, HALVES, base=base),
            )
        ),
        (lambda: kl_divergence(HALVES, np.ones(2)), "q sums to 1, this one sums to 2"),
        (lambda: kl_divergence(HALVES, np.full(4, 0.25)), "p and q have one shape"),
        *(
            (lambda f=f, p=p: f(p), f"p_xy has two axes, this one has {np.ndim(p)}")
            for p in (np.full((2, 2, 2), 1 / 8), HALVES, 1.0)
            for f in (
                lambda p: information_bottleneck(p, 0.5),
                squared_maximal_correlation,
                contraction_coefficient,
                lambda p: variational_bounds(p, np.eye(2), np.eye(2), HALVES),
            )
        ),
        *(
            (lambda beta=beta: information_bottleneck(FOURTHS, beta), "beta is a number >= 0")
            for beta in (-0.1, math.nan, 1e-310)
        ),
        *(
            (lambda start=start: information_bottleneck(FOURTHS, 0.5, start=start), sentence)
            for start, sentence in (
                (np.full((2, 2), math.nan), "each row of start has finite entries"),
                (np.ones((2, 2)), "each row of start sums to 1"),
                (np.eye(3), r"start is q\(t\|x\) with a row for each of 2 x, this one is \[3, 3\]"),
                ([], "start is q"),
            )
        ),
        (lambda: gaussian_information_bottleneck(ONE, ONE / 2, ONE, 0.0), "beta > 0"),
        *(
            (lambda cov=cov: gaussian_information_bottleneck(*cov, 0.5), "symmetric and positive definite")
            for cov in (
                (ONE, ONE, ONE),
                (math.inf * ONE, ONE / 2, ONE),
                (1e-9 * np.array([[1, 0.5], [0.1, 1]]), np.zeros((2, 1)), 1e-9 * ONE),
            )
        ),
        (lambda: variational_bounds(FOURTHS, np.eye(2), np.ones((2, 2)), HALVES), "each row of q_y_given_z sums to 1"),
        (lambda: gaussian_information([[0.0]], [[0.0]], samples=1), r"samples \(1\) 2 or more"),
        (lambda: gaussian_information([[math.inf]], [[0.0]]), "mu and log_var must be finite"),
    ],
)
@pytest.mark.fault("an information of what is no distribution, or at a price that is none")
def test_other_refusals_name_the_fault(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# --- the exact bottleneck


def plain_blahut_arimoto(p_xy, beta, rng, *, starts, rounds):
    """The objectives of `starts` runs from random encoders, written without the module."""
    p_x = p_xy.sum(1)
    q = rng.dirichlet(np.full(len(p_x), 0.3), (starts, len(p_x)))
    for _ in range(rounds):
        q_ty = q.swapaxes(1, 2) @ p_xy
        q_t = q_ty.sum(2, keepdims=True)
        log_m = np.log(np.maximum(q_ty, 1e-300)) - np.log(np.maximum(q_t, 1e-300))
        logits = np.log(np.maximum(q_t, 1e-300)).swapaxes(1, 2) + p_xy / p_x[:, None] @ log_m.swapaxes(1, 2) / beta
        q = np.exp(logits - logits.max(2, keepdims=True))
        q /= q.sum(2, keepdims=True)
    q_ty, p_xt = q.swapaxes(1, 2) @ p_xy, p_x[:, None] * q

    def h(p):
        return -(p * np.log(np.maximum(p, 1e-300))).reshape(starts, -1).sum(1)

    h_t = h(q_ty.sum(2))
    i_xt, i_ty = h(p_x + np.zeros((starts, 1))) + h_t - h(p_xt), h(p_xy.sum(0) + np.zeros((starts, 1))) + h_t - h(q_ty)
    return -i_ty + beta * i_xt


def envelope(p_xy, beta, points=1501):
    """The minimum for two x by brute force: sum_t q(t) [H(Y|t) - beta H(X|t)] over all pairs of q(x|t) on a grid."""
    grid = np.linspace(1e-12, 1 - 1e-12, points)
    p = p_xy[0].sum()
    q_x = np.stack([grid, 1 - grid], 1)
    q_y = q_x @ (p_xy / p_xy.sum(1, keepdims=True))
    phi = -(q_y * np.log(q_y)).sum(1) + beta * (q_x * np.log(q_x)).sum(1)
    low, high = grid <= p, grid > p
    a, b = grid[low][:, None], grid[high]
    best = (((b - p) * phi[low][:, None] + (p - a) * phi[high]) / (b - a)).min()
    return best - entropy(p_xy, "y", axes="xy") + beta * entropy(p_xy, "x", axes="xy")


@pytest.mark.equation(1)
@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.02, 0.98))
def test_the_optimum_of_two_inputs_is_the_brute_force_optimum(seed, beta):
    p_xy = joint(np.random.default_rng(seed), 2, 3, zeros=False)
    if p_xy.sum(1).min() < 1e-3:
        return
    ib = information_bottleneck(p_xy, beta)
    assert envelope(p_xy, beta) - 1e-4 <= objective(ib, beta) <= envelope(p_xy, beta) + 1e-9
    assert ib.gap <= 1e-9


@pytest.mark.equation(1)
def test_the_optimum_of_three_inputs_beats_a_grid_of_all_encoders():
    p_xy, beta = channel(np.random.default_rng(4), 3, 2), 0.15
    steps = [np.array([i, j, 10 - i - j]) / 10 for i in range(11) for j in range(11 - i)]
    simplex = np.stack(steps)
    q = np.stack(np.meshgrid(*[np.arange(len(simplex))] * 3, indexing="ij"), -1).reshape(-1, 3)
    q = simplex[q]  # every encoder of three inputs into three values, in tenths
    p_x = p_xy.sum(1)

    def h(p):
        return -(p * np.log(np.maximum(p, 1e-300))).reshape(len(q), -1).sum(1)

    q_ty, p_xt = q.swapaxes(1, 2) @ p_xy, p_x[:, None] * q
    h_t = h(q_ty.sum(2))
    i_xt, i_ty = entropy(p_x, "x", axes="x") + h_t - h(p_xt), entropy(p_xy, "y", axes="xy") + h_t - h(q_ty)
    grid = (-i_ty + beta * i_xt).min()
    assert grid < -0.01
    assert grid - 5e-3 <= objective(information_bottleneck(p_xy, beta), beta) <= grid + 1e-12


@pytest.mark.equation(1)
@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.01, 0.99))
def test_every_optimum_is_self_consistent_and_certified(seed, beta):
    rng = np.random.default_rng(seed)
    p_xy = (channel if seed % 2 else joint)(rng, rng.integers(1, 7), rng.integers(1, 6))
    ib = information_bottleneck(p_xy, beta)
    assert ib.residual <= 1e-8
    assert ib.gap <= 1e-8
    np.testing.assert_allclose(ib.q_t_given_x.sum(1), 1)
    p_xty = p_xy[:, None, :] * ib.q_t_given_x[:, :, None]
    assert ib.i_xt == pytest.approx(mutual_information(p_xty, "x", "t", axes="xty"), abs=1e-12)
    assert ib.i_ty == pytest.approx(mutual_information(p_xty, "t", "y", axes="xty"), abs=1e-12)
    assert ib.i_ty <= min(mutual_information(p_xy, "x", "y", axes="xy"), ib.i_xt) + 1e-12
    others = plain_blahut_arimoto(p_xy[p_xy.sum(1) > 0], beta, rng, starts=20, rounds=200)
    assert objective(ib, beta) <= others.min() + 1e-9


@pytest.mark.equation(1)
@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.01, 0.9))
def test_an_x_that_almost_never_happens_is_certified_too(seed, beta):
    rng = np.random.default_rng(seed)
    p_xy = channel(rng, 5, 3)
    p_xy[:2] *= 10 ** rng.uniform(-17, -6, (2, 1))
    p_xy /= p_xy.sum()
    ib = information_bottleneck(p_xy, beta)
    assert ib.residual <= 1e-8
    assert ib.gap <= 1e-8
    assert objective(ib, beta) <= objective(information_bottleneck(p_xy[2:] / p_xy[2:].sum(), beta), beta) + 1e-5


@pytest.mark.equation(1)
def test_the_residual_is_that_of_the_self_consistent_equations():
    p_xy, beta = channel(np.random.default_rng(7), 5, 4), 0.2
    ib = information_bottleneck(p_xy, beta)
    q = ib.q_t_given_x[:, ib.q_t_given_x.sum(0) > 0]
    again = np.zeros_like(q)
    for x in range(5):
        for t in range(q.shape[1]):
            p_xt = p_xy.sum(1) * q[:, t]
            q_y_given_t = q[:, t] @ p_xy / p_xt.sum()
            again[x, t] = p_xt.sum() * math.exp(-kl_divergence(p_xy[x] / p_xy[x].sum(), q_y_given_t) / beta)
    again /= again.sum(1, keepdims=True)
    assert q.shape[1] > 1
    assert np.abs(again - q).max() == pytest.approx(ib.residual, abs=1e-12)
    assert np.abs(again - q).max() < 1e-9


@pytest.mark.equation(1)
@pytest.mark.parametrize("beta", [0.05, 0.2, 0.4])
def test_the_objective_is_that_of_the_best_of_a_thousand_restarts(beta):
    rng = np.random.default_rng(3)
    p_xy = channel(rng, 12, 6)
    best = plain_blahut_arimoto(p_xy, beta, rng, starts=1000, rounds=300).min()
    assert objective(information_bottleneck(p_xy, beta), beta) <= best + 1e-6


@pytest.mark.equation(1)
def test_the_curve_is_concave_with_slope_beta():
    rng = np.random.default_rng(5)
    p_xy, betas = channel(rng, 8, 5), np.linspace(0.01, 1, 100)
    curve = information_curve(p_xy, betas)
    run, rise = -np.diff(curve.i_xt), -np.diff(curve.i_ty)
    assert (run > -1e-9).all()
    assert (rise > -1e-9).all()
    assert (rise >= betas[:-1] * run - 1e-9).all()  # the slope of each chord lies between the betas of its ends
    assert (rise <= betas[1:] * run + 1e-9).all()
    assert curve.i_ty[0] <= mutual_information(p_xy, "x", "y", axes="xy")
    assert curve.i_ty[0] == pytest.approx(mutual_information(p_xy, "x", "y", axes="xy"), abs=0.01)
    assert curve.gap.max() <= 1e-8
    assert curve.residual.max() <= 1e-8


def test_the_order_of_the_betas_does_not_matter_and_the_seed_decides(monkeypatch):
    p_xy = channel(np.random.default_rng(6), 5, 4)
    one, other = information_curve(p_xy, [0.1, 0.3, 0.6]), information_curve(p_xy, [0.6, 0.1, 0.3])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b[[1, 2, 0]])
    for a, b in zip(information_bottleneck(p_xy, 0.3, seed=1), information_bottleneck(p_xy, 0.3, seed=1), strict=True):
        np.testing.assert_array_equal(a, b)
    drawn = []
    draw = np.random.default_rng
    monkeypatch.setattr(information.np.random, "default_rng", lambda seed: (drawn.append(seed), draw(seed))[1])
    information_bottleneck(p_xy, 0.3, seed=5)
    assert drawn == [5]


def test_a_neighbour_as_a_start_changes_nothing_but_the_time():
    p_xy = channel(np.random.default_rng(8), 6, 5)
    for near in (0.19, 0.3, 0.95):
        start = information_bottleneck(p_xy, near).q_t_given_x
        warm, cold = information_bottleneck(p_xy, 0.2, start=start), information_bottleneck(p_xy, 0.2)
        assert objective(warm, 0.2) == pytest.approx(objective(cold, 0.2), abs=1e-9)


@pytest.mark.equation(1)
def test_beta_zero_is_the_minimal_sufficient_statistic():
    p_y_given_x = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    p_xy = p_y_given_x * np.array([0.1, 0.4, 0.3, 0.2])[:, None]
    for beta in (0.0, 1e-6):
        ib = information_bottleneck(p_xy, beta)
        assert ib.i_ty == pytest.approx(mutual_information(p_xy, "x", "y", axes="xy"))
        assert ib.i_xt == pytest.approx(entropy(np.array([0.4, 0.4, 0.2]), "t", axes="t"), abs=1e-6)
        np.testing.assert_allclose(ib.q_t_given_x[0], ib.q_t_given_x[2])
        assert (ib.residual, ib.gap) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.equation(1)
def test_beta_one_and_more_is_trivial():
    for beta in (1.0, 7.5, math.inf):
        ib = information_bottleneck(np.eye(3) / 3, beta)
        assert (ib.i_xt, ib.i_ty) == (0, 0)


@pytest.mark.equation(1)
def test_when_y_is_a_function_of_x_beta_does_not_sweep_the_curve():
    p_xy = np.eye(3)[[0, 1, 2, 0, 1, 0]] * np.array([0.1, 0.2, 0.1, 0.3, 0.1, 0.2])[:, None]
    curve = information_curve(p_xy, np.linspace(0, 0.99, 12))
    np.testing.assert_allclose(curve.i_xt, entropy(p_xy, "y", axes="xy"))
    np.testing.assert_allclose(curve.i_ty, entropy(p_xy, "y", axes="xy"))


def test_what_never_happens_changes_nothing():
    p_xy = channel(np.random.default_rng(9), 4, 3)
    padded = np.insert(np.insert(p_xy, 2, 0, axis=0), 1, 0, axis=1)
    ib, same = information_bottleneck(p_xy, 0.1), information_bottleneck(padded, 0.1)
    assert same[1:] == pytest.approx(ib[1:], abs=1e-9)
    np.testing.assert_allclose(np.delete(same.q_t_given_x, 2, 0)[:, :4], ib.q_t_given_x, atol=1e-8)
    np.testing.assert_allclose(same.q_t_given_x.sum(1), 1)
    assert squared_maximal_correlation(padded) == pytest.approx(squared_maximal_correlation(p_xy))
    assert contraction_coefficient(padded) == pytest.approx(contraction_coefficient(p_xy))


@pytest.mark.equation(1)
def test_where_the_trivial_solution_ends_in_numbers():
    assert squared_maximal_correlation(ASYMMETRIC) == pytest.approx(0.390, abs=5e-4)
    assert contraction_coefficient(ASYMMETRIC) == pytest.approx(0.552, abs=5e-4)
    symmetric = np.array([[0.45, 0.05], [0.05, 0.45]])  # here both are (1 - 2 e)^2
    assert squared_maximal_correlation(symmetric) == pytest.approx(0.64)
    assert contraction_coefficient(symmetric) == pytest.approx(0.64)
    assert contraction_coefficient(np.full((3, 3), 1 / 9)) == pytest.approx(0)
    assert squared_maximal_correlation(np.ones((1, 1))) == contraction_coefficient(np.ones((1, 1))) == 0


def test_eta_is_the_brute_force_supremum():
    q = np.linspace(1e-6, 1 - 1e-6, 20001)
    q_x, p_x, p_y = np.stack([q, 1 - q], 1), ASYMMETRIC.sum(1), ASYMMETRIC.sum(0)
    q_y = q_x @ (ASYMMETRIC / p_x[:, None])
    ratio = (q_y * np.log(q_y / p_y)).sum(1) / np.maximum((q_x * np.log(q_x / p_x)).sum(1), 1e-9)
    assert contraction_coefficient(ASYMMETRIC) == pytest.approx(ratio.max(), abs=1e-7)


@settings(max_examples=500, deadline=None)
@given(seeds, st.sampled_from([0, -8, -200]))
def test_eta_is_at_least_rho_m_squared_to_the_last_bit(seed, smallest):
    rng = np.random.default_rng(seed)
    p_xy = rows(rng, 1, 12)[0].reshape(-1, rng.choice([2, 3, 4]))
    p_xy[0] *= 10.0**smallest
    p_xy /= p_xy.sum()
    assert 0 <= squared_maximal_correlation(p_xy) <= contraction_coefficient(p_xy, restarts=1, steps=3) <= 1


@pytest.mark.equation(1)
@settings(max_examples=15, deadline=None)
@given(seeds)
def test_the_optimum_leaves_the_trivial_solution_at_eta_and_so_below_the_squared_maximal_correlation(seed):
    rng = np.random.default_rng(seed)
    p_xy = joint(rng, rng.integers(2, 6), rng.integers(2, 5), zeros=False)
    rho2, eta = squared_maximal_correlation(p_xy), contraction_coefficient(p_xy)
    assert rho2 <= eta <= 1
    if eta < 0.05:
        return
    above, below, far_below = information_curve(p_xy, [1.001 * eta, 0.98 * eta, 0.95 * rho2]).i_xt
    assert above == pytest.approx(0, abs=1e-7)
    assert below > 1e-5
    assert far_below > 1e-5


@pytest.mark.equation(1)
def test_the_search_sees_a_shallow_optimum_beside_the_trivial_one():
    rng = np.random.default_rng(0)
    p_xy = [rng.dirichlet(np.full(6, 0.3), 8) * rng.dirichlet(np.ones(8))[:, None] for _ in range(2)][1]
    beta = contraction_coefficient(p_xy) - 1e-4  # only 8e-8 nats below, and no ascent from p(y|x) sees it at once
    ib = information_bottleneck(p_xy, beta)
    assert objective(ib, beta) < -5e-8
    assert ib.gap <= 1e-9
    assert information_bottleneck(p_xy, beta, start=np.ones((8, 1))).i_xt > 1e-4


# --- the Gaussian bottleneck


@pytest.mark.equation(1)
@quick
@given(seeds, st.floats(0.02, 0.98))
def test_gaussian_informations_are_those_of_the_projection_and_no_other_projection_is_better(seed, beta):
    rng = np.random.default_rng(seed)
    n, m = 3, int(rng.integers(1, 5))
    mix = rng.normal(size=(n + m, n + m))
    cov = mix @ mix.T + 0.1 * np.eye(n + m)
    x, xy, y = cov[:n, :n], cov[:n, n:], cov[n:, n:]
    ib = gaussian_information_bottleneck(x, xy, y, beta)
    x_given_y = x - xy @ np.linalg.solve(y, xy.T)

    def informations(a):
        total = np.linalg.slogdet(a @ x @ a.T + np.eye(n))[1] / 2
        return total, total - np.linalg.slogdet(a @ x_given_y @ a.T + np.eye(n))[1] / 2

    i_xt, i_ty = informations(ib.projection)
    assert (ib.i_xt, ib.i_ty) == pytest.approx((i_xt, i_ty), abs=1e-8)
    for _ in range(20):
        other_xt, other_ty = informations(ib.projection + 0.1 * rng.normal(size=(n, n)))
        assert -other_ty + beta * other_xt >= objective(ib, beta) - 1e-9


@pytest.mark.equation(1)
def test_gaussian_critical_betas_are_the_squared_canonical_correlations():
    rho = np.array([0.9, 0.5, 0.3])
    x_mix, y_mix = np.random.default_rng(0).normal(size=(2, 3, 3))
    cov = x_mix @ x_mix.T, x_mix @ np.diag(rho) @ y_mix.T, y_mix @ y_mix.T
    np.testing.assert_allclose(gaussian_information_bottleneck(*cov, 0.5).critical_betas, rho**2)
    ranks = [np.linalg.matrix_rank(gaussian_information_bottleneck(*cov, b).projection) for b in (0.82, 0.8, 0.2, 0.08)]
    assert ranks == [0, 1, 2, 3]
    betas = np.linspace(0.05, 0.95, 400)
    curve = gaussian_information_bottleneck(*cov, betas)
    run, rise = -np.diff(curve.i_xt), -np.diff(curve.i_ty)
    assert (rise >= betas[:-1] * run - 1e-12).all()
    assert (rise <= betas[1:] * run + 1e-12).all()
    assert curve.projection.shape == (400, 3, 3)


@pytest.mark.equation(1)
def test_the_discrete_and_the_gaussian_bottleneck_meet():
    rho, grid = 0.8, np.linspace(-4, 4, 20)
    x, y = grid[:, None], grid
    p_xy = np.exp(-(x**2 + y**2 - 2 * rho * x * y) / (2 * (1 - rho**2)))
    p_xy /= p_xy.sum()
    betas = np.array([0.25, 0.4, 0.55])
    discrete = information_curve(p_xy, betas)
    gaussian = gaussian_information_bottleneck(np.eye(1), rho * np.eye(1), np.eye(1), betas)
    np.testing.assert_allclose(discrete.i_xt, gaussian.i_xt, atol=1e-3)
    np.testing.assert_allclose(discrete.i_ty, gaussian.i_ty, atol=1e-3)
    assert squared_maximal_correlation(p_xy) == pytest.approx(gaussian.critical_betas[0], abs=1e-3)
    assert contraction_coefficient(p_xy) == pytest.approx(gaussian.critical_betas[0], abs=1e-3)


# --- the variational bounds


@pytest.mark.equation(2)
@quick
@given(seeds)
def test_the_variational_bounds_hold_with_the_gaps_the_theory_says(seed):
    rng = np.random.default_rng(seed)
    p_xy, encoder = joint(rng, 4, 3), rows(rng, 4, 5)
    decoder, prior = rows(rng, 5, 3, zeros=False) + 1e-9, rows(rng, 1, 5, zeros=False)[0] + 1e-9
    decoder, prior = decoder / decoder.sum(1, keepdims=True), prior / prior.sum()
    bounds = variational_bounds(p_xy, encoder, decoder, prior)
    p_zy, p_z = encoder.T @ p_xy, p_xy.sum(1) @ encoder
    gap = sum(p_z[z] * kl_divergence(p_zy[z] / p_z[z], decoder[z]) for z in range(5) if p_z[z] > 0)
    assert bounds.i_zy - bounds.i_zy_bound == pytest.approx(gap, abs=1e-10)
    assert bounds.i_xz_bound - bounds.i_xz == pytest.approx(kl_divergence(p_z, prior), abs=1e-10)
    assert bounds.i_zy >= bounds.i_zy_bound - 1e-12
    assert bounds.i_xz <= bounds.i_xz_bound + 1e-12


@pytest.mark.equation(2)
def test_the_variational_bounds_close_on_the_true_decoder_and_marginal():
    rng = np.random.default_rng(2)
    p_xy, encoder = joint(rng, 4, 3, zeros=False), rows(rng, 4, 5, zeros=False)
    p_zy = encoder.T @ p_xy
    bounds = variational_bounds(p_xy, encoder, p_zy / p_zy.sum(1, keepdims=True), p_zy.sum(1))
    assert bounds.i_zy_bound == pytest.approx(bounds.i_zy)
    assert bounds.i_xz_bound == pytest.approx(bounds.i_xz)
    one_hot = np.eye(3)[[0, 1, 2, 0, 1]]
    assert variational_bounds(p_xy, encoder, one_hot, p_zy.sum(1)).i_zy_bound == -math.inf


@pytest.mark.equation(2)
def test_the_gaussian_rate_is_the_divergence_from_the_standard_normal():
    rng = np.random.default_rng(0)
    mu, log_var = rng.normal(size=(2, 6, 3))
    p = torch.distributions.Normal(torch.tensor(mu), torch.tensor(log_var / 2).exp())
    standard = torch.distributions.Normal(torch.zeros(6, 3), torch.ones(6, 3))
    kl = torch.distributions.kl_divergence(p, standard).sum(1)
    np.testing.assert_allclose(gaussian_rate(mu, log_var), kl)


@pytest.mark.equation(2)
def test_gaussian_information_agrees_with_quadrature_and_its_gap_is_that_of_the_prior():
    rng = np.random.default_rng(1)
    mu, log_var, targets = rng.normal(size=(12, 1)), rng.normal(size=(12, 1)) - 1, np.arange(12) % 2
    z = np.linspace(-12, 12, 48001)
    p_z_given_x = np.exp(-((z - mu) ** 2) / np.exp(log_var) / 2 - log_var / 2) / math.sqrt(2 * math.pi)
    p_z = p_z_given_x.mean(0)

    def integral(f):
        return f.sum(-1) * (z[1] - z[0])

    def log(p):
        return np.log(np.maximum(p, 1e-300))

    i_xz = integral(p_z_given_x * (log(p_z_given_x) - log(p_z))).mean()
    p_z_given_y = np.stack([p_z_given_x[targets == y].mean(0) for y in (0, 1)])
    i_zy = integral(p_z_given_y * (log(p_z_given_y) - log(p_z))).mean()
    for truth, labels in ((i_xz, None), (i_zy, targets)):
        estimate, error = gaussian_information(mu, log_var, targets=labels, samples=4000)
        assert error < 0.01
        assert abs(estimate - truth) < 4 * error
    gap = integral(p_z * (log(p_z) + z**2 / 2 + math.log(2 * math.pi) / 2))
    assert gaussian_rate(mu, log_var).mean() - i_xz == pytest.approx(gap, abs=1e-6)


@pytest.mark.equation(2)
def test_gaussian_information_in_its_limits():
    far, narrow = np.arange(50.0)[:, None] * np.ones((50, 4)), np.full((50, 4), -9.0)
    assert gaussian_information(far, narrow)[0] == pytest.approx(math.log(50))
    assert gaussian_information(far, narrow, targets=np.arange(50) % 2)[0] == pytest.approx(math.log(2))
    assert gaussian_information(np.zeros((50, 4)), np.zeros((50, 4))) == pytest.approx((0, 0), abs=1e-9)
    mu, log_var = np.random.default_rng(0).normal(size=(2, 30, 2))
    for shift in (1e3, 1e8, -1e9):
        moved = gaussian_information(mu + shift, log_var)
        assert moved == pytest.approx(gaussian_information(mu, log_var), abs=1e-6), "where the means lie says nothing"


@pytest.mark.equation(2)
def test_vib_loss_is_plain_cross_entropy_plus_beta_rates_and_bounds_eq_1():
    rng = np.random.default_rng(3)
    n, beta, targets = 40, 0.3, np.arange(40) % 2
    mu, log_var = rng.normal(size=(n, 2)) + 2 * targets[:, None], np.full((n, 2), -0.5)
    logits = rng.normal(size=(n, 2))
    inputs = [torch.tensor(a, requires_grad=True) for a in (mu, log_var, logits)]
    loss = vib_loss(*inputs, torch.tensor(targets), beta)
    assert all(bool((gradient != 0).any()) for gradient in torch.autograd.grad(loss, inputs)), "encoder and decoder"
    by_hand = 0.0
    for i in range(n):
        by_hand += math.log(np.exp(logits[i]).sum()) - logits[i, targets[i]]
        by_hand += beta * sum((m**2 + math.exp(v) - 1 - v) / 2 for m, v in zip(mu[i], log_var[i], strict=True))
    assert loss.item() == pytest.approx(by_hand / n)
    exact = -gaussian_information(mu, log_var, targets=targets)[0] + beta * gaussian_information(mu, log_var)[0]
    assert loss.item() - math.log(2) > exact


# --- the module


def test_the_shapes_in_the_signatures_are_checked_and_true():
    checked = {f: jaxtyping.jaxtyped(typechecker=beartype)(getattr(information, f)) for f in information_names()}
    p_xy = np.full((3, 2), 1 / 6)
    checked["information_bottleneck"](p_xy, 0.3)
    checked["information_curve"](p_xy, [0.3])
    checked["variational_bounds"](p_xy, np.eye(3), np.full((3, 2), 0.5), np.full(3, 1 / 3))
    checked["gaussian_rate"](np.zeros((4, 2)), np.zeros((4, 2)))
    checked["vib_loss"](torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(4).long(), 0.1)
    with pytest.raises(Exception, match="log_var"):
        checked["gaussian_rate"](np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(Exception, match="q_y_given_z"):
        checked["variational_bounds"](p_xy, np.eye(3), np.full((2, 3), 1 / 3), np.full(3, 1 / 3))


def information_names():
    return [
        n
        for n, f in vars(information).items()
        if callable(f)
        and getattr(f, "__module__", "") == information.__name__
        and not n.startswith("_")
        and not isinstance(f, type)
    ]


def test_every_public_function_says_its_source_or_names_the_function_that_does():
    for name in information_names():
        text = getattr(information, name).__doc__
        assert any(word in text for word in ("Source", "as `", "as in `")), name


@pytest.mark.equation(1)
@pytest.mark.parametrize("beta", [0.05, 0.3, 0.6, 0.9])
def test_no_two_code_words_in_use_hold_the_same_belief(beta):
    shares = np.array([1000, 398, 158, 63, 25, 10]) / 1654  # a long tail of overlapping bumps over twelve values of x
    p_x_given_y = np.exp(-0.5 * (np.arange(12) - np.linspace(0, 11, 6)[:, None]) ** 2)
    p_xy = (shares[:, None] * p_x_given_y / p_x_given_y.sum(1, keepdims=True)).T
    found = information_bottleneck(p_xy, beta)
    together = found.q_t_given_x.T @ p_xy
    used = together.sum(1) > 1e-9
    beliefs = together[used] / together[used].sum(1, keepdims=True)
    apart = np.abs(beliefs[:, None] - beliefs).max(2) + np.eye(len(beliefs))
    assert apart.min() > 1e-5
