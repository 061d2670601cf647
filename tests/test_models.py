"""The networks: published sizes, accepted inputs, and that the fast order of layers changes no number."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from mgc.training.networks import NETWORKS, count_parameters, find_network, make_network, options_of
from mgc.training.networks.layers import NormedConv, PooledConv, channels_last
from mgc.training.networks.plain import CNN5
from mgc.util.errors import MgcError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from bench_training import PLAIN

PUBLISHED = {"efficient_cnn": 16_456, "cnn_gru": 39_050, "cnn_lstm": 46_346, "cnn_gru_attention": 38_889}
PUBLISHED_FRAMES = {"mlp57": 1, "unet_encoder": 128}


def frames_of(name: str) -> int:
    return PUBLISHED_FRAMES.get(name, 70)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    assert count_parameters(make_network(name, 8, 128, 1292)) == PUBLISHED[name]


def test_the_axis_that_is_walked_changes_no_parameter_but_the_result() -> None:
    x = torch.randn(2, 1, 96, 128)
    outputs = []
    for scan, steps in (("time", 12), ("mel", 16)):
        torch.manual_seed(0)
        network = make_network("cnn_gru_attention", 8, 128, 96, {"scan": scan}).eval()
        assert count_parameters(network) == PUBLISHED["cnn_gru_attention"]
        walked: list[torch.Size] = []
        network.get_submodule("recurrent").register_forward_hook(
            lambda _m, given, _out, seen=walked: seen.append(given[0].shape)
        )
        outputs.append(network(x))
        assert walked == [(2, steps, 128)]
    assert not torch.allclose(*outputs)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bands", [12, 13, 128])
def test_every_network_takes_any_classes_and_features(name: str, bands: int) -> None:
    torch.manual_seed(1)
    frames = frames_of(name)
    x = torch.rand(3, 1, frames, bands)
    for classes in (2, 5):
        network = make_network(name, classes, bands, frames)
        logits = network(x)
        assert logits.shape == (3, classes)
        logits.sum().backward()
        # Every parameter has a gradient: distributed training waits for each of them.
        assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    each = torch.cat([network(one.unsqueeze(0)) for one in x])  # no clip depends on its neighbours
    torch.testing.assert_close(network(x), each, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_input_is_taken_and_a_smaller_one_is_refused(name: str) -> None:
    network = find_network(name)
    smallest = make_network(name, 2, network.min_bands, network.min_frames).eval()
    assert smallest(torch.rand(1, 1, network.min_frames, network.min_bands)).isfinite().all()
    too_few = [(network.min_bands - 1, network.min_frames), (network.min_bands, network.min_frames - 1)]
    for bands, frames in too_few:
        if bands and frames:
            with pytest.raises(MgcError, match=f"{name} needs") as caught:
                make_network(name, 2, bands, frames)
            assert "to do:" in str(caught.value) and f"{frames} frames x {bands} bands" in str(caught.value)


def test_impossible_inputs_and_options_are_refused() -> None:
    with pytest.raises(MgcError, match="one vector per track") as caught:
        make_network("mlp57", 2, 128, 215)
    assert "stats57" in str(caught.value)
    with pytest.raises(MgcError, match="did you mean 'cnn_gru'"):
        make_network("cnn_gro", 2, 128, 215)
    with pytest.raises(MgcError, match="the network cnn has no option scan") as caught:
        make_network("cnn", 2, 128, 215, {"scan": "mel"})
    assert "options of cnn are dropout" in str(caught.value)
    with pytest.raises(MgcError, match="'freq' is not an axis"):
        make_network("cnn_gru", 2, 128, 215, {"scan": "freq"})
    with pytest.raises(MgcError, match=r"dropout = 1.0 is outside"):
        options_of("cnn", {"dropout": 1.0})


def test_options_are_the_published_ones_unless_given() -> None:
    assert options_of("cnn_gru_attention", {"dropout": None, "scan": None, "classifier_dropout": 0.1}) == {
        "dropout": 0.2, "classifier_dropout": 0.1, "scan": "time",
    }  # fmt: skip
    assert options_of("gru", {"dropout": None, "scan": None}) == {"classifier_dropout": 0.3}
    shares = [
        m.p for m in make_network("cnn_gru_attention", 8, 128, 64).modules() if "Dropout" in type(m).__name__
    ]
    assert shares == [0.1, 0.2, 0.4]


def all_numbers(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Logits in training and eval mode, gradients of a loss that depends on every logit, running means."""
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    logits = network.train()(x)
    (logits * torch.linspace(-1, 2, logits.numel()).view_as(logits)).sum().backward()
    grads = [parameter.grad for parameter in network.parameters()]
    return [logits, network.eval()(x), *grads, *network.buffers()]


@pytest.mark.parametrize("name", PLAIN)
def test_the_fast_order_of_layers_is_the_plain_one(name: str) -> None:
    """In float64, where only a difference in mathematics is left."""
    torch.manual_seed(2)
    fast, plain = make_network(name, 3, 64, 72).double(), PLAIN[name](3).double()
    for parameter in fast.parameters():  # also negative scales of BatchNorm, and biases
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(dict(zip(plain.state_dict(), fast.state_dict().values(), strict=True)))
    x = torch.randn(4, 1, 72, 64, dtype=torch.float64)
    for ours, theirs in zip(all_numbers(fast, x), all_numbers(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_convolution_with_what_follows_it(groups: int) -> None:
    """Names of the weights, too, are those of the layers one would write."""
    torch.manual_seed(3)
    layers = {"conv": nn.Conv2d(3, 6, 3, padding=1, groups=groups), "norm": nn.BatchNorm2d(6)}
    plain = nn.Sequential(OrderedDict(layers, relu=nn.ReLU(), pool=nn.MaxPool2d((2, 1)))).double()
    fast = NormedConv(3, 6, groups=groups, bias=True, pool=(2, 1)).double()
    for value in plain.parameters():
        nn.init.normal_(value)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(3, 3, 9, 8, dtype=torch.float64)
    for _ in range(2):
        for ours, theirs in zip(fast(x), plain(x), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(fast.state_dict(), plain.state_dict())
    pooled = PooledConv(3, 6, (2, 1)).double()
    alone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1))).double()
    alone[0].load_state_dict(pooled.state_dict())
    torch.testing.assert_close(pooled(x), alone(x))


def test_the_first_layer_computes_channels_last() -> None:
    """Torch takes one channel for contiguous as well, and would pool five to ten times slower."""
    layer = NormedConv(1, 4, bias=True, pool=(2, 2))
    for training in (True, False):
        maps = layer.train(training)(channels_last(torch.randn(2, 1, 16, 8)))
        assert maps.stride()[1] == 1


def test_a_picture_has_time_to_the_right_and_high_notes_above() -> None:
    network = make_network("cnn5", 2, 64, 300)
    assert isinstance(network, CNN5)
    x = torch.zeros(1, 1, 300, 64)
    x[:, :, :30, -8:] = 1.0  # high, at the beginning
    picture = network.picture(x)
    assert picture.shape == (1, 3, 224, 224)
    assert picture.min() >= -1 and picture.max() <= 1
    bright = picture[0].mean(dim=0)
    assert bright[:20, :15].mean() > 0.5 > -0.5 > bright[40:].mean()
    assert bright[:, 40:].mean() < -0.5
