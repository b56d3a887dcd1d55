"""`mbib train | evaluate | check | predict | export | table | methods | campaign`: the command line."""

import argparse
import difflib
import os
import re
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mbib_core.text import cell, printable

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from collections.abc import Iterator

    from mbib_core.settings import Settings

EXAMPLES = """examples:
  mbib train mbib                                            Glyphs-LT, embedded: under a minute on 2 cores
  mbib train bsce --data cifar100-lt --imbalance 100         the paper's setting: hours on a CPU
  mbib table                                                 what was trained, as a table
  mbib evaluate runs/NAME.safetensors                        the test accuracy of saved weights
  mbib train mbib --data folder:PATH                         your own pictures, one sub-folder a class
  mbib train mbib --data list:FOLDER --size 64               train.txt, val.txt, test.txt of paths and labels
  mbib predict runs/NAME.safetensors PICTURES                the class of each picture, and how sure it is
  mbib evaluate runs/NAME.safetensors --data folder:OTHER    the accuracy on other pictures of the same classes
  mbib export runs/NAME.safetensors --onnx FILE              the network as one file for other programs
  mbib methods                                               what methods there are, and what each costs
  mbib campaign --processes 2                                the book's runs that have no record yet"""


KNOWN_AS = {  # what other programs call an option
    "--lr": "--rate",
    "--learning-rate": "--rate",
    "--wd": "--weight-decay",
    "--bs": "--batch",
    "--output": "--out",
    "--gpu": "--device",
    "--arch": "--backbone",
    "--model": "--backbone",
}
FULL = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "unable to allocate")


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a job scheduler sends it."""


def main(words: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 2 for bad input or a failed run, 75 if another process
    trains the run, 130 after Ctrl-C, 143 after SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's code page lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(words)
    try:
        with _terminable():
            status = args.run(args)
        sys.stdout.flush()  # here a reader that is gone is no error
        return status
    except KeyboardInterrupt as error:
        print("\nmbib: stopped; what was saved is kept, and the same command goes on from there", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError, RuntimeError, ImportError) as error:
        if not (said := _sentence(error, args)):
            raise
        _complain(said)
        return getattr(error, "status", 2)


def _sentence(error: Exception, args: argparse.Namespace) -> str:
    """What to tell the user of an error; "" for one that is our own."""
    said = str(error)
    full = isinstance(error, RuntimeError) and any(words in said.lower() for words in FULL)
    if full or isinstance(error, MemoryError):
        more = re.search(r"(?:tried|unable) to allocate ([\d.]+ \w+)", said, re.IGNORECASE)
        given = {name: getattr(args, name, 1) for name in ("batch", "size", "processes")}
        ways = [f"a smaller --{name}" + (f" than {n}" if n else "") for name, n in given.items() if n != 1]
        ways += ["--stream"] if hasattr(args, "stream") else []
        ways += ["another --device"] if hasattr(args, "device") else []
        tried = f"try {', '.join(ways)}, or " if ways else ""
        return f"the memory is full{f' ({more[1]} more were wanted)' if more else ''}: {tried}close what else uses it"
    if isinstance(error, RecursionError) and "JSON" in said:
        return "a JSON file is nested too deeply to be one that mbib wrote"
    if isinstance(error, RuntimeError):
        home = "no home folder is known: write paths without ~, and set MBIB_CACHE to a folder for data and checkpoints"
        return home if "home directory" in said else ""
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename} cannot be used" if error.filename else "the output cannot be written"
        return f"{what} ({error.strerror})"
    return said


def _complain(words: object) -> None:
    print(f"mbib: {printable(words, keep=chr(10))}", file=sys.stderr)


@contextmanager
def _terminable() -> "Iterator[None]":
    """Within it SIGTERM stops a command as Ctrl-C does; a second one ends the process at once."""

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    main_thread = threading.current_thread() is threading.main_thread()  # no other may set handlers
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _train(args: argparse.Namespace) -> int:
    from mbib_core.runs import make

    made = make(
        _settings(args),
        out=args.out,
        root=args.root,
        checkpoints=args.checkpoints,
        device=args.device,
        compiled=args.compile,
        sync_bn=args.sync_bn,
        captured=not args.no_capture,
        again=args.again,
        weights=not args.no_weights,
        features=args.features,
        report=not args.no_report,
        skip_broken=args.skip_broken,
        workers=args.workers,
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
    from mbib_core.devices import pick_device, readers
    from mbib_core.serving import labelled, score
    from mbib_core.weights import read_weights

    run = read_weights(args.weights)
    device = pick_device(args.device)
    given = labelled(run, args.data, root=args.root, validation=args.validation, skip_broken=args.skip_broken)
    for words in given.warnings:
        _complain(f"warning: {words}")
    run.network.to(device)
    with readers(args.workers):
        found = score(run, given, batch=args.batch)
    print(printable(f"{args.weights.name} on {given.what}: accuracy in %"))
    print(f"{_accuracy_lines(found)}\n{_also(found)}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from dataclasses import replace
    from typing import Any

    from tqdm.auto import tqdm

    from mbib_core.data import describe, load
    from mbib_core.devices import readers

    data = load(args.data, root=args.root, stream=True)
    print(printable(describe(data)))
    if not data.streamed:
        return 0
    parts: list[Any] = [data.train, data.validation, data.test]
    broken: set[str] = set()
    with readers(args.workers), tqdm(total=sum(len(part.y) for part in parts), unit="picture", disable=None) as bar:
        for part in (replace(part, skip_broken=True, told=broken) for part in parts):
            for chunk in part.chunks(100):
                bar.update(len(chunk.y))
    print(f"all pictures were read; {len(broken)} are broken" + ", and --skip-broken leaves them out" * bool(broken))
    return 2 if broken else 0


def _predict(args: argparse.Namespace) -> int:
    import csv

    from mbib_core.devices import pick_device
    from mbib_core.serving import accuracy_in_folders, predict, read_prior
    from mbib_core.weights import read_weights

    run = read_weights(args.weights)
    run.network.to(pick_device(args.device))
    prior = args.prior if args.prior in (None, "train") else read_prior(_path(args.prior), run.classes)
    top, status = min(args.top, len(run.classes)), 0
    answers: list[tuple[str, str]] = []
    raw = str if not sys.stdout.isatty() else printable  # a file holds names as they are
    table = csv.writer(sys.stdout, lineterminator="\n") if args.csv or args.probabilities else None
    for name, found in predict(run, args.pictures, prior=prior, batch=args.batch):
        if isinstance(found, ValueError):
            _complain(found)
            status = 2
            continue
        best = found.topk(top)
        given = [(run.classes[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        if table:
            if not answers:
                table.writerow(_head(top, run.classes if args.probabilities else []))
            row = [cell(raw(name)), *(text for label, p in given for text in (cell(raw(label)), f"{p:.4f}"))]
            table.writerow(row + ([f"{p:.6g}" for p in found.tolist()] if args.probabilities else []))
        else:
            print(printable(f"{name}: " + ", then ".join(f"{label} {100 * p:.0f} %" for label, p in given)))
        answers.append((name, given[0][0]))
    if not answers and not status:
        raise ValueError(f"there is no picture in {', '.join(args.pictures)}")
    if said := accuracy_in_folders(answers, run.classes):
        _complain(said)
    return status


def _export(args: argparse.Namespace) -> int:
    from mbib_core.export import TOLERANCE, export_onnx, export_torch
    from mbib_core.serving import read_prior
    from mbib_core.weights import read_weights

    run = read_weights(args.weights)
    prior = args.prior if args.prior in (None, "train") else read_prior(_path(args.prior), run.classes)
    write = export_onnx if args.onnx else export_torch
    found = write(run, args.onnx or args.torch_export, prior=prior)
    print(
        f"{found.file}: uint8 images [B, 3, {run.size[0]}, {run.size[1]}] in, probabilities [B, {len(run.classes)}] "
        f"out, {found.size / 1e6:.1f} MB\nthey differ from PyTorch's by {found.difference:.1g} at the most (allowed: "
        f"{TOLERANCE:g})"
    )
    return 0


def _head(top: int, classes: list[str]) -> list[str]:
    """The columns of `mbib predict --csv`: the `top` classes, their probabilities, and that of each of `classes`."""
    names = ["class", "runner_up", *(f"class_{place}" for place in range(3, top + 1))][:top]
    pairs = [text for name in names for text in (name, "probability" if name == "class" else f"{name}_probability")]
    return ["file", *pairs, *(f"P({name})" for name in classes)]


def _table(args: argparse.Namespace) -> int:
    from mbib_core.results import conditions, csv_table, find, read_records, show_table, table

    records = [record for folder in args.folders for record in read_records(folder)]
    if args.methods:
        from mbib_core.overview import reached, show_reached

        what = {"data": args.data, "imbalance": args.imbalance, "schedule": args.schedule}
        print(printable(show_reached(reached(records, **what), **what), keep="\n"))
        return 0
    frame = table(find(records, **conditions(args.where)) if args.where else records)
    text = csv_table(frame) if args.csv and len(frame) else printable(f"{show_table(frame)}\n", keep="\n")
    print(text, end="")
    return 0


def _methods(args: argparse.Namespace) -> int:
    from mbib_core.overview import catalogue, show_catalogue

    print(show_catalogue(catalogue()))
    return 0


def _campaign(args: argparse.Namespace) -> int:
    from mbib_core.campaign import campaign

    return campaign(
        args.wanted,
        out=args.out,
        only=args.only,
        processes=args.processes,
        threads=args.threads,
        minutes=args.minutes,
        root=args.root,
        device=args.device,
        compiled=args.compile,
        captured=not args.no_capture,
        dry=args.dry_run,
        cluster=args.cluster,
        hours=args.hours,
        partition=args.partition,
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
    lines = [f"{'mean over classes':18}" + "".join(f"{shot:>8}" for shot in shots)]
    for name, accuracy in found["accuracy"].items():
        mark = " *" if name == found["default"] and len(found["accuracy"]) > 1 else ""
        lines.append(f"  {name + mark:16}" + "".join(f"{100 * accuracy[shot]:8.1f}" for shot in shots))
    return "\n".join(lines)


def _also(found: dict) -> str:
    """What else is said of the default prediction."""
    words = {"micro": "over pictures", "macro_f1": "macro-F1", "top5": "top-5", "calibration": "calibration error"}
    return f"{found['default']}: " + ", ".join(
        f"{w} {100 * found[name]:.1f}" for name, w in words.items() if name in found
    )


def _path(word: str) -> Path:
    """A path as a shell takes it: ~ is the home folder, where there is one."""
    return Path(os.path.expanduser(word))


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is no whole number from 1")
    return int(word)


class _Command(argparse.ArgumentParser):
    """A sub-command's options; a wrong one is told with this command's usage, and with the nearest that there is."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = next((word.split("=")[0] for word in unknown if word.startswith("-")), unknown[0])
            options = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            known = KNOWN_AS.get(word, "--")[2:]
            near = [known] if known in options else difflib.get_close_matches(word.lstrip("-"), options, n=1)
            hint = f"; did you mean --{near[0]}?" if near else f"; `{self.prog} --help` lists what there is"
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=int,
        help="processes that read images which are not in memory (default: the cores but one, 8 at most; 0: none)",
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from mbib_core.results import version_of_code

        found = version_of_code()
        print(f"mbib {found}" if found != "unknown" else "mbib, of an unknown version: mbib-core is not installed")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    from mbib_core.settings import describe

    parser = argparse.ArgumentParser(
        "mbib",
        allow_abbrev=False,
        description="Balanced information bottlenecks for long-tailed recognition.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="the version of this program")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)
    folder = _path

    train = commands.add_parser(
        "train", allow_abbrev=False, help="train one method on one data set and write its record"
    )
    for name, setting in describe().items():
        if name == "method":
            train.add_argument("method", help=setting.help)
        elif name == "stream":
            train.add_argument("--stream", action="store_const", const=True, help=setting.help)
        elif name not in ("pictures", "purpose", "flip", "test_curve"):
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
        "--test-curve",
        action="store_const",
        const=True,
        help="score the test images after every epoch, too: what choosing the best one by them would gain; nothing is "
        "chosen by it",
    )
    train.add_argument(
        "--choosing",
        dest="purpose",
        action="store_const",
        const="choosing",
        help="a run for choosing settings: validation images only, the test set stays unseen",
    )
    train.add_argument("--device", help="cuda, cuda:1, or cpu (default: the first NVIDIA GPU, if there is one)")
    train.add_argument(
        "--compile",
        action="store_true",
        help="compile the network first: takes minutes, then steps are faster",
    )
    train.add_argument(
        "--no-capture", action="store_true", help="on a GPU, launch a step's work piece by piece, not as one graph"
    )
    train.add_argument(
        "--sync-bn",
        action="store_true",
        help="under torchrun: batch norm of the whole batch, not of each process's share",
    )
    train.add_argument(
        "--root",
        type=folder,
        help="folder with cifar-100-python (default $MBIB_DATA, or the cache); where PATH starts; "
        "where the paths in a list start (default: where it lies)",
    )
    train.add_argument("--out", type=folder, default=Path("runs"), help="folder of records and weights (default runs)")
    train.add_argument("--checkpoints", type=folder, help="folder where a run is saved while it trains")
    train.add_argument(
        "--again", action="store_true", help="train anew even if there is a record; what was cut goes on"
    )
    train.add_argument("--skip-broken", action="store_true", help="leave broken images out, and name them")
    _add_workers(train)
    train.add_argument("--no-weights", action="store_true", help="keep the record alone")
    train.add_argument("--no-report", action="store_true", help="write no page and picture beside the record")
    train.add_argument(
        "--features",
        action="store_true",
        help="also keep v, z and probabilities of 20 test pictures a class (float16, .npz)",
    )
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", allow_abbrev=False, help="accuracy of saved weights, in float32")
    evaluate.add_argument("weights", type=folder, help="a .safetensors file that `mbib train` wrote")
    evaluate.add_argument(
        "--data",
        help="another data set with classes of the same names: folder:PATH, with a sub-folder a class; what lies in "
        "PATH/test/ is scored, or all of PATH; or list:FOLDER, whose test.txt is (train.txt must be there, too); or "
        "csv:FILE, whose rows of split test are, without that column 15 %% of each class (default: the test pictures "
        "of the data set it was trained on)",
    )
    evaluate.add_argument("--validation", action="store_true", help="on the validation pictures instead")
    evaluate.add_argument("--batch", type=_count, default=500, help="pictures at a time (default 500)")
    evaluate.add_argument("--device", help="cuda, cuda:1, or cpu (default: the first NVIDIA GPU, if there is one)")
    evaluate.add_argument(
        "--root",
        type=folder,
        help="as in train",
    )
    evaluate.add_argument("--skip-broken", action="store_true", help="leave broken images out, and name them")
    _add_workers(evaluate)
    evaluate.set_defaults(run=_evaluate)

    check = commands.add_parser(
        "check", allow_abbrev=False, help="read every picture of a data set once, and name the broken ones"
    )
    check.add_argument("data", help="folder:PATH, list:FOLDER, csv:FILE, imagenet-lt:FOLDER, ... as in train")
    check.add_argument("--root", type=folder, help="as in train")
    _add_workers(check)
    check.set_defaults(run=_check)

    predict = commands.add_parser(
        "predict", allow_abbrev=False, help="the class of each picture, by saved weights, in float32"
    )
    predict.add_argument("weights", type=folder, help="a .safetensors file that `mbib train` wrote")
    predict.add_argument(
        "pictures", nargs="+", help="files of any format, folders of them, or - for one on standard input"
    )
    predict.add_argument("--top", type=_count, default=2, help="how many classes to name, best first (default 2)")
    predict.add_argument("--csv", action="store_true", help="as a table that a spreadsheet reads")
    predict.add_argument(
        "--probabilities", action="store_true", help="as --csv, with the probability of every class, P(NAME)"
    )
    predict.add_argument(
        "--prior",
        metavar="FILE|train",
        help="how often each class comes up among these pictures, lines of class,share (default: each as often as the "
        "others; plain cross-entropy: as in training); train: as often as in training",
    )
    predict.add_argument("--batch", type=_count, default=256, help="pictures at a time (default 256)")
    predict.add_argument("--device", help="cuda, cuda:1, or cpu (default: the first NVIDIA GPU, if there is one)")
    predict.set_defaults(run=_predict)

    export = commands.add_parser(
        "export", allow_abbrev=False, help="saved weights as one file for other programs, checked against PyTorch"
    )
    export.add_argument("weights", type=folder, help="a .safetensors file that `mbib train` wrote")
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument("--onnx", type=folder, metavar="FILE", help='an ONNX model: pip install "mbib-core[export]"')
    form.add_argument("--torch-export", type=folder, metavar="FILE", help="what torch.export.load reads, a .pt2 file")
    export.add_argument("--prior", metavar="FILE|train", help="as in predict: how often each class comes up")
    export.set_defaults(run=_export)

    table = commands.add_parser(
        "table", allow_abbrev=False, help="records as a table, mean and standard deviation over seeds"
    )
    table.add_argument("folders", type=folder, nargs="*", default=[Path("runs")], help="of records (default runs)")
    table.add_argument("--csv", action="store_true", help="as a table that a spreadsheet reads")
    table.add_argument(
        "--where",
        action="append",
        metavar="NAME=VALUE",
        help="only runs with this setting, such as method=mbib; may be given several times",
    )
    table.add_argument(
        "--methods", action="store_true", help="one row a method, by one recipe, with what it costs; the paper's beside"
    )
    table.add_argument("--data", default="glyphs-lt", help="with --methods: which data (default glyphs-lt)")
    table.add_argument("--imbalance", type=float, default=100, help="with --methods: which factor (default 100)")
    table.add_argument("--schedule", help="with --methods: which schedule (default: the usual one of the data)")
    table.set_defaults(run=_table)

    methods = commands.add_parser("methods", allow_abbrev=False, help="what methods there are, and what each costs")
    methods.set_defaults(run=_methods)

    campaign = commands.add_parser(
        "campaign", allow_abbrev=False, help="make the wanted runs that have no record yet, in order"
    )
    campaign.add_argument(
        "wanted", type=folder, nargs="?", default=Path("book/results/wanted.toml"), help="list of runs, TOML"
    )
    campaign.add_argument(
        "--only", default="", metavar="REGEX", help="runs with this in their name, such as paper-s[12]"
    )
    campaign.add_argument("--out", type=folder, help="folder of the records (default: beside the list)")
    campaign.add_argument("--processes", type=int, default=1, help="runs side by side, also on one GPU")
    campaign.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    campaign.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="stop after so many minutes; unfinished runs continue in the next campaign",
    )
    campaign.add_argument("--device", help="as in train; cpu asks a cluster for no GPU")
    campaign.add_argument("--compile", action="store_true", help="as in train: for runs of many minutes")
    campaign.add_argument("--no-capture", action="store_true", help="as in train")
    campaign.add_argument("--root", type=folder, help="as in train")
    campaign.add_argument("--dry-run", action="store_true", help="say what is missing, make nothing")
    campaign.add_argument(
        "--cluster",
        choices=("slurm", "local"),
        help="slurm: each run as a job of its own, with MBIB_CACHE on a shared disk; local: as processes of this "
        "machine, to try it out",
    )
    campaign.add_argument("--hours", type=float, default=24, help="of a job; one that needs more is requeued")
    campaign.add_argument("--partition", help="of the cluster")
    campaign.set_defaults(run=_campaign)
    return parser


if __name__ == "__main__":
    sys.exit(main())
