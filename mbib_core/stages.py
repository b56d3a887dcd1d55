"""What each classifier of MBIB says of CIFAR-100-LT, and five methods as their boundary moves: measurements behind the
chapters, kept in one file.

`python -m mbib_core.stages FOLDER` reads the recorded weights of seed 0 in FOLDER, classifies the test images and some
training images, some minutes on one core, and writes FOLDER/stages.json. Nothing is trained but linear probes.
"""

import base64
import io
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbib_core import compare, results
from mbib_core.data import Images, LongTailed, first_of_each_class, load
from mbib_core.evaluation import features_of
from mbib_core.methods import methods_on, settle
from mbib_core.networks.bottleneck import Bottleneck
from mbib_core.settings import Settings, run_id
from mbib_core.weights import read_weights

METHODS = ("mbib", "mbib-beta0")
TAUS = tuple(step / 8 for step in range(17))  # 0 to 2
SHIFTED = ("ce", "bsce", "bib", "mbib-beta0", "mbib")
SHIFTS = tuple(step / 8 for step in range(-4, 13))  # -0.5 to 1.5
PER_CLASS = 30  # training images of a class, at most
PROBED = 200  # validation images of a class to which a probe is fitted, at most


def noise_of_a_run(
    records: Iterable[results.Record], group: str, data: str = "cifar100-lt", *, by: str | None = None
) -> compare.Noise:
    """The standard deviation of a run's accuracy (%), pooled over settings that were run with several seeds.

    It is that of the run's own prediction, or of the answer `by` (v, z, ...) of those that have it. On CIFAR-100-LT it
    is that of the 60-epoch runs, on validation images, else that of the final runs by the data's own recipe, on test
    images, but for settings that did not learn (under 10 % over all classes).
    """
    short = data == "cifar100-lt"
    where = {"schedule": "short", "purpose": "choosing"} if short else {"purpose": "final"}
    part = "validation" if short else "test"
    found = compare.by_recipe(results.find(records, data=data, imbalance=100.0, **where))
    alike: dict[str, list[dict[str, float]]] = {}
    for record in found:
        settings = {k: v for k, v in results.settings_of(record).items() if k not in ("seed", "threads")}
        accuracy = record[part]["accuracy"].get(by or record[part]["default"])
        if accuracy:
            alike.setdefault(json.dumps(settings, sort_keys=True), []).append(accuracy)
    learned = [own for own in alike.values() if sum(one["all"] for one in own) > 0.1 * len(own)]
    return compare.noise([100 * one[group] for one in own] for own in learned)


def network_of(folder: Path, method: str) -> Bottleneck:
    """The recorded network of seed 0 on CIFAR-100-LT at factor 100."""
    settings = settle(Settings(data="cifar100-lt", imbalance=100, method=method, seed=0))
    network = read_weights(folder / f"{run_id(settings)}.safetensors").network.eval()
    assert isinstance(network, Bottleneck)
    return network


@torch.inference_mode()
def log_answers(network: Bottleneck, x: Tensor, shares: Iterable[float]) -> dict[str, Tensor]:
    """Log-probabilities [N, C] of v_1, v_2, ..., their average with these `shares` (this book's Eq. 6.2), and z."""
    parts: dict[str, list[Tensor]] = {}
    for batch in x.split(250):
        out = network(batch)
        v = [logits.log_softmax(1) for logits in out.v_logits]
        own = {f"v_{i}": log_p for i, log_p in enumerate(v, 1)}
        own["average"] = sum(a * log_p.exp() for a, log_p in zip(shares, v, strict=True)).log()
        own["z"] = out.z_logits.log_softmax(1)
        for name, value in own.items():
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in parts.items()}


def right_by_class(log_p: Tensor, y: Tensor, counts: Tensor, tau: float) -> list[int]:
    """For each class, how many of its images are right once tau log n is subtracted."""
    right = (log_p - tau * counts.log()).argmax(1) == y
    return torch.bincount(y[right], minlength=len(counts)).tolist()


def on_shifting(network: Bottleneck, data: LongTailed) -> dict[str, dict[str, float]]:
    """Accuracy (0 to 1) of the network's own answer over the groups of classes, for each of SHIFTS."""
    found, y = features_of(network, data.test.x), data.test.y
    own = next(logits for name, logits in found.items() if name.startswith("logits/")).log_softmax(1)
    size = torch.bincount(y, minlength=len(data.counts)).double()
    moved = {f"{tau:g}": torch.tensor(right_by_class(own, y, data.counts, tau)) / size for tau in SHIFTS}
    return {
        tau: {group: round(float(by_class[mask].mean()), 6) for group, mask in data.shots.items()}
        for tau, by_class in moved.items()
    }


def on_test(network: Bottleneck, data: LongTailed, shares: Iterable[float]) -> dict[str, Any]:
    """By classifier: images right by class for each of TAUS, and how often each class is said at tau = 0; and how many
    of the images on which v_3 is wrong v_1 or v_2 has right."""
    said, y = log_answers(network, data.test.x, shares), data.test.y
    found: dict[str, Any] = {
        name: {f"{tau:g}": right_by_class(log_p, y, data.counts, tau) for tau in TAUS} for name, log_p in said.items()
    }
    says = {name: torch.bincount(log_p.argmax(1), minlength=len(data.counts)).tolist() for name, log_p in said.items()}
    right = {name: log_p.argmax(1) == y for name, log_p in said.items()}
    wrong = ~right["v_3"]
    rescued = wrong & (right["v_1"] | right["v_2"])
    counted = {"v_3 wrong": int(wrong.sum()), "of these v_1 or v_2 right": int(rescued.sum())}
    return {"right": found, "says": says} | counted


def on_training(network: Bottleneck, data: LongTailed, shares: Iterable[float]) -> dict[str, list[float]]:
    """By classifier: the mean probability of the true class over the first PER_CLASS training images of each class."""
    images = first_of_each_class(data.train, PER_CLASS)
    size = torch.bincount(images.y, minlength=len(data.counts))
    found = {}
    for name, log_p in log_answers(network, images.x, shares).items():
        own = log_p.exp().gather(1, images.y[:, None])[:, 0].double()
        total = torch.zeros(len(size), dtype=torch.float64).index_add(0, images.y, own)
        found[name] = [round(value, 4) for value in (total / size).tolist()]
    return found


def examples(network: Bottleneck, data: LongTailed, shares: Iterable[float], many: int = 5) -> list[dict[str, Any]]:
    """Training images of few-shot classes on which the teachers say what they say on average of such images.

    For each its class, the image as a PNG, and the answers [C] of all classifiers.
    """
    images = first_of_each_class(data.train, PER_CLASS)
    inside = data.shots["few"][images.y]
    images = Images(images.x[inside], images.y[inside])
    p = {name: log_p.exp() for name, log_p in log_answers(network, images.x, shares).items()}
    own = torch.stack([p[f"v_{i}"].gather(1, images.y[:, None])[:, 0] for i in (1, 2, 3)], 1)
    order = (own - own.mean(0)).div(own.std(0)).square().sum(1).argsort()
    found: list[dict[str, Any]] = []
    for row in order.tolist():
        label = int(images.y[row])
        if len(found) < many and data.classes[label] not in [e["class"] for e in found]:
            said = {name: [round(float(q), 4) for q in value[row]] for name, value in p.items()}
            found.append({"class": data.classes[label], "png": _png(images.x[row]), "says": said})
    return found


def _png(x: Tensor) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(x.permute(1, 2, 0).numpy()).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


@torch.inference_mode()
def views(network: Bottleneck, x: Tensor) -> dict[str, Tensor]:
    """Of each stage the pooled observation v_i and the map averaged over 4 x 4 cells, and z: [N, features]."""
    assert network.represent is not None
    parts: dict[str, list[Tensor]] = {}
    for batch in x.split(250):
        maps = network.backbone(network.normalised(batch))
        v = [observe(m) for observe, m in zip(network.observe, maps, strict=True)]
        own = {f"map {i}": F.adaptive_avg_pool2d(m, 4).flatten(1) for i, m in enumerate(maps, 1)}
        own |= {f"v_{i}": v_i for i, v_i in enumerate(v, 1)} | {"z": network.represent(v[-1])}
        for name, value in own.items():
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(values).clone() for name, values in parts.items()}


def probe(x: Tensor, y: Tensor, classes: int, decay: float, steps: int = 60) -> nn.Linear:
    """A linear softmax classifier, fitted to standardised features x [N, D] by L-BFGS with weight decay."""
    model = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    search = torch.optim.LBFGS(model.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(model(x), y) + decay * model.weight.square().sum()
        loss.backward()
        return loss

    search.step(closure)
    return model.requires_grad_(False)


def usable(network: Bottleneck, data: LongTailed) -> dict[str, dict[str, float]]:
    """What linear probes read of each view on test images: accuracy (0 to 1) and usable information in nats (6.6).

    Fitted to validation images, PROBED a class at most; a fifth of them chooses the decay. Classes without validation
    images are left out.
    """
    fit = first_of_each_class(data.validation, PROBED)
    some = torch.bincount(fit.y, minlength=len(data.counts)) > 0
    test = Images(*(part[some[data.test.y]] for part in data.test))
    name_of = some.long().cumsum(0) - 1
    y, y_test, classes = name_of[fit.y], name_of[test.y], int(some.sum())
    held = torch.arange(len(y)) % 5 == 0
    seen, unseen = views(network, fit.x), views(network, test.x)
    found = {}
    for name, x in seen.items():
        shift, scale = x.mean(0), x.std(0) + 1e-6
        x, new = (x - shift) / scale, (unseen[name] - shift) / scale
        losses = {}
        for decay in (1e-5, 1e-4, 1e-3, 1e-2):
            model = probe(x[~held], y[~held], classes, decay)
            losses[decay] = float(F.cross_entropy(model(x[held]), y[held]))
        logits = probe(x, y, classes, min(losses, key=losses.__getitem__))(new)
        nats = math.log(classes) - float(F.cross_entropy(logits, y_test))
        accuracy = float((logits.argmax(1) == y_test).double().mean())
        found[name] = {"numbers": x.shape[1], "accuracy": round(accuracy, 4), "nats": round(nats, 4)}
    return found | {"classes": {"numbers": classes, "accuracy": round(1 / classes, 4), "nats": 0.0}}


def measure(folder: Path, data: LongTailed) -> dict[str, Any]:
    """All of it, by method."""
    found: dict[str, Any] = {}
    for method in METHODS:
        alphas = cast(tuple[float, ...], methods_on(data.name)["mbib"].own["alphas"])
        shares = (*alphas, 1 - math.fsum(alphas))
        network = network_of(folder, method)
        found[method] = {"test": on_test(network, data, shares), "training": on_training(network, data, shares)}
        if method == "mbib":
            found[method] |= {"examples": examples(network, data, shares), "usable": usable(network, data)}
    classes = {"classes": data.classes, "counts": data.counts.tolist()}
    shifted = {method: on_shifting(network_of(folder, method), data) for method in SHIFTED}
    return {"data": data.name} | classes | {"shares": list(shares), "methods": found, "shifted": shifted}


def main(folder: Path) -> None:
    write(measure(folder, load("cifar100-lt", imbalance=100)), folder)


def write(found: dict[str, Any], folder: Path) -> None:
    text = json.dumps(found, ensure_ascii=False)
    (folder / "stages.json").write_text(text.replace('"methods"', '\n"methods"').replace("}, ", "},\n") + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
