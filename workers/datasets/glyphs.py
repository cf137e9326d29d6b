"""Endless images of letters and digits in the fonts of matplotlib, moved, turned, bent and soiled."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import ENDLESS, Examples, Subset, described, spread
from workers.datasets.counter import below, mix, normal, uniform
from workers.datasets.subsets import choose, distances

VERSION = "1"
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
FONTS = (
    *(f"DejaVuSans{style}" for style in STYLES),
    *(f"DejaVuSansMono{style}" for style in STYLES),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
CELL = 128  # pixels of the square that a glyph is drawn into
EM = 88  # font size there, which leaves a border around every glyph
BASELINE = 92  # from the top of the square
LEAST_CELL = 8
DRAWS = 10  # random numbers of an image

# How far images may be from the glyph as it is drawn.
TURN, SHEAR, STRETCH, SHIFT = 0.35, 0.3, 0.2, 0.2  # radians, of the height, natural log, of half the image
SIZES = (1.1, 1.8)  # of the square against the image; capitals are half as high as the square
BOLD = (0.7, 1.4)  # power of the ink, by which strokes are made thicker or thinner
SHARP = (1.2, 2.5)  # how much steeper their edges are made
CONTRAST = (0.4, 1.0)  # of ink and paper, of either sign
DIRT = (0.02, 0.25)  # standard deviation of what is added to every pixel
SPREAD = 0.4  # standard deviation of a pixel, about, by which images are divided


@dataclass(frozen=True)
class Glyphs:
    """``Examples`` that are made up as they are asked for, wholly on the device.

    Args:
        atlas: float32, (fonts * 62 * cell * cell), ink from 0 to 1, at a scale that suits the resolution.
        cell: pixels along a side of one glyph.
        chosen: training places that pruning leaves; None for all.
        unique: so many training images are seen again and again; 0 for no end.
    """

    hashes: Mapping[str, str]
    atlas: Tensor
    cell: int
    resolution: int
    chosen: Tensor | None = None
    unique: int = 0
    resident: bool = True

    @property
    def places(self) -> dict[str, int]:
        left = self.unique if self.chosen is None else len(self.chosen)
        return {"train": left or ENDLESS, "held_out": ENDLESS}

    def take(self, split: str, places: Tensor) -> tuple[Tensor, Tensor]:
        if split == "train" and self.chosen is not None:
            places = self.chosen[places]
        r, device = self.resolution, places.device
        instance = mix(places + (ENDLESS if split == "held_out" else 0))
        label = below(instance, len(CHARACTERS))
        font = below(instance + 1, len(FONTS))
        draws = uniform(instance, DRAWS)[..., None, None].unbind(-3)  # each (*s, 1, 1)
        ink = self._ink(font * len(CHARACTERS) + label, draws[:7])
        soft, contrast, dirt = draws[7:]
        ink = (ink.pow(_between(BOLD, draws[6])) * _between(SHARP, soft)).clamp(max=1.0)
        strength = _between(CONTRAST, (2.0 * contrast) % 1.0) * torch.where(contrast < 0.5, 1.0, -1.0)
        pixels = torch.arange(r * r, device=device).reshape(r, r)
        noise = normal((instance ^ 0x5DEECE66D)[..., None, None] + pixels)
        image = (ink - 0.5) * strength + noise * _between(DIRT, dirt)
        return image[..., None, :, :] / SPREAD, label

    def _ink(self, glyph: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Ink at every pixel, (*s, r, r), read between the four nearest pixels of the atlas."""
        r, cell = self.resolution, self.cell
        size, turn, shear, stretch, across, down, _bold = draws
        line = (torch.arange(r, device=glyph.device) + 0.5) * (2.0 / r) - 1.0
        x = line - (2.0 * across - 1.0) * SHIFT  # (*s, 1, r)
        y = line[:, None] - (2.0 * down - 1.0) * SHIFT  # (*s, r, 1)
        angle, size = (2.0 * turn - 1.0) * TURN, _between(SIZES, size)
        wide = ((2.0 * stretch - 1.0) * STRETCH).exp() * size
        tall = size * size / wide
        bend = (2.0 * shear - 1.0) * SHEAR
        cos, sin = angle.cos(), angle.sin()
        v = (y * cos - x * sin) / tall
        u = (x * cos + y * sin) / wide + bend * v
        u, v = (((axis + 1.0) * (cell / 2.0) - 0.5).clamp(0.0, cell - 1.001) for axis in (u, v))
        column, row = u.long(), v.long()
        right, below_ = u - column, v - row
        at = (glyph * (cell * cell))[..., None, None] + row * cell + column
        top = torch.lerp(self.atlas[at], self.atlas[at + 1], right)
        bottom = torch.lerp(self.atlas[at + cell], self.atlas[at + cell + 1], right)
        return torch.lerp(top, bottom, below_)

    def evaluation(self, examples: int) -> Tensor:
        return spread(ENDLESS, examples, self.atlas.device)


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """Glyphs at any resolution."""
    drawn = atlas()
    cell = min(CELL, max(LEAST_CELL, 1 << math.ceil(math.log2(resolution))))
    hashes = described(source, VERSION + hashlib.sha256(drawn.tobytes()).hexdigest())
    made = Glyphs(hashes, _scaled(cell).to(device), cell, resolution)
    score = distances(lambda places: made.take("train", places.to(device)), source.outputs)
    chosen = choose(source, subset, ENDLESS, score)
    if chosen is None:
        return replace(made, unique=subset.unique)
    return replace(made, chosen=chosen.to(device))


@lru_cache(maxsize=1)
def atlas() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Every glyph of every font, drawn once a process: (fonts * 62, 128, 128), 255 where there is ink.

    Raises:
        FileNotFoundError: a font is missing from matplotlib's folder.
    """
    folder = _fonts()
    drawn = np.zeros((len(FONTS) * len(CHARACTERS), CELL, CELL), np.uint8)
    for i, name in enumerate(FONTS):
        font = ImageFont.truetype(folder / f"{name}.ttf", EM, layout_engine=ImageFont.Layout.BASIC)
        for j, character in enumerate(CHARACTERS):
            image = Image.new("L", (CELL, CELL))
            left, _, right, _ = font.getbbox(character, anchor="ls")
            start = (CELL - left - right) / 2
            ImageDraw.Draw(image).text((start, BASELINE), character, fill=255, font=font, anchor="ls")
            drawn[i * len(CHARACTERS) + j] = np.asarray(image)
    return drawn


@lru_cache(maxsize=5)
def _scaled(cell: int) -> Tensor:
    """The atlas with fewer pixels, each the mean of those it stands for."""
    drawn = torch.from_numpy(atlas())
    parts = [
        torch.nn.functional.avg_pool2d(part[:, None].float() / 255.0, CELL // cell)
        for part in torch.chunk(drawn, len(FONTS))  # one font at a time, for memory
    ]
    return torch.cat(parts).flatten()


def _fonts() -> Path:
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        raise FileNotFoundError("the data set glyphs needs the fonts of matplotlib, which is not installed")
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    for name in FONTS:
        if not (folder / f"{name}.ttf").is_file():
            raise FileNotFoundError(
                f"the data set glyphs needs the font {name}.ttf, which is not in {folder}"
            )
    return folder


def _between(ends: tuple[float, float], share: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * share
