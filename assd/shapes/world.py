"""The embedded world: one shaded object moves over one textured background and casts a soft shadow on it.

A `Clip` is a small record. Its caption names four attributes (colour, shape, motion, background); size, position,
speed and texture are drawn per clip and stand in no caption, as in real footage: they are what an edit must preserve.
A third of the clips have a *bystander*, a second, smaller object at rest; over another third the *camera* pans.
The *true edit* of a clip is the same record with the named attributes changed, rendered again.
"""

import math
import random
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

NUM_FRAMES = 8
SIZE = 64  # pixels on a side
EDGE = 2.0  # pixels over which an object fades into the background
REACH = 1.4  # of an object from its centre, in its radii
MARGIN = 8  # pixels of texture beyond each border of the frame, for the camera

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

KINDS = ("plain", "bystander", "camera")
BYSTANDER_SHAPES = ("circle", "square")

VISIBLE_CONTRAST = 0.42  # least distance in RGB between an object and a background it can be seen on
SHADOW_OFFSET = (0.10, 0.22)  # to the right and down, in radii
SHADOW_EDGE = 0.36  # radii over which a shadow fades
SHADOW_DEPTH = 0.38  # share of the light that it takes


def visible(colour: str, background: str) -> bool:
    """Whether an object of this colour stands out: RGB distance to the background's mean >= `VISIBLE_CONTRAST`."""
    return math.dist(COLOURS[colour], BACKGROUNDS[background]) >= VISIBLE_CONTRAST


@dataclass(frozen=True)
class Bystander:
    """A second object that rests on the background and stands in no caption. Lengths as in `Clip`."""

    colour: str
    shape: str
    radius: float
    x: float
    y: float


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
    bystander: Bystander | None = None
    pan: tuple[float, float] = (0.0, 0.0)  # way of the background from the first frame to the last, in x and y

    def __post_init__(self):
        for attribute, known in ATTRIBUTES.items():
            if (value := getattr(self, attribute)) not in known:
                raise ValueError(f"{attribute} must be one of {', '.join(known)}; got {value!r}")

    @property
    def caption(self) -> str:
        """`a red circle moving right over snow`."""
        article = "an" if self.colour == "orange" else "a"
        return f"{article} {self.colour} {self.shape} moving {self.motion} over {self.background}"

    @property
    def kind(self) -> str:
        """`plain`, `bystander` or `camera`."""
        return "bystander" if self.bystander else "camera" if any(self.pan) else "plain"

    def edited(self, **attributes: str) -> "Clip":
        """The true edit: the same record with these attributes changed."""
        return replace(self, **attributes)

    def record(self) -> dict:
        """The clip as a plain dictionary."""
        return asdict(self)


def room(radius: float, travel: float, motion: str) -> tuple[float, float]:
    """How far from the frame's centre, in x and y, an object may be in the middle of its clip and stay inside."""
    across = 0.97 - REACH * radius
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


def draw_clip(rng: random.Random, kind: str | None = None) -> Clip:
    """A clip drawn uniformly over kinds (or of this one) and visible attributes; the object stays inside the frame."""
    kind = kind or rng.choice(KINDS)
    while True:
        clip = draw_plain(rng)
        if kind == "camera":
            return replace(clip, pan=draw_pan(rng))
        if kind == "plain":
            return clip
        if bystander := draw_bystander(rng, clip, {clip.colour}, {clip.background}):
            return replace(clip, bystander=bystander)


def draw_plain(rng: random.Random) -> Clip:
    """A clip with one object and a camera at rest."""
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


def draw_pan(rng: random.Random) -> tuple[float, float]:
    """A way of 8 to 12 pixels in any direction."""
    way, angle = rng.uniform(8, 12) * 2 / SIZE, rng.uniform(0, 2 * math.pi)
    return round(way * math.cos(angle), 3), round(way * math.sin(angle), 3)


def draw_bystander(rng: random.Random, clip: Clip, colours: set[str], backgrounds: set[str]) -> Bystander | None:
    """A bystander of none of these colours, visible on all of these backgrounds; None where 50 draws find no place."""
    free = [c for c in COLOURS if c not in colours and all(visible(c, b) for b in backgrounds)]
    variants = in_every_direction(clip)
    for _ in range(50):
        radius = rng.uniform(0.15, 0.18)
        reach = 0.97 - REACH * radius
        x, y = rng.uniform(-reach, reach), rng.uniform(-reach, reach)
        drawn = Bystander(rng.choice(free), rng.choice(BYSTANDER_SHAPES), round(radius, 3), round(x, 3), round(y, 3))
        if all(clear_of_path(drawn, variant) for variant in variants):
            return drawn
    return None


def clear_of_path(bystander: Bystander, clip: Clip) -> bool:
    """Whether neither the object nor its shadow, whatever the object's shape, comes near the bystander."""
    dx, dy = MOTIONS[clip.motion]
    for lift, reach in ((0.0, REACH), (1.0, REACH + SHADOW_EDGE / 2)):
        x = bystander.x - clip.x - lift * SHADOW_OFFSET[0] * clip.radius
        y = bystander.y - clip.y - lift * SHADOW_OFFSET[1] * clip.radius
        way = max(-clip.travel / 2, min(x * dx + y * dy, clip.travel / 2))
        if math.hypot(x - way * dx, y - way * dy) < reach * clip.radius + REACH * bystander.radius:
            return False
    return True


class Rendering(NamedTuple):
    """Frames in [-1, 1], and the masks (coverage >= 1/2) of the object and of the bystander, empty without one."""

    frames: Float[Tensor, "n 3 H W"]
    masks: Bool[Tensor, "n H W"]
    bystander: Bool[Tensor, "n H W"]


def render(clip: Clip) -> Rendering:
    """The background as the camera sees it, the shadows, then the bystander and the object."""
    way = torch.linspace(-0.5, 0.5, NUM_FRAMES)[:, None, None]
    dx, dy = MOTIONS[clip.motion]
    bodies = [Body(clip, clip.x + dx * clip.travel * way, clip.y + dy * clip.travel * way)]
    if there := clip.bystander:
        bodies.insert(0, Body(there, there.x + 0 * way, there.y + 0 * way))
    frames = filmed(background(clip), way[:, 0] * torch.tensor(clip.pan))
    for body in bodies:
        frames = frames * (1 - SHADOW_DEPTH * body.shadow())[:, None]
    for body in bodies:
        frames = torch.lerp(frames, body.paint(), body.coverage[:, None])
    mask = bodies[-1].mask
    return Rendering(frames.clamp(0, 1) * 2 - 1, mask, bodies[0].mask if there else torch.zeros_like(mask))


class Body:
    """An object of this colour, shape and radius, its centre at (x, y) in each frame."""

    def __init__(self, look: Clip | Bystander, x: Float[Tensor, "n 1 1"], y: Float[Tensor, "n 1 1"]):
        self.look = look
        grid = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
        rows, columns = torch.meshgrid(grid, grid, indexing="ij")
        self.u, self.v = (columns - x) / look.radius, (rows - y) / look.radius  # (n, H, W), in radii
        self.distance = signed_distance(look.shape, self.u, self.v)
        self.coverage = (0.5 - self.distance * look.radius * SIZE / 2 / EDGE).clamp(0, 1)  # share of each pixel
        self.mask = self.coverage >= 0.5

    def shadow(self) -> Float[Tensor, "n H W"]:
        """The shape again, to the right and below, with a wide rim; from 0 to 1."""
        right, down = SHADOW_OFFSET
        return (0.5 - signed_distance(self.look.shape, self.u - right, self.v - down) / SHADOW_EDGE).clamp(0, 1)

    def paint(self) -> Float[Tensor, "n 3 H W"]:
        """The object's colour, lit from the upper left and darker along its rim."""
        light = 1.0 - 0.16 * (self.u + self.v) / 2
        rim = 1.0 - 0.18 * torch.exp(self.distance.clamp(max=0) / 0.12)
        return torch.tensor(COLOURS[self.look.colour])[:, None, None] * (light * rim)[:, None]


def filmed(texture: Float[Tensor, "3 rows columns"], shift: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3 H W"]:
    """What a camera sees of the texture when that has moved by `shift` (x, y) in half-widths; bicubic."""
    size = SIZE + 2 * MARGIN
    grid = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    places = (torch.stack([x, y], dim=-1) - shift[:, None, None]) * SIZE / size
    return F.grid_sample(texture.expand(len(shift), -1, -1, -1), places, mode="bicubic", align_corners=False)


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


def background(clip: Clip) -> Float[Tensor, "3 rows columns"]:
    """A texture with `MARGIN` pixels around the frame: mean colour, broad shading, and the marks of its kind."""
    generator = torch.Generator().manual_seed(clip.texture)

    def noise(cells: int) -> Float[Tensor, "rows columns"]:
        coarse = torch.randn(1, 1, cells + 3, cells + 3, generator=generator)
        fine = F.interpolate(coarse, size=(SIZE + 32, SIZE + 32), mode="bicubic", align_corners=False)
        return fine[0, 0, 16 - MARGIN : MARGIN - 16, 16 - MARGIN : MARGIN - 16]

    base = torch.tensor(BACKGROUNDS[clip.background])[:, None, None]
    broad = noise(2)
    texture = base * (1 + 0.05 * broad + 0.03 * noise(4))
    offset = torch.randint(0, SIZE, (2,), generator=generator)
    row = torch.arange(-MARGIN, SIZE + MARGIN)[:, None]
    column = row.T
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
    stars = torch.randint(-MARGIN, SIZE + MARGIN, (16, 2, 1, 1), generator=generator)  # night
    glow = torch.exp(-((row - stars[:, 0]) ** 2 + (column - stars[:, 1]) ** 2) / (2 * 1.7**2)).amax(0)
    return blend(texture, (0.62, 0.64, 0.72), 0.6 * glow)


def blend(
    texture: Float[Tensor, "3 rows columns"], colour: tuple[float, float, float], share: Float[Tensor, "rows columns"]
) -> Float[Tensor, "3 rows columns"]:
    """The texture, with this share of another colour at each pixel."""
    return torch.lerp(texture, torch.tensor(colour)[:, None, None].expand_as(texture), share.expand_as(texture))
