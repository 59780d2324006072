"""What goes into a mark and what comes out: plain arrays and numbers, nothing of DICOM.

Axes: H rows, W columns. "Stored" values are the integers of the pixel data; "display" values are float in 0..1, what
the primary window shows as black (0) and white (1), MONOCHROME1 already turned over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

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
        k of the masked threshold of visibility: how much of the local noise counts as hiding a change.
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
        largest height of letters over anatomy, as a share of the shorter image side.
    air_peak
        largest change of letters in the air, in display units.
    without_air
        what becomes of an image without room in its air, where the settings leave it to the profile: words over the
        anatomy (``lettered``), or nothing visible (``discreet``) where no share of the image that saliency chooses
        covers lesions well enough.
    roi_share
        share of the foreground that saliency takes as the region of interest where none is given.
    air_level
        highest display value (0..1) that air may have; 0: such images have no air that could be told from anatomy.
    air_gap
        share of the shorter side: what lies between parts of the body nearer to each other than twice this is body
        too (mouth, nose, the space between an arm and the trunk).
    air_units
        lowest and highest level of air in modality units; None: its display value says enough. Where the units of an
        image are not known, margins alone are air.
    air_shadows
        what is dark below something is part of the picture (ultrasound), and air has one single value.
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
    stroke_peak: float = 0.45
    letter_height: float = 0.05
    air_peak: float = 0.6
    without_air: str = "lettered"
    roi_share: float = 0.25
    air_level: float = 0.06
    air_gap: float = 0.08
    air_units: tuple[float, float] | None = None
    air_shadows: bool = False

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
    intercept
        modality units of the stored value 0 (Rescale Intercept); None: not known.
    hidden
        (H, W) bool, what a display shutter covers: never touched, and no part of any budget or figure; or None.
    aspect
        height of a pixel over its width as it is shown; letters are drawn for that.
    begin
        (h, w) or (h, w, 3) int8, the texture that the mark of a neighbouring slice ended with
        (``MarkedImage.texture``): the mode ``strong`` begins from it, within this image's own limits. One of another
        shape than this image's working grid is of no use and left out. None: the mark begins from noise.
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
    intercept: float | None = None
    hidden: np.ndarray | None = None
    aspect: float = 1.0
    begin: np.ndarray | None = None


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
class Details:
    """What is reported of a mark and nothing depends on. None: not measured.

    Attributes
    ----------
    ssim
        structural similarity of the display images, primary window (-1..1).
    ms_ssim
        multi-scale structural similarity of the display images, primary window (0..1).
    jnd
        window name -> screen name (``calibrated``, ``office``: see ``gateway.mark.visibility.jnd``) -> figures;
        the primary
        window is ``primary``.
    bias
        shift of the mean.
    """

    ssim: float = 1.0
    ms_ssim: float | None = None
    jnd: dict[str, dict[str, JndFigures]] = field(default_factory=dict)
    bias: Bias | None = None


@dataclass(frozen=True)
class Quality:
    """What a person may see of a mark, and proof that the rest is untouched.

    Attributes
    ----------
    psnr
        display PSNR in dB over the anatomy (the whole image where it has no air), primary window (peak 1.0; 100 when
        nothing changed there).
    psnr_windows
        the same per other window.
    stroke_share
        strokes' share of the image's pixels.
    above_threshold
        share of the image's pixels outside strokes that change by more than the masked threshold of visibility, the
        larger of 1 JND and what the local noise hides: the one that a mark keeps (promise 8).
    roi_difference
        largest absolute stored difference inside region of interest and padding; always 0.
    saturated
        pixels whose change was cut by the valid range or by the padding value.
    later
        measures what ``details`` gives: they take longer than all else of a mark and are computed when asked for.
    """

    psnr: float
    psnr_windows: dict[str, float]
    stroke_share: float
    above_threshold: float
    roi_difference: int
    saturated: int
    later: Callable[[], Details] = field(default=Details, repr=False, compare=False)

    @cached_property
    def details(self) -> Details:
        """What is only reported, measured when first asked for."""
        return self.later()

    @property
    def ssim(self) -> float:
        """Structural similarity, as in ``details``."""
        return self.details.ssim

    @property
    def jnd(self) -> dict[str, dict[str, JndFigures]]:
        """Just noticeable differences, as in ``details``."""
        return self.details.jnd

    @property
    def bias(self) -> Bias | None:
        """Shift of the mean, as in ``details``."""
        return self.details.bias

    def as_dict(self) -> dict[str, object]:
        """Return all figures as JSON-able values."""
        kept = {name: value for name, value in vars(self).items() if name not in ("later", "details")}
        return {**kept, **asdict(self.details)}


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
        (H, W) bool, pixels of the lettering (empty where nothing visible was drawn).
    region
        (H, W) bool, where a mark was allowed.
    roi
        (H, W) bool, region of interest as given or found, dilated.
    quality
        measured on ``image``.
    queries
        images that a search without gradients (``paper`` mode) showed to every surrogate; else 0.
    tier
        the one that the image was marked in: the settings', or where it had no room in its air what they say of that.
    air
        (H, W) bool, background where words lie outside every budget; None: the image shows no anatomy, or nothing was
        done.
    anatomy
        (H, W) bool, the body, which ``psnr`` counts where there is air; None as ``air``.
    note
        what was out of the ordinary: ``blank`` (all pixels have one value: nothing was changed), ``empty`` (even air
        that takes no invisible change, in the discreet tier: nothing was changed either), ``no-anatomy``
        (letters lie in the air), ``page`` (a page of text: letters lie where there is none),
        ``no-words`` (no whole word fits: nothing visible was drawn); else empty.
    texture
        (h, w) or (h, w, 3) int8, -127..127 for -1..1: the optimised texture on its working grid, which neighbouring
        slices may begin from; None where the method keeps none.
    has_begun
        whether it began from ``MarkRequest.begin``.
    misled_share
        of the answers of the networks that it was made against, those that are not what all of them held the clean
        image to be (0 to 1); None: not asked, as of slices that began from another's texture.
    """

    image: np.ndarray
    residual: np.ndarray
    strokes: np.ndarray
    region: np.ndarray
    roi: np.ndarray
    quality: Quality
    queries: int = 0
    note: str = ""
    tier: str = ""
    air: np.ndarray | None = None
    anatomy: np.ndarray | None = None
    texture: np.ndarray | None = None
    has_begun: bool = False
    misled_share: float | None = None
