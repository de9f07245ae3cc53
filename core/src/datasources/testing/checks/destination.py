"""Checks of `ConnectorOptions.destination`, by which a changed source keeps its secrets."""

from __future__ import annotations

from datasources.options import destinations
from datasources.testing.base import Checks
from datasources.testing.subject import Subject


class DestinationChecks(Checks):
    """The destination names who receives a secret, and holds none."""

    def test_destination_is_the_same_for_the_same_options(self, subject: Subject) -> None:
        options_class = subject.connector_class.options_class
        one, two = destinations(options_class, subject.options, dict(subject.options))
        assert one == two, "destination differs for the same options"

    def test_destination_holds_no_secret(self, subject: Subject) -> None:
        secrets = subject.secrets()
        (destination,) = destinations(subject.connector_class.options_class, subject.options)
        assert not [secret for secret in secrets if secret in repr(destination)], (
            "destination holds a secret: errors name its parts"
        )

    def test_another_host_is_another_destination(self, subject: Subject) -> None:
        other = subject.unanswered()
        here, there = destinations(subject.connector_class.options_class, subject.options, other)
        assert here != there, (
            "Subject.unreachable must be another destination: whoever may change the host or port "
            "would get the stored secret"
        )
