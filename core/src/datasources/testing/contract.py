"""The class of all checks, which authors of connectors subclass."""

from __future__ import annotations

from datasources.testing.checks.abilities import AbilityChecks
from datasources.testing.checks.cancellation import CancellationChecks
from datasources.testing.checks.concurrency import ConcurrencyChecks
from datasources.testing.checks.declaration import DeclarationChecks
from datasources.testing.checks.destination import DestinationChecks
from datasources.testing.checks.discover import DiscoverChecks
from datasources.testing.checks.failures import FailureChecks
from datasources.testing.checks.freshness import FreshnessChecks
from datasources.testing.checks.hosted import HostedChecks
from datasources.testing.checks.identifiers import IdentifierChecks
from datasources.testing.checks.items import ItemChecks
from datasources.testing.checks.leaks import LeakChecks
from datasources.testing.checks.lifecycle import LifecycleChecks
from datasources.testing.checks.limits import LimitChecks
from datasources.testing.checks.many_items import ManyItemsChecks
from datasources.testing.checks.options import OptionChecks
from datasources.testing.checks.packaging import PackagingChecks
from datasources.testing.checks.pages import PageChecks
from datasources.testing.checks.parameters import ParameterChecks
from datasources.testing.checks.queries import QueryChecks
from datasources.testing.checks.read_only import ReadOnlyChecks
from datasources.testing.checks.rotation import RotationChecks
from datasources.testing.checks.secrets import SecretChecks
from datasources.testing.checks.splits import SplitChecks
from datasources.testing.checks.streams import StreamChecks
from datasources.testing.checks.under_way import UnderWayChecks


class ConnectorContract(
    DeclarationChecks,
    OptionChecks,
    DestinationChecks,
    PackagingChecks,
    LifecycleChecks,
    ItemChecks,
    IdentifierChecks,
    LimitChecks,
    FailureChecks,
    SecretChecks,
    ConcurrencyChecks,
    CancellationChecks,
    UnderWayChecks,
    QueryChecks,
    ReadOnlyChecks,
    ManyItemsChecks,
    FreshnessChecks,
    RotationChecks,
    LeakChecks,
    AbilityChecks,
    PageChecks,
    ParameterChecks,
    DiscoverChecks,
    StreamChecks,
    SplitChecks,
    HostedChecks,
):
    """The contract of connectors; subclass it as `Test…` with a fixture `subject`.

    Checks of the class, its options and its distribution need no source: with the class named as
    `connector_class = YourConnector` they also run where `subject` fails. A `subject` that fails is
    one error; the checks that need it are skipped. Checks of items, limits and failures run twice: on a connector, and through a registry. A check
    that does not apply is skipped, with the reason in pytest's report. A check that a connector
    cannot pass is waived, likewise with a reason: `waived: ClassVar = {"test_name": "why"}`.
    """
