"""What the processes of these tests leave in the temporary directory goes with the tests' own files."""

from tests.support.temporary import own_temporary_directory

__all__ = ["own_temporary_directory"]
