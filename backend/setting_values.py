"""What a setting may be: how a text of the environment is read, and which values are taken.

This module does not know which settings there are.
"""

from __future__ import annotations

import ipaddress
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import ConfigurationError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Meaning:
    """What a setting is called in the environment, what the table says of it, and which values it takes.

    low, high : of a number, inclusive; choices : of a text
    shape : a pattern for a text; expects : that pattern in words
    shown : the default as the table writes it, where it is not the field's own
    """

    variable: str
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    shape: str = ""
    expects: str = ""
    shown: str = ""


def check_value(kind: Any, meaning: Meaning, value: object) -> None:
    """Raise ConfigurationError for a value that a setting of this kind does not take."""
    name = meaning.variable
    expected = {float: (int, float)}.get(kind, typing.get_origin(kind) or kind)
    if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
        raise ConfigurationError(f"{name} must be {_READERS[kind][1]}.")
    low, high = meaning.low, meaning.high
    # Written so that NaN fails.
    if low is not None and high is not None and isinstance(value, int | float) and not low <= value <= high:
        raise ConfigurationError(f"{name} must be from {low} to {high}, not {value}.")
    if meaning.choices and value not in meaning.choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(meaning.choices)}; it is {value!r}.")
    # The value is not shown: a URL may carry a password.
    if meaning.shape and value and not re.fullmatch(meaning.shape, str(value)):
        raise ConfigurationError(f"{name} must be {meaning.expects}.")


def parse_value(kind: Any, meaning: Meaning, text: str) -> object:
    """Return the value that a text of the environment stands for. Raises ConfigurationError."""
    reader, expected = _READERS[kind]
    try:
        return reader(text)
    except ValueError as error:
        raise ConfigurationError(f"{meaning.variable} must be {expected}, not {text!r}.") from error


def _read_flag(text: str) -> bool:
    if text.lower() not in FLAGS:
        raise ValueError(text)
    return FLAGS[text.lower()]


def _read_networks(text: str) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_READERS: Mapping[Any, tuple[Callable[[str], object], str]] = {
    bool: (_read_flag, "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "text"),
    Path: (lambda text: Path(text).expanduser(), "a path"),
    tuple[IPNetwork, ...]: (_read_networks, "addresses or networks (192.0.2.7, 10.0.0.0/8) with commas between"),
}
