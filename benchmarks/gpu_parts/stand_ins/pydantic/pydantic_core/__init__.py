"""Names that are imported from pydantic_core."""

CoreSchema = core_schema = PydanticUndefined = None


class ValidationError(ValueError):
    """Never raised: nothing is validated."""


class PydanticCustomError(ValueError):
    """Raised by validators, which aren't called."""
