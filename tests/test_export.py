"""Networks in files for other programs: the answers of `mbib predict`, for any batch size, or a sentence."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import coloured

from mbib_core import cli, export, extras
from mbib_core.evaluation import features_of
from mbib_core.export import CHECKED, Answering, export_onnx, export_torch
from mbib_core.serving import log_shift
from mbib_core.settings import Settings
from mbib_core.trainer import train
from mbib_core.weights import Saved, write_weights

METHODS = "mbib", "bsce", "sade", "tau-norm", "ldam-drw"  # ldam-drw: cosine head
NEEDS = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
onnx_there = pytest.mark.skipif(bool(NEEDS), reason=f"{', '.join(NEEDS)} not installed: pip install '.[export]'")


@cache
def trained(method: str) -> Saved:
    settings = Settings(data="coloured", method=method, schedule="glyphs", epochs=1, batch=16, threads=1)
    return train(settings, coloured([16, 12, 9]), device="cpu", progress=False)


def wanted(run: Saved, x: torch.Tensor, prior: str | None) -> torch.Tensor:
    """As `mbib predict` has them, in float64."""
    logits = features_of(run.network, x)
    first = next(value for name, value in logits.items() if name.startswith("logits/"))
    return (first.double().log_softmax(1) + (0.0 if prior is None else log_shift(run, prior))).softmax(1)


X = coloured([5, 4, 2]).train.x


@pytest.mark.slow
@pytest.mark.parametrize(("method", "prior"), [("mbib", None), *((method, "train") for method in METHODS)])
def test_what_torch_loads_answers_as_predict_does(method: str, prior: str | None, tmp_path: Path) -> None:
    run, more = trained(method), {"mbib.json": ""}
    found = export_torch(run, tmp_path / "run.pt2", prior=prior)
    assert found.difference <= 1e-6
    assert found.size == found.file.stat().st_size
    program = torch.export.load(tmp_path / "run.pt2", extra_files=more).module()
    for n in (1, len(X)):
        torch.testing.assert_close(program(X[:n]).double(), wanted(run, X[:n], prior), atol=1e-5, rtol=0)
    about = json.loads(more["mbib.json"])
    assert json.loads(about["classes"]) == run.classes
    assert (about["height"], about["width"], about["prior"]) == ("8", "8", prior or "as learned")


@pytest.mark.slow
@onnx_there
@pytest.mark.parametrize("method", METHODS)
def test_what_onnx_runtime_loads_answers_as_predict_does(method: str, tmp_path: Path) -> None:
    import onnxruntime

    run = trained(method)
    found = export_onnx(run, tmp_path / "run.onnx", prior="train")
    assert found.difference <= 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "run.onnx", providers=["CPUExecutionProvider"])
    for n in (1, len(X)):
        [answers] = session.run(["probabilities"], {"images": X[:n].numpy()})
        torch.testing.assert_close(torch.from_numpy(answers).double(), wanted(run, X[:n], "train"), atol=1e-5, rtol=0)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == run.classes
    assert (about["height"], about["width"], about["prior"]) == ("8", "8", "train")


def test_a_class_that_cannot_come_up_has_no_probability_and_the_network_is_left_as_it_was() -> None:
    run = trained("mbib")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    answers = Answering(run.network, log_shift(run, [1.0, 0.0, 3.0]))(X)
    assert (answers[:, 1] == 0).all()
    torch.testing.assert_close(answers.sum(1), torch.ones(len(X)))
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    assert all(p.requires_grad for p in run.network.parameters())


@pytest.mark.fault("an exported network that answers otherwise than PyTorch")
def test_a_file_that_answers_otherwise_is_not_written(tmp_path: Path) -> None:
    run, file = trained("mbib"), tmp_path / "run.pt2"
    answering = Answering(run.network, torch.zeros(3))
    with pytest.raises(ValueError, match=r"differ from PyTorch's by 0.1, more than 0.0001: .*run.pt2 was not written"):
        export._checked(answering, run, file, b"content", lambda x: answering(x) + 0.1)
    with pytest.raises(ValueError, match="no finite answer to each image in a batch of 2"):
        export._checked(answering, run, file, b"content", lambda x: answering(x)[:1])
    assert not file.exists()
    assert 1 in CHECKED


@pytest.mark.fault("mbib export --onnx without onnx")
def test_without_onnx_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch, capsys) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'^an ONNX file needs onnx: pip install "mbib-core\[export\]"$'):
        export_onnx(trained("mbib"), tmp_path / "run.onnx")


@pytest.mark.fault("a network that torch cannot export")
def test_a_network_that_cannot_be_exported_is_refused_in_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def fails(*_given: object, **_more: object) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(ValueError, match=r"^torch \S+ cannot export the network of mbib: no such operator$"):
        export_torch(trained("mbib"), tmp_path / "run.pt2")


@pytest.mark.slow
def test_the_command_says_what_goes_in_and_out_and_how_far_it_is_from_pytorch(tmp_path: Path, capsys) -> None:
    write_weights(trained("mbib"), tmp_path / "w.safetensors")
    words = ["export", str(tmp_path / "w.safetensors"), "--torch-export", str(tmp_path / "w.pt2"), "--prior", "train"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "w.pt2: uint8 images [B, 3, 8, 8] in, probabilities [B, 3] out" in said
    assert "at the most (allowed: 0.0001)" in said
