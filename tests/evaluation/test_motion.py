"""Known answers of the measures of"""

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.optical_flow import raft_large

from assd.data.flow import RaftFlow, dis_flow, enlarged, warp
from assd.errors import InputError
from evaluation.metrics.motion import Flicker, WarpError, visible_in_both
from tests.evaluation.cases import BACKGROUND_PAIR, case, no_meaning, plain_case, source, texture


def test_warp_error_of_a_shifted_texture():
    """Near 0 for a texture that moves rigidly, and much more when its frames are shuffled."""
    moving = torch.stack([texture(2 * i) for i in range(5)])
    still = WarpError()(plain_case(moving))
    shuffled = WarpError()(plain_case(moving[[0, 3, 1, 4, 2]], of=moving))
    assert still < 0.5
    assert shuffled > 20 * still


def test_warping_undoes_a_known_flow():
    """Frames moved by whole pixels come back exactly, by half pixels as the mean of neighbours."""
    ramp = torch.arange(8.0).repeat(1, 1, 8, 1) / 8
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2
    assert torch.allclose(warp(ramp, flow)[..., :6], ramp[..., 2:])
    flow[:, 0] = 0.5
    assert torch.allclose(warp(ramp, flow)[..., :7], (ramp[..., :7] + ramp[..., 1:]) / 2)


def test_points_that_leave_or_disagree_are_left_out():
    """Two pixels to the right: the last two columns leave the frame; where the way back differs, nothing is seen."""
    forward = torch.zeros(1, 2, 8, 8)
    forward[:, 0] = 2
    backward = -forward
    backward[:, :, :4] = 0  # the upper half says that nothing came from there
    seen = visible_in_both(forward, backward)[0]
    assert not seen[:4].any()
    assert seen[5:, :6].all()
    assert not seen[:, 6:].any()


def test_flow_is_the_shift():
    """OpenCV's flow of the shifted texture is two pixels to the right."""
    first, second = (enlarged(texture(shift)[None]) for shift in (0, 2))
    flow = dis_flow(first, second)[0, :, 64:-64, 64:-64] / (first.shape[-1] / 96)
    assert flow[0].mean() == pytest.approx(2, abs=0.1)
    assert flow[1].mean() == pytest.approx(0, abs=0.1)


def test_flicker_counts_what_blinks_outside_the_edit():
    """Half the range from frame to frame is 127.5 grey levels; inside the mask it counts for nothing."""
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[:, :4] = True
    blinking = torch.zeros(4, 3, 8, 8)
    blinking[::2, :, 4:] = 1.0
    assert Flicker()(plain_case(blinking, masks)) == pytest.approx(127.5)
    assert Flicker()(plain_case(blinking.flip(2), masks)) == 0


@pytest.mark.end_to_end
def test_raft_flow_is_torchvisions(put_weights):
    """Its weights are those in the cache, its flow of the frames as they are; sides need not be multiples of 8."""
    torch.manual_seed(0)
    network = raft_large().eval()
    put_weights(network, RaftFlow.weights)
    raft = RaftFlow(device="cpu")
    first, second = texture(0)[None].repeat_interleave(3, -2), texture(2)[None].repeat_interleave(3, -2)
    first, second = (F.interpolate(frames, size=(256, 256), mode="bicubic") for frames in (first, second))
    with torch.no_grad():
        expected = network(first, second)[-1]
    assert torch.allclose(raft(first, second), expected, atol=1e-4)
    assert raft(first[..., :-3, :-5], second[..., :-3, :-5]).shape == (1, 2, 253, 251)
    by_raft = WarpError("raft", device="cpu")
    assert "RAFT" in by_raft.name
    assert by_raft(plain_case(torch.full((2, 3, 64, 64), 0.5))) < 1e-6  # grey stays grey, wherever it goes


def test_raft_says_where_its_weights_go(monkeypatch, tmp_path):
    """Nothing is downloaded: the file is named."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path)):
        WarpError("raft")


def test_what_has_no_motion_says_why():
    """A single frame, a background that was to change, an object that fills the frame: each for its own reason."""
    single = plain_case(torch.rand(1, 3, 64, 64))
    assert no_meaning(WarpError(), single) == "a single frame"
    assert no_meaning(Flicker(), single) == "a single frame"
    assert no_meaning(Flicker(), plain_case(torch.rand(3, 3, 8, 8))) == "no mask says where the object is"
    assert no_meaning(Flicker(), case(source, BACKGROUND_PAIR)) == "what lies outside the object was to change"
    everywhere = torch.ones(3, 8, 8, dtype=torch.bool)
    assert no_meaning(Flicker(), plain_case(torch.rand(3, 3, 8, 8), everywhere)) == "nothing lies outside the object"


def test_unknown_flows_are_refused():
    """The known ones are named."""
    with pytest.raises(InputError, match="flow must be one of dis, raft"):
        WarpError("sift")
