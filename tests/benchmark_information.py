"""The exact information bottleneck beside dit and embo: the same joints, the same betas, time and accuracy.

    python tests/benchmark_information.py            # a few minutes, dit being slow
    OPENBLAS_NUM_THREADS=1 python tests/benchmark_information.py     # where other work shares the cores

Accuracy is the objective of Eq. 1, -I(T;Y) + beta I(X;T) in nats, above the lowest that anybody found at that beta.
dit and embo weigh I(T;Y), so they are given 1 / beta; embo exponentiates bits with e, so it is given ln 2 / beta.
"""

import contextlib
import importlib.util
import io
import math
import time
import warnings

import numpy as np

from mbib_core.information import information_curve

LN2 = math.log(2)


def ours(p_xy, betas, **settings):
    curve = information_curve(p_xy, betas, **settings)
    return curve.i_xt, curve.i_ty


def embo(p_xy, betas, *, restarts, iterations, rtol):
    from embo import InformationBottleneck

    grid = LN2 / betas  # evenly spaced, as embo wants it
    settings = {"minbeta": grid[0], "maxbeta": grid[-1], "numbeta": len(grid), "processes": 2}
    settings |= {"restarts": restarts, "iterations": iterations, "rtol": rtol, "ensure_monotonic_bound": False}
    i_xt, i_ty, _, _ = InformationBottleneck(pxy=p_xy.copy(), **settings).get_bottleneck()
    return np.array(i_xt) * LN2, np.array(i_ty) * LN2


def dit(p_xy, betas, *, method):
    from dit import Distribution
    from dit.rate_distortion import IBCurve

    joint = Distribution.from_ndarray(p_xy)
    grid = 1 / betas
    curve = IBCurve(joint, beta_min=grid[0], beta_max=grid[-1], beta_num=len(grid), method=method)
    return curve.complexities * LN2, curve.relevances * LN2


def compare(name, p_xy, betas, runs):
    """Print a line a run: seconds a beta, objective above the best of all runs (worst and median over the betas)."""
    results = []
    for label, run, settings in runs:
        package = label.split()[0]
        if package in ("dit", "embo") and importlib.util.find_spec(package) is None:
            print(f"{name:10} {label:44} not installed: pip install {package} (2.3 and 1.1.0 were measured)")
            continue
        start = time.perf_counter()
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            i_xt, i_ty = run(p_xy, betas, **settings)
        results.append((label, (time.perf_counter() - start) / len(betas), -i_ty + betas * i_xt))
    best = np.min([objective for _, _, objective in results], axis=0)
    for label, seconds, objective in results:
        above = objective - best
        ratio = seconds / results[0][1]
        print(
            f"{name:10} {label:44} {seconds:10.5f} {ratio:8.0f}x {above.max():12.1e} {np.median(above):12.1e}",
            flush=True,
        )


def channel(n_x, n_y):
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.full(n_y, 0.3), n_x) * rng.dirichlet(np.ones(n_x))[:, None]


def main():
    print(f"{'joint':10} {'method':44} {'s a beta':>10} {'time':>9} {'worst nats':>12} {'median nats':>12}")
    mine = ("ours", ours, {})
    embos = [
        (f"embo restarts={r} iterations={n} rtol={tol:g}", embo, {"restarts": r, "iterations": n, "rtol": tol})
        for r, n, tol in ((3, 100, 1e-3), (3, 10_000, 1e-9), (30, 10_000, 1e-9), (30, 100_000, 1e-12))
    ]
    dits = [("dit method=sp", dit, {"method": "sp"})]  # its method "ba" took 51 s a beta and ended 0.4 nats above
    few, many = 1 / np.linspace(1.1, 10, 4), 1 / np.linspace(1.1, 20, 50)
    compare("8 x 4", channel(8, 4), few, [mine, *dits])
    compare("8 x 4", channel(8, 4), many, [mine, *embos])
    compare("32 x 16", channel(32, 16), many, [mine, *embos[:3]])


if __name__ == "__main__":
    main()
