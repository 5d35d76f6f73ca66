"""Pictures of embeddings, coloured by identity: a PNG of the plane and of space, or a page that can be turned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from enrichers.errors import EnrichdError

Floats = NDArray[np.float32]

#: faces that are drawn at most, spread over the identities
MOST = 4000
#: colours of the identities with most faces, as hues around the circle; the others are grey
COLOURED = 24


class PlotInvalid(EnrichdError):
    """There is nothing to draw, or the file is neither a .png nor a .html."""


@dataclass(frozen=True)
class Points:
    """n faces in space: `positions` (n, 3) between -1 and 1, and for each the number of its identity in `names`, -1 for
    faces of nobody."""

    positions: Floats
    owner: NDArray[np.int64]
    names: tuple[str, ...]


def arrange(vectors: Floats, owner: NDArray[np.int64], names: Sequence[str], seed: int = 0) -> Points:
    """(n, d) unit vectors → points: the axes along which people differ most (linear discriminant analysis), principal
    axes where there are too few people. Raises PlotInvalid for fewer than two faces."""
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(vectors) < 2:
        raise PlotInvalid("There are fewer than two faces to draw.")
    if len(vectors) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), MOST, replace=False))
        vectors, owner = vectors[rows], owner[rows]
    sizes = np.bincount(owner[owner >= 0], minlength=1)
    known = (owner >= 0) & (sizes[owner] > 1)  # one face of a person says nothing of how people's faces vary
    people = int((sizes > 1).sum())
    if people > 4 and int(known.sum()) > 2 * people:
        model = LinearDiscriminantAnalysis(n_components=3, solver="eigen", shrinkage="auto")
        flat = model.fit(vectors[known], owner[known]).transform(vectors)
    else:
        flat = PCA(n_components=min(3, *vectors.shape), random_state=seed).fit_transform(vectors)
    positions = np.zeros((len(flat), 3), dtype=np.float32)
    positions[:, : flat.shape[1]] = flat - flat.mean(axis=0)
    positions /= max(float(np.abs(positions).max()), 1e-9)
    return Points(positions, owner, tuple(names))


def colours(points: Points) -> list[str]:
    """A colour for each identity, as CSS."""
    import colorsys

    sizes = np.bincount(points.owner[points.owner >= 0], minlength=len(points.names))
    result = ["#9a9a9a"] * len(points.names)
    for rank, number in enumerate(np.argsort(-sizes, kind="stable")[:COLOURED]):
        red, green, blue = colorsys.hsv_to_rgb(rank * 0.618034 % 1.0, 0.65, 0.85)
        result[number] = f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"
    return result


def draw(points: Points, file: Path) -> None:
    """Writes a .png (the plane beside the space) or a .html. Raises PlotInvalid for another ending."""
    if file.suffix == ".png":
        draw_png(points, file)
    elif file.suffix == ".html":
        file.write_text(page(points), encoding="utf-8")
    else:
        raise PlotInvalid(f"{file.name}: pictures are .png or .html.")


def draw_png(points: Points, file: Path) -> None:
    """The plane of the first two axes on the left, the space on the right. Drawn with Pillow alone."""
    side, margin = 800, 40
    picture = Image.new("RGB", (2 * side, side), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    shades = colours(points)
    turned = points.positions @ rotation(0.6, 0.4)
    depth = np.argsort(turned[:, 2])
    for left, flat, order in ((0, points.positions, np.arange(len(depth))), (side, turned, depth)):
        for row in order:
            x = left + side / 2 + float(flat[row, 0]) * (side / 2 - margin)
            y = side / 2 - float(flat[row, 1]) * (side / 2 - margin)
            size = 3.0 if left == 0 else 3.0 + 1.5 * float(flat[row, 2])
            owner = int(points.owner[row])
            pen.ellipse((x - size, y - size, x + size, y + size), fill=shades[owner] if owner >= 0 else "#d0d0d0")
        for number in np.unique(points.owner[points.owner >= 0]):
            if shades[number] != "#9a9a9a" and points.names[number]:
                middle = flat[points.owner == number].mean(axis=0)
                place = (left + side / 2 + float(middle[0]) * (side / 2 - margin), side / 2 - float(middle[1]) * 360)
                pen.text(place, points.names[number], fill="black", font=font, anchor="mm")
    picture.save(file)


def confusion_picture(pairs: Sequence[Mapping[str, Any]], most: int = 30) -> Image.Image:
    """What is taken for what, as a square of counts: rows are what it is, columns what was told. `pairs` as a training
    reports them ("is", "told", "faces"); only labels that are confused are drawn, the `most` frequent."""
    names = list(dict.fromkeys(str(pair[side]) for pair in pairs for side in ("is", "told")))[:most]
    cell, room = 28, 180
    picture = Image.new("RGB", (room + cell * max(len(names), 8), room + cell * max(len(names), 2)), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    if not names:
        pen.text((10, 10), "nothing was confused", fill="black", font=font)
    worst = max((pair["faces"] for pair in pairs), default=1)
    for number, name in enumerate(names):
        at = room + cell * number
        pen.text((room - 8, at + cell / 2), name[:24], fill="black", font=font, anchor="rm")
        upright = Image.new("RGB", (room - 8, cell), "white")
        ImageDraw.Draw(upright).text((4, cell / 2), name[:24], fill="black", font=font, anchor="lm")
        picture.paste(upright.rotate(90, expand=True), (at, 8))
    for pair in pairs:
        if str(pair["is"]) in names and str(pair["told"]) in names:
            x, y = (room + cell * names.index(str(pair[side])) for side in ("told", "is"))
            shade = int(235 * (1 - pair["faces"] / worst))
            pen.rectangle((x, y, x + cell, y + cell), fill=(255, shade, shade), outline="grey")
            pen.text((x + cell / 2, y + cell / 2), str(pair["faces"]), fill="black", font=font, anchor="mm")
    return picture


def rotation(around_y: float, around_x: float) -> Floats:
    """Turns points (n, 3) by angles in radians, applied from the right."""
    a, b = np.array([[np.cos(t), np.sin(t)] for t in (around_y, around_x)])
    y = np.array([[a[0], 0, -a[1]], [0, 1, 0], [a[1], 0, a[0]]])
    x = np.array([[1, 0, 0], [0, b[0], b[1]], [0, -b[1], b[0]]])
    return np.asarray(y @ x, dtype=np.float32)


def page(points: Points) -> str:
    """A page that stands alone: drag to turn, wheel to zoom, hover for the name."""
    data = {
        "points": [[round(float(value), 4) for value in row] for row in points.positions],
        "owner": points.owner.tolist(),
        "names": list(points.names),
        "colours": colours(points),
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # a name cannot end the script
    return PAGE.replace("/*DATA*/", text)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>enrichd: identities</title>
<style>body{margin:0;font:14px sans-serif;background:#fff;overflow:hidden}
#tip{position:absolute;pointer-events:none;background:#222;color:#fff;padding:2px 6px;border-radius:3px;display:none}
#help{position:absolute;left:8px;top:8px;color:#666}</style></head>
<body><canvas id="c"></canvas><div id="tip"></div><div id="help">drag to turn, wheel to zoom, hover for a name</div>
<script>
const d=/*DATA*/;
const c=document.getElementById("c"),g=c.getContext("2d"),tip=document.getElementById("tip");
let ay=0.6,ax=0.4,zoom=1,down=null,shown=[];
function draw(){
  c.width=innerWidth;c.height=innerHeight;
  const s=Math.min(c.width,c.height)*0.45*zoom,cy=Math.cos(ay),sy=Math.sin(ay),cx=Math.cos(ax),sx=Math.sin(ax);
  shown=d.points.map((p,i)=>{
    const x=p[0]*cy+p[2]*sy,z=-p[0]*sy+p[2]*cy,y=p[1]*cx-z*sx,w=p[1]*sx+z*cx;
    return [c.width/2+x*s,c.height/2-y*s,w,i];
  }).sort((a,b)=>a[2]-b[2]);
  for(const [x,y,w,i] of shown){
    const o=d.owner[i];g.globalAlpha=0.45+0.5*(w+1)/2;g.fillStyle=o<0?"#d0d0d0":d.colours[o];
    g.beginPath();g.arc(x,y,Math.max(1.5,3.5+1.5*w),0,7);g.fill();
  }
}
c.onmousedown=e=>{down=[e.clientX,e.clientY]};
onmouseup=()=>{down=null};
onmousemove=e=>{
  if(down){ay+=(e.clientX-down[0])*0.01;ax+=(e.clientY-down[1])*0.01;down=[e.clientX,e.clientY];draw();return}
  let best=null,near=100;
  for(const p of shown){const q=(p[0]-e.clientX)**2+(p[1]-e.clientY)**2;if(q<=near){near=q;best=p}}
  tip.style.display=best?"block":"none";
  if(best){const o=d.owner[best[3]];tip.textContent=o<0?"nobody yet":d.names[o]||"no name";
    tip.style.left=e.clientX+12+"px";tip.style.top=e.clientY+12+"px"}
};
onwheel=e=>{zoom*=Math.exp(-e.deltaY*0.001);draw()};
onresize=draw;draw();
</script></body></html>
"""
