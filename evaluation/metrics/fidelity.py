"""How close an edited video stays to another one: to its source where nothing was asked, or to the true edit.

A metric is a measure x another video x a region: `Fidelity`. A measure compares videos with pixels in [0, 1].
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from assd.files import require_weights
from evaluation.case import REGIONS, Case, NoMeaning, check_choice, unit

AGAINST = {"source": "source", "reconstruction": "reconstructed source", "truth": "true edit"}
IDENTICAL = 100.0  # dB: PSNR of identical pixels, whose logarithm is infinite, and the most that is reported
SQUEEZENET = "squeezenet1_1-b8a52dc0.pth"

Video = Float[Tensor, "n 3 H W"]
Elements = Bool[Tensor, "n 3 H W"]


@dataclass(frozen=True)
class Measure:
    """How close two videos are.

    name    and unit
    better  `higher` or `lower`
    within  over the elements that count, of two videos that are equal everywhere else; None where only whole frames
            can be compared
    whole   the mean over frames of the measure of whole frames
    """

    name: str
    better: str
    within: Callable[[Video, Video, Elements], float] | None
    whole: Callable[[Video, Video], float]


def psnr_within(frames: Video, target: Video, where: Elements) -> float:
    """Peak signal-to-noise ratio, -10 log10 of the mean squared error, pooled over all frames; at most 100 dB."""
    return min(IDENTICAL, peak_signal_noise_ratio(frames[where], target[where], data_range=1.0).item())


def psnr_whole(frames: Video, target: Video) -> float:
    """The mean of the frames' own values."""
    each = peak_signal_noise_ratio(frames, target, data_range=1.0, dim=(1, 2, 3), reduction="none")
    return each.clamp(max=IDENTICAL).mean().item()


def ssim_within(frames: Video, target: Video, where: Elements) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, at most 1; averaged over these elements.

    What lies outside the region counts as equal also within the window of a point inside it.
    """
    _, similarity = structural_similarity_index_measure(frames, target, data_range=1.0, return_full_image=True)
    return similarity[where].mean().item()


def ssim_whole(frames: Video, target: Video) -> float:
    """torchmetrics' own mean."""
    return structural_similarity_index_measure(frames, target, data_range=1.0).item()


def change_within(frames: Video, target: Video, where: Elements) -> float:
    """Mean absolute difference in grey levels of 255."""
    return 255 * (frames - target).abs()[where].mean().item()


def change_whole(frames: Video, target: Video) -> float:
    """The same over all elements."""
    return 255 * (frames - target).abs().mean().item()


def mse_within(frames: Video, target: Video, where: Elements) -> float:
    """Mean squared error over these elements."""
    return (frames - target).square()[where].mean().item()


def mse_whole(frames: Video, target: Video) -> float:
    """The same over all elements."""
    return (frames - target).square().mean().item()


def lpips_whole(frames: Video, target: Video) -> float:
    """Learned perceptual distance (Zhang et al. 2018), SqueezeNet, by torchmetrics."""
    distance = lpips_network()
    value = distance(frames.clamp(0, 1), target.clamp(0, 1)).item()
    distance.reset()
    return value


@functools.cache
def lpips_network() -> Callable:
    """The network, loaded once. Raises InputError where torch's cache does not hold its weights."""
    require_weights("metric lpips", SQUEEZENET)
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415  (slow to import)

    with warnings.catch_warnings():  # torchvision's, about an argument that torchmetrics passes
        warnings.simplefilter("ignore", UserWarning)
        return LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True).eval().requires_grad_(False)


MEASURES = {
    "psnr": Measure("PSNR (dB)", "higher", psnr_within, psnr_whole),
    "ssim": Measure("SSIM", "higher", ssim_within, ssim_whole),
    "mse": Measure("MSE", "lower", mse_within, mse_whole),
    "change": Measure("mean change (of 255)", "lower", change_within, change_whole),
    "lpips": Measure("LPIPS (SqueezeNet)", "lower", None, lpips_whole),
}


class Fidelity:
    """A measure between the video and another one, over a region.

    measure          `psnr`, `ssim`, `mse`, `change` or `lpips`
    against          `source`, `reconstruction` (the source through the autoencoder), or `truth` (the true edit)
    region           `all`, `object`, `background` or `bystander`. Against anything but the truth, a part has a meaning
                     only where it was to stay: the background in edits of the object, the object in edits of the
                     background, a bystander always
    area_normalised  True: over the region's own pixels. False: FiVE-Bench's and PIE-Bench's convention, both videos set
                     to black outside the region and compared over the whole frame, so that a small region looks better
                     than it is

    The change of the background, against the source, is the paper's contamination.
    """

    def __init__(self, measure: str, against: str = "source", region: str = "all", area_normalised: bool = True):
        check_choice("measure", measure, tuple(MEASURES))
        check_choice("against", against, tuple(AGAINST))
        check_choice("region", region, tuple(REGIONS))
        self.measure, self.against, self.region, self.area_normalised = measure, against, region, area_normalised
        if measure == "lpips":
            check_choice("area_normalised", str(area_normalised).lower(), ("false",))
            lpips_network()  # so that missing weights are said before the work begins

    @property
    def better(self) -> str:
        """The measure's."""
        return MEASURES[self.measure].better

    @property
    def name(self) -> str:
        """Measure, other video, region, convention."""
        convention = "" if self.area_normalised else ", black elsewhere"
        said = f"{MEASURES[self.measure].name} to {AGAINST[self.against]}, {REGIONS[self.region]}{convention}"
        is_contamination = (self.measure, self.against, self.region) == ("change", "source", "background")
        return f"contamination: {said}" if is_contamination else said

    def __call__(self, case: Case) -> float:
        """The mean over frames and region. Raises NoMeaning where the other video or the region is not known."""
        target = {"source": case.source, "reconstruction": case.reconstruction, "truth": case.footage.truth}[
            self.against
        ]
        if target is None:
            raise NoMeaning(f"there is no {AGAINST[self.against]}")
        anywhere = self.against == "truth" or self.region == "all"
        region = (case.region if anywhere else case.kept)(self.region)
        frames, target, where = unit(case.frames), unit(target), region[:, None].expand_as(case.frames)
        measure = MEASURES[self.measure]
        if self.area_normalised:
            assert measure.within is not None
            return measure.within(frames.where(where, target), target, where)
        return measure.whole(frames * where, target * where)
