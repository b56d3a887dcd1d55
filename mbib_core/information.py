"""Exact information theory for the book: entropies, the information bottleneck (Eq. 1), its variational bounds (Eq. 2).

Everything is in nats unless a base is given, every marginal is derived from the joint, and beta is Eq. 1's: it weighs
I(X;T), so large beta compresses more. Tishby, Chechik, dit and embo weigh I(T;Y); their beta is one over this one.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Names = str | Sequence[str]
Array = Float[np.ndarray, "..."]
Joint = Float[np.ndarray, "X Y"]
Tensor = Any  # torch.Tensor: torch is imported late, it takes longer than everything else here
_TINY = 1e-300  # stands in for zero under a logarithm


def _log(p):
    return np.log(np.maximum(p, _TINY))


def _probabilities(p, what: str = "a joint distribution") -> np.ndarray:
    """`p` in float64, or a ValueError that says why it is no distribution."""
    p = np.asarray(p, dtype=np.float64)
    if not np.isfinite(p).all():
        raise ValueError(f"{what} has finite entries, this one has {np.count_nonzero(~np.isfinite(p))} that are not")
    if (p < 0).any():
        raise ValueError(f"{what} has no negative entry, this one has {p.min():.6g}")
    if abs(p.sum() - 1) > 1e-6:  # wide enough for float32, narrow enough for a wrong marginal
        raise ValueError(f"{what} sums to 1, this one sums to {p.sum():.{6 if abs(p.sum() - 1) > 1e-4 else 12}g}")
    return p / p.sum()


def _joint(p_xy) -> np.ndarray:
    """`p_xy` [X, Y] in float64, or a ValueError that says why it is no joint distribution of two variables."""
    p_xy = np.asarray(p_xy, dtype=np.float64)
    if p_xy.ndim != 2:
        raise ValueError(f"p_xy has two axes, this one has {p_xy.ndim}")
    return _probabilities(p_xy)


def _unit(base: float) -> float:
    """One unit of information in nats: log(base)."""
    if not 1 < base < math.inf:
        raise ValueError(f"base is a finite number above 1, got {base}: e gives nats, 2 gives bits")
    return math.log(base)


# --- entropies of a joint distribution
def marginal(p: Array, keep: Names, *, axes: Names) -> np.ndarray:
    """The marginal of some variables, in the order of `axes`: p(x,y) = sum_z p(x,y,z).

    p: a joint distribution, one axis a variable. axes: the variables' names, one an axis, as letters ("xyz") or as a
    list (["v1", "v2", "y"]). keep: a name, or several, as letters or as a list.
    Raises ValueError for a `p` that is no distribution, for names that don't fit its axes and for unknown names.
    Source, also of the next three functions: Cover and Thomas (2006), chapter 2.
    """
    p, axes = _probabilities(p), list(axes)
    if len(axes) != p.ndim or len(set(axes)) != len(axes):
        raise ValueError(f"axes name each of the {p.ndim} axes once, got {axes}")
    names = _names(axes, keep)
    if unknown := [name for name in names if name not in axes]:
        raise ValueError(f"{unknown[0]!r} is not one of the axes {axes}")
    return p.sum(axis=tuple(i for i, name in enumerate(axes) if name not in names))


def _names(axes, *groups) -> list[str]:
    return [name for group in groups for name in ([group] if group in list(axes) else group)]


def entropy(p, of: Names, *, given: Names = "", axes, base: float = math.e) -> float:
    """The uncertainty left in some variables once others are known: H(X|Z) = H(X,Z) - H(Z), H(X) = -E log p(x).

    p, axes, names: as in `marginal`; `given` may be empty. base: e gives nats, 2 gives bits. Raises as `marginal`.

    >>> round(entropy(np.array([[0.5, 0.0], [0.25, 0.25]]), "y", given="x", axes="xy", base=2), 12)
    0.5
    """
    joint, known = (marginal(p, _names(axes, *groups), axes=axes) for groups in ([of, given], [given]))
    return max(0.0, float((known * _log(known)).sum() - (joint * _log(joint)).sum())) / _unit(base)  # never -1e-17


def mutual_information(p, a: Names, b: Names, *, given: Names = "", axes, base: float = math.e) -> float:
    """What some variables tell about others: I(A;B|C) = H(A|C) - H(A|B,C).

    Eq. 3: I(v;z) = I(z;y) + I(v;z|y) for y - v - z. Eq. 10: I(X;Y) >= I(v_1;Y) >= I(v_2;Y) for Y - X - v_1 - v_2.
    p, axes, names, base: as in `entropy`; groups such as a="xy" are joint variables. Raises as `marginal`.

    >>> round(mutual_information(np.array([[0.5, 0.0], [0.0, 0.5]]), "x", "y", axes="xy", base=2), 12)
    1.0
    """
    less = entropy(p, a, given=_names(axes, b, given), axes=axes, base=base)
    return max(0.0, entropy(p, a, given=given, axes=axes, base=base) - less)


def kl_divergence(p: Array, q: Array, *, base: float = math.e) -> float:
    """The cost of using q in place of p: KL(p, q) = E_p log p/q; infinite where q = 0 < p.

    p, q: distributions of one shape, not samples. Raises ValueError for anything else. Source: Kullback & Leibler 1951.
    """
    p, q = _probabilities(p, "p"), _probabilities(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p and q have one shape, these have {p.shape} and {q.shape}")
    if (q[p > 0] == 0).any():
        return math.inf
    log_q = np.log(q, where=q > 0, out=np.zeros_like(q))
    return max(0.0, float((p * (_log(p) - log_q)).sum())) / _unit(base)


# --- the exact information bottleneck, Eq. 1
class IB(NamedTuple):
    """An optimum of Eq. 1, or a curve of them with a leading axis of betas. T has |X| values, those in use come first.

    residual: the largest change of an entry of q(t|x) by one round of the self-consistent equations.
    gap: how far, in nats, the objective can at most be above the global minimum (see `information_bottleneck`).
    """

    q_t_given_x: Float[np.ndarray, "*B X T"]
    i_xt: float | Float[np.ndarray, " B"]
    i_ty: float | Float[np.ndarray, " B"]
    residual: float | Float[np.ndarray, " B"]
    gap: float | Float[np.ndarray, " B"]


def information_bottleneck(
    p_xy: Joint, beta: float, *, restarts: int = 16, tol: float = 1e-9, seed: int = 0, start: Array | None = None
) -> IB:
    """The encoder q(t|x) that keeps what X tells of Y and forgets the rest of X.

    Eq. 1: minimise -I(T;Y) + beta I(X;T) over q(t|x), in nats. beta = 0 gives the minimal sufficient statistic (x with
    one p(y|x) share a t), beta >= 1 a constant T. Optima solve q(t|x) = q(t) exp(-KL(p(y|x), q(y|t)) / beta) / Z(x).

    This is rate-distortion with distortion KL and every distribution m of Y as a code word, a convex problem. So a
    solution is optimal if and only if c(m) = sum_x p(x)/Z(x) exp(-KL(p(y|x), m) / beta) <= 1 for every m, and is at
    most beta log max c above the minimum. Hence: Blahut-Arimoto; code words that meet become one; Newton steps (plain
    rounds stall near a critical beta); a search for the m of the largest c; it joins; again, until gap <= tol.

    p_xy [X, Y]: a joint, zeros allowed. restarts: random starts of the search, beside each p(y|x), so `gap` is as good
    as the search. tol: for residual and gap. start [X, T]: a neighbouring beta's encoder. Newton solves systems of
    (values of T in use) |Y| unknowns; above 3,000 there are only plain rounds, and residual and gap tell. An x of
    p(x) <= 1e-12 is taken for one that never happens: it could add 3e-11 nats.
    Raises ValueError for a `p_xy` that is no joint distribution, for a beta that is negative or too small for float64
    (0 is allowed), and for a `start` that is no encoder of x.
    Source: Tishby, Pereira, Bialek (1999); the optimality condition: Csiszar (1974).
    """
    curve = information_curve(p_xy, [beta], restarts=restarts, tol=tol, seed=seed, start=start)
    return IB(curve.q_t_given_x[0], *(float(np.asarray(values)[0]) for values in curve[1:]))


def information_curve(
    p_xy: Joint, betas, *, restarts: int = 16, tol: float = 1e-9, seed: int = 0, start: Array | None = None
) -> IB:
    """The curve (I(X;T), I(T;Y)) of Eq. 1, a point a beta; its slope dI(T;Y)/dI(X;T) is beta.

    betas [B]: in any order; the first axis of every field of the result. Each beta starts from its lower neighbour's
    optimum, and is then searched and mended on its own. The rest is as in `information_bottleneck`.
    """
    p_xy, betas = _joint(p_xy), np.asarray(betas, dtype=np.float64)
    if (wrong := ~((betas == 0) | (betas >= np.finfo(np.float64).tiny))).any():  # below, 1 / beta may be infinite
        raise ValueError(f"beta is a number >= 0, got {betas[wrong][0]}; the smallest above 0 is 2.3e-308")
    p_xy = p_xy * (p_xy.sum(1, keepdims=True) > 1e-12)  # else a word of its own for such an x is too light to be kept
    seen, rows = p_xy.sum(1) > 0, _occurring(p_xy)
    if start is not None:
        start = np.asarray(start, dtype=np.float64)
        if start.ndim != 2 or len(start) != len(p_xy):
            raise ValueError(f"start is q(t|x) with a row for each of {len(p_xy)} x, this one is {list(start.shape)}")
        for row in start:
            _probabilities(row, "each row of start")
    # x with one p(y|x) become one: an optimal encoder does not tell them apart
    kinds, kind = np.unique((rows / rows.sum(1, keepdims=True)).round(13), axis=0, return_inverse=True)
    merged, p_x = np.eye(len(kinds))[kind.ravel()].T @ rows, rows.sum(1)
    log_j = _log(merged if start is None else start[seen].T @ rows)
    q, scores = np.zeros((len(betas), *[len(p_xy)] * 2)), np.zeros((4, len(betas)))
    for b in np.argsort(betas):
        encoder = np.eye(len(kinds)) if betas[b] < 1 else np.ones((len(kinds), 1))  # I(T;Y) <= I(X;T): nothing pays
        if 0 < betas[b] < 1:
            log_j, scores[3, b] = _optimum(log_j, merged, betas[b], restarts, tol, np.random.default_rng(seed))
            encoder = _round(log_j, merged, betas[b])[0]
        encoder = encoder[kind.ravel()]
        by_mean_x = np.argsort(p_x * np.flatnonzero(seen) @ encoder / (p_x @ encoder))  # so that columns stay put
        encoder, p_ty = encoder[:, by_mean_x], encoder[:, by_mean_x].T @ rows
        q[b, :, : len(p_ty)] = p_x @ encoder  # for an x that never happens
        q[b, seen, : len(p_ty)] = encoder
        scores[0, b] = mutual_information(p_x[:, None] * encoder, "x", "t", axes="xt")
        scores[1, b] = mutual_information(p_ty, "t", "y", axes="ty")
        if 0 < betas[b] < 1:
            scores[2, b] = np.abs(_round(_log(p_ty), rows, betas[b])[0] - encoder).max()
    return IB(q, *scores)


def _occurring(p_xy):  # what never happens is left out
    return p_xy[p_xy.sum(1) > 0][:, p_xy.sum(0) > 0]


def _softmax(a):
    """Softmax over the last axis, and the logarithm of its normaliser."""
    e = np.exp(a - (top := a.max(-1, keepdims=True)))
    total = e.sum(-1, keepdims=True)
    return e / total, (top + np.log(total))[..., 0]


def _round(log_j, p_xy, beta):
    """One round of the self-consistent equations from log q(t,y): q(t|x), log Z(x) - H(Y|x)/beta, objective + H(Y)."""
    p_x = p_xy.sum(1)
    log_t = _log(np.exp(log_j).sum(1))
    q, log_z = _softmax(log_t + (p_xy / p_x[:, None]) @ (log_j - log_t[:, None]).T / beta)
    return q, log_z, -beta * (p_x @ log_z)


def _optimum(log_j, p_xy, beta, restarts, tol, rng):
    """log q(t,y) [T, Y] of the optimum, found from a first one, and its gap."""
    p_x, p_y_given_x = p_xy.sum(1), p_xy / p_xy.sum(1, keepdims=True)
    for attempt in range(20):
        for _ in range(10 if attempt else 50):
            log_j = _log(_round(log_j, p_xy, beta)[0].T @ p_xy)
        goal = max(tol * 0.1**attempt, 1e-14)  # a word with a tiny share shows in the gap, not in the residual
        log_j, residual = _newton(_merge(log_j, 0.01 * 0.1 ** max(0, attempt - 2)), p_xy, beta, goal)
        log_j = _merge(log_j, 1e-6)  # words that met on the way
        log_j = log_j[np.argsort(-np.exp(log_j).sum(1))[: len(p_x)]]  # an optimum needs no more than |X|
        log_z = _round(log_j, p_xy, beta)[1]
        # A missing code word: from each p(y|x), each word in use, and steps of all sizes away from these, c climbs.
        words = np.exp(log_j - _log(np.exp(log_j).sum(1))[:, None])
        away = rng.dirichlet(np.full(len(p_x), 0.3), restarts) @ p_y_given_x
        near = words[rng.integers(len(words), size=restarts)]
        words = np.concatenate([p_y_given_x, words, near + 10 ** rng.uniform(-3, 0, (restarts, 1)) * (away - near)])
        for _ in range(300):
            pull, log_c = _softmax(np.log(p_x) - log_z + _log(words) @ p_y_given_x.T / beta)
            words = pull @ p_y_given_x
        gap = beta * max(0.0, log_c.max())
        if gap <= tol and residual <= tol:
            break
        if gap > tol:  # the word joins with the share that lowers the objective most
            word, shares = _log(words[log_c.argmax()]), np.geomspace(1e-9, 0.9, 60)
            gain = np.expm1(np.minimum(p_y_given_x @ word / beta - log_z, 600))
            share = shares[(np.log1p(shares[:, None] * gain) @ p_x).argmax()]
            log_j = np.vstack([log_j + np.log1p(-share), word + np.log(share)])
    return log_j[: len(p_x)], gap


def _merge(log_j, tol):
    """Code words nearer than tol join the heaviest of them, unused ones go."""
    j = np.exp(log_j[np.argsort(-np.exp(log_j).sum(1))])
    words = j / np.maximum(j.sum(1, keepdims=True), _TINY)
    j = np.eye(len(j))[(np.abs(words[:, None] - words).max(2) < tol).argmax(1)].T @ j
    return _log(j[j.sum(1) > 1e-12])


def _newton(log_j, p_xy, beta, tol, steps=60):
    """Damped Newton steps for log q(t,y) = its next round, each lowering the objective; the last, and its residual."""
    p_x, damping = p_xy.sum(1), 1e-3
    q = _round(log_j, p_xy, beta)[0]
    for _ in range(steps):
        log_j = log_j[p_x @ q > 1e-13]
        q, _, objective = _round(log_j, p_xy, beta)
        j = q.T @ p_xy
        after = _log(j)
        residual = np.abs(_round(after, p_xy, beta)[0] - q).max()
        if max(residual, np.abs(j - np.exp(log_j)).max()) < tol or log_j.size > 3000:
            return after, residual
        # d log j after = r (da - sum_s q_s da_s), da = s d log j before; the matrix is identity minus this derivative
        (n_t, n_y), n_x = log_j.shape, len(p_x)
        r = q[:, :, None] * p_xy[:, None] / np.maximum(j, _TINY)
        s = (1 - 1 / beta) * np.exp(log_j) / np.exp(log_j).sum(1, keepdims=True) + (p_xy / p_x[:, None])[:, None] / beta
        matrix = r.reshape(n_x, -1).T @ (q[:, :, None] * s).reshape(n_x, -1) + (1 + damping) * np.eye(log_j.size)
        matrix.reshape(n_t, n_y, n_t, n_y)[range(n_t), :, range(n_t)] -= np.einsum("xty,xtz->tyz", r, s)
        while True:
            step = np.linalg.solve(matrix, (after - log_j).ravel()).reshape(n_t, n_y)
            trial = np.clip(log_j + step * min(1, 5 / np.abs(step).max()), np.log(_TINY), 0)
            plain = damping > 100  # a plain round always descends
            trial = after if plain else trial - np.log(np.exp(trial).sum())
            q, _, lower = _round(trial, p_xy, beta)
            if plain or lower <= objective + 1e-15:
                break
            matrix += 7 * damping * np.eye(log_j.size)
            damping *= 8
        log_j, damping = trial, np.clip(damping / 8, 1e-12, 1)
    return log_j, np.inf


def squared_maximal_correlation(p_xy: Joint) -> float:
    """rho_m^2, the largest squared correlation of a function of X with one of Y; below it a constant T is no minimum.

    rho_m is the second singular value of p(x,y) / sqrt(p(x) p(y)). Raises as `marginal`. Source: Renyi (1959).
    """
    return _squared_maximal_correlation(_occurring(_joint(p_xy)))


def _squared_maximal_correlation(p_xy) -> float:
    values = np.linalg.svd(p_xy / np.sqrt(p_xy.sum(1))[:, None] / np.sqrt(p_xy.sum(0)), compute_uv=False)
    return min(1.0, float((values[1:2] ** 2).sum()))


def contraction_coefficient(p_xy: Joint, *, restarts: int = 64, steps: int = 500, seed: int = 0) -> float:
    """eta = sup_q KL(q_Y, p_Y) / KL(q_X, p_X), the curve's slope at its origin: Eq. 1's optimum is trivial from eta on.

    Ascent from every x and from `restarts` random q; the ratio never falls. Where q tends to p it tends to rho_m^2 at
    most, so eta >= rho_m^2. Raises as `marginal`. Source: Anantharam et al. (2013).
    """
    p_xy = _occurring(_joint(p_xy))
    p_x, p_y, eta = p_xy.sum(1), p_xy.sum(0), _squared_maximal_correlation(p_xy)
    q_x = np.vstack([np.eye(len(p_x)), np.random.default_rng(seed).dirichlet(np.full(len(p_x), 0.5), restarts)])
    for _ in range(steps):
        kl_x = (q_x * (_log(q_x) - np.log(p_x))).sum(1)
        q_x, kl_x = q_x[kl_x > 1e-6], kl_x[kl_x > 1e-6]  # nearer to p the ratio is 0 / 0
        log_ratio_y = _log(q_x @ (p_xy / p_x[:, None])) - np.log(p_y)
        ratio = (np.exp(log_ratio_y) * p_y * log_ratio_y).sum(1) / kl_x
        eta = ratio.max(initial=eta)
        q_x = _softmax(np.log(p_x) + log_ratio_y @ (p_xy / p_x[:, None]).T / np.maximum(ratio, 1e-12)[:, None])[0]
    return min(1.0, float(eta))


# --- the Gaussian information bottleneck
class GaussianIB(NamedTuple):
    """T = projection X + noise of unit covariance; the informations in nats; critical_betas are in falling order."""

    projection: Float[np.ndarray, "*B n n"]
    i_xt: float | Float[np.ndarray, "*B"]
    i_ty: float | Float[np.ndarray, "*B"]
    critical_betas: Float[np.ndarray, " n"]


def gaussian_information_bottleneck(
    cov_x: Float[np.ndarray, "n n"], cov_xy: Float[np.ndarray, "n m"], cov_y: Float[np.ndarray, "m m"], beta
) -> GaussianIB:
    """Eq. 1 solved for jointly Gaussian X and Y: the canonical directions, one by one, as beta falls.

    With rho_i the canonical correlations, direction i is kept while beta < rho_i^2 (its critical beta), with the gain
    a_i^2 = (rho_i^2 - beta) / (beta (1 - rho_i^2)) on its unit-variance variate. Over the kept ones
    I(X;T) = 1/2 sum log(rho_i^2 (1 - beta) / (beta (1 - rho_i^2))),  I(T;Y) = 1/2 sum log((1 - beta) / (1 - rho_i^2)).

    cov_*: the blocks of the joint covariance. beta: Eq. 1's, one or an array (a curve). Raises ValueError for beta <= 0
    and for a joint covariance that is not positive definite.
    Source: Chechik et al. (2005), whose beta is one over this one and whose lambda_i is 1 - rho_i^2.
    """
    beta = np.asarray(beta, dtype=np.float64)
    if not (beta > 0).all():
        raise ValueError("the Gaussian bottleneck needs beta > 0: at 0 the optimum keeps infinitely many nats of X")
    cov_x, cov_xy, cov_y = (np.asarray(block, dtype=np.float64) for block in (cov_x, cov_xy, cov_y))
    joint = np.block([[cov_x, cov_xy], [cov_xy.T, cov_y]])
    symmetric = np.isfinite(joint).all() and np.abs(joint - joint.T).max() <= 1e-8 * np.abs(joint).max()
    if not symmetric or np.linalg.eigvalsh(joint).min() <= 0:
        raise ValueError("the joint covariance of X and Y is symmetric and positive definite, this one is not")
    whiten = np.linalg.inv(np.linalg.cholesky(cov_x))
    directions, rho, _ = np.linalg.svd(whiten @ cov_xy @ np.linalg.inv(np.linalg.cholesky(cov_y)).T)
    rho2 = np.pad(rho**2, (0, len(whiten) - len(rho)))
    gain2 = np.maximum(0.0, rho2 / beta[..., None] - 1) / (1 - rho2)
    i_xt, i_xt_given_y = np.log1p(gain2).sum(-1) / 2, np.log1p(gain2 * (1 - rho2)).sum(-1) / 2
    return GaussianIB(np.sqrt(gain2)[..., None] * (directions.T @ whiten), i_xt[()], (i_xt - i_xt_given_y)[()], rho2)


# --- the variational bounds, Eq. 2
class Bounds(NamedTuple):
    """Both sides of both bounds, in nats: i_zy >= i_zy_bound and i_xz <= i_xz_bound."""

    i_zy: float
    i_zy_bound: float
    i_xz: float
    i_xz_bound: float


def variational_bounds(
    p_xy: Joint, p_z_given_x: Float[np.ndarray, "X Z"], q_y_given_z: Float[np.ndarray, "Z Y"], r_z: Array
) -> Bounds:
    """What a decoder q(y|z) and a prior r(z) say about a discrete encoder, beside the true values.

    Eq. 2: I(Z;Y) >= H(Y) + E log q(y|z), short by E KL(p(y|z), q(y|z));  I(X;Z) <= E_x KL(p(z|x), r(z)), over by
    KL(p(z), r). Tight for q = p(y|z), r = p(z); a zero where the truth has none gives an infinite bound.
    Raises ValueError for a joint, a row or an r that is no distribution. Source: Alemi et al. (2017).
    """
    p_xy, r_z = _joint(p_xy), _probabilities(r_z, "r_z")
    encoder = np.stack([_probabilities(row, "each row of p_z_given_x") for row in p_z_given_x])
    decoder = np.stack([_probabilities(row, "each row of q_y_given_z") for row in q_y_given_z])
    p_xz, p_zy = p_xy.sum(1, keepdims=True) * encoder, encoder.T @ p_xy
    log_q = np.log(decoder, where=decoder > 0, out=np.full_like(decoder, -np.inf))
    return Bounds(
        i_zy=mutual_information(p_zy, "z", "y", axes="zy"),
        i_zy_bound=entropy(p_xy, "y", axes="xy") + float(p_zy[p_zy > 0] @ log_q[p_zy > 0]),
        i_xz=mutual_information(p_xz, "x", "z", axes="xz"),
        i_xz_bound=sum(float(p) * kl_divergence(row, r_z) for p, row in zip(p_xy.sum(1), encoder, strict=True) if p),
    )


def gaussian_rate(mu: Float[np.ndarray, "n K"], log_var: Float[np.ndarray, "n K"]) -> Float[np.ndarray, " n"]:
    """KL(p(z|x), r(z)) of Eq. 2 for p(z|x) = N(mu, diag exp log_var) and r = N(0, I), a number an input, in nats.

    KL = 1/2 sum_k (mu_k^2 + exp log_var_k - 1 - log_var_k). Its mean bounds I(X;Z). Source: Kingma and Welling (2014).
    """
    return (mu**2 + np.exp(log_var) - 1 - log_var).sum(-1) / 2


def gaussian_information(
    mu: Float[np.ndarray, "n K"], log_var: Float[np.ndarray, "n K"], *, targets=None, samples: int = 16, seed: int = 0
) -> tuple[float, float]:
    """I(X;Z) itself, the left side of Eq. 2, for X uniform on n inputs with p(z|x) = N(mu, diag exp log_var).

    Returns a Monte Carlo estimate and its standard error, in nats.
    I(X;Z) = E log p(z|x) - log p(z), where p(z) is the mixture of the n Gaussians, so it never exceeds log n. With
    `targets` [n] it is I(Z;Y) = E log p(z|y) - log p(z), p(z|y) the mixture of y's inputs: what a perfect decoder sees.
    samples: draws of z per input, two or more; time and memory grow as n^2. Raises ValueError for fewer draws and for
    mu or log_var that are not finite. Source: Goldfeld et al. (2019).
    """
    mu, log_var = np.asarray(mu, dtype=np.float64), np.asarray(log_var, dtype=np.float64)
    if samples < 2 or not (np.isfinite(mu).all() and np.isfinite(log_var).all()):
        raise ValueError(f"mu and log_var must be finite, and samples ({samples}) 2 or more for a standard error")
    mu = mu - mu.mean(0)  # a shift changes nothing but the digits that are lost
    n, rng, precision = len(mu), np.random.default_rng(seed), np.exp(-log_var)
    offset = -((mu**2 * precision) + log_var).sum(1) / 2  # what all densities share, 2 pi, cancels
    alike = np.eye(n, dtype=bool) if targets is None else np.equal.outer(targets, targets)
    draws = np.empty((samples, n))
    for s in range(samples):
        z = mu + np.exp(log_var / 2) * rng.standard_normal(mu.shape)
        log_density = z @ (mu * precision).T - z**2 @ precision.T / 2 + offset
        same = _softmax(np.where(alike, log_density, -np.inf))[1] - np.log(alike.sum(1))
        draws[s] = same - _softmax(log_density)[1] + np.log(n)
    return float(draws.mean()), float(np.sqrt(draws.var(0, ddof=1).sum() / samples)) / n


def vib_loss(
    mu: Float[Tensor, "B K"], log_var: Float[Tensor, "B K"], logits: Float[Tensor, "B C"], targets: Tensor, beta: float
) -> Tensor:
    """The loss of the variational information bottleneck: Eq. 1 with both terms replaced by Eq. 2's bounds, plus H(Y).

    -E log q(y|z) + beta E_x KL(p(z|x), N(0, I)), a mean over the batch, in nats. mu, log_var: the encoder's output;
    logits: the decoder's, for a z drawn from p(z|x). beta: Eq. 1's. Source: Alemi et al. (2017).
    """
    from torch.nn.functional import cross_entropy

    rate = (mu.square() + log_var.exp() - 1 - log_var).sum(1) / 2
    return cross_entropy(logits, targets) + beta * rate.mean()
