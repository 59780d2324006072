"""Finding modality profiles: they are plug-ins, registered under the entry point group ``miad_gateway.modalities``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from gateway.errors import ConfigError
from gateway.mark.types import ImageTraits, ModalityProfile

GROUP = "miad_gateway.modalities"


def load_profiles() -> dict[str, ModalityProfile]:
    """Return the installed profiles by name.

    Raises
    ------
    ConfigError
        ``no-profiles`` when none is installed, ``bad-profile`` when an entry point is no profile.
    """
    profiles: dict[str, ModalityProfile] = {}
    for entry in entry_points(group=GROUP):
        profile = entry.load()
        if not isinstance(profile, ModalityProfile) or profile.name != entry.name:
            raise ConfigError("bad-profile", f"entry point {entry.name!r} of {GROUP} gives no profile of that name")
        profiles[profile.name] = profile
    if not profiles:
        raise ConfigError("no-profiles", "no modality profile is installed", "install the package (pip install -e .)")
    return profiles


def choose_profile(
    traits: ImageTraits, profiles: Mapping[str, ModalityProfile] | None = None
) -> ModalityProfile | None:
    """Return the most specific profile that takes an image with these traits; None when none does.

    Parameters
    ----------
    traits
        of the image.
    profiles
        to choose from; None: the installed ones.
    """
    offered = load_profiles() if profiles is None else profiles
    ranked = sorted(offered.values(), key=lambda profile: (-profile.priority, profile.name))
    return next((profile for profile in ranked if profile.takes(traits)), None)
