"""The YAML that recipes are written in."""

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2 and JSON; PyYAML alone reads a string."""


class Dumper(yaml.SafeDumper):
    """Its twin, so that the string "1e-3" is written in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value that occurs twice twice."""
        return True


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
for _class in (Loader, Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def one_line(error: Exception) -> str:
    """An error of the YAML parser, without its line breaks."""
    return " ".join(str(error).split())
