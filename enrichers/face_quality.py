"""How usable a face is: its sharpness, size and head pose, and one value that clustering can gate on."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels

#: The landmarks in space: left eye, right eye, nose tip, left and right corner of the mouth (as seen), in millimetres
#: of a mean adult head (63 mm between the pupils, the nose 30 mm before them); x to the right, y down, z away from the
#: camera. The face looks at the camera; heights and widths are those of the median face of Labeled Faces in the Wild,
#: which so has no pitch.
HEAD = np.array([[-31.5, -33.3, 30.0], [31.5, -33.3, 30.0], [0.0, 0.0, 0.0], [-25.8, 29.7, 30.0], [25.8, 29.7, 30.0]])


#: Where each part of the quality is worth nothing, and from where on it is worth all. Size and sharpness: photos of
#: Labeled Faces in the Wild made smaller or blurred, compared with others of the same person and with 156 strangers:
#: from 28 pixels or a sharpness of 0.1 on 99 % are nearest to their own person, of 12 pixels or 0.052 a third or less.
#: Pose: up to 45° nothing is lost there; beyond, too few faces to tell, so it falls to nothing in profile.
WORTH = {
    "size": (8.0, 28.0),
    "sharpness": (0.045, 0.1),
    "yaw": (90.0, 45.0),
    "pitch": (90.0, 45.0),
    "score": (0.3, 0.8),
}


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a head looks, in degrees: `yaw` positive to the right of the picture, `pitch` positive up, `roll` positive
    clockwise as seen."""

    yaw: float
    pitch: float
    roll: float


def head_pose(landmarks: NDArray[np.floating]) -> Pose:
    """The pose of a head from its five landmarks (5, 2) in pixels, by fitting the mean head under weak perspective (a
    camera twenty head widths away), so that neither the camera nor the place in the picture need be known."""
    points = np.asarray(landmarks, np.float64)
    middle = points.mean(axis=0)
    spread = float(np.sqrt(((points - middle) ** 2).sum(axis=1).mean()))
    if spread < 1e-6:
        return Pose(0.0, 0.0, 0.0)
    focal = 3000.0
    camera = np.array([[focal, 0, 0], [0, focal, 0], [0, 0, 1.0]])
    scaled = (points - middle) / spread * 42.0
    found, rotation, shift = cv2.solvePnP(HEAD, scaled, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return Pose(0.0, 0.0, 0.0)
    rotation, _ = cv2.solvePnPRefineLM(HEAD, scaled, camera, None, rotation, shift)
    matrix, _ = cv2.Rodrigues(rotation)
    forward = matrix @ np.array([0.0, 0.0, -1.0])
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    right = matrix @ np.array([1.0, 0.0, 0.0])
    roll = np.degrees(np.arctan2(right[1], right[0]))
    return Pose(float(yaw), float(pitch), float(roll))


def sharpness(chip: Pixels) -> float:
    """How much fine detail an aligned chip (s, s, 3) holds: the standard deviation of the Laplacian over that of the
    brightness, so that contrast and exposure do not count. 0 for an even surface; about 0.06 blurred, 0.24 sharp."""
    grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY).astype(np.float32)
    contrast = float(grey.std())
    if contrast < 1.0:
        return 0.0
    return float(cv2.Laplacian(grey, cv2.CV_32F).std()) / contrast


def value(size: float, sharp: float, pose: Pose, score: float) -> float:
    """One number in [0, 1] for how far a face can be trusted to be recognised: the least of what its size (pixels),
    sharpness, pose and score are worth, each from nothing to all (`WORTH`)."""
    parts = {"size": size, "sharpness": sharp, "yaw": abs(pose.yaw), "pitch": abs(pose.pitch), "score": score}
    return float(min(np.clip((parts[name] - none) / (full - none), 0, 1) for name, (none, full) in WORTH.items()))
