"""docs/python.md says what the docstrings say."""

import importlib.util
import inspect
from pathlib import Path

from recsys.shop import Shop

ROOT = Path(__file__).parents[2]


def writer():
    spec = importlib.util.spec_from_file_location("python_page", ROOT / "tools" / "python_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_docstrings():
    tool = writer()
    assert tool.PAGE.read_text() == tool.page(), "run: python tools/python_page.py"


def test_every_method_is_documented_with_its_parameters():
    text = (ROOT / "docs" / "python.md").read_text()
    for name, method in vars(Shop).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            assert f"### shop.{name}" in text
            for parameter in list(inspect.signature(method).parameters)[1:]:
                told = f"`{parameter}`" in method.__doc__ or f"{parameter} <" in method.__doc__
                assert told or f"< {parameter}" in method.__doc__, (name, parameter)
