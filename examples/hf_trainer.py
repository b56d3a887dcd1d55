"""BIBLoss in Hugging Face's Trainer, on a small ResNet drawn at random: `python examples/hf_trainer.py [EPOCHS]`."""

import sys
import tempfile

import torch
from torch import Tensor, nn
from transformers import EvalPrediction, ResNetConfig, ResNetModel, Trainer, TrainingArguments

from mbib_core import BIBLoss, load
from mbib_core.metrics import accuracy_by_class, by_shot

data = load("glyphs-lt")


class TwoClassifiers(nn.Module):  # on v, what the network pools, and on z, a layer behind it
    def __init__(self, config: ResNetConfig, classes: int):
        super().__init__()
        self.trunk, width = ResNetModel(config), config.hidden_sizes[-1]
        self.represent = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
        self.of_v, self.of_z = nn.Linear(width, classes), nn.Linear(width, classes)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        v = self.trunk(pixel_values).pooler_output.flatten(1)
        return self.of_v(v), self.of_z(self.represent(v))


class BalancedTrainer(Trainer):
    criterion = BIBLoss(data.counts, beta=1.0)  # .to(args.device), if the network is on a GPU

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore
        v_logits, z_logits = model(inputs["pixel_values"])
        loss = self.criterion(v_logits, z_logits, inputs["labels"])
        return (loss, {"logits": (v_logits + z_logits) / 2}) if return_outputs else loss


def accuracy(answers: EvalPrediction) -> dict[str, float]:
    logits, y = map(torch.as_tensor, (answers.predictions, answers.label_ids))
    return by_shot(accuracy_by_class(logits, y), data.shots)


def items(x: Tensor, y: Tensor) -> list[dict[str, Tensor]]:
    return [{"pixel_values": (x_i - 127.5) / 64, "labels": y_i} for x_i, y_i in zip(x, y, strict=True)]


torch.manual_seed(0)
small = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
own = {"remove_unused_columns": False, "label_names": ["labels"]}  # what `forward` does not name is kept
own |= {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 500, "dataloader_drop_last": True}
own |= {"learning_rate": 3e-3, "num_train_epochs": int(sys.argv[1]) if len(sys.argv) > 1 else 6}
parts = {"train_dataset": items(*data.train), "eval_dataset": items(*data.test)}
with tempfile.TemporaryDirectory() as folder:
    args, model = TrainingArguments(folder, **own, **quiet), TwoClassifiers(small, len(data.classes))
    trainer = BalancedTrainer(model, args, compute_metrics=accuracy, **parts)
    before, _, after = trainer.evaluate(), trainer.train(), trainer.evaluate()
for shot in ("all", "many", "medium", "few"):
    a, b = (100 * found[f"eval_{shot}"] for found in (before, after))
    print(f"{shot:8}{a:5.1f} % of test images right before, {b:5.1f} % after")
