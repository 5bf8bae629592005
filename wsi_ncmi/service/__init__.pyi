from .audit_log import AuditLog as AuditLog
from .audit_log import AuditLogCheck as AuditLogCheck
from .audit_log import check_audit_log as check_audit_log
from .service import Service as Service
