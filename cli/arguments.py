"""Flags of the commands: a parser whose errors are one line, and what several commands ask of their flags."""

import argparse
import os
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose flags have to be written out."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def check_at_least(options: argparse.Namespace, **least: int) -> None:
    """Raise ValueError unless each of these flags has at least the value given for it."""
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            raise ValueError(f"{name} is {getattr(options, name)}: expected at least {minimum}")


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
