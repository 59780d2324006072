"""Orthanc as the site's archive: its way out goes through the gateway, and originals come back to it."""
