"""The configuration: one TOML file, validated settings, secrets by reference, findings in words."""

from gateway.config.check import Finding, check_config
from gateway.config.default import default_config, default_state_folder
from gateway.config.lines import KeyLines, format_path
from gateway.config.load import load_config, read_text
from gateway.config.models import (
    CLINICAL_STATEMENT,
    Config,
    Database,
    Destination,
    Ingress,
    Keys,
    Log,
    Mark,
    Peer,
    Restore,
    Retention,
    Route,
    Site,
    Tls,
    Worker,
    Workstation,
)
from gateway.config.page import Page
from gateway.config.passing import PASS_STATEMENT, TRUST_STATEMENT, BreakGlass
from gateway.config.problems import ConfigProblem, InvalidConfigError
from gateway.config.secret import SecretRef
from gateway.config.source import Source

__all__ = [
    "CLINICAL_STATEMENT",
    "PASS_STATEMENT",
    "TRUST_STATEMENT",
    "BreakGlass",
    "Config",
    "ConfigProblem",
    "Database",
    "Destination",
    "Finding",
    "Ingress",
    "InvalidConfigError",
    "KeyLines",
    "Keys",
    "Log",
    "Mark",
    "Page",
    "Peer",
    "Restore",
    "Retention",
    "Route",
    "SecretRef",
    "Site",
    "Source",
    "Tls",
    "Worker",
    "Workstation",
    "check_config",
    "default_config",
    "default_state_folder",
    "format_path",
    "load_config",
    "read_text",
]
