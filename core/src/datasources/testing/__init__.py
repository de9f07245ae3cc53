"""Checks of a connector for its author, who subclasses `ConnectorContract` with a `Subject`.

    class TestShelf(ConnectorContract):
        @pytest.fixture
        def subject(self):
            return Subject(
                connector_class=ShelfConnector,
                type="shelf",
                options={"owner": "ann", "token": "open-sesame"},
                items={"books": b"Emma", "films": b""},
                missing="journals",
            )

The extra `testing` is needed: pip install "datasources[testing]".
"""

import pytest

# Before the checks are imported: pytest then shows the compared values of a failed one.
pytest.register_assert_rewrite("datasources.testing.checks")

from datasources.testing.contract import ConnectorContract  # noqa: E402
from datasources.testing.serving import Server, serve  # noqa: E402
from datasources.testing.stalls import StallWarning  # noqa: E402
from datasources.testing.subject import Subject  # noqa: E402

__all__ = ["ConnectorContract", "Server", "StallWarning", "Subject", "serve"]
