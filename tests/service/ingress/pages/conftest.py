"""What every test of the pages may ask for."""

from tests.service.ingress.pages.street import person, street

__all__ = ["person", "street"]
