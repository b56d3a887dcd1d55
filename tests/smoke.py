"""What must work in any environment that the package promises: `python tests/smoke.py`, with or without pytest.

Every module is imported, and a network trained for one epoch, tabulated, evaluated and asked about an image, in an
empty folder. `--lean`: without the extra `book`, where what needs it must say how to get it, and the rest must work.
"""

import importlib
import pkgutil
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

BOOK = ("pandas", "matplotlib", "seaborn")


def mbib(*words: str, folder: str, status: int = 0) -> str:
    """What the command says, both streams; ends with it where the exit status is another than `status`."""
    command = [sys.executable, "-m", "mbib_core.cli", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    if done.returncode != status:
        sys.exit(f"mbib {' '.join(words)} ended with {done.returncode}, not {status}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def main(lean: bool) -> None:
    import mbib_core

    shown = ("torch", "numpy", "safetensors", "tqdm", "filelock", "pillow", "jaxtyping", *(() if lean else BOOK))
    print(f"Python {platform.python_version()},", ", ".join(f"{name} {version(name)}" for name in shown))
    for module in pkgutil.walk_packages(mbib_core.__path__, "mbib_core."):
        if not (lean and module.name.startswith("mbib_core.figures")):
            importlib.import_module(module.name)
    assert not (lean and {*BOOK} & {*sys.modules}), "an environment that is not lean"
    from PIL import Image

    with TemporaryDirectory() as folder:
        assert "mbib predict" in mbib("--help", folder=folder)
        said = mbib("train", "mbib", "--data", "glyphs-lt", "--epochs", "1", "--threads", "1", folder=folder)
        [weights] = Path(folder, "runs").glob("*.safetensors")
        assert weights.with_suffix(".json").is_file()
        assert [weights.with_suffix(suffix).is_file() for suffix in (".md", ".png")] == [not lean] * 2
        missing = 'pip install "mbib-core[book]"'
        assert (missing in said) == lean, said
        assert (missing if lean else "mbib") in mbib("table", folder=folder, status=2 if lean else 0)
        assert "accuracy in %" in mbib("evaluate", str(weights), folder=folder)
        Image.new("RGB", (40, 30), "white").save(Path(folder, "image.png"))
        assert mbib("predict", str(weights), "image.png", folder=folder).startswith("image.png: ")
    print("works")


if __name__ == "__main__":
    main("--lean" in sys.argv[1:])
