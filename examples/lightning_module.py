"""MBIBLoss in a LightningModule: `pip install lightning`, then `python examples/lightning_module.py [EPOCHS]`."""

import logging
import sys

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mbib_core import METHODS, MBIBLoss, load
from mbib_core.metrics import accuracy_by_class, by_shot

data = load("glyphs-lt")


class MBIB(lightning.LightningModule):
    def __init__(self, counts: Tensor, rate: float = 0.1):
        super().__init__()
        self.network = METHODS["mbib"].network(len(counts), depth=8)  # or any: logits of three observations, and of z
        self.criterion = MBIBLoss(counts, alphas=(0.1, 0.3), beta=1.0)  # the counts are a buffer: Lightning moves them
        self.rate, self.answers = rate, []

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        outputs = self.network(batch[0])
        loss = self.criterion(outputs.v_logits, outputs.z_logits, batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        outputs = self.network(batch[0])
        self.answers.append(((outputs.v_logits[-1] + outputs.z_logits) / 2, batch[1]))

    def on_validation_epoch_end(self) -> None:
        logits, y = (torch.cat(parts) for parts in zip(*self.answers, strict=True))
        self.answers.clear()
        self.log_dict(by_shot(accuracy_by_class(logits, y), data.shots))  # means over classes, 0 to 1

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9, weight_decay=3e-4)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
lightning.seed_everything(0)
train = DataLoader(TensorDataset(data.train.x, data.train.y), 64, shuffle=True, drop_last=True)
test = DataLoader(TensorDataset(data.test.x, data.test.y), 500)
quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 6
trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)
model = MBIB(data.counts)
before = trainer.validate(model, test, verbose=False)
trainer.fit(model, train)
after = trainer.validate(model, test, verbose=False)
for shot, value in after[0].items():
    print(f"{shot:8}{100 * before[0][shot]:5.1f} % of test images right before, {100 * value:5.1f} % after")
