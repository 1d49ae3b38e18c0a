"""Print the code that lets a shell complete ex4d's verbs and options with the Tab key.

bash  ex4d completion bash > ~/.local/share/bash-completion/completions/ex4d
zsh   ex4d completion zsh > ~/.zfunc/_ex4d       with ~/.zfunc in fpath before compinit
fish  ex4d completion fish > ~/.config/fish/completions/ex4d.fish
"""

from __future__ import annotations

import argparse

from ex4d.cli.report import Report

SHELLS = ("bash", "zsh", "fish")
SUMMARY = "print the code for completion in bash, zsh or fish"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="shell to complete in")


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d completion`."""
    from argcomplete.shell_integration import shellcode

    code = shellcode(["ex4d"], shell=options.shell)
    report.say(code)
    report.add("code", code, "")
    return 0
