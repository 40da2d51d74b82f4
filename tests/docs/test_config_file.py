"""config.toml says of every key what it is, and shows the default that the code has."""

import re
import tomllib
from pathlib import Path

from recsys.config import Settings, get_section, load_settings

PATH = Path(__file__).parents[2] / "config.toml"


def test_every_key_is_there_with_the_default():
    shown = tomllib.loads(PATH.read_text())
    defaults = Settings.model_construct()
    assert list(shown) == list(Settings.model_fields)
    for section, values in shown.items():
        fields = get_section(section).model_fields
        assert list(values) == list(fields), section
    assert load_settings(PATH) == defaults


def test_every_key_has_a_comment():
    commented = False
    for line in PATH.read_text().splitlines():
        if line.startswith("#"):
            commented = True
        elif re.match(r"\w+ = ", line):
            assert commented, f"no comment above: {line}"
        elif not line or line.startswith("["):
            commented = False
