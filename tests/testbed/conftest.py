from tests.testbed.fixtures import api, pytest_collection_finish, unique

__all__ = ["api", "pytest_collection_finish", "unique"]
