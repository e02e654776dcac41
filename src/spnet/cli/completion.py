"""`spnet --completion SHELL`: a script by which a shell completes verbs, options and files (extra `completion`).

spnet --completion bash > ~/.local/share/bash-completion/completions/spnet
"""

import argparse

from spnet.cli import VERBS, Parser, parser_of
from spnet.errors import UserError, choose

SHELLS = ("bash", "zsh", "fish")
FILES = {"RUN", "RUN|BACKBONE", "FILE", "FILE.onnx", "IMAGE", "DIR"}
"""What an argument is called where it is a file or a folder."""


def script(argv: list[str]) -> str:
    """The script for the shell that `argv` names. `train` completes the settings of SP-Net, its default method.

    Raises:
        UserError: no shell, or one that is not known; shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion needs shtab: pip install shtab.") from error
    shell = choose("shell", argv[0] if argv else "", SHELLS)
    whole = Parser(prog="spnet")
    verbs = whole.add_subparsers(parser_class=argparse.ArgumentParser)
    for verb, text in VERBS.items():
        parser = parser_of(verb, [])
        for action in parser._actions:
            if action.metavar in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        verbs.add_parser(verb, help=text, parents=[parser], add_help=False, conflict_handler="resolve")
    return shtab.complete(whole, shell)
