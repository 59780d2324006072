"""STOW-RS: the archive's other way in, over HTTP, with the admission and the durability of C-STORE (PS3.18 10.5)."""

from gateway.network.stow.service import IngressWeb

__all__ = ["IngressWeb"]
