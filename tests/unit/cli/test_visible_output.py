"""No stored text moves a terminal's cursor, colours it or turns its words round."""

import io
import sys

from hypothesis import given
from hypothesis import strategies as st

from recsys.cli.terminal import set_up_logging, show
from recsys.cli.visible_output import VisibleOutput, guard_terminal, visible
from recsys.config import Settings
from recsys.text_rules import stored_text_problem, text_problem


@given(st.text())
def test_what_is_written_holds_no_c1_character_and_no_turn_of_direction(text):
    stream = io.StringIO()
    output = VisibleOutput(stream)
    assert output.write(text) == len(text)
    output.writelines([text, "\n"])
    for character in stream.getvalue():
        code = ord(character)
        assert not 0x80 <= code <= 0x9F
        assert not 0x202A <= code <= 0x202E and not 0x2066 <= code <= 0x2069
    if visible(text) == text:
        assert stream.getvalue() == text + text + "\n"


def test_tables_and_json_of_a_command_are_visible_and_json_stays_the_same(monkeypatch):
    import orjson

    hostile = {"item_id": "tea\x9b31m", "title": "\u202eevil", "plain": "sch\xf6n \u8a9e"}
    for as_json in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        guard_terminal()
        guard_terminal()  # once is enough
        show(hostile, as_json)
        written = stream.getvalue()
        assert "\x9b" not in written and "\u202e" not in written and "sch\xf6n \u8a9e" in written
        if as_json:
            assert orjson.loads(written) == hostile


def test_a_full_disk_that_holds_the_log_costs_no_answer(monkeypatch):
    import structlog

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    set_up_logging(Settings())
    structlog.get_logger("x").error("told", value="x")
    lines = io.StringIO()
    monkeypatch.setattr(sys, "stderr", lines)
    structlog.get_logger("x").error("told", value="tea\x9b31m")
    assert "told" in lines.getvalue() and "\x9b" not in lines.getvalue()


def test_c1_characters_are_refused_where_they_come_in_and_looked_up_where_they_are_stored():
    for code in range(0x80, 0xA0):
        assert text_problem(f"a{chr(code)}") == "holds a control character"
        assert stored_text_problem(f"a{chr(code)}") is None
    for code in (*range(0x20), 0x7F, 0xD800):
        assert text_problem(f"a{chr(code)}") and stored_text_problem(f"a{chr(code)}")
