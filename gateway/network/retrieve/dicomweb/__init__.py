"""DICOMweb for authorized workstations: QIDO-RS and WADO-RS under the policy of the restore SCP (PS3.18)."""

from gateway.network.retrieve.dicomweb.service import RestoreWeb

__all__ = ["RestoreWeb"]
