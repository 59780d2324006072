"""The audit trail: who did what to which object, one JSON line each, in a file that only grows."""

from gateway.audit.events import EVENTS, EventCode
from gateway.audit.log import FIELDS, OUTCOMES, AuditLog, Line, audited, audited_all

__all__ = ["EVENTS", "FIELDS", "OUTCOMES", "AuditLog", "EventCode", "Line", "audited", "audited_all"]
