"""The embedded world: one shaded object moves over one textured background.

A `Clip` is a small record. Its caption names four attributes (colour, shape, motion, background); size, position,
speed and texture are drawn per clip and stand in no caption, as in real footage: they are what an edit must preserve.
The *true edit* of a clip is the same record with the named attributes changed, rendered again.
"""

import math
import random
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

NUM_FRAMES = 8
SIZE = 64  # pixels on a side
EDGE = 2.0  # pixels over which an object fades into the background

COLOURS = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.98, 0.88, 0.12),
    "green": (0.10, 0.52, 0.20),
    "blue": (0.10, 0.28, 0.88),
    "purple": (0.56, 0.16, 0.72),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.06),
}
BACKGROUNDS = {  # mean colour of the texture
    "sky": (0.50, 0.74, 0.95),
    "grass": (0.40, 0.66, 0.28),
    "sand": (0.86, 0.75, 0.50),
    "brick": (0.64, 0.32, 0.25),
    "snow": (0.91, 0.93, 0.97),
    "night": (0.08, 0.09, 0.24),
}
MOTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "down": (0.0, 1.0), "up": (0.0, -1.0)}
SHAPES = ("circle", "square", "triangle", "star")
ATTRIBUTES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": tuple(MOTIONS),
    "background": tuple(BACKGROUNDS),
}

VISIBLE_CONTRAST = 0.42  # least distance in RGB between an object and a background it can be seen on


def visible(colour: str, background: str) -> bool:
    """Whether an object of this colour stands out: RGB distance to the background's mean >= `VISIBLE_CONTRAST`."""
    return math.dist(COLOURS[colour], BACKGROUNDS[background]) >= VISIBLE_CONTRAST


@dataclass(frozen=True)
class Clip:
    """One clip of the world. Lengths are in half-widths of the frame, whose centre is (0, 0); y points down."""

    colour: str
    shape: str
    motion: str
    background: str
    radius: float
    x: float  # the object's centre in the middle of the clip
    y: float
    travel: float  # way from the first frame to the last
    texture: int  # seed of the background's texture

    def __post_init__(self):
        for attribute, known in ATTRIBUTES.items():
            if (value := getattr(self, attribute)) not in known:
                raise ValueError(f"{attribute} must be one of {', '.join(known)}; got {value!r}")

    @property
    def caption(self) -> str:
        """`a red circle moving right over snow`."""
        article = "an" if self.colour == "orange" else "a"
        return f"{article} {self.colour} {self.shape} moving {self.motion} over {self.background}"

    def edited(self, **attributes: str) -> "Clip":
        """The true edit: the same record with these attributes changed."""
        return replace(self, **attributes)

    def record(self) -> dict:
        """The clip as a plain dictionary, `Clip(**clip.record()) == clip`."""
        return asdict(self)


def room(radius: float, travel: float, motion: str) -> tuple[float, float]:
    """How far from the frame's centre, in x and y, an object may be in the middle of its clip and stay inside."""
    across = 0.97 - 1.4 * radius
    along = across - travel / 2
    return (along, across) if MOTIONS[motion][0] else (across, along)


def in_every_direction(clip: Clip) -> list[Clip]:
    """The clip under each motion, its place moved where the object would leave the frame."""
    variants = []
    for motion in MOTIONS:
        x_room, y_room = room(clip.radius, clip.travel, motion)
        x, y = max(-x_room, min(clip.x, x_room)), max(-y_room, min(clip.y, y_room))
        variants.append(replace(clip, motion=motion, x=x, y=y))
    return variants


def draw_clip(rng: random.Random) -> Clip:
    """A clip drawn uniformly over visible attribute combinations; the object stays inside the frame."""
    colour, background = rng.choice([(c, b) for c in COLOURS for b in BACKGROUNDS if visible(c, b)])
    radius = rng.uniform(0.28, 0.38)
    travel = rng.uniform(0.5, 0.8)
    motion = rng.choice(tuple(MOTIONS))
    x_room, y_room = room(radius, travel, motion)
    return Clip(
        colour=colour,
        shape=rng.choice(SHAPES),
        motion=motion,
        background=background,
        radius=round(radius, 3),
        x=round(rng.uniform(-x_room, x_room), 3),
        y=round(rng.uniform(-y_room, y_room), 3),
        travel=round(travel, 3),
        texture=rng.randrange(2**31),
    )


def render(
    clip: Clip,
) -> tuple[Float[Tensor, "n 3 H W"], Bool[Tensor, "n H W"]]:
    """Frames in [-1, 1] and the exact mask of the object (coverage >= 1/2) of one clip."""
    grid = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    way = torch.linspace(-0.5, 0.5, NUM_FRAMES)[:, None, None] * clip.travel
    dx, dy = MOTIONS[clip.motion]
    u, v = x - clip.x - dx * way, y - clip.y - dy * way  # (n, H, W), object's own coordinates
    distance = signed_distance(clip.shape, u / clip.radius, v / clip.radius) * clip.radius
    coverage = (0.5 - distance * SIZE / 2 / EDGE).clamp(0, 1)
    frames = torch.lerp(background(clip)[None], paint(clip, u, v, distance), coverage[:, None])
    return frames.clamp(0, 1) * 2 - 1, coverage >= 0.5


def signed_distance(shape: str, u: Float[Tensor, "*grid"], v: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
    """Signed distance to a shape of about a unit circle's area, negative inside."""
    if shape == "circle":
        return torch.hypot(u, v) - 1
    if shape == "square":
        a, b = u.abs() - 0.88, v.abs() - 0.88
        return torch.hypot(a.clamp(min=0), b.clamp(min=0)) + torch.maximum(a, b).clamp(max=0)
    if shape == "triangle":
        return regular_polygon_distance(u, v + 0.15, corners=3, inradius=0.68)
    return star_distance(u, v, corners=5, outer=1.28, inner=0.56)


def regular_polygon_distance(u, v, corners: int, inradius: float):
    """Distance to the nearest edge's line of a regular polygon with one corner on top."""
    angles = [math.pi / 2 + (2 * i + 1) * math.pi / corners for i in range(corners)]
    return torch.stack([u * math.cos(a) - v * math.sin(a) - inradius for a in angles]).amax(0)


def star_distance(u, v, corners: int, outer: float, inner: float):
    """Distance to the edges' lines of a star with one corner on top, folded into one half-sector."""
    sector = math.pi / corners
    angle = torch.atan2(u, -v)
    angle = (torch.remainder(angle + sector, 2 * sector) - sector).abs()  # 0 at a corner, `sector` at a notch
    radius = torch.hypot(u, v)
    p, q = radius * angle.cos(), radius * angle.sin()
    edge_p, edge_q = inner * math.cos(sector) - outer, inner * math.sin(sector)
    length = math.hypot(edge_p, edge_q)
    return ((p - outer) * edge_q - q * edge_p) / length


def paint(clip: Clip, u, v, distance) -> Float[Tensor, "n 3 H W"]:
    """The object's colour, lit from the upper left and darker along its rim."""
    light = 1.0 - 0.16 * (u + v) / clip.radius / 2
    rim = 1.0 - 0.18 * torch.exp(distance.clamp(max=0) / (0.12 * clip.radius))
    colour = torch.tensor(COLOURS[clip.colour])[:, None, None]
    return colour * (light * rim)[:, None]


def background(clip: Clip) -> Float[Tensor, "3 H W"]:
    """A still texture: the background's mean colour, broad shading, and the marks of its kind."""
    generator = torch.Generator().manual_seed(clip.texture)

    def noise(cells: int) -> Float[Tensor, "H W"]:
        coarse = torch.randn(1, 1, cells + 3, cells + 3, generator=generator)
        fine = F.interpolate(coarse, size=(SIZE + 32, SIZE + 32), mode="bicubic", align_corners=False)
        return fine[0, 0, 16:-16, 16:-16]

    base = torch.tensor(BACKGROUNDS[clip.background])[:, None, None]
    broad = noise(2)
    texture = base * (1 + 0.05 * broad + 0.03 * noise(4))
    offset = torch.randint(0, SIZE, (2,), generator=generator)
    row, column = torch.arange(SIZE)[:, None], torch.arange(SIZE)[None, :]
    if clip.background == "sky":  # clouds
        return blend(texture, (0.93, 0.95, 0.97), ((noise(3) - 0.3) * 0.5).clamp(0, 0.5))
    if clip.background == "grass":  # tufts
        return texture * (1 + 0.07 * torch.sin((column + offset[0]) * 0.6 + 1.5 * noise(3)))
    if clip.background == "sand":  # ripples
        return texture * (1 + 0.07 * torch.sin((row + offset[0]) * 0.4 + 1.5 * broad + 0.05 * column))
    if clip.background == "brick":  # courses, every other one shifted by half a brick, with soft joints
        course = (row + offset[0]) // 16
        across = ((row + offset[0] + 8) % 16 - 8).abs() + 0 * column
        along = ((column + offset[1] + 16 * (course % 2) + 16) % 32 - 16).abs()
        return blend(texture, (0.84, 0.78, 0.72), 0.35 * torch.exp(-((torch.minimum(across, along) / 1.8) ** 2)))
    if clip.background == "snow":  # drifts
        return texture * (1 + 0.05 * noise(3).clamp(max=0))
    stars = torch.randint(0, SIZE, (10, 2, 1, 1), generator=generator)  # night
    glow = torch.exp(-((row - stars[:, 0]) ** 2 + (column - stars[:, 1]) ** 2) / (2 * 1.7**2)).amax(0)
    return blend(texture, (0.62, 0.64, 0.72), 0.6 * glow)


def blend(
    texture: Float[Tensor, "3 H W"], colour: tuple[float, float, float], share: Float[Tensor, "H W"]
) -> Float[Tensor, "3 H W"]:
    """The texture, with this share of another colour at each pixel."""
    return torch.lerp(texture, torch.tensor(colour)[:, None, None].expand_as(texture), share.expand_as(texture))
