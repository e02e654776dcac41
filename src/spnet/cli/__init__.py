"""The command line: one file a verb, each with `configure(parser, argv)` and `run(args) -> dict`.

Exit codes: 0 done; 2 the input was wrong (one line on stderr), or a part of it (a result, and a line for each part that
failed), or asks for more memory than there is; 1 our fault or a diverged run. With `--json` stdout
carries one JSON object and nothing else. Heavy imports happen inside `run`, so that help is instant.
"""

import argparse
import errno
import importlib
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from spnet.cli.counting import listener
from spnet.cli.several import silently, speaks
from spnet.cli.streams import hush, usable_streams
from spnet.errors import DivergedError, UserError, did_you_mean, out_of_memory
from spnet.files import is_stdout, strict
from spnet.progress import listening
from spnet.terminal import printable
from spnet.version import __version__
from spnet.waiting import choose_waiting

GROUPS = {
    "Train": {
        "train": "train a network; with no arguments SP-Net on the embedded digits",
        "sweep": "train every combination of some settings, then print a table of them",
    },
    "Use": {
        "predict": "classify pictures and show which blocks ran",
        "export": "write a verified ONNX file that runs without spnet",
        "list": "list methods, backbones, recipes, data or pretrained networks",
    },
    "Measure": {
        "eval": "accuracy, cost, paths and controls of a trained network",
        "bench": "measure real skipping against the strongest static network",
        "report": "one self-contained page about runs",
    },
    "Reproduce": {
        "reproduce": "train what a table needs, then print it",
    },
}
"""What people want to do -> verb -> what it does: the order of `spnet --help`."""
VERBS = {verb: text for group in GROUPS.values() for verb, text in group.items()}


LOWER = {
    "train": "lower --batch-size, or take a smaller --backbone",
    "bench": "lower --batches",
    "reproduce": "lower --workers",
    "sweep": "lower --workers",
}
"""Of what, where memory ran out."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with the nearest known option."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        if any("\0" in word for word in argv):  # no shell passes one on
            raise UserError("an argument holds a NUL, which no name of a file can.")
        args, extra = self.parse_known_args(argv)
        if extra:
            known = [option for action in self._actions for option in action.option_strings]
            name = extra[0].split("=")[0]
            what = "option" if name.startswith("-") else "argument"
            raise UserError(f"unknown {what} '{name}'.{did_you_mean(name, known)} See {self.prog} --help.")
        return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Once imported, the verb's module hides the built-in `list` here.
    words = [*(sys.argv[1:] if argv is None else argv)]
    if words[:1] != ["bench"]:  # a bench must not slow the rivals down that it measures
        choose_waiting()
    with usable_streams():
        return _answer(words) if speaks() else silently(lambda: _answer(words))


def _answer(argv: list[str]) -> int:
    """The command's exit code; what went wrong as one line."""
    try:
        return _dispatch(argv)
    except UserError as error:
        print(f"spnet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"spnet: the run diverged: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough
        hush(sys.stdout)
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            print(
                f"spnet: {UserError(f'no file can have this name, it is too long: {error.filename}')}", file=sys.stderr
            )
            return 2
        if not out_of_memory(error):
            raise
        lower = LOWER.get(argv[0], "take a smaller network or free memory")
        print(f"spnet: out of memory: {lower}. What was written before is whole.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spnet: interrupted; a run goes on with --resume, a list when it is called again.", file=sys.stderr)
        return 130


def parser_of(verb: str, argv: list[str]) -> Parser:
    """What reads a verb's arguments; `train` has a flag for each setting of the method that they name."""
    parser = Parser(prog=f"spnet {verb}", description=VERBS[verb], allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    importlib.import_module(f"spnet.cli.{verb}").configure(parser, argv)
    return parser


def _help() -> str:
    """The verbs, by what people want to do."""
    width = max(map(len, VERBS))
    lines = ["usage: spnet VERB ...", "", "Dynamic inference networks that really skip."]
    for group, verbs in GROUPS.items():
        lines += ["", group, *(f"  {verb:<{width}}  {text}" for verb, text in verbs.items())]
    lines += ["", "spnet VERB --help shows a verb's options; spnet --version the version."]
    lines += ["spnet --completion SHELL prints what lets bash, zsh or fish complete them."]
    return "\n".join(lines)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"spnet {__version__}")
        return 0
    if argv[0] == "--completion":
        from spnet.cli.completion import script

        print(script(argv[1:]))
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        raise UserError(f"unknown verb '{verb}'.{did_you_mean(verb, VERBS)} Known: {', '.join(VERBS)}.")
    module = importlib.import_module(f"spnet.cli.{verb}")
    args = parser_of(verb, rest).parse_all(rest)
    taken = is_stdout(getattr(args, "out", None) or getattr(args, "file", None) or "-")
    if taken and args.json:
        raise UserError("--json and the output both want the standard output: write the output to a file.")
    with listening(listener()):
        result = module.run(args)
    text = json.dumps(strict(result), allow_nan=False) if args.json else printable(module.describe(result), keep="\n")
    print(text, file=sys.stderr if taken else sys.stdout)
    sys.stdout.flush()  # here, where a reader who has left is noticed
    return result.get("exit_code", 1 if result.get("failed") else 0)


if __name__ == "__main__":
    sys.exit(main())
