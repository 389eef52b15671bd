"""Defines the settings that decide the flow numbers, besides the clip itself."""

from dataclasses import dataclass

from avbench.core import Notes, Protocol, noted


@dataclass(frozen=True)
class FlowProtocol(Protocol):
    """The settings that decide the flow numbers. All sizes in pixels are those of the working frames."""

    name: str = "flow-dis"
    version: int = 4
    fps: str = "native"
    algorithm: str = "dis-medium"
    grey: str = "rec601-8bit"
    minimum_side: int = 16
    """Native pixels. OpenCV's DIS refuses frames with a shorter side than this, or crashes if they are oblong."""
    longest_short_side: int = 256
    """Frames whose short side exceeds this are shrunk to it, by area averaging."""
    shortest_short_side: int = 128
    """Frames whose short side is below this are enlarged (bicubic) by the smallest whole factor that reaches it. The
    preset stops at half resolution, which costs much of the accuracy on 64x64 frames."""
    occlusion_relative: float = 0.01
    occlusion_absolute: float = 0.5
    boundary_relative: float = 0.01
    boundary_absolute: float = 0.002
    channels: str = "sum"
    moving_share_of_pixels: float = 0.05
    """The motion of a pair of frames is the mean speed of this share of its pixels: the fastest ones."""
    evidence_ratio: float = 0.4
    """Flow counts as motion only where warping along it leaves less than this share of the squared grey difference
    between the unwarped frames, in a square window around the pixel. Even strong grain on a flat background rarely
    passes this test; without it, grain is read as several pixels of motion."""
    evidence_window: int = 25
    evidence_window_near: int = 9
    """The narrow window keeps the grain around a moving object from being counted as moving with it."""
    evidence_least: float = 0.02
    """Grey levels². Flow is motion only where the frames differ by more than this in the narrow window. Rounding to 8
    bits alone makes the blurred frames differ by 0.013 (2/12 over 4 pi sigma²)."""
    evidence_blur: float = 1.0
    """Sigma of the Gaussian applied to both frames before the two differences are taken."""
    moving_threshold: float = 0.005
    """Diagonals per second. A pair of frames above it counts as moving, and so does a clip whose mean is above it. At
    64x64 it is 0.45 pixels a second. Grain on a small still clip reached at most 0.004; a disc of 6 pixels that drifts
    at 1 pixel a second reached 0.006."""
    histogram_spans: int = 2
    """Equal spans of time into which the motion histogram divides the clip."""
    histogram_side: int = 2
    """Parts along each axis into which it divides the frame."""
    histogram_directions: int = 8
    """Bins of directions; a vector is shared between the two nearest ones in proportion."""
    acceleration_seconds: float = 1 / 64
    """A change of speed within this time weighs as much in the histogram as the speed itself."""
    lost_difference: float = 12.0
    """Grey levels. The flow has lost a place where the blurred frames differ by more than this and where warping along
    the flow leaves at least `lost_ratio` of that difference."""
    lost_ratio: float = 0.63
    lost_window: int = 5
    lost_share: float = 0.3
    """A pixel is lost where at least this share of the window around it is lost."""
    return_relative: float = 0.05
    return_absolute: float = 2.0
    """Pixels². A pixel is also lost where the way there and back misses its start by more (the occlusion test)."""
    track_border: int = 6
    """Pixels. A track that comes nearer than this to the border counts as having left the frame."""
    track_speed: float = 0.3
    """Pixels a frame. A tracked pixel counts as moving from this speed on."""
    track_window: int = 15
    """Side of the square, in pixels, within which tracked pixels have to agree."""
    track_share: float = 0.5
    """The share of the moving pixels in that square whose motion has to change abruptly."""
    track_pixels: float = 0.1
    """The share of all pixels in that square whose motion has to change abruptly."""
    event_abruptness: float = 0.9
    """The least share of an abrupt change of velocity that the changes before and after it must leave unexplained."""
    event_smoothness: float = 0.4
    """The largest size that the change before or after may have, as a share of the abrupt change."""
    event_floor: float = 0.3
    """Diagonals per second. Smaller abrupt changes are not events."""
    still_margin: int = 25
    """Pixels. A place is still where nothing moves in a square of this side around it."""
    still_least_share: float = 0.05
    """A pair of frames with a smaller share of still places counts as one in which everything moves."""
    acceleration_span: float = 0.125
    """Seconds, in whole frames and at least one: the change of velocity within this time is the acceleration. Within a
    shorter time errors of the flow would outweigh it."""
    notes: Notes = noted(
        algorithm="OpenCV's DIS with its preset medium.",
        grey="Flow is computed on the Rec. 601 luma of the working frame, in 8 bits.",
        channels="Squared differences are summed over R, G and B (values 0...1), not averaged.",
    )
