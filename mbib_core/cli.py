"""`mbib train | evaluate | predict | campaign | table`: the command line."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from collections.abc import Iterable, Iterator

    from mbib_core.data import LongTailed
    from mbib_core.runs import Trained
    from mbib_core.settings import Settings

EXAMPLES = """examples:
  mbib train mbib                                            Glyphs-LT, embedded: under a minute on 2 cores
  mbib train bsce --data cifar100-lt --imbalance 100         the paper's setting: hours on a processor
  mbib table                                                 what was trained, as a table
  mbib evaluate runs/NAME.safetensors                        the test accuracy of saved weights
  mbib train mbib --data folder:PATH                         your own pictures, one sub-folder a class
  mbib predict runs/NAME.safetensors PICTURES                the class of each picture, and how sure it is
  mbib campaign --processes 2                                the book's runs that have no record yet"""


def main(words: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 2 for bad input or a failed run, 75 if another process
    trains the run, 130 after Ctrl-C."""
    args = _parser().parse_args(words)
    try:
        status = args.run(args)
        sys.stdout.flush()  # here a reader that is gone is no error
        return status
    except KeyboardInterrupt:
        print("\nmbib: stopped; what was saved is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"mbib: {error}", file=sys.stderr)
        return getattr(error, "status", 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        print("mbib: the memory is full: close what else uses it, or choose another --device", file=sys.stderr)
        return 2


def _train(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from mbib_core.data import load
    from mbib_core.files import cache_folder
    from mbib_core.methods import settle
    from mbib_core.results import read_record, write_record
    from mbib_core.schedules import SCHEDULES
    from mbib_core.settings import command_line, run_id
    from mbib_core.trainer import pick_device, record_of, train
    from mbib_core.weights import write_weights

    settings, data = settle(_settings(args)), None
    if settings.folder is not None:  # a run on pictures of one's own is named after the pictures themselves
        data = load(settings.data, root=args.root)
        settings = replace(settings, pictures=data.fingerprint)
    name = run_id(settings)
    record_file = args.out / f"{name}.json"

    def made_before() -> bool:
        if args.again or not record_file.is_file():
            return False
        record = read_record(record_file)
        recipe = SCHEDULES[str(settings.schedule)].recipe
        if any(recipe.get(rule) != value for rule, value in record["recipe"].items()):
            raise ValueError(
                f"{record_file} was made when the schedule {settings.schedule} was another: --again replaces it"
            )
        print(f"this run was made before; --again trains it anew\n{_summary(record)}\nrecord   {record_file}")
        for wished, suffix in ((not args.no_weights, "safetensors"), (args.features, "npz")):
            if wished and not (file := record_file.with_suffix(f".{suffix}")).is_file():
                print(f"{file} is not there: --again makes it, too")
        return True

    if made_before():
        return 0
    device = pick_device(args.device)
    data = data or load(settings.data, imbalance=settings.imbalance, root=args.root)
    checkpoint = (args.checkpoints or cache_folder() / "checkpoints") / f"{name}.pt"
    with _lock(checkpoint.with_suffix(".lock"), name):
        if made_before():  # by another process, while this one was getting ready
            return 0
        run = train(
            settings, data, device=device, checkpoint=checkpoint, progress=not args.quiet, compiled=args.compile
        )
        record = record_of(run, data, command_line(settings))
        if not args.no_weights:
            write_weights(run, args.out / f"{name}.safetensors")
        if args.features:
            _write_features(run, data, args.out / f"{name}.npz")
        if not args.no_report:
            from mbib_core.report import write_report

            write_report(run, data, record, args.out)
        write_record(record, args.out)
        for left in (checkpoint, *checkpoint.parent.glob(f".{checkpoint.name}.*.part")):  # of a process that was killed
            left.unlink(missing_ok=True)
    print(_summary(record))
    print(f"record   {record_file}")
    if not args.no_weights:
        print(f"weights  {args.out / name}.safetensors")
    if not args.no_report:
        print(f"report   {args.out / name}.md")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from mbib_core.data import load
    from mbib_core.evaluation import evaluate
    from mbib_core.methods import method_of
    from mbib_core.trainer import pick_device
    from mbib_core.weights import read_weights

    run = read_weights(args.weights)
    settings = run.settings
    if settings.purpose == "choosing" and not args.validation:
        raise ValueError(f"{args.weights} is of a run for choosing settings, which no test set may judge: --validation")
    if settings.pictures is not None and settings.folder is None:
        raise ValueError(
            f"{args.weights} is of arrays, {settings.data}, and no name leads to them: mbib_core.evaluation.evaluate "
            f"takes the network and the data set"
        )
    data = load(settings.data, imbalance=settings.imbalance, root=args.root, size=run.size[0])
    if data.classes != run.classes:
        raise ValueError(f"{args.weights} knows other classes than {settings.data} has now: {len(run.classes)} of them")
    if data.fingerprint != settings.pictures:
        print(
            f"mbib: warning: the pictures in {settings.data} are not those of the training run: unless they lie in "
            f"train/ and test/, some of these may have been trained on",
            file=sys.stderr,
        )
    images = data.validation if args.validation else data.test
    network = run.network.to(pick_device(args.device))
    found = evaluate(network, images, data, adjusted=method_of(settings).adjusted)
    print(f"{args.weights.name} on {len(images.y)} {'validation' if args.validation else 'test'} pictures")
    print(_accuracy_lines(found))
    return 0


def _predict(args: argparse.Namespace) -> int:
    import csv

    import torch

    from mbib_core.data.folders import read_file
    from mbib_core.evaluation import features_of, of_kind
    from mbib_core.networks.bottleneck import default_prediction
    from mbib_core.trainer import pick_device
    from mbib_core.weights import read_weights

    run = read_weights(args.weights)
    run.network.to(pick_device(args.device))
    files, status = list(_picture_files(args.pictures)), 0
    if not files:
        raise ValueError(f"there is no picture in {', '.join(map(str, args.pictures))}")
    table = csv.writer(sys.stdout) if args.csv else None
    if table:
        table.writerow(["file", "class", "probability", "runner_up", "runner_up_probability"])
    for start in range(0, len(files), 256):
        pictures = []
        for file in files[start : start + 256]:
            try:
                pictures.append((file, torch.from_numpy(read_file(file, run.size)[0])))
            except ValueError as error:
                print(f"mbib: {error}", file=sys.stderr)
                status = 2
        if not pictures:
            continue
        found = features_of(run.network, torch.stack([x for _, x in pictures]))
        logits = of_kind("logits", found)
        best = logits[default_prediction(logits)].softmax(1).topk(2)
        for (file, _), (p, q), (i, j) in zip(pictures, best.values.tolist(), best.indices.tolist(), strict=True):
            if table:
                table.writerow([file, run.classes[i], f"{p:.4f}", run.classes[j], f"{q:.4f}"])
            else:
                print(f"{file}: {run.classes[i]} {100 * p:.0f} %, then {run.classes[j]} {100 * q:.0f} %")
    return status


def _picture_files(paths: "Iterable[Path]") -> "Iterator[Path]":
    """The files themselves, and all that lie in the folders, at any depth, but hidden ones."""
    from mbib_core.data.folders import visible

    for path in paths:
        if path.is_dir():
            yield from _picture_files(visible(path))
        else:
            yield path


def _table(args: argparse.Namespace) -> int:
    from mbib_core.results import read_records, show_table, table

    print(show_table(table(record for folder in args.folders for record in read_records(folder))))
    return 0


def _campaign(args: argparse.Namespace) -> int:
    from mbib_core.campaign import campaign

    return campaign(
        args.wanted,
        processes=args.processes,
        threads=args.threads,
        root=args.root,
        compiled=args.compile,
        dry=args.dry_run,
    )


def _settings(args: argparse.Namespace) -> "Settings":
    from dataclasses import fields

    from mbib_core.settings import Settings

    given = {f.name: getattr(args, f.name) for f in fields(Settings) if getattr(args, f.name, None) is not None}
    return Settings.of(given)


def _summary(record: dict) -> str:
    part = "test" if record["settings"]["purpose"] == "final" else "validation"
    settings, machine = record["settings"], record["machine"]
    head = (
        f"{record['run_id']}\n{settings['epochs']} epochs of {sum(record['counts'])} pictures in "
        f"{record['seconds']:.0f} s ({machine['precision']}, {machine['threads']} threads, {machine['device']}); "
        f"{record['parameters']} parameters\naccuracy in % on {record[part]['pictures']} {part} pictures"
    )
    return f"{head}\n{_accuracy_lines(record[part])}"


def _accuracy_lines(found: dict) -> str:
    shots = [shot for shot in ("many", "medium", "few", "all") if any(shot in a for a in found["accuracy"].values())]
    lines = [f"{'':18}" + "".join(f"{shot:>8}" for shot in shots)]
    for name, accuracy in found["accuracy"].items():
        mark = " *" if name == found["default"] and len(found["accuracy"]) > 1 else ""
        lines.append(f"  {name + mark:16}" + "".join(f"{100 * accuracy[shot]:8.1f}" for shot in shots))
    return "\n".join(lines)


def _write_features(run: "Trained", data: "LongTailed", path: Path) -> None:
    import io

    import numpy as np

    from mbib_core.data import first_of_each_class
    from mbib_core.evaluation import features_of, of_kind
    from mbib_core.files import write_atomically
    from mbib_core.networks.bottleneck import default_prediction

    images = first_of_each_class(data.test if run.settings.purpose == "final" else data.validation, 20)
    found = features_of(run.network, images.x)
    logits, arrays = of_kind("logits", found), of_kind("features", found)
    arrays["probabilities"] = logits[default_prediction(logits)].softmax(1)
    content = io.BytesIO()
    halves: dict[str, Any] = {name: f.cpu().numpy().astype(np.float16) for name, f in arrays.items()}
    np.savez_compressed(content, labels=images.y.numpy().astype(np.int16), **halves)
    write_atomically(path, content.getvalue())


def _lock(path: Path, name: str):  # type: ignore[no-untyped-def]
    """Held while a run is trained, so that no second process trains it too; the system frees it if we die."""
    from contextlib import contextmanager

    from filelock import FileLock, Timeout

    from mbib_core.runs import Busy

    @contextmanager
    def held():  # type: ignore[no-untyped-def]
        lock = FileLock(path, timeout=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise Busy(f"{name} is being trained by another process; wait for it, or stop it") from None
        except OSError as error:
            raise OSError(
                f"{path.parent}, where a run is saved while it trains, cannot be written ({error.strerror}): name "
                f"another folder with --checkpoints or MBIB_CACHE"
            ) from None
        try:
            yield
        finally:
            lock.release()

    return held()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mbib",
        allow_abbrev=False,
        description="Balanced information bottlenecks for long-tailed recognition.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    folder = Path

    train = commands.add_parser(
        "train", allow_abbrev=False, help="train one method on one data set and write its record"
    )
    train.add_argument("method", help="ce, bsce, bib, mbib, ...: an unknown name lists them all")
    train.add_argument("--data", help="glyphs-lt (default), cifar100-lt, or folder:PATH with a sub-folder a class")
    train.add_argument("--imbalance", type=float, help="largest count over smallest (default 100); not of a folder")
    train.add_argument(
        "--schedule",
        help="paper (200 epochs, ResNet-32), short (60), fast (100, growing pictures), glyphs (24, ResNet-8), "
        "folder (100, ResNet-20)",
    )
    train.add_argument("--epochs", type=int, help="other than the schedule's")
    train.add_argument("--seed", type=int, help="of initial weights and augmentation (default 0)")
    train.add_argument("--alphas", type=float, nargs="*", help="shares of the shallow observations, Eq. 11")
    train.add_argument("--beta", type=float, help="price of disagreement, Eq. 9")
    train.add_argument("--k", type=float, help="exponent of the class weights, Eq. 7")
    train.add_argument("--gamma", type=float, help="exponent of the class temperatures, Eq. 8")
    train.add_argument("--taps", type=int, help="number of observations")
    train.add_argument("--precision", help="auto (default), float32, bfloat16 or float16")
    train.add_argument(
        "--no-flip",
        dest="flip",
        action="store_const",
        const=False,
        help="never mirror a picture: for letters, digits, signs, whatever has a left and a right",
    )
    train.add_argument(
        "--choosing",
        dest="purpose",
        action="store_const",
        const="choosing",
        help="a run for choosing settings: validation pictures only, the test set stays unseen",
    )
    train.add_argument("--threads", type=int, help="processor threads (default: all)")
    train.add_argument("--device", help="cuda or cpu (default: the GPU where there is one)")
    train.add_argument(
        "--compile", action="store_true", help="build the network's passes first: minutes, then faster steps"
    )
    train.add_argument(
        "--root", type=folder, help="folder with cifar-100-python (default $MBIB_DATA, or the cache); where PATH starts"
    )
    train.add_argument("--out", type=folder, default=Path("runs"), help="folder of records and weights (default runs)")
    train.add_argument("--checkpoints", type=folder, help="folder where a run is saved while it trains")
    train.add_argument(
        "--again", action="store_true", help="train anew even if there is a record; what was cut goes on"
    )
    train.add_argument("--no-weights", action="store_true", help="keep the record alone")
    train.add_argument("--no-report", action="store_true", help="write no page and picture beside the record")
    train.add_argument(
        "--features",
        action="store_true",
        help="also keep v, z and probabilities of 20 test pictures a class (float16, .npz)",
    )
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate", allow_abbrev=False, help="the test accuracy of saved weights, in float32"
    )
    evaluate.add_argument("weights", type=folder, help="a .safetensors file that `mbib train` wrote")
    evaluate.add_argument("--validation", action="store_true", help="on the validation pictures instead")
    evaluate.add_argument("--device")
    evaluate.add_argument("--root", type=folder)
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser(
        "predict", allow_abbrev=False, help="the class of each picture, by saved weights, in float32"
    )
    predict.add_argument("weights", type=folder, help="a .safetensors file that `mbib train` wrote")
    predict.add_argument("pictures", type=folder, nargs="+", help="files of any format, or folders of them")
    predict.add_argument("--csv", action="store_true", help="as a table that a spreadsheet reads")
    predict.add_argument("--device")
    predict.set_defaults(run=_predict)

    table = commands.add_parser(
        "table", allow_abbrev=False, help="records as a table, mean and standard deviation over seeds"
    )
    table.add_argument("folders", type=folder, nargs="*", default=[Path("runs")], help="of records (default runs)")
    table.set_defaults(run=_table)

    campaign = commands.add_parser(
        "campaign", allow_abbrev=False, help="make the wanted runs that have no record yet, in order"
    )
    campaign.add_argument("wanted", type=folder, nargs="?", default=Path("book/results/wanted.toml"))
    campaign.add_argument("--processes", type=int, default=1, help="runs side by side")
    campaign.add_argument("--threads", type=int, default=1, help="processor threads of each")
    campaign.add_argument("--compile", action="store_true", help="as in train: for runs of many minutes")
    campaign.add_argument("--root", type=folder)
    campaign.add_argument("--dry-run", action="store_true", help="say what is missing, make nothing")
    campaign.set_defaults(run=_campaign)
    return parser


if __name__ == "__main__":
    sys.exit(main())
