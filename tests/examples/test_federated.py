"""Federated learning with salient channels: its parts, its sums, and FedAvg as its limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from examples.federated import rounds
from examples.federated.client import Clients, FederatedSettings, local_training, masks, visit
from examples.federated.parts import Digits, dealt, parts
from examples.federated.server import Sent, averaged, drifts, mean_gradient, mean_of_clients
from gnnrl.agents.pretrained import read_pretrained
from gnnrl.agents.transfer import encoder_of
from gnnrl.files import read_yaml
from gnnrl.runtime import generator

SMALL = FederatedSettings(clients=3, rounds=2, epochs=1, batch_size=64, evaluations=3)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clients() -> Clients:
    return Clients.of(SMALL)


def test_every_image_has_one_client_and_less_concentration_means_less_alike():
    labels = np.repeat(np.arange(10), 40)

    def mix(beta):
        random = np.random.default_rng(0)
        mine = dealt(labels, random.dirichlet([beta] * 5, 10), random)
        assert np.sort(np.concatenate(mine)).tolist() == list(range(400))
        counts = [np.bincount(labels[own], minlength=10) / max(len(own), 1) for own in mine]
        return np.std(counts, axis=0).mean()

    assert mix(0.1) > 2 * mix(100.0)


def test_images_to_train_on_to_select_with_and_to_test_on_are_different_ones():
    made = parts(4, 0.5, seed=1)
    sizes = [(len(part.train), len(part.validation), len(part.test)) for part in made]
    assert sum(train + held for train, held, _ in sizes) == 1437
    assert sum(test for _, _, test in sizes) == 359
    seen = torch.cat([x for part in made for x, _ in part.train.batches(2000)])
    held = torch.cat([x for part in made for x, _ in part.validation.batches(2000)])
    assert len(torch.cat([seen, held]).flatten(1).unique(dim=0)) > 1400  # few digits are equal


def test_an_entry_is_averaged_over_those_who_sent_it():
    server = {"w": torch.tensor([10.0, 10.0, 10.0])}
    first = Sent(
        {"w": torch.tensor([1.0, 2.0, 0.0])}, {"w": torch.tensor([1.0, 1.0, 0.0])}, 1, 1, 2
    )
    second = Sent(
        {"w": torch.tensor([5.0, 0.0, 0.0])}, {"w": torch.tensor([1.0, 0.0, 0.0])}, 3, 1, 1
    )
    assert averaged(server, [first, second])["w"].tolist() == [4.0, 2.0, 10.0]


def test_a_client_is_corrected_by_the_mean_gradient_of_those_who_sent_the_entry():
    server, ones = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.ones(2)}
    one = Sent({"w": torch.tensor([0.8, 0.0])}, {"w": torch.tensor([1.0, 0.0])}, 4, 0.1, 1)
    own = mean_gradient(server, one, {"w": torch.tensor([0.5, 0.0])})
    assert own["w"].tolist() == pytest.approx([0.2 / 0.1 - 0.5, 0.0])
    other = {"w": torch.tensor([3.5, 1.0])}
    mean = mean_of_clients([own, other], [one.mask, ones])
    assert mean["w"].tolist() == pytest.approx([2.5, 1.0])
    assert drifts(own, one.mask, mean)["w"].tolist() == pytest.approx([1.0, 0.0])
    assert drifts(other, ones, mean)["w"].tolist() == pytest.approx([-1.0, 0.0])


def test_with_everything_kept_it_is_fedavg_exactly():
    settings = SMALL.changed(keep=1.0, select="agent", local_head=False, control=False)
    *_, (found, rows) = rounds.run(settings)
    clients = Clients.of(settings)
    torch.manual_seed(settings.seed)
    server = {name: value.detach() for name, value in Digits().named_parameters()}
    for round_ in (1, 2):  # McMahan et al. 2017, algorithm 1, with all clients
        total = {name: torch.zeros_like(value).double() for name, value in server.items()}
        for which, part in enumerate(clients.parts):
            draw = generator(settings.seed, f"client {which}, round {round_}")
            trained, _ = local_training(settings, part, server, {}, draw)
            for name, value in trained.items():
                total[name] += len(part.train) * value.double()
        images = sum(len(part.train) for part in clients.parts)
        server = {name: (value / images).float() for name, value in total.items()}
    assert all(torch.equal(found[name], server[name]) for name in server)
    assert {row["sent"] for row in rows} == {sum(value.numel() for value in server.values())}


@pytest.mark.parametrize("select", ["agent", "uniform", "random"])
def test_a_client_sends_at_most_half_and_never_its_head(clients, select):
    chosen = Clients(SMALL.changed(select=select), clients.parts, clients.graph)
    server, members = chosen.first()
    client, sent = visit(chosen, 0, 1, members[0], server, members[0].gradient)
    assert set(sent.mask) == set(server) and not any(name.startswith("head") for name in server)
    entries = sum(int(mask.sum()) for mask in sent.mask.values())
    assert entries < sent.numbers <= SMALL.keep * sum(v.numel() for v in server.values())
    assert sent.numbers > 0.9 * SMALL.keep * sum(v.numel() for v in server.values())
    for name, mask in sent.mask.items():
        assert (sent.values[name][mask == 0] == 0).all()
        assert (client.gradient[name][mask == 0] == 0).all()
    assert any(not torch.equal(client.head[name], members[0].head[name]) for name in client.head)


def test_masks_are_the_entries_that_a_cut_network_has(clients):
    server, _ = clients.first()
    keep = np.ones(clients.graph.num_units, dtype=bool)
    group = clients.graph.groups[0]
    keep[group.start : group.start + 6] = False
    mask = masks(clients.graph, keep, server)
    assert mask["encoder.0.weight"].sum() == 10 * 9 and mask["encoder.0.bias"].sum() == 10
    assert mask["encoder.2.weight"].sum() == 32 * 10 * 9 and mask["encoder.2.bias"].sum() == 32


def test_the_agent_keeps_its_pretrained_encoder_and_its_heads_learn(clients):
    server, members = clients.first()
    visited = [members[1]]
    for round_ in (1, 2):
        client, _ = visit(clients, 1, round_, visited[-1], server, members[1].gradient)
        visited.append(client)
    first, second = (client.agent["policy"] for client in visited[1:])
    pretrained = encoder_of(read_pretrained()[0])
    for name, value in encoder_of(second).items():
        assert torch.equal(value, pretrained[name])
    assert any(not torch.equal(first[name], second[name]) for name in second if "actor" in name)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rounds():
    first, again = ([rows for _, rows in rounds.run(SMALL)] for _ in range(2))
    assert first == again


@pytest.mark.slow
@pytest.mark.ray
def test_clients_on_ray_workers_do_as_those_in_this_process():
    ray = pytest.importorskip("ray")
    ray.init(
        address="local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    from gnnrl.search.parallel.ray import ray_workers
    from gnnrl.search.parallel.settings import RaySettings

    torch.set_num_threads(1)
    clients = Clients.of(SMALL)
    here = [rows for _, rows in rounds.run(SMALL, None, clients)]
    try:
        with ray_workers(clients, RaySettings(workers=2)) as workers:
            there = [rows for _, rows in rounds.run(SMALL, workers, clients)]
    finally:
        ray.shutdown()
    assert here == there


@pytest.mark.slow
def test_the_command_writes_a_row_for_each_client_and_round(tmp_path, monkeypatch, capsys):
    params = read_yaml(ROOT / "examples" / "federated" / "params.yaml")["federated"]
    assert FederatedSettings(**params) == FederatedSettings()
    few = {**params, "clients": 2, "rounds": 2, "epochs": 1, "evaluations": 2}
    (tmp_path / "params.yaml").write_text(f"federated: {few}")
    out = tmp_path / "rounds.csv"
    words = ["rounds", "--params", str(tmp_path / "params.yaml"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    rounds.main()
    rounds.main()  # a run that has rows is not repeated
    rows = pd.read_csv(out)
    assert rows[["round", "client"]].values.tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert (rows["sent"] <= 0.5 * rows["shared"]).all()
    assert "sent per client and round" in capsys.readouterr().out
