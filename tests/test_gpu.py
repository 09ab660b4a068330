"""What has to hold on a GPU as it does on the processor; GNNRL_GPU_TESTS=cpu tries them without."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl.agents.registry import build_agent
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.data.splits import Splits
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.measurement.latency import time_networks
from gnnrl.networks.build import build_network
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.compensation.moments import collect
from gnnrl.pruning.gather import ChannelGather
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import SearchResult, search
from gnnrl.search.parallel.ray import ray_workers
from gnnrl.search.parallel.settings import RaySettings
from gnnrl.search.parallel.workers import Shared
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.training import loop
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

DEVICE = os.environ.get("GNNRL_GPU_TESTS", "cuda")
RECIPE = TrainingRecipe(epochs=3, batch_size=128, learning_rate=0.05, augment=False)
GPUS = torch.cuda.device_count() if DEVICE == "cuda" else 0

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not GPUS, reason="there is no CUDA device"),
]


@pytest.fixture(autouse=True)
def on_the_device(monkeypatch):
    monkeypatch.setenv("GNNRL_DEVICE", DEVICE)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_data(DataRecipe("digits", reward_images=200), (1, 8, 8))


def network() -> nn.Sequential:
    """A small one with everything that has a state."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(256, 10),
    )


def test_plans_are_scored_at_the_dense_widths_as_they_are_cut():
    scored = []
    for masked in (False, True):
        env = task(DEVICE)
        score, random = env.evaluate, torch.Generator().manual_seed(0)
        assert isinstance(score, OneShot)
        if masked:
            score.run_masked()
        plans = [env.space.sample(random) for _ in range(5)]
        scored.append([found.reward for found in (*score(plans), *score(plans[:2]))])
    assert scored[1] == pytest.approx(scored[0], rel=0.02)
    assert scored[1][5:] == pytest.approx(scored[1][:2], rel=1e-4)


def task(device: str) -> PruningEnv:
    """Prune a ResNet-20 on some images, on this device."""
    torch.manual_seed(0)
    dense = build_network("resnet20", input_shape=(1, 8, 8)).to(device).eval()
    graph = extract(dense, torch.zeros(1, 1, 8, 8, device=device))
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(64) % 10
    space = ChannelSpace(graph, l1(dense, graph), budget=0.5)
    return PruningEnv(space, OneShot(Surgeon(dense, graph), images.to(device), labels.to(device)))


def shared() -> Shared:
    """Make task and agent, on a worker."""
    env = task(DEVICE)
    return Shared(env, build_agent("random", env, seed=0))


def found(env: PruningEnv, agent: str, **options: object) -> SearchResult:
    settings = {"hidden": 8, "layers": 1, "n_epochs": 2} if agent == "ppo" else {}
    actor = build_agent(agent, env, seed=0, **settings)
    return search(env, actor, evaluations=10, batch=4, seed=0, **options)


def test_one_evaluation_gives_the_reward_of_the_processor():
    here, there = task("cpu"), task(DEVICE)
    plan = here.space.uniform()
    (one,), (other,) = here.evaluate([plan]), there.evaluate([plan])
    assert other.reward == pytest.approx(one.reward, abs=1e-3)
    assert (other.flops, other.parameters) == (one.flops, one.parameters)


def test_compensated_subnets_get_the_reward_of_the_processor():
    """A GPU solves layers of the same size together, a processor one by one."""
    rewards = {}
    for device in ("cpu", DEVICE):
        env = task(device)
        scorer, images = env.evaluate, torch.rand(64, 1, 8, 8, generator=generator(1, "x"))
        analysis = scorer.surgeon.analysis
        found = collect(analysis, images.to(device), generator=generator(1, "calibration"))
        solve = GramSolve(analysis.graph, found)
        again = OneShot(scorer.surgeon, scorer._images, scorer.labels, compensate=solve)
        (evaluation,) = again([env.space.uniform()])
        rewards[device] = evaluation.reward
    assert rewards[DEVICE] == pytest.approx(rewards["cpu"], abs=5e-3)


def test_a_cut_network_is_read_as_on_the_processor():
    env = task("cpu")
    subnet = env.evaluate.surgeon.cut(env.space.uniform())
    assert any(isinstance(m, ChannelGather) and m.index is not None for m in subnet.modules())
    here = cost(extract(subnet, torch.zeros(1, 1, 8, 8)))
    there = cost(extract(subnet.to(DEVICE), torch.zeros(1, 1, 8, 8, device=DEVICE)))
    assert here == there


def test_a_runtime_on_the_processor_leaves_networks_where_they_are():
    pytest.importorskip("onnxruntime")
    dense = network().to(DEVICE).eval()
    time_networks({"dense": dense}, (1, 8, 8), 1, 1, "onnxruntime", 1)
    assert all(p.device.type == DEVICE for p in dense.parameters())


def test_a_search_with_updates_stays_within_the_budget():
    result = found(task(DEVICE), "ppo")
    assert len(result.history) >= 2 and np.isfinite([row["reward"] for row in result.history]).all()
    env = task(DEVICE)
    assert env.space.used(result.plan) <= 0.5


def test_one_step_of_training_lowers_the_loss_as_on_the_processor(splits, monkeypatch):
    recipe = RECIPE.changed(epochs=1)
    plain = network()
    there = train(plain, splits.train, recipe).history[0]["loss"]
    monkeypatch.setenv("GNNRL_DEVICE", "cpu")
    here = train(network(), splits.train, recipe).history[0]["loss"]
    assert next(plain.parameters()).device.type == DEVICE
    assert there == pytest.approx(here, rel=0.05)  # dropout draws other numbers on a GPU


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_STATES", 0.0)

    def killed(epoch: int, network: nn.Module) -> dict[str, float]:
        if epoch == 2:
            raise KilledError
        return {}

    whole, resumed = network(), network()
    train(whole, splits.train, RECIPE)
    with pytest.raises(KilledError):
        train(network(), splits.train, RECIPE, each_epoch=killed, scratch=tmp_path)
    train(resumed, splits.train, RECIPE, each_epoch=lambda *_: {}, scratch=tmp_path)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.allclose(one.float(), other.float(), atol=1e-4) for one, other in pairs)


@pytest.mark.ray
def test_ray_workers_that_share_a_gpu_find_the_same_plan(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, num_gpus=GPUS, include_dashboard=False, log_to_driver=False)
    try:
        alone, env = found(task(DEVICE), "random"), task(DEVICE)
        share = RaySettings(workers=2, cpus=1, gpus=0.5 if GPUS else 0.0)
        with ray_workers(shared, share) as workers:
            both = found(env, "random", workers=workers)
    finally:
        ray.shutdown()
    rewards = [[row["reward"] for row in result.evaluations] for result in (alone, both)]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-3)
    assert alone.plan.digest == both.plan.digest


@pytest.mark.skipif(GPUS < 2, reason="two GPUs; on processors tests/training/test_distributed.py")
def test_two_processes_train_as_one_does(splits):
    pytest.importorskip("lightning_fabric")
    recipe, plain = RECIPE.changed(epochs=1), network()
    without_dropout = [module for module in plain if not isinstance(module, nn.Dropout)]
    one, two = nn.Sequential(*without_dropout), network()
    two = nn.Sequential(*[module for module in two if not isinstance(module, nn.Dropout)])
    first = train(one, splits.train, recipe).history[0]
    second = train(two, splits.train, recipe.changed(processes=2)).history[0]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-3)
