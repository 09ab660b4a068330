"""What was read of a network is compared with it, in both modes, before anything relies on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError, out_of_memory
from gnnrl.graph.extract import extract
from gnnrl.measurement.export import onnx_bytes, program_bytes
from gnnrl.measurement.running import ready
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from gnnrl.report.coverage import coverage, summary
from gnnrl.tasks.check import refuse_misfit
from gnnrl.tasks.classification import CLASSIFICATION

IMAGES = torch.rand(2, 3, 8, 8)
LABELLED = Images((255 * IMAGES).byte(), torch.tensor([0, 1]), Transform((0.5,), (0.25,)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).relu())


class WithoutGradients(Net):
    def forward(self, x):
        with torch.no_grad():
            x = self.stem(x).relu()
        return self.head(self.body(x).relu())


class Auxiliary(Net):
    def forward(self, x):
        x = self.stem(x).relu()
        return (self.head(x), x) if self.training else self.head(x)


class OtherInTraining(Net):
    def forward(self, x):
        return super().forward(x) * (3.0 if self.training else 2.0)


class DropsBlocks(Net):
    def forward(self, x):
        x = self.stem(x).relu()
        if not (self.training and torch.rand(()).item() < 0.5):
            x = self.body(x).relu()
        return self.head(x)


class Remembers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(self.stem(x).mean())
        return super().forward(x) + sum(self.seen)


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    network.register_forward_pre_hook(lambda module, inputs: ((inputs[0] - 0.5) / 0.25,))
    return network


REFUSED = {
    "no_grad": (WithoutGradients, "stem would be trained"),
    "auxiliary head": (Auxiliary, "2 tensors, 1 when read"),
    "another function in training": (OtherInTraining, "does not train as the network does"),
    "random blocks": (DropsBlocks, "does not train as the network does"),
    "a hook of the network": (hooked, "a hook of the network is lost"),
    "a list on the network": (Remembers, "an earlier pass"),
    "DataParallel": (lambda: nn.DataParallel(Net()), "network.module"),
    "averaged": (lambda: torch.optim.swa_utils.AveragedModel(Net()), "network.module"),
    "compiled": (lambda: torch.compile(Net()), "network._orig_mod"),
    "script": (lambda: torch.jit.trace(Net(), IMAGES), "compiled code"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 2, 1)), "not known yet"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_another_network_is_refused(kind):
    make, why = REFUSED[kind]
    with pytest.raises(UserError, match=why):
        extract(make().eval(), IMAGES)


@pytest.mark.parametrize(
    "part",
    [nn.Dropout(0.5), nn.Dropout2d(0.2), nn.RReLU(), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)],
    ids=lambda part: type(part).__name__,
)
def test_what_trains_as_the_network_does_is_accepted(part):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), part, nn.ReLU(), nn.Conv2d(4, 2, 1))
    assert extract(network, IMAGES).groups


class Biased(Net):
    """Makes a tensor of numbers alone, which is a constant of each trace, and drops channels."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(2))
        self.register_buffer("places", torch.tensor([[0, 1], [1, 0]]))

    def forward(self, x):
        bias = self.table[self.places.view(-1)].view(1, 4, 1, 1)
        return super().forward(F.dropout(x, 0.5, self.training)) + bias.mean()


class Asks(Net):
    """Asks in evaluation mode where its input is, as a module does that keeps what it computed."""

    def forward(self, x):
        if not self.training:
            self.seen = str(x.device)
        return super().forward(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("kind", [Biased, Asks])
def test_what_is_dropped_is_dropped_in_training_only(kind):
    subnet = prune(kind().eval(), extract(kind(), IMAGES), PruningPlan({}))
    with torch.no_grad():
        assert torch.equal(subnet(IMAGES), subnet(IMAGES))
        subnet.train()
        assert not torch.equal(subnet(IMAGES), subnet(IMAGES))


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.random.get_rng_state()
    extract(network, IMAGES)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Quarters(Net):
    """Decides by the size of its images in Python, which tracing writes down."""

    def forward(self, x):
        side = 6 if x.shape[2] < 9 else 7
        return super().forward(x[:, :, :side])


class OneSize(Net):
    """Takes images of one size by itself."""

    def forward(self, x):
        assert x.shape[2] == 8
        return super().forward(x)


class Positions(Net):
    """Adds something for each place, of which there are as many as its images have."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(4, 6, 6))

    def forward(self, x):
        return self.head(self.body((self.stem(x) + self.position).relu()).relu())


def test_a_size_that_a_subnet_does_not_take_leaves_nothing_on_the_terminal(capfd):
    network = Positions().eval()
    subnet = prune(network, extract(network, IMAGES), PruningPlan({"body": (0, 2)}))
    assert not extract(subnet, IMAGES).one_size
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("network", "found"), [(Net, False), (Quarters, True), (OneSize, False)])
def test_a_size_of_images_that_was_written_down_is_told(network, found):
    graph = extract(network().eval(), IMAGES)
    assert graph.one_size is found
    assert graph.groups
    assert ("images of this size only" in summary(coverage(graph))) is found
    assert graph.digest == replace(graph, one_size=not found).digest


def shortage() -> str:
    """What PyTorch says where memory is short."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    return str(caught.value)


class TooLarge(Net):
    """Needs more memory than there is at times; exporters would not allocate, so it says so."""

    def __init__(self, when: Callable[[nn.Module, Tensor], bool]) -> None:
        super().__init__()
        self.when, self.says = when, shortage()

    def forward(self, x):
        if self.when(self, x):
            raise RuntimeError(self.says)
        return super().forward(x)


@pytest.mark.parametrize(
    "when",
    [
        lambda network, x: network.training,
        lambda network, x: True,
        lambda network, x: not isinstance(x, fx.Proxy) and len(x) == 3,
        lambda network, x: not isinstance(x, fx.Proxy) and x.shape[-1] > 8,
    ],
    ids=["in training", "always", "three images", "a larger image"],
)
def test_a_shortage_of_memory_is_not_taken_for_a_fault_of_the_network(when):
    with pytest.raises(RuntimeError, match="tried to allocate") as caught:
        extract(TooLarge(when), IMAGES)
    assert out_of_memory(caught.value) and not isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    "use",
    [
        lambda network: ready("onnxruntime", network, IMAGES, 1),
        lambda network: onnx_bytes(network, (3, 8, 8)),
        lambda network: program_bytes(network, (3, 8, 8)),
        lambda network: refuse_misfit(CLASSIFICATION, network, LABELLED),
    ],
    ids=["runtime", "onnx", "program", "images"],
)
def test_nor_is_it_where_a_network_is_used(use):
    with pytest.raises(RuntimeError, match="tried to allocate") as caught:
        use(TooLarge(lambda network, x: True).eval())
    assert not isinstance(caught.value, UserError)
