"""What words on the command line may say."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A number of 1 or more.

    Raises:
        ArgumentTypeError: it is not.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value
