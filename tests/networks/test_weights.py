from __future__ import annotations

import hashlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file

from gnnrl.errors import UserError
from gnnrl.networks.build import build_network
from gnnrl.networks.weights import load_weights


@pytest.fixture
def trained():
    return build_network("resnet20")


def as_data_parallel(state):
    return {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}


def without_counters(state):
    return {key: value for key, value in state.items() if "num_batches" not in key}


WRAPPINGS = {
    "plain": dict,
    "data parallel": as_data_parallel,
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "old": without_counters,
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("suffix", [".pt", ".th", ".pth"])
def test_weights_of_others_are_understood(wrapping, suffix, trained, tmp_path):
    path = tmp_path / f"weights{suffix}"
    torch.save(WRAPPINGS[wrapping](trained.state_dict()), path)
    network = build_network("resnet20")
    load_weights(network, str(path))
    assert all(torch.equal(network.state_dict()[k], v) for k, v in trained.state_dict().items())


def test_safetensors_are_understood(trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    network = build_network("resnet20")
    load_weights(network, str(tmp_path / "weights.safetensors"))
    assert torch.equal(network.linear.weight, trained.linear.weight)


def test_weights_that_do_not_fit_name_what_differs(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"missing: layer1.3.*and 57 more") as caught:
        load_weights(build_network("resnet32"), str(tmp_path / "weights.pt"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"linear.bias \(10,\) instead of \(7,\)"):
        load_weights(build_network("resnet20", 7), str(tmp_path / "weights.pt"))


def test_nothing_pickled_is_executed(trained, tmp_path):
    torch.save(trained, tmp_path / "network.pt")
    with pytest.raises(UserError, match="state_dict"):
        load_weights(trained, str(tmp_path / "network.pt"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_broken_files_are_refused(suffix, trained, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"PK\x03\x04 not weights")
    with pytest.raises(UserError, match=f"weights{suffix} cannot be read"):
        load_weights(trained, str(path))


def test_a_file_without_tensors_is_refused(trained, tmp_path):
    torch.save({"accuracy": 0.9}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="holds no weights"):
        load_weights(trained, str(tmp_path / "weights.pt"))


def test_a_missing_file_is_refused(trained):
    with pytest.raises(UserError, match=r"no weights at .*nowhere\.pt"):
        load_weights(trained, "nowhere.pt")


@pytest.fixture
def served(trained, tmp_path, monkeypatch):
    """Serve the trained weights on this machine; gives their address and digest."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        digest = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
        yield f"http://127.0.0.1:{server.server_port}/weights.pt?download=1", digest
        server.shutdown()


def test_an_address_is_fetched_once_and_must_have_the_digest(served, trained, tmp_path):
    address, digest = served
    with pytest.raises(UserError, match="SHA-256"):
        load_weights(trained, address)
    with pytest.raises(UserError, match="cannot be fetched"):
        load_weights(trained, address, sha256="0" * 64)
    for _ in range(2):
        network = build_network("resnet20")
        load_weights(network, address, sha256=digest)
        assert torch.equal(network.linear.weight, trained.linear.weight)
        (tmp_path / "weights.pt").unlink(missing_ok=True)


def test_unknown_names_of_torchvision_weights_are_refused():
    network = build_network("torchvision/resnet18", 1000, (3, 64, 64))
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        load_weights(network, "IMAGENET", name="torchvision/resnet18")
