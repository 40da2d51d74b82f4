"""Ranks that do not come, or come from elsewhere: the training ends in time and says why."""

import json
import socket
import threading
from datetime import timedelta

import pytest
import torch
from torch import distributed

from recsys import __version__
from recsys.config import Settings, TrainingSettings, load_settings
from recsys.distributed.engine import opened_engine
from recsys.distributed.torchrun import be_rank, rank_place, wait_for_rank_0
from recsys.errors import ConfigError, InputError, TrainingError
from recsys.models.lstm.process_group import Place, joined, present_group
from recsys.progress import quiet


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(port=None, **more):
    address = {} if port is None else {"engine_address": f"127.0.0.1:{port}"}
    return TrainingSettings(engine="torchrun", join_timeout_seconds=1, **address, **more)


def gather(chosen):
    with opened_engine(Settings(training=chosen)) as engine:
        engine.gather_ranks(quiet)


def test_ranks_that_do_not_come_end_the_training_in_time(port):
    told = r"0 of the 2 other ranks of the training came within 1 seconds"
    for _ in range(2):  # the address is free again
        with pytest.raises(TrainingError, match=told):
            gather(settings(port, ranks=3))
    assert present_group() is None
    assert not distributed.is_initialized()


def test_an_address_that_is_taken_is_told(port):
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(TrainingError, match=f"cannot listen at 127.0.0.1:{port}"),
    ):
        gather(settings(port))


def test_a_launcher_that_ends_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("recsys.distributed.torchrun.sys.executable", "/bin/false")
    patient = settings().model_copy(update={"join_timeout_seconds": 300})
    with pytest.raises(TrainingError, match=r"torchrun ended before .* \(status 1\)"):
        gather(patient)


def test_one_rank_needs_no_others():
    for chosen in (settings(ranks=1), TrainingSettings()):
        gather(chosen)


def store_at(port, is_master):
    return distributed.TCPStore(
        "127.0.0.1", port, None, is_master, timedelta(seconds=30), wait_for_workers=False
    )


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"release": "0.0.1"}, f"rank 1 of the training has release {__version__}, rank 0 0.0.1"),
        ({"size": 3}, "rank 1 of the training has size 2, rank 0 3"),
    ],
)
def test_a_rank_of_another_training_goes_and_tells_rank_0(port, other, told):
    store = store_at(port, True)
    terms = {"release": __version__, "size": 2, "timeout_seconds": 5.0, **other}
    store.set("terms", json.dumps(terms))
    with pytest.raises(TrainingError, match=told):
        be_rank(Place("127.0.0.1", port, 1, 2), 30)
    assert store.get("refused").decode() == told


def test_rank_0_gives_up_where_a_rank_is_of_another_training(port):
    def refuse():
        wait_for_rank_0(Place("127.0.0.1", port, 1, 2), 30)
        store_at(port, False).set("refused", "rank 1 of the training has another release")

    other = threading.Thread(target=refuse)
    other.start()
    patient = settings(port).model_copy(update={"join_timeout_seconds": 60})
    with pytest.raises(TrainingError, match=r"^rank 1 of the training has another release$"):
        gather(patient)
    other.join(30)


def test_each_rank_of_a_machine_takes_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("LOCAL_RANK", "1")
    elsewhere, beside_rank_0 = rank_place("10.0.0.5:29500", 0), rank_place("h:1", 1)
    assert (elsewhere.rank, elsewhere.size, elsewhere.device) == (5, 7, 1)
    assert beside_rank_0.device == 2
    for device in (elsewhere.device, 6):
        with socket.create_server(("127.0.0.1", 0)) as own:
            place = Place("127.0.0.1", own.getsockname()[1], 0, 1, device, own)
            with joined(5, place, 5) as group:
                assert group is None
    assert chosen == [1, 2]


@pytest.mark.parametrize("address", ["here", "host:", ":1", "host:x", "host:70000", "host:0"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="ADDRESS"):
        rank_place(address, 0)


def test_nobody_there_is_told(port):
    with pytest.raises(TrainingError, match=f"no training listens at 127.0.0.1:{port}"):
        wait_for_rank_0(Place("127.0.0.1", port, 1, 2), 0)


def test_an_address_without_an_engine_means_nothing():
    with pytest.raises(ConfigError, match=r"training.engine_address = 'h:1'.*engine is local"):
        load_settings(training={"engine_address": "h:1"})
    with pytest.raises(ConfigError, match=r"training\.engine_address"):
        load_settings(training={"engine": "ray", "engine_address": "ray://h:1"})
    with pytest.raises(ConfigError, match=r"training.engine = 'spark'"):
        load_settings(training={"engine": "spark"})
