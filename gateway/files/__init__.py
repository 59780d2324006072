"""Files in, files out: `protect` and `restore` on the command line, by the same steps as the network path.

Input is never changed, and nothing is written among it (`gateway.files.output` says what files are named).
"""

from gateway.files.inputs import Inputs
from gateway.files.protect import protect_files
from gateway.files.restore import restore_copies, restore_files
from gateway.files.results import FileResult

__all__ = ["FileResult", "Inputs", "protect_files", "restore_copies", "restore_files"]
