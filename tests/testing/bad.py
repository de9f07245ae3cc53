"""For each check of the contract, a connector that is good but for what the check is about."""

from __future__ import annotations

from tests.testing.bad_at_rest import AT_REST
from tests.testing.bad_at_system import AT_SYSTEM
from tests.testing.bad_at_work import AT_WORK
from tests.testing.bad_before import BEFORE
from tests.testing.bad_listed import LISTED
from tests.testing.bad_parameters import PARAMETERS
from tests.testing.bad_splits import SPLITS
from tests.testing.bad_streams import STREAMS

BAD = {**AT_REST, **BEFORE, **AT_WORK, **AT_SYSTEM, **LISTED, **PARAMETERS, **STREAMS, **SPLITS}
