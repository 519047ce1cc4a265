"""ControlNets: what they add in a U-Net, where they come from, and the maps that they are conditioned on."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from torch import nn

from assd.errors import InputError
from assd.models.conditions import Annotator, Canny, control_maps, wrapped
from assd.models.control_net import ControlNet, adding_in_place, load_control_net
from assd.models.hub import resolve_folder
from assd.models.store import STORE
from tests.fakes import unused
from tests.parity.network import set_weights, tiny_unet

SMALL = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 32), layers_per_block=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def unet():
    return tiny_unet(0, **SMALL)


@pytest.fixture(scope="module")
def control_net(unet):
    """Its last convolutions are not zero; two pixels of a map lie along a latent pixel."""
    network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    set_weights(network, 1)
    return ControlNet(network)


@pytest.fixture
def inputs():
    """Two videos of three frames, as a U-Net gets them, and the frames' maps."""
    rng = torch.Generator().manual_seed(0)
    z, text, maps = (
        torch.randn(6, 4, 8, 4, generator=rng),
        torch.randn(6, 5, 32, generator=rng),
        torch.rand(3, 3, 16, 8),
    )
    return z, text, maps


def passed(unet, z, text):
    return unet(z, torch.tensor([300]), encoder_hidden_states=text).sample


def test_beside_is_the_unet_with_the_residuals_of_every_frame(unet, control_net, inputs):
    """A map that went to the wrong frame, or a residual to the wrong place, would show."""
    z, text, maps = inputs
    skips, mid = control_net.residuals(z, 300, text, maps.repeat(2, 1, 1, 1), scale=0.5)
    by_hand = unet(
        z, torch.tensor([300]), text, down_block_additional_residuals=skips, mid_block_additional_residual=mid
    ).sample
    alone = passed(unet, z, text)
    with control_net.beside(unet, maps, scale=0.5):
        assert passed(unet, z, text).equal(by_hand)
    assert not by_hand.allclose(alone)
    assert passed(unet, z, text).equal(alone)


def test_the_unet_is_itself_again_after_an_error(unet, control_net, inputs):
    z, text, maps = inputs
    alone = passed(unet, z, text)
    with (
        pytest.raises(InputError, match="16 x 8 pixels"),
        control_net.beside(unet, maps[..., :4]),
        adding_in_place(unet),
    ):
        passed(unet, z, text)
    assert passed(unet, z, text).equal(alone)


def test_in_place_the_mid_block_gets_the_last_skips_residual(unet, control_net, inputs):
    z, text, maps = inputs
    seen = []
    handle = unet.mid_block.resnets[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with control_net.beside(unet, maps):
        passed(unet, z, text)
        with adding_in_place(unet):
            passed(unet, z, text)
    handle.remove()
    last = control_net.residuals(z, 300, text, maps.repeat(2, 1, 1, 1)).skips[-1]
    torch.testing.assert_close(seen[1] - seen[0], last, atol=1e-5, rtol=0)


def test_a_control_net_of_another_shape_is_refused(control_net):
    control_net.check_beside(tiny_unet(0, **SMALL))
    with pytest.raises(InputError, match=r"one block_out_channels; they have \[?\(?32, 32"):
        control_net.check_beside(tiny_unet(0, **{**SMALL, "block_out_channels": (32, 64)}))
    with pytest.raises(InputError, match="UNet2DConditionModel; got Linear"):
        control_net.check_beside(nn.Linear(1, 1))


def test_what_was_saved_is_loaded_once(control_net, tmp_path, inputs):
    STORE.clear()
    control_net.network.save_pretrained(tmp_path)
    loaded = load_control_net(str(tmp_path), device="cpu")
    assert load_control_net(str(tmp_path), device="cpu") is loaded
    z, text, maps = inputs
    for ours, theirs in zip(
        loaded.residuals(z[:3], 7, text[:3], maps), control_net.residuals(z[:3], 7, text[:3], maps)
    ):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    STORE.clear()


def test_random_weights_at_the_published_size_are_counted():
    """361 million parameters, as ControlNet 1.0 for Stable Diffusion has."""
    config = ControlNetModel.load_config(resolve_folder("pkg://assd.models/published/control_net_v1"))
    with torch.device("meta"):
        network = ControlNetModel.from_config(config)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == 361


def test_a_missing_one_says_how_to_fetch_it(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        load_control_net("nobody/nothing", revision="abc", licence="MIT", download="1 GB", device="cpu")
    for words in ("HF_HUB_OFFLINE", "hf download nobody/nothing --revision abc", "1 GB", "Its licence is MIT"):
        assert words in str(error.value)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "pkg://assd.shapes/nowhere"])
def test_a_folder_that_is_not_there_is_asked_of_no_hub(path, monkeypatch):
    monkeypatch.setattr("assd.models.control_net.ControlNetModel.from_pretrained", unused)
    with pytest.raises(InputError, match="there is no such folder") as error:
        load_control_net(path, device="cpu")
    assert "hf download" not in str(error.value)


def test_edges_lie_where_the_picture_changes():
    frames = -torch.ones(2, 3, 16, 16)
    frames[1, :, :, 8:] = 1
    maps = control_maps(frames, Canny())
    assert maps.shape == (2, 3, 16, 16) and set(maps.unique().tolist()) == {0.0, 1.0}
    assert maps[0].sum() == 0
    assert maps[1].any(dim=(0, 1)).nonzero().flatten().tolist() in ([7], [8])


def test_wrapped_bytes_are_those_of_the_published_code():
    """2p + 1, then one more than that modulo 256, then 2p - 255; a rounded product would miss the middle half."""
    p = [0, 1, 32, 63, 64, 96, 127, 128, 192, 255]
    frames = (torch.tensor(p) / 127.5 - 1).expand(1, 3, 1, len(p))
    assert wrapped(frames)[0, 0, :, 0].tolist() == [1, 3, 65, 127, 130, 194, 0, 1, 129, 255]


def test_the_condition_sees_bytes_of_the_frame():
    seen = []
    control_maps(torch.full((1, 3, 4, 4), 0.5), lambda frame: seen.append(frame) or frame)
    control_maps(torch.full((1, 3, 4, 4), 0.5), lambda frame: seen.append(frame) or frame, wrap=True)
    assert [int(frame[0, 0, 0]) for frame in seen] == [191, 127] and all(frame.dtype == np.uint8 for frame in seen)


def test_without_its_package_an_annotator_says_what_to_install(monkeypatch):
    STORE.clear()
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(InputError, match="pip install controlnet_aux"):
        Annotator("MidasDetector", "somewhere", device="cpu")(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="MidasDetector, OpenposeDetector; got 'Depth'"):
        Annotator("Depth", "somewhere")


def test_an_annotator_is_loaded_once_and_its_map_has_the_frames_size(monkeypatch):
    """Detectors round sizes to multiples of 64; without weights they say where these come from."""
    STORE.clear()
    loaded = []

    class Detector:
        @classmethod
        def from_pretrained(cls, weights):
            loaded.append(weights)
            if weights == "nowhere":
                raise OSError("no such repository")
            return cls()

        def to(self, device):
            return self

        def __call__(self, frame, detect_resolution, image_resolution, output_type):
            assert detect_resolution == image_resolution == 40 and output_type == "np"
            return np.full((64, 64, 3), 7, np.uint8)

    monkeypatch.setitem(sys.modules, "controlnet_aux", SimpleNamespace(OpenposeDetector=Detector))
    annotate = Annotator("OpenposeDetector", "here", device="cpu")
    maps = [annotate(np.zeros((40, 72, 3), np.uint8)) for _ in range(2)]
    assert maps[0].shape == (40, 72, 3) and loaded == ["here"]
    with pytest.raises(InputError, match=r"hf download nowhere body_pose_model.pth"):
        Annotator("OpenposeDetector", "nowhere", device="cpu")(np.zeros((40, 72, 3), np.uint8))
    STORE.clear()
