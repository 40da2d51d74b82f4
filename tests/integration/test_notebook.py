"""examples/explore.ipynb runs as it is, and its outputs are those that are committed, figures aside."""

import itertools
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "explore.ipynb"
# Of a machine: folders of people and of temporary files, and colours of a terminal.
STRANGE = re.compile(r"/(?:tmp|home|root|work|Users|var)/|\x1b\[")


def outputs(notebook):
    """Of each cell of code what kinds of outputs it has. What is printed may come in one piece or in
    several, and a library may warn beside it.
    """
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kinds = [
            (one.output_type, sorted(one.get("data", ())))
            for one in cell.outputs
            if one.get("name") != "stderr"
        ]
        found.append([kind for kind, _ in itertools.groupby(kinds)])
    return found


def texts(notebook):
    """All text of the outputs, by cell of code."""
    return [
        "\n".join(
            one.get("text", "") + one.get("data", {}).get("text/plain", "") for one in cell.outputs
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, 4)


def figures_of(notebook):
    """What is read off a notebook's figures; each ranking is in the report."""
    said = "\n".join(texts(notebook))
    for name in ("served", "lstm", "session_knn", "transitions", "popular"):
        assert re.search(rf"^{name} ", said, re.M), name
    times = float(re.search(r"next click ([\d.]+) times as well", said)[1])
    return times, re.findall(r"^(?:gate|decision): .*", said, re.M)


def strange(notebook):
    """What tells of a machine in the outputs."""
    found = []
    for cell in notebook.cells:
        for one in cell.get("outputs", ()):
            data = {**one.get("data", {}), "stream": one.get("text", "")}
            data.pop("image/png", None)
            found += STRANGE.findall(str(data))
    return found


@pytest.mark.slow
def test_it_runs_and_comes_to_the_decision_that_is_committed(committed, tmp_path):
    executed = nbformat.read(NOTEBOOK, 4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(executed, timeout=240, kernel_name="python3", resources=where).execute()
    assert outputs(executed) == outputs(committed)
    kinds = [kind for cell in outputs(committed) for kind, _ in cell]
    assert kinds.count("display_data") == 2  # the pictures
    for notebook in (committed, executed):
        times, decided = figures_of(notebook)
        assert times > 1.5 and decided == ["gate: passed", "decision: go live"]
        assert strange(notebook) == []
    assert list(tmp_path.iterdir()) == []  # it cleans up behind itself


def test_cells_are_numbered_and_nothing_else_is_kept(committed):
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(not cell.metadata for cell in committed.cells)
    assert NOTEBOOK.stat().st_size < 300_000
