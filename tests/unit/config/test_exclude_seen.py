"""One rule for `exclude_seen`, in the configuration and in a request."""

import pytest

from recsys.config import load_settings
from recsys.errors import ConfigError
from recsys.web.api.recommendation_schemas import RecommendationQuery


@pytest.mark.parametrize(
    "value", ["purchase", "purchase, cart", "all", "none", "auto", "a," * 15 + "b"]
)
def test_what_a_request_may_ask_may_be_the_default(monkeypatch, tmp_path, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_SERVING__EXCLUDE_SEEN", value)
    assert load_settings(None).serving.exclude_seen == value
    assert RecommendationQuery(exclude_seen=value).exclude_seen == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "cart,",
        "all,cart",
        "cart, none",
        "true,cart",
        "auto,cart",
        "x" * 65,
        "a," * 16 + "b",
        "a\tb",
    ],
)
def test_what_a_request_may_not_ask_is_refused_as_the_default(monkeypatch, tmp_path, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_SERVING__EXCLUDE_SEEN", value)
    with pytest.raises(ConfigError, match="exclude_seen"):
        load_settings(None)
    with pytest.raises(ValueError, match="exclude_seen"):
        RecommendationQuery(exclude_seen=value)
