"""Defines what decides the flow numbers besides the clip."""

from dataclasses import dataclass

from avbench.core import Notes, Protocol, noted


@dataclass(frozen=True)
class FlowProtocol(Protocol):
    """What decides the flow numbers. All sizes in pixels are those of the working frames."""

    name: str = "flow-dis"
    version: int = 3
    fps: str = "native"
    algorithm: str = "dis-medium"
    grey: str = "rec601-8bit"
    minimum_side: int = 16
    """Native pixels. With a shorter side than this OpenCV's DIS refuses the frame or, where it is oblong, crashes."""
    longest_short_side: int = 256
    """Frames whose short side exceeds this are shrunk to it, by area."""
    shortest_short_side: int = 128
    """Frames whose short side is below this are enlarged, bicubically, by the smallest whole factor that reaches it:
    the preset stops at half resolution, which on 64x64 frames costs much of the accuracy."""
    occlusion_relative: float = 0.01
    occlusion_absolute: float = 0.5
    boundary_relative: float = 0.01
    boundary_absolute: float = 0.002
    channels: str = "sum"
    moving_share_of_pixels: float = 0.05
    """A pair's motion is the mean of this share of its pixels, the fastest."""
    evidence_ratio: float = 0.4
    """Flow counts as motion only where following it leaves less than this share of the squared grey difference that
    standing still leaves, in a square window around the pixel. Grain on a flat background hardly ever gets there,
    however strong: without this rule it is read as several pixels of motion."""
    evidence_window: int = 25
    evidence_window_near: int = 9
    """The narrow window keeps the grain around a moving thing from being taken along."""
    evidence_blur: float = 1.0
    """Sigma of the Gaussian applied to both frames before the two differences are taken."""
    moving_threshold: float = 0.005
    """Diagonals per second from which a pair of frames, or on average a clip, counts as moving: 0.45 pixels a second
    at 64x64. Grain on a small still clip came to 0.004 at most, a disc of 6 pixels drifting at 1 pixel a second to
    0.006."""
    histogram_spans: int = 2
    """Equal spans of time that the motion histogram tells apart,"""
    histogram_side: int = 2
    """parts of the frame along each axis,"""
    histogram_directions: int = 8
    """and directions; a vector counts for the two nearest, in proportion."""
    acceleration_seconds: float = 1 / 64
    """A change of speed within this time weighs as much in the histogram as the speed itself."""
    lost_difference: float = 12.0
    """Grey levels. Where the blurred frames differ by more, and following the flow leaves `lost_ratio` of it or more,
    the flow has lost what was there."""
    lost_ratio: float = 0.63
    lost_window: int = 5
    lost_share: float = 0.3
    """A pixel is lost where this share of the window around it is."""
    return_relative: float = 0.05
    return_absolute: float = 2.0
    """Pixels². A pixel is lost as well where the way there and back misses by more, as in the occlusion test."""
    track_border: int = 6
    """Pixels. Nearer to the frame's border a track has left it."""
    track_speed: float = 0.3
    """Pixels a frame, from which a tracked pixel moves."""
    track_window: int = 15
    """Side of the square in which tracked pixels have to agree."""
    track_share: float = 0.5
    """Of the moving pixels in it, the share whose motion has to change abruptly."""
    track_pixels: float = 0.1
    """Of all pixels in it, the same."""
    event_abruptness: float = 0.9
    """Of an abrupt change of velocity, the least share that the changes before and after it do not explain."""
    event_smoothness: float = 0.4
    """The most that either of these may come to, as a share of it."""
    event_floor: float = 0.3
    """Diagonals per second: smaller abrupt changes are no events."""
    still_margin: int = 25
    """Pixels. A region is still where nothing moves in a square of this side."""
    notes: Notes = noted(
        algorithm="OpenCV's DIS with its preset medium.",
        grey="Flow is found on the Rec. 601 luma of the working frame, in 8 bits.",
        channels="Squared differences are summed over R, G and B in 0...1, not averaged.",
    )
