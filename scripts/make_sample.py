#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make_sample.py - draws the sample set: 1,000 digits, 28 x 28, 100 of each, as two IDX files.

    scripts/make_sample.py [FOLDER]        default fashion_mnist/sample

The sample lets everything run before any data set is fetched. It is the project's own: each
digit is a few pen strokes, written down below, in two to four ways of writing it; chance bends,
slants, turns, stretches and thickens them. The result looks like MNIST where a network would
notice: ink 255 on paper 0, the digit 20 pixels tall, its centre of mass in the middle.

The same images come out each time: the seed is fixed, and of Python's generator only random()
is used, whose sequence is promised for ever (those of its other methods and of numpy's are
not). Only the packing may differ with the version of zlib. Needs numpy. Left out: viewing,
other sizes.
"""
import gzip
import math
import os
import random
import struct
import sys
import zlib

import numpy as np

SEED = 1998
PER_DIGIT = 100
SIDE = 28  # pixels of the image
BODY = 20  # pixels of the digit's longer side, as in MNIST


# ---- strokes: arrays of points [k][2], x to the right and y down, the digit in about 0..1 ----


def line(*points):
    """Straight from point to point."""
    return np.array(points, float)


def curve(*points):
    """Smooth through all points (Catmull-Rom), 8 pieces from each to the next."""
    p = np.array([points[0], *points, points[-1]], float)
    t = np.arange(8)[:, None] / 8
    pieces = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:]):
        pieces.append(b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d
                                                + t * (3 * (b - c) + d - a))))
    return np.vstack(pieces + [p[-1:]])


def arc(x, y, rx, ry, start=0, end=360):
    """Part of an ellipse; degrees, 0 is right, 90 is down."""
    turn = np.radians(np.linspace(start, end, 33))
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], 1)


# For each digit the ways of writing it; each is a list of strokes.
GLYPHS = [
    [  # 0: round, narrow, with the pen's overlap at the top
        [arc(.5, .5, .36, .5)],
        [arc(.5, .5, .27, .5)],
        [curve((.62, .03), (.36, .06), (.15, .42), (.2, .82), (.48, 1), (.77, .78), (.82, .35),
               (.6, .02), (.42, .08))],
    ],
    [  # 1: a bar (twice as often), with a flag, with flag and foot
        [line((.5, 0), (.5, 1))],
        [curve((.51, 0), (.5, .5), (.48, 1))],
        [line((.32, .2), (.52, 0), (.52, 1))],
        [line((.3, .22), (.52, 0), (.52, 1)), line((.25, 1), (.78, 1))],
    ],
    [  # 2: with a corner, with a loop, swan-necked
        [curve((.14, .25), (.3, .04), (.6, .02), (.78, .22), (.66, .5), (.1, .98)),
         line((.1, .98), (.88, .96))],
        [curve((.16, .2), (.38, .01), (.7, .08), (.74, .36), (.52, .7), (.26, .96), (.1, .9),
               (.2, .76), (.45, .86), (.68, .97), (.92, .9))],
        [curve((.2, .16), (.45, 0), (.72, .14), (.7, .42), (.42, .74), (.12, 1)),
         curve((.12, 1), (.4, .93), (.62, 1), (.9, .94))],
    ],
    [  # 3: two bows, two bows with a knot, flat-topped
        [curve((.18, .12), (.45, 0), (.74, .14), (.68, .36), (.4, .47)),
         curve((.4, .47), (.72, .54), (.82, .78), (.52, 1), (.14, .9))],
        [curve((.2, .08), (.5, 0), (.74, .18), (.6, .4), (.36, .5), (.64, .52), (.8, .74),
               (.6, .98), (.2, .96))],
        [line((.2, .03), (.76, .03), (.42, .4)),
         curve((.42, .4), (.74, .5), (.8, .78), (.5, 1), (.14, .88))],
    ],
    [  # 4: open, open and round, closed
        [line((.2, .04), (.14, .54), (.86, .5)), line((.74, 0), (.68, 1))],
        [curve((.2, .02), (.14, .3), (.22, .52), (.48, .54), (.74, .44)),
         curve((.78, 0), (.72, .5), (.7, 1))],
        [line((.66, 0), (.1, .62), (.88, .6)), line((.66, 0), (.62, 1))],
    ],
    [  # 5: with a cap, steep, in one swing
        [line((.8, .02), (.3, .03), (.24, .44)),
         curve((.24, .44), (.5, .36), (.76, .52), (.76, .82), (.46, 1), (.12, .9))],
        [line((.84, .03), (.4, .02), (.26, .42)),
         curve((.26, .42), (.56, .45), (.7, .68), (.56, .93), (.16, 1))],
        [curve((.86, .04), (.56, .04), (.34, .12), (.3, .34), (.52, .46), (.72, .64),
               (.62, .92), (.32, 1), (.1, .88))],
    ],
    [  # 6: a bow, a straight back, a wide belly
        [curve((.66, 0), (.38, .2), (.2, .58), (.28, .92), (.56, .98), (.76, .76), (.6, .55),
               (.36, .6), (.22, .8))],
        [curve((.52, 0), (.34, .34), (.22, .72), (.36, .98), (.62, .94), (.7, .7), (.5, .58),
               (.28, .72))],
        [curve((.74, .04), (.42, .14), (.16, .5), (.18, .84), (.48, 1), (.8, .84), (.74, .56),
               (.44, .52), (.2, .72))],
    ],
    [  # 7: plain, bowed, with a bar, with a serif
        [line((.14, .04), (.82, .04), (.42, 1))],
        [curve((.12, .1), (.44, .05), (.82, .06)),
         curve((.82, .06), (.62, .34), (.5, .64), (.46, 1))],
        [line((.14, .04), (.84, .04), (.42, 1)), line((.36, .52), (.78, .48))],
        [line((.14, .2), (.16, .04), (.84, .04), (.4, 1))],
    ],
    [  # 8: in one swing, two rings, in one swing with open top
        [curve((.72, .1), (.46, 0), (.26, .18), (.42, .42), (.68, .62), (.74, .86), (.48, 1),
               (.22, .86), (.3, .62), (.56, .42), (.76, .2), (.7, .08))],
        [arc(.5, .24, .23, .24), arc(.5, .74, .29, .26)],
        [curve((.76, .12), (.5, .02), (.26, .14), (.36, .38), (.64, .6), (.7, .86), (.44, 1),
               (.2, .84), (.36, .58), (.66, .36), (.8, .08))],
    ],
    [  # 9: ring and bar, in one swing, with a hook
        [arc(.46, .28, .27, .27), line((.73, .26), (.68, 1))],
        [curve((.74, .16), (.5, .01), (.24, .2), (.28, .46), (.56, .46), (.74, .2), (.72, .56),
               (.6, 1))],
        [curve((.74, .2), (.52, 0), (.24, .16), (.26, .44), (.54, .48), (.74, .2), (.76, .6),
               (.6, .94), (.3, .98))],
    ],
]


# ---- one image ----


def between(chance, low, high):
    return low + (high - low) * chance.random()


def bend(points, waves):
    """Moves points by long waves, the same for all strokes, so that what touches still does."""
    moved = points.copy()
    for axis, size, fx, fy, phase in waves:
        moved[:, axis] += size * np.sin(fx * points[:, 0] + fy * points[:, 1] + phase)
    return moved


def place(chance, glyph):
    """A glyph with a hand's irregularity, in pixels, its bounding box centred on 0."""
    waves = [(axis, between(chance, .01, .06), between(chance, -5, 5), between(chance, -5, 5),
              between(chance, 0, 2 * math.pi)) for axis in (0, 1, 0, 1)]
    width = between(chance, .66, 1.16)
    slant = between(chance, -.16, .42)
    turn = between(chance, -.14, .14)
    c, s = math.cos(turn), math.sin(turn)
    shape = np.array([[c, -s], [s, c]]) @ np.array([[width, -slant], [0, 1]])
    strokes = [(bend(stroke, waves) - .5) @ shape.T for stroke in glyph]
    pen = between(chance, 1.7, 3.7)  # pixels
    low = np.min([stroke.min(0) for stroke in strokes], 0)
    high = np.max([stroke.max(0) for stroke in strokes], 0)
    scale = (BODY - pen) * between(chance, .92, 1.04) / max(high - low)
    return [(stroke - (low + high) / 2) * scale for stroke in strokes], pen


def ink(strokes, pen, soft, centre):
    """[SIDE][SIDE] in 0..1: the ink of a round pen, fading over soft pixels at its edge."""
    y, x = np.mgrid[:SIDE, :SIDE] + .5
    pixel = np.stack([x.ravel(), y.ravel()], 1)[:, None]
    a = np.vstack([stroke[:-1] for stroke in strokes]) + centre
    b = np.vstack([stroke[1:] for stroke in strokes]) + centre
    along = ((pixel - a) * (b - a)).sum(2) / ((b - a) ** 2).sum(1)
    nearest = a + np.clip(along, 0, 1)[:, :, None] * (b - a)
    distance = np.sqrt(((pixel - nearest) ** 2).sum(2).min(1)).reshape(SIDE, SIDE)
    return np.clip((pen / 2 - distance) / soft + .5, 0, 1)


def draw(chance, glyph):
    """One image of bytes."""
    strokes, pen = place(chance, glyph)
    soft = between(chance, 1.1, 1.9)
    middle = np.array([SIDE / 2, SIDE / 2])
    first = ink(strokes, pen, soft, middle)
    steps = np.arange(SIDE) + .5
    mass = np.array([(first.sum(0) * steps).sum(), (first.sum(1) * steps).sum()]) / first.sum()
    shift = np.array([between(chance, -.7, .7), between(chance, -.7, .7)])
    image = ink(strokes, pen, soft, 2 * middle - mass + shift)
    image = image * image * (3 - 2 * image)  # a rounder edge
    grain = np.array([chance.random() for _ in range(SIDE * SIDE)]).reshape(SIDE, SIDE)
    image *= 1 - .12 * grain  # uneven ink; paper stays 0
    return np.clip(np.rint(image * 270), 0, 255).astype(np.uint8)


# ---- the set ----


def make():
    """images [1000][28][28] and labels [1000], in an order without pattern."""
    chance = random.Random(SEED)
    labels = [digit for digit in range(10) for _ in range(PER_DIGIT)]
    for last in range(len(labels) - 1, 0, -1):
        other = int(chance.random() * (last + 1))
        labels[last], labels[other] = labels[other], labels[last]
    images = []
    for digit in labels:
        ways = GLYPHS[digit]
        images.append(draw(chance, ways[int(chance.random() * len(ways))]))
    return np.stack(images), np.array(labels, np.uint8)


def write(folder, name, header, array):
    """Packs one file under a temporary name, and renames it; the CRC-32 is for idx.c."""
    raw = struct.pack(f">{len(header)}I", *header) + array.tobytes()
    path = os.path.join(folder, name + ".gz")
    with open(path + ".part", "wb") as file:
        file.write(gzip.compress(raw, 9, mtime=0))
    os.replace(path + ".part", path)
    print(f"{path}: {os.path.getsize(path)} bytes, {len(raw)} unpacked,"
          f" CRC-32 0x{zlib.crc32(raw):08x}")


def main():
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return 2 if len(sys.argv) > 2 else 0
    here = os.path.relpath(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../fashion_mnist/sample")
    folder = os.path.normpath(folder)
    os.makedirs(folder, exist_ok=True)
    images, labels = make()
    write(folder, "t10k-images-idx3-ubyte", (0x803, *images.shape), images)
    write(folder, "t10k-labels-idx1-ubyte", (0x801, *labels.shape), labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
