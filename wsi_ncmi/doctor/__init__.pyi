from .examination import examine as examine
from .finding import DoctorConfig as DoctorConfig
from .finding import Finding as Finding
