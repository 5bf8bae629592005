from .job import SearchRequest as SearchRequest
from .job import search as search
