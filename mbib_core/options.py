"""The parser of the command line: every command and option, with its help, and the nearest word for a wrong one."""

import argparse
import difflib
import os
from pathlib import Path

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
    "--weights": "--pretrained",
    "--arch": "--backbone",
    "--model": "--backbone",
}


def path_of(word: str) -> Path:
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


def parser() -> argparse.ArgumentParser:
    """`mbib COMMAND ...`; what it parses has the name of the command as `command`."""
    from mbib_core.settings import describe

    whole = argparse.ArgumentParser(
        "mbib",
        allow_abbrev=False,
        description="Balanced information bottlenecks for long-tailed recognition.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="the version of this program")
    commands = whole.add_subparsers(required=True, dest="command", metavar="COMMAND", parser_class=_Command)
    folder = path_of

    train = commands.add_parser(
        "train",
        allow_abbrev=False,
        usage="mbib train METHOD [--data DATA] [options]",  # all of them would hide the sentence on a wrong one
        help="train one method on one data set and write its record",
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
    evaluate.add_argument("--batch", type=_count, help="pictures at a time (default 500, fewer above 64 pixels a side)")
    evaluate.add_argument("--device", help="cuda, cuda:1, or cpu (default: the first NVIDIA GPU, if there is one)")
    evaluate.add_argument(
        "--root",
        type=folder,
        help="as in train",
    )
    evaluate.add_argument("--skip-broken", action="store_true", help="leave broken images out, and name them")
    _add_workers(evaluate)

    check = commands.add_parser(
        "check", allow_abbrev=False, help="read every picture of a data set once, and name those that cannot be read"
    )
    check.add_argument("data", help="folder:PATH, list:FOLDER, csv:FILE, imagenet-lt:FOLDER, ... as in train")
    check.add_argument("--root", type=folder, help="as in train")
    check.add_argument("--out", type=folder, metavar="FILE", help="a CSV file to write all of those to: path, problem")
    _add_workers(check)

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
    predict.add_argument("--batch", type=_count, help="as in evaluate")
    predict.add_argument("--device", help="cuda, cuda:1, or cpu (default: the first NVIDIA GPU, if there is one)")

    export = commands.add_parser(
        "export", allow_abbrev=False, help="saved weights as one file for other programs, checked against PyTorch"
    )
    export.add_argument("weights", type=folder, help="a .safetensors file that `mbib train` wrote")
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument("--onnx", type=folder, metavar="FILE", help='an ONNX model: pip install "mbib-core[export]"')
    form.add_argument("--torch-export", type=folder, metavar="FILE", help="what torch.export.load reads, a .pt2 file")
    export.add_argument("--prior", metavar="FILE|train", help="as in predict: how often each class comes up")

    card = commands.add_parser(
        "card", allow_abbrev=False, help="a model card of saved weights, as the Hugging Face hub reads it"
    )
    card.add_argument("weights", type=folder, help="a .safetensors file, with its record beside it")
    card.add_argument(
        "--out", type=folder, metavar="FILE", help="where it is written, such as README.md (default: here)"
    )
    card.add_argument(
        "--license",
        metavar="NAME",
        help="of the weights, an identifier of the hub (default: mit for published data, else unknown)",
    )

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
        "--methods",
        action="store_true",
        help="one row a method: by one recipe, with what it costs; by its publication's own; and, where a folder has a "
        "wanted.toml, with its main constant chosen on validation images",
    )
    table.add_argument("--data", default="glyphs-lt", help="with --methods: which data (default glyphs-lt)")
    table.add_argument("--imbalance", type=float, default=100, help="with --methods: which factor (default 100)")
    table.add_argument("--schedule", help="with --methods: which schedule (default: the usual one of the data)")

    commands.add_parser("methods", allow_abbrev=False, help="what methods there are, and what each costs")

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
    return whole
