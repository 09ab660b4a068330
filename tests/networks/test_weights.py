from __future__ import annotations

import hashlib
import socket
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file

from gnnrl.errors import UserError
from gnnrl.networks.build import build_network
from gnnrl.networks.catalogue import CATALOGUE, Published
from gnnrl.networks.weights import WRAPPERS, load_weights
from gnnrl.pretrained import starting_point


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
    with pytest.raises(
        UserError, match=r"as a whole pickled network does.*: save a plain state_dict"
    ):
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


def test_a_cached_download_that_was_changed_is_fetched_again(served, trained, tmp_path):
    address, digest = served
    load_weights(build_network("resnet20"), address, sha256=digest)
    (cached,) = (tmp_path / "cache").rglob(f"{digest}.pt")
    cached.write_bytes(b"changed")
    network = build_network("resnet20")
    load_weights(network, address, sha256=digest)
    assert torch.equal(network.linear.weight, trained.linear.weight)
    cached.write_bytes(b"changed")
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(UserError, match="cannot be fetched"):
        load_weights(network, address, sha256=digest)
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.parametrize("answer", [None, b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-L"])
def test_a_server_without_an_answer_is_a_sentence(answer, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("gnnrl.networks.weights.SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            if answer is not None:
                client.sendall(answer)
                client.close()
            held.append(client)

        held: list[socket.socket] = []
        Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/w.pt"
        with pytest.raises(UserError, match="cannot be fetched") as caught:
            load_weights(trained, address, sha256="0" * 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://a b/w.pt", "http://ä/w.pt", "http://127.0.0.1:x/w"])
def test_an_address_that_is_none_is_a_sentence(address, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="cannot be fetched"):
        load_weights(trained, address, sha256="0" * 64)


def averaged(network):
    return torch.optim.swa_utils.AveragedModel(network).state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        *(lambda n, key=key: {key: n.state_dict(), "epoch": 3} for key in WRAPPERS),
        averaged,
        lambda n: {"state_dict": {f"model.{k}": v for k, v in n.state_dict().items()}},
        lambda n: {f"_orig_mod.module.{k}": v for k, v in n.state_dict().items()},
        lambda n: {k: v.half() if v.is_floating_point() else v for k, v in averaged(n).items()},
    ],
    ids=[*WRAPPERS, "averaged", "lightning", "compiled", "half"],
)
def test_weights_are_unwrapped_as_others_wrap_them(wrap, trained, tmp_path):
    torch.save(wrap(trained), tmp_path / "weights.pt")
    network = build_network("resnet20")
    load_weights(network, str(tmp_path / "weights.pt"))
    assert torch.allclose(network.linear.weight, trained.linear.weight, atol=1e-2)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: {**s, "linear.weight": s["linear.weight"] * torch.nan}, "NaN or infinite"),
        (lambda s: {**s, "linear.weight": s["linear.weight"] / 0}, "NaN or infinite"),
        (lambda s: {**s, "linear.weight": s["linear.weight"].to(torch.int8)}, "another kind"),
        (lambda s: {**s, "linear.weight": s["linear.weight"].to_sparse()}, "no plain named"),
        (lambda s: {**s, 3: s["linear.weight"]}, "no plain named"),
    ],
    ids=["nan", "inf", "int8", "sparse", "number"],
)
def test_weights_that_are_no_finite_floats_are_refused(spoil, said, trained, tmp_path):
    torch.save(spoil(trained.state_dict()), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=said):
        load_weights(build_network("resnet20"), str(tmp_path / "weights.pt"))


def test_a_file_that_would_unpack_to_far_more_is_refused(trained, tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
            for part in plain.infolist():
                bomb.writestr(part.filename, plain.read(part))
    with pytest.raises(UserError, match="compressed"):
        load_weights(trained, str(tmp_path / "bomb.pt"))


def test_plain_safetensors_start_a_pipeline_from_a_file_and_from_an_address(
    served, trained, tmp_path
):
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    digest = hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()
    address = served[0].replace("weights.pt?download=1", "net.safetensors")
    for weights, sha256 in ((str(tmp_path / "net.safetensors"), None), (address, digest)):
        given = ("resnet20", 10, (3, 32, 32), weights, sha256)
        start = starting_point(*given)
        assert torch.equal(start.state["linear.weight"], trained.linear.weight)
        with pytest.raises(UserError, match=r"data\.reward_from is train"):
            starting_point(*given, "train")


def test_published_weights_are_fetched_by_name(served, trained, monkeypatch):
    address, digest = served
    for known in (digest, digest[:8]):
        entry = {"CIFAR10": Published(address, known)}
        monkeypatch.setitem(CATALOGUE, "resnet20", entry)
        network = build_network("resnet20")
        load_weights(network, "CIFAR10", name="resnet20")
        assert torch.equal(network.linear.weight, trained.linear.weight)
    monkeypatch.setitem(CATALOGUE, "resnet20", {"CIFAR10": Published(address, "0" * 8)})
    with pytest.raises(UserError, match="cannot be fetched"):
        load_weights(network, "CIFAR10", name="resnet20")
    with pytest.raises(UserError, match="no published weights 'CIFAR100' for resnet20: known are"):
        load_weights(network, "CIFAR100", name="resnet20")


def test_unknown_names_of_torchvision_weights_are_refused():
    network = build_network("torchvision/resnet18", 1000, (3, 64, 64))
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        load_weights(network, "IMAGENET", name="torchvision/resnet18")
