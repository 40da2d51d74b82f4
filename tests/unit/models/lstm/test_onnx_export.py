import numpy as np
import pytest

from recsys.errors import ModelFileError
from recsys.events.sequences import Histories
from recsys.models.lstm import onnx_export
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.batches import pad
from recsys.models.lstm.onnx_export import INPUTS, export_onnx

pytest.importorskip("onnxruntime")


def test_the_file_says_what_the_network_says(tiny_shop, tmp_path):
    import onnxruntime

    bundle = tiny_shop.bundle
    path = tmp_path / "model.onnx"
    worst = export_onnx(bundle.network, bundle.repeats.current_may_recur, path)
    assert worst <= 1e-4
    histories = Histories.from_lists([[2, 3, 4, 3], [9, 9], [30]])
    inputs = pad(histories, 4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    arrays = (inputs.items, inputs.event_types, inputs.gaps, inputs.session_starts)
    feed = dict(zip(INPUTS, (*arrays, np.array([4, 2, 1])), strict=True))
    scores, shares, gate = session.run(None, feed)
    said = BatchScorer(bundle.network, bundle.max_length, bundle.repeats).predict(histories)
    allowed = np.isfinite(said.scores)
    np.testing.assert_allclose(scores[allowed], said.scores[allowed], atol=1e-4)
    np.testing.assert_allclose(shares, said.shares, atol=1e-4)
    some = said.gate > -1e8
    np.testing.assert_allclose(gate[some], said.gate[some], atol=1e-4)


def test_a_file_that_differs_is_not_left_behind(tiny_shop, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelFileError, match="differs from the network"):
        export_onnx(tiny_shop.bundle.network, True, path)
    assert not path.exists()
