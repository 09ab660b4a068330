from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gnnrl.errors import UserError
from gnnrl.networks import detectors
from gnnrl.networks.build import NETWORKS, build_network
from gnnrl.networks.shufflenet import channel_shuffle
from gnnrl.tracing.trace import trace

# flops (multiply-accumulates of convolutions and linear layers) of one image, published figures
GOLDEN = {
    ("basic_cnn", 10, 32): 42_421_952,
    ("resnet20", 10, 32): 40_551_040,
    ("resnet56", 10, 32): 125_485_696,
    ("resnet110", 10, 32): 252_887_680,
    ("vgg16_bn", 10, 32): 313_201_664,
    ("mobilenet_v1", 1000, 224): 568_740_352,
    ("mobilenet_v2", 1000, 224): 300_774_272,
    ("torchvision/resnet18", 1000, 224): 1_814_073_344,
}


def flops(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *input_shape))
    return counter.get_total_flops() // 2


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "num_classes", "size"), GOLDEN)
def test_costs_are_the_published_ones(name, num_classes, size):
    shape = (3, size, size)
    assert flops(build_network(name, num_classes, shape), shape) == GOLDEN[name, num_classes, size]


SIDES = {"swin_patch2": 32}
"""Of a small grey image, where the network does not take 28 pixels."""


ALL = sorted(NETWORKS.keys() - detectors.NETWORKS.keys())
DEEP = [name for name in ALL if re.fullmatch(r"resnet\d{2,3}b?", name) and name[:8] != "resnet20"]
"""What differs from ResNet-20 in its depth alone; of these, grey images are slow."""


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, (3, 32, 32)) for name in ALL),
        *((name, (1, 28, 28)) for name in ALL if name not in DEEP),
        *(pytest.param(name, (1, 28, 28), marks=pytest.mark.slow) for name in DEEP),
    ],
)
def test_every_network_traces_and_takes_any_batch(name, shape):
    if shape[0] == 1 and name in SIDES:
        shape = (1, SIDES[name], SIDES[name])
    network = build_network(name, 7, shape).eval()
    traced = trace(network, torch.zeros(1, *shape))
    images = torch.rand(2, *shape)
    with torch.no_grad():
        torch.testing.assert_close(traced(images), network(images))
        pixels = shape[1:] if name.startswith("unet") else ()
        assert traced(images[:1]).shape == (1, 7, *pixels)


def test_basic_cnn_has_960_filters_and_gives_logits():
    network = build_network("basic_cnn")
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert sum(conv.out_channels for conv in convolutions) == 960
    assert parameters(network) == 1_634_826
    assert not any(isinstance(module, nn.Softmax) for module in network.modules())


def test_vit_patch4_has_the_parameters_of_its_sizes_and_takes_square_images_only():
    block = 4 * 128 * 128 + 2 * 128 * 512 + 4 * 128 + 128 + 512 + 4 * 128  # weights, biases, norms
    embedding = 3 * 16 * 128 + 128 + 65 * 128 + 128  # patches, positions, class token
    assert parameters(build_network("vit_patch4")) == 6 * block + embedding + 256 + 1290
    with pytest.raises(UserError, match="multiple of 4, got 30x30"):
        build_network("vit_patch4", 10, (3, 30, 30))


def test_sagemaker_network_has_171504_parameters_as_its_example_counts():
    network = build_network("sagemaker_5block")
    norms = sum(4 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    weights = sum(
        m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )
    assert norms + weights == 171_504


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18_cifar", 11_173_962), ("resnet34_cifar", 21_282_122)]
)
def test_cifar_stems_have_the_counts_of_n2n(name, count):
    assert parameters(build_network(name)) == count


def test_option_b_adds_a_convolution_per_change_of_width():
    plain, projected = build_network("resnet20"), build_network("resnet20b")
    extra = projected.state_dict().keys() - plain.state_dict().keys()
    assert {key.rsplit(".", 2)[0] for key in extra} == {"layer2.0.shortcut", "layer3.0.shortcut"}


def test_channel_shuffle_deals_channels_out_in_turn():
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_auxiliary_heads_are_gone():
    network = build_network("torchvision/googlenet", 10, (3, 64, 64)).train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 10)
    assert not any("aux" in key for key in network.state_dict())


def test_torchvision_networks_take_grey_images():
    network = build_network("torchvision/squeezenet1_1", 10, (1, 64, 64)).eval()
    assert network(torch.rand(1, 1, 64, 64)).shape == (1, 10)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def full(num_classes, input_shape): return nn.Linear(input_shape[0], num_classes)\n"
        "def bare(): return nn.Identity()\n"
        "def greedy(depth): return nn.Identity()\n"
        "def wrong(): return 'network'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_own_functions_get_what_they_ask_for(own_module):
    assert build_network("my_networks:full", 4, (5, 8, 8)).weight.shape == (4, 5)
    assert isinstance(build_network("my_networks:bare"), nn.Identity)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet21", "did you mean .*resnet20"),
        ("resnet19", "did you mean torchvision/resnet18 or "),
        ("zzz", "known are basic_cnn"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("no_such_module:network", "no_such_module"),
        ("my_networks:missing", "'missing'"),
        ("my_networks:greedy", "depth"),
        ("my_networks:wrong", "str"),
    ],
)
def test_unknown_names_are_refused_with_what_would_do(name, said, own_module):
    with pytest.raises(UserError, match=said):
        build_network(name)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision/alexnet", (3, 32, 32)),
        ("torchvision/vit_b_16", (3, 32, 32)),
        ("basic_cnn", (3, 8, 8)),
    ],
)
def test_images_too_small_for_the_network_are_refused(name, shape):
    with pytest.raises(UserError, match="cannot take images"):
        build_network(name, 10, shape)


@pytest.mark.parametrize(("num_classes", "shape"), [(0, (3, 32, 32)), (10, (32, 32))])
def test_nonsense_sizes_are_refused(num_classes, shape):
    with pytest.raises(UserError, match=r"at least one class"):
        build_network("resnet20", num_classes, shape)
