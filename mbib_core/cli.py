"""`mbib train | evaluate | predict | campaign | table`: the command line."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from collections.abc import Iterable, Iterator

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
    from mbib_core.runs import make

    made = make(
        _settings(args),
        out=args.out,
        root=args.root,
        checkpoints=args.checkpoints,
        device=args.device,
        compiled=args.compile,
        again=args.again,
        weights=not args.no_weights,
        features=args.features,
        report=not args.no_report,
        progress=not args.quiet,
    )
    if made is None:  # not the first of several processes
        return 0
    if made.run is None:
        print("this run was made before; --again trains it anew")
    print(f"{_summary(made.record)}\nrecord   {made.file}")
    for kind, file in made.beside.items():
        if file.is_file():
            print(f"{kind:8} {file}")
        elif kind != "report":
            print(f"{file} is not there: --again makes it, too")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from mbib_core.data import load
    from mbib_core.devices import pick_device
    from mbib_core.evaluation import evaluate
    from mbib_core.methods import method_of
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
    found = evaluate(network, images, data, predict=method_of(settings).predict)
    print(f"{args.weights.name} on {len(images.y)} {'validation' if args.validation else 'test'} pictures")
    print(_accuracy_lines(found))
    return 0


def _predict(args: argparse.Namespace) -> int:
    import csv

    import torch

    from mbib_core.data.folders import read_file
    from mbib_core.devices import pick_device
    from mbib_core.evaluation import features_of, of_kind
    from mbib_core.networks.bottleneck import default_prediction
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
    from mbib_core.settings import Settings, describe

    given = {name: getattr(args, name, None) for name in describe()}
    return Settings.of({name: value for name, value in given.items() if value is not None})


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


def _parser() -> argparse.ArgumentParser:
    from mbib_core.settings import describe

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
    for name, setting in describe().items():
        if name == "method":
            train.add_argument("method", help=setting.help)
        elif name not in ("pictures", "purpose", "flip"):
            option = f"--{name.replace('_', '-')}"
            train.add_argument(option, type=setting.kind, nargs="*" if setting.several else None, help=setting.help)
    train.add_argument(
        "--no-flip",
        dest="flip",
        action="store_const",
        const=False,
        help="never mirror an image: for letters, digits, signs, whatever has a left and a right",
    )
    train.add_argument(
        "--choosing",
        dest="purpose",
        action="store_const",
        const="choosing",
        help="a run for choosing settings: validation images only, the test set stays unseen",
    )
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
