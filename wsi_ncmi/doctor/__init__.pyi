from .examination import examine as examine
from .finding import Finding as Finding
from .finding import Request as Request
