"""A UID or a key reference in, one verified original out. The only package that opens anything for release."""

from gateway.restore.restorer import Original, Restorer

__all__ = ["Original", "Restorer"]
