"""A UID, a key reference or a marked copy in, one verified original out.

The only package that opens anything for release.
"""

from gateway.restore.carried import CarriedOriginal, CopyRestorer
from gateway.restore.restorer import Original, Restorer
from gateway.restore.seen import RecordWatch, SeenRecords
from gateway.restore.viewer import Viewer

__all__ = ["CarriedOriginal", "CopyRestorer", "Original", "RecordWatch", "Restorer", "SeenRecords", "Viewer"]
