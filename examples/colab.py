"""A run on a Colab GPU from a terminal: `colab run --gpu T4 examples/colab.py` (google-colab-cli), or any machine.

Installs mbib-core beside the machine's own torch, says what it found, and does what `mbib` does with the words that
follow the file's name, or with those of TRAIN. The run ends with its accuracy by shot; with the folder `out` on a disk
that stays, such as a mounted Drive, a run that was cut goes on when the same command is given again.
"""

import importlib.util
import subprocess
import sys

REPOSITORY = "git+https://github.com/balanced-bottlenecks/mbib-book@v0.1.0"
TRAIN = ["train", "mbib", "--data", "cifar100-lt", "--out", "runs", "--checkpoints", "runs/checkpoints"]

if importlib.util.find_spec("mbib_core") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"mbib-core[book] @ {REPOSITORY}"], check=True)

import torch  # noqa: E402 - not before the installation

from mbib_core.cli import main  # noqa: E402

card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: a CPU takes hours for CIFAR-100-LT"
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, {card}")
sys.exit(main(sys.argv[1:] or TRAIN))
