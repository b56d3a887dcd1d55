"""The command line: what each command of `mbib` does with its options, and how it tells an error."""

import argparse
import os
import re
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from mbib_core.options import parser, path_of
from mbib_core.text import cell, printable

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from collections.abc import Iterator

    from mbib_core.settings import Settings

NAMED = 5  # files of one kind that `mbib check` names
FULL = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "unable to allocate")


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a job scheduler sends it."""


def main(words: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 1 if `mbib check` found what cannot be read, 2 for bad
    input or a failed run, 75 if another process trains the run, 130 after Ctrl-C, 143 after SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's code page lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(words)
    try:
        with _terminable():
            status = COMMANDS[args.command](args)
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
    import csv
    from contextlib import nullcontext
    from typing import Any

    from tqdm.auto import tqdm

    from mbib_core.data import describe, load
    from mbib_core.data.checking import Unreadable, unreadable
    from mbib_core.data.streamed import whereabouts
    from mbib_core.devices import readers

    data = load(args.data, root=args.root, stream=True, skip_broken=None)
    print(printable(describe(data)))
    if not data.streamed:
        return 0
    if args.out and args.out.exists():
        raise ValueError(f"{args.out} is there already: name another file with --out")
    n, found = sum(len(part.y) for part in (data.train, data.validation, data.test)), dict[str, Unreadable]()
    bar: Any = tqdm(total=n, unit="picture", disable=None)
    out: Any = args.out.open("w", encoding="utf-8", errors="surrogateescape", newline="") if args.out else nullcontext()
    with out, bar, readers(args.workers):  # rows are written as they are found, so that Ctrl-C loses none
        rows: Any = csv.writer(out, lineterminator="\n") if args.out else None
        if rows:
            rows.writerow(("path", "problem"))
        for read, some in unreadable(data):
            new = {one.name: one for one in some if one.name not in found}  # a file may be listed twice
            found |= new
            if rows:
                rows.writerows((cell(one.name), cell(one.problem)) for one in new.values())
            bar.update(read)
    kinds = {"missing or empty": [one for one in found.values() if one.missing]}
    kinds["broken"] = [one for one in found.values() if not one.missing]
    for kind, some in kinds.items():
        if some:
            more = [f"and {len(some) - NAMED} more" + ("; --out FILE lists all" if not args.out else "")]
            named = [f"{one.file} {one.problem}" for one in some[:NAMED]] + (more if len(some) > NAMED else [])
            _complain("\n  ".join([f"{len(some)} {kind}:", *named]))
    said = ", ".join(f"{len(some)} {'is' if len(some) == 1 else 'are'} {kind}" for kind, some in kinds.items())
    lost = kinds["missing or empty"]
    cure = (
        f"; {whereabouts([str(one.file) for one in lost])}" if len(lost) == n else ", and --skip-broken leaves them out"
    )
    print(f"{n} pictures were read; {said}" + (cure if found else ""))
    if args.out:
        print(f"all of these are in {args.out}")
    return 1 if found else 0


def _predict(args: argparse.Namespace) -> int:
    import csv

    from mbib_core.devices import pick_device
    from mbib_core.serving import accuracy_in_folders, predict, read_prior
    from mbib_core.weights import read_weights

    run = read_weights(args.weights)
    run.network.to(pick_device(args.device))
    prior = args.prior if args.prior in (None, "train") else read_prior(path_of(args.prior), run.classes)
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
    prior = args.prior if args.prior in (None, "train") else read_prior(path_of(args.prior), run.classes)
    write = export_onnx if args.onnx else export_torch
    found = write(run, args.onnx or args.torch_export, prior=prior)
    print(
        f"{found.file}: uint8 images [B, 3, {run.size[0]}, {run.size[1]}] in, probabilities [B, {len(run.classes)}] "
        f"out, {found.size / 1e6:.1f} MB\nthey differ from PyTorch's by {found.difference:.1g} at the most (allowed: "
        f"{TOLERANCE:g})"
    )
    return 0


def _card(args: argparse.Namespace) -> int:
    from mbib_core.cards import card_of
    from mbib_core.files import write_atomically

    text = card_of(args.weights, licence=args.license)
    if args.out:
        if args.out.is_file() and b"library_name: mbib-core" not in args.out.read_bytes():
            raise ValueError(f"{args.out} is there already, and is no card: name another file with --out")
        write_atomically(args.out, text.encode())
        print(printable(f"card     {args.out}"))
    else:
        print(text, end="")
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
        from mbib_core.standings import show_all
        from mbib_core.wanted import read_choices

        lists = [file for folder in args.folders if (file := folder / "wanted.toml").is_file()]
        choices = [choice for file in lists for choice in read_choices(file)]
        what = {"data": args.data, "imbalance": args.imbalance, "schedule": args.schedule}
        print(printable(show_all(records, choices, **what), keep="\n"))
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
    from mbib_core.data.longtailed import counted

    part = "test" if record["settings"]["purpose"] == "final" else "validation"
    settings, machine = record["settings"], record["machine"]
    head = (
        f"{record['run_id']}\n{counted(settings['epochs'], 'epoch')} of {sum(record['counts'])} pictures in "
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


COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "check": _check,
    "predict": _predict,
    "export": _export,
    "card": _card,
    "table": _table,
    "methods": _methods,
    "campaign": _campaign,
}


if __name__ == "__main__":
    sys.exit(main())
