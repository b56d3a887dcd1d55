"""Runs of a campaign as jobs of a cluster, through submitit: SLURM's, or processes that stand in for them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbib_core.extras import extra
from mbib_core.files import cache_folder, write_atomically

INSTALL = '"mbib-core[cluster]"'


class Jobs:
    """Starts a command as a job with `threads` cores, for at most `hours`, and with a GPU unless the `device` is the
    CPU.

    `cluster` is "slurm", or "local" for jobs on this machine. Raises ImportError without submitit, ValueError on a
    cluster that is not there.
    """

    def __init__(self, cluster: str, *, device: str | None, threads: int, hours: float, partition: str | None):
        submitit = extra("submitit", "a campaign on a cluster", install=INSTALL)
        self.folder = cache_folder() / "jobs"
        self.job_class = submitit.SlurmJob if cluster == "slurm" else submitit.LocalJob
        try:
            self.executor = submitit.AutoExecutor(folder=self.folder, cluster=cluster, slurm_max_num_timeout=1000)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"cannot reach a {cluster!r} cluster from here ({error}): start the campaign where sbatch is"
            ) from None
        self.executor.update_parameters(
            name="mbib",
            timeout_min=max(1, round(60 * hours)),
            cpus_per_task=threads,
            gpus_per_node=0 if device and not device.startswith("cuda") else 1,
            slurm_partition=partition,
        )

    def __call__(self, words: list[str], folder: Path, log: Path) -> "Job":
        try:
            job = self.executor.submit(Command(words, folder, log))
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise OSError(
                f"the cluster rejected the job ({reason}): check --partition, --hours and your quota"
            ) from None
        write_atomically(self.file_of(log.stem), str(job.job_id).encode())
        return Job(job)

    def file_of(self, name: str) -> Path:
        """Where the number of the last job of the run `name` is noted."""
        return self.folder / f"{name}.job"

    def queued(self, name: str) -> "Job | None":
        """The job of the run `name` that an earlier campaign queued, if it waits or runs still."""
        if not self.file_of(name).is_file():
            return None
        job = self.job_class(self.folder, self.file_of(name).read_text(encoding="utf-8").strip())
        return None if job.done(force_check=True) else Job(job)


@dataclass
class Command:
    """A command that a job runs in a folder; its exit status. A job that was stopped before it was done, as it had no
    time left or made room for another, is requeued, and resumes from what the command saved."""

    words: list[str]
    folder: Path
    log: Path

    def __call__(self) -> int:
        with self.log.open("ab") as file:
            return subprocess.run(self.words, cwd=self.folder, stdout=file, stderr=file, check=False).returncode

    def checkpoint(self) -> Any:
        return extra("submitit", "a job", install=INSTALL).helpers.DelayedSubmission(self)


class Job:
    """A job as a process is seen: `poll` gives its exit status once it has one. It outlives the campaign."""

    def __init__(self, job: Any):
        self.job = job
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self.job.done():
            try:
                self.returncode = self.job.result()
            except Exception as error:  # it was cancelled, or never ran
                command: Command = self.job.submission().function
                with command.log.open("a") as file:
                    print(error, file=file)
                self.returncode = 1
        return self.returncode

    def terminate(self) -> None:
        """Leaves it to the cluster."""

    def wait(self) -> None:
        """Leaves it to the cluster."""
