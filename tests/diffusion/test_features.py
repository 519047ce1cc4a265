"""Features are kept and injected where they are asked for, bit for bit, and the network is as before afterwards."""

# ruff: noqa: PLC0415

import pytest
import torch
from torch import nn

LAYERS = ("0", "2")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 3, stride=2, padding=1))


@pytest.fixture(params=["device", "cpu", "disk"])
def store(request, tmp_path):
    from assd.diffusion.features import FeatureStore

    return FeatureStore(request.param, tmp_path)


def test_a_store_gives_back_the_bits_and_knows_its_size(store):
    feature = torch.randn(2, 3, 4)
    store.put(0, "a.b", feature)
    store.put(1, "a.b", feature[:1].transpose(1, 2))
    store.put(0, "a.b", 2 * feature)
    assert store.get(0, "a.b").equal(2 * feature)
    assert store.get(1, "a.b").equal(feature[:1].transpose(1, 2))
    assert store.nbytes == 4 * (24 + 12)
    store.discard(1, "a.b")
    assert (len(store), store.nbytes, (1, "a.b") in store) == (1, 4 * 24, False)
    with pytest.raises(KeyError, match=r"nothing of 'a\.b' at step 1"):
        store.get(1, "a.b")


def test_what_is_kept_does_not_change_with_the_original(store):
    feature = torch.zeros(2)
    store.put(0, "a", feature)
    feature += 1
    assert store.get(0, "a").equal(torch.zeros(2))


def test_files_go_with_the_store(tmp_path):
    from assd.diffusion.features import FeatureStore

    store = FeatureStore("disk", tmp_path)
    store.put(3, "up_blocks.1.conv", torch.ones(2))
    assert [file.name for file in tmp_path.glob("*/*")] == ["3.up_blocks.1.conv.safetensors"]
    del store
    assert not list(tmp_path.iterdir())


def test_injecting_an_input_s_features_gives_its_output_in_every_half(network, store):
    from assd.diffusion.features import Features

    x, other = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 8, 8)
    features = Features(network, ("0",), store)
    with features.tapped(step=7):
        expected = network(x)
    with features.injected(step=7):
        assert network(other).equal(torch.cat([expected, expected]))
    with features.injected(step=6):
        assert not network(other).equal(torch.cat([expected, expected]))


def test_the_network_is_as_before_also_after_an_error(network, store):
    from assd.diffusion.features import Features

    features, x = Features(network, LAYERS, store), torch.randn(1, 3, 8, 8)
    expected = network(x)
    with pytest.raises(RuntimeError, match="stop"), features.tapped(0):
        raise RuntimeError("stop")
    assert network(x).equal(expected)
    assert len(store) == 0


def test_the_cap_keeps_out_large_features_and_the_size_is_known_beforehand(network, store):
    from assd.diffusion.features import Features

    features, x = Features(network, LAYERS, store, largest=16), torch.randn(2, 3, 8, 8)
    size = features.nbytes_of(lambda: network(x[:1]))
    assert (size, len(store)) == (4 * 2 * 16, 0)
    with features.tapped(0):
        network(x)
    assert ((0, "0") in store, (0, "2") in store, store.nbytes) == (False, True, 2 * size)
    with features.injected(0):
        assert network(torch.randn(2, 3, 8, 8)).equal(store.get(0, "2"))


def test_injected_queries_and_keys_decide_where_attention_looks(store):
    from diffusers.models.attention_processor import Attention

    from assd.diffusion.features import Features, queries_and_keys

    torch.manual_seed(0)
    network = nn.ModuleDict({"attn1": Attention(8, heads=2, dim_head=4)})
    features = Features(network, queries_and_keys(["attn1"]), store)
    x, other = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    attention = network["attn1"]
    with features.tapped(0):
        attention(x)
    with features.injected(0):
        injected = attention(other)
    q, k, v = (
        layer(states).reshape(5, 2, 4).transpose(0, 1)
        for layer, states in ((attention.to_q, x[0]), (attention.to_k, x[0]), (attention.to_v, other[0]))
    )
    heads = (q @ k.transpose(1, 2) / 2).softmax(-1) @ v
    torch.testing.assert_close(injected[0], attention.to_out[0](heads.transpose(0, 1).reshape(5, 8)))


def test_what_cannot_be(network, store):
    from assd.diffusion.features import Features, FeatureStore
    from assd.errors import InputError

    with pytest.raises(InputError, match=r"got 'up_blocks\.9'"):
        Features(network, ("up_blocks.9",), store)
    with pytest.raises(InputError, match="must be one of device, cpu, disk; got 'tape'"):
        FeatureStore("tape")
    with pytest.raises(InputError, match=r"4096\.0 GiB.*fewer frames"):
        store.check_room(2**42, "the feature store of 900 frames")
