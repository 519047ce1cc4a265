"""How close an edited video stays to another one: to its source where nothing was asked, or to the true edit."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from evaluation.case import REGIONS, Case, check_choice, require_weights, unit

AGAINST = {"source": "source", "reconstruction": "reconstructed source", "truth": "true edit"}
IDENTICAL = 100.0  # dB: PSNR of identical pixels, whose logarithm is infinite, and the most that is reported


class Comparison:
    """A measure between the video and another one, over a region.

    against          `source`, `reconstruction` (the source through the autoencoder), or `truth` (the true edit)
    region           `all`, `object` or `background`. Against the source, a part has a meaning only where it was to
                     stay: the background in edits of the object, the object in edits of the background
    area_normalised  True: the mean over the region's own pixels. False: FiVE-Bench's and PIE-Bench's convention, both
                     videos set to black outside the region and compared over the whole frame, so that a small region
                     looks better than it is
    """

    measure: str  # name and unit, set by the subclass
    better = "higher"

    def __init__(self, against: str = "source", region: str = "all", area_normalised: bool = True):
        check_choice("against", against, tuple(AGAINST))
        check_choice("region", region, tuple(REGIONS))
        self.against, self.region_name, self.area_normalised = against, region, area_normalised

    @property
    def name(self) -> str:
        """Measure, other video, region, convention."""
        convention = "" if self.area_normalised else ", black elsewhere"
        return f"{self.measure} to {AGAINST[self.against]}, {REGIONS[self.region_name]}{convention}"

    def __call__(self, case: Case) -> float | None:
        """The mean over frames and region; None where the other video or the region is unknown, or was to change."""
        other = {"source": case.source, "reconstruction": case.reconstruction, "truth": case.footage.truth}
        target = other[self.against]
        anywhere = self.against == "truth" or self.region_name == "all"
        region = (case.region if anywhere else case.kept)(self.region_name)
        if target is None or region is None:
            return None
        frames, target, where = unit(case.frames), unit(target), region[:, None].expand_as(case.frames)
        if self.area_normalised:
            return self.within(torch.where(where, frames, target), target, where)
        return self.overall(frames * where, target * where)

    def within(self, frames: Tensor, target: Tensor, where: Tensor) -> float:
        """Over the elements that count, of two videos (n, 3, H, W) in [0, 1] that are equal everywhere else."""
        raise NotImplementedError

    def overall(self, frames: Tensor, target: Tensor) -> float:
        """The mean over frames of the measure of whole frames."""
        raise NotImplementedError


class PSNR(Comparison):
    """Peak signal-to-noise ratio, -10 log10 of the mean squared error of pixels in [0, 1]; identical pixels: 100 dB.

    Area-normalised, one squared error is pooled over all frames.
    """

    measure = "PSNR (dB)"

    def within(self, frames: Tensor, target: Tensor, where: Tensor) -> float:
        """One value for all frames together."""
        return min(IDENTICAL, peak_signal_noise_ratio(frames[where], target[where], data_range=1.0).item())

    def overall(self, frames: Tensor, target: Tensor) -> float:
        """The mean of the frames' own values."""
        each = peak_signal_noise_ratio(frames, target, data_range=1.0, dim=(1, 2, 3), reduction="none")
        return each.clamp(max=IDENTICAL).mean().item()


class SSIM(Comparison):
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, at most 1.

    Area-normalised, what lies outside the region counts as equal also within the window of a point inside it.
    """

    measure = "SSIM"

    def within(self, frames: Tensor, target: Tensor, where: Tensor) -> float:
        """torchmetrics' map of the whole frame, averaged over the elements that count."""
        _, similarity = structural_similarity_index_measure(frames, target, data_range=1.0, return_full_image=True)
        return similarity[where].mean().item()

    def overall(self, frames: Tensor, target: Tensor) -> float:
        """torchmetrics' own mean."""
        return structural_similarity_index_measure(frames, target, data_range=1.0).item()


class Change(Comparison):
    """Mean absolute difference, in grey levels of 255. Against the source outside the object: the contamination."""

    measure = "mean change (of 255)"
    better = "lower"

    @property
    def name(self) -> str:
        """The paper's word where it applies."""
        contamination = (self.against, self.region_name) == ("source", "background")
        return f"contamination: {super().name}" if contamination else super().name

    def within(self, frames: Tensor, target: Tensor, where: Tensor) -> float:
        """The mean over the elements that count."""
        return 255 * (frames - target).abs()[where].mean().item()

    def overall(self, frames: Tensor, target: Tensor) -> float:
        """The mean over all elements."""
        return 255 * (frames - target).abs().mean().item()


class LPIPS:
    """Learned perceptual distance (Zhang et al. 2018), SqueezeNet, outside the object, black elsewhere.

    Raises InputError where torchvision's weights lie not in torch's cache; torchmetrics brings the rest.
    """

    name = "LPIPS (SqueezeNet) to source, outside the object, black elsewhere"
    better = "lower"
    weights = "squeezenet1_1-b8a52dc0.pth"

    def __init__(self):
        require_weights("metric lpips", self.weights)
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415  (slow to import)

        with warnings.catch_warnings():  # torchvision's, about an argument that torchmetrics passes
            warnings.simplefilter("ignore", UserWarning)
            self.distance = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True)

    @torch.no_grad()
    def __call__(self, case: Case) -> float | None:
        """The mean over frames; None where the background was to change, or is unknown."""
        region = case.kept("background")
        if region is None:
            return None
        frames: Float[Tensor, "n 3 H W"] = unit(case.frames) * region[:, None]
        value = self.distance(frames.clamp(0, 1), (unit(case.source) * region[:, None]).clamp(0, 1)).item()
        self.distance.reset()
        return value
