"""What goes into a mark and what comes out: plain arrays and numbers, nothing of DICOM.

Axes: H rows, W columns. "Stored" values are the integers of the pixel data; "display" values are float in 0..1, what
the primary window shows as black (0) and white (1), MONOCHROME1 already turned over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np


@dataclass(frozen=True)
class Window:
    """A display window in modality units (after rescale: HU for CT).

    Attributes
    ----------
    name
        shown in reports, e.g. ``W400``.
    centre
        middle of the window.
    width
        full width, > 0.
    """

    name: str
    centre: float
    width: float

    def limits(self) -> tuple[float, float]:
        """Return the modality values shown as black and as white."""
        return self.centre - self.width / 2.0, self.centre + self.width / 2.0


@dataclass(frozen=True, eq=False)
class Curve:
    """A display that is no straight ramp: the shade of each stored value (VOI LUT, sigmoid; DICOM PS3.3 C.11.2).

    Attributes
    ----------
    first
        the stored value that the first shade belongs to.
    shades
        (n,) float in 0..1, n >= 2, shades of ``first``, ``first`` + 1 and so on; stored values beyond have those of
        the ends. May rise, fall, or both.
    """

    first: int
    shades: np.ndarray


@dataclass(frozen=True)
class RelativeWindow:
    """A display window given by the primary one, for images without absolute units (MR, radiographs, ultrasound).

    Attributes
    ----------
    name
        shown in reports, e.g. ``narrow``.
    black
        display value of the primary window (0..1) that is shown black.
    white
        display value that is shown white; above ``black``.
    """

    name: str
    black: float
    white: float


@dataclass(frozen=True)
class ImageTraits:
    """What a profile may look at to decide whether an image is its kind.

    Attributes
    ----------
    modality
        e.g. ``CT``; may be empty.
    sop_class_uid
        may be empty.
    photometric
        e.g. ``MONOCHROME2`` (of the decoded image).
    samples
        samples per pixel, 1 or 3.
    bits_stored
        1..32.
    signed
        two's complement stored values.
    body_part
        body part examined, upper case; may be empty.
    """

    modality: str
    sop_class_uid: str = ""
    photometric: str = "MONOCHROME2"
    samples: int = 1
    bits_stored: int = 16
    signed: bool = False
    body_part: str = ""


@dataclass(frozen=True)
class ModalityProfile:
    """One kind of image: which instances it takes, how they are shown, what may be seen of a mark, who is misled.

    Attributes
    ----------
    name
        as on the command line, e.g. ``brain-mr``.
    priority
        profiles with a higher number are asked first; a generic profile has 0.
    accepts
        decides by traits; use ``takes``.
    packs
        samples per pixel (1, 3) -> names of the surrogate packs used for such images.
    tasks
        heads of the surrogates to mislead, by task name; empty: every head.
    windows
        presets in modality units, the first is the primary one when the header gives none; may be empty.
    relative_windows
        more windows that gray images are reported in, as shares of the primary one; may be empty.
    unit
        of the modality's values, e.g. ``HU``; empty: it has none of its own.
    noise_factor
        k of the masked threshold max(1 JND, k * local noise sd).
    noise_reason
        why k is what it is (source).
    peak
        largest change outside strokes, in display units (0..1), whatever the noise.
    peak_units
        largest change outside strokes in modality units, where those are known: a wide window must not let
        a change through that a narrow one would show; None: ``peak`` alone holds.
    chroma
        largest deviation of a colour channel's texture from its luminance, as a share of the amplitude
        (mark, budgets: half); of no effect on gray images.
    texture_side
        longest side in pixels of the grid that textures are made on. A larger image gets the texture in
        blocks of its own pixels, so that the band lies where a classifier's resize (to 128..299 pixels) keeps it.
    stroke_peak
        largest change inside strokes, in display units.
    letter_height
        height of the lettering as a share of the shorter image side.
    """

    name: str
    priority: int
    accepts: Callable[[ImageTraits], bool]
    packs: Mapping[int, tuple[str, ...]]
    tasks: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    relative_windows: tuple[RelativeWindow, ...] = ()
    unit: str = ""
    noise_factor: float = 1.0
    noise_reason: str = ""
    peak: float = 6.0 / 255.0
    peak_units: float | None = None
    chroma: float = 0.5
    texture_side: int = 256
    stroke_peak: float = 0.3
    letter_height: float = 0.14

    @property
    def channels(self) -> tuple[int, ...]:
        """Samples per pixel that this profile can mark: (1,), (3,) or (1, 3)."""
        return tuple(sorted(self.packs))

    def takes(self, traits: ImageTraits) -> bool:
        """Return whether an image with these traits is this profile's kind."""
        return traits.samples in self.packs and self.accepts(traits)


@dataclass(frozen=True)
class MarkRequest:
    """One frame to be marked.

    Attributes
    ----------
    image
        (H, W) or (H, W, 3) stored values, uint8, uint16 or int16.
    key
        32 bytes, derived from the series by the caller; decides everything random.
    position
        millimetres along the slice normal; placement varies smoothly with it. None: an image that belongs to
        no series of slices; its placement is searched, and ``key`` must be its own.
    valid_range
        lowest and highest stored value that a marked pixel may take (Bits Stored); None: the dtype's.
    display
        stored values shown as black and white in the primary window, low < high, or the curve that shows them;
        None: the valid range of uint8 images, of others the 0.5 and 99.5 percentile of the pixels that are seen, no
        padding and not at the minimum.
    other_windows
        window name -> (low, high) in stored values, or a curve; reported, not limited.
    inverted
        low stored values are shown white (MONOCHROME1).
    padding
        (H, W) bool, never touched; or None.
    reserved
        (low, high) of stored values, inclusive, that mean something else than brightness (padding, colours of a
        supplemental palette): such pixels are never touched and no other pixel takes one.
    roi
        (H, W) bool, the region of interest, never touched; None: label-free saliency over the surrogates, about
        the most salient quarter of the foreground.
    slope
        modality units (e.g. HU) per stored value (Rescale Slope), not 0; None: not known, the profile's limits
        in modality units do not hold and bias is reported in stored values.
    hidden
        (H, W) bool, what a display shutter covers: never touched, and no part of any budget or figure; or None.
    aspect
        height of a pixel over its width as it is shown; letters are drawn for that.
    """

    image: np.ndarray
    key: bytes
    position: float | None = None
    valid_range: tuple[int, int] | None = None
    display: tuple[float, float] | Curve | None = None
    other_windows: Mapping[str, tuple[float, float] | Curve] = field(default_factory=dict)
    inverted: bool = False
    padding: np.ndarray | None = None
    reserved: tuple[tuple[int, int], ...] = ()
    roi: np.ndarray | None = None
    slope: float | None = None
    hidden: np.ndarray | None = None
    aspect: float = 1.0


@dataclass(frozen=True)
class Bias:
    """How much a mark shifts measured values: mean of marked minus original, with its sign.

    Attributes
    ----------
    foreground
        over the foreground (untouched pixels count as 0).
    region
        over the free region, where the mark lies.
    unit
        of both: the modality's (``HU``), or ``stored value``.
    """

    foreground: float
    region: float
    unit: str


@dataclass(frozen=True)
class JndFigures:
    """A mark in just noticeable differences (DICOM PS3.14) in one window on one screen; noise masks nothing here.

    Not the threshold that a mark keeps (`Quality.above_threshold`): in a noisy image many pixels outside strokes change
    by more than 1 JND and none by more than the noise around it hides.

    Of an RGB image the channel that changes most counts, as if it were gray (an upper bound: PS3.14 knows no colour).

    Attributes
    ----------
    over_jnd_inside
        share of the image's pixels that lie in strokes and change by more than 1 JND.
    over_jnd_outside
        the same outside strokes.
    percentile99
        99th percentile of the change over the whole image, JND.
    peak
        largest change, JND.
    peak_outside
        largest change outside strokes, JND.
    """

    over_jnd_inside: float
    over_jnd_outside: float
    percentile99: float
    peak: float
    peak_outside: float


@dataclass(frozen=True)
class Quality:
    """What a person may see of a mark, and proof that the rest is untouched. None: not measured.

    Attributes
    ----------
    psnr
        display PSNR in dB over the whole image, primary window (peak 1.0; 100 when nothing changed).
    psnr_windows
        the same per other window.
    ssim
        structural similarity of the display images, primary window (-1..1).
    stroke_share
        strokes' share of the image's pixels.
    above_threshold
        share of the image's pixels outside strokes that change by more than the masked threshold of visibility, the
        larger of 1 JND and what the local noise hides: the one that a mark keeps (promise 8).
    roi_difference
        largest absolute stored difference inside region of interest and padding; always 0.
    saturated
        pixels whose change was cut by the valid range or by the padding value.
    ms_ssim
        multi-scale structural similarity of the display images, primary window (0..1).
    jnd
        window name -> screen name (``calibrated``, ``office``: see ``gateway.mark.visibility.jnd``) -> figures;
        the primary
        window is ``primary``.
    bias
        shift of the mean.
    """

    psnr: float
    psnr_windows: dict[str, float]
    ssim: float
    stroke_share: float
    above_threshold: float
    roi_difference: int
    saturated: int
    ms_ssim: float | None = None
    jnd: dict[str, dict[str, JndFigures]] = field(default_factory=dict)
    bias: Bias | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the figures as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class MarkedImage:
    """One marked frame.

    Attributes
    ----------
    image
        stored values, dtype and shape of the request's image.
    residual
        int32, ``image - original``: subtracting it gives the original back, bit for bit.
    strokes
        (H, W) bool, pixels of the lettering (empty in the discreet tier).
    region
        (H, W) bool, where a mark was allowed.
    roi
        (H, W) bool, region of interest as given or found, dilated.
    quality
        measured on ``image``.
    queries
        images that a search without gradients (``paper`` mode) showed to every surrogate; else 0.
    note
        what was out of the ordinary: ``blank`` (all pixels have one value: nothing was changed), ``empty`` (even air
        that takes no invisible change, in the discreet tier: nothing was changed either), ``no-anatomy``
        (letters lie in the air), ``page`` (a page of text: letters lie where there is none); else empty.
    """

    image: np.ndarray
    residual: np.ndarray
    strokes: np.ndarray
    region: np.ndarray
    roi: np.ndarray
    quality: Quality
    queries: int = 0
    note: str = ""
