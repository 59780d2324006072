"""Opens originals that archives ask us to commit to, and says whether each is what its record says.

The worker asks and cannot open; this role answers and promises nothing.
"""

from __future__ import annotations

import time

from sqlalchemy import Engine, or_, select, update

from gateway.database import PayloadCheckRow, reading, transaction
from gateway.errors import CapacityError, GatewayError, UnreachableError
from gateway.restore.restorer import Restorer

GOOD = "good"
AT_ONCE = 50


class PayloadChecks:
    """Looks at what is asked for (`gateway.flow.promises`)."""

    def __init__(self, engine: Engine, restorer: Restorer) -> None:
        self._engine = engine
        self._restorer = restorer

    def once(self) -> int:
        """Open those that are asked for, the oldest first; returns how many."""
        open_ones = or_(PayloadCheckRow.checked_at.is_(None), PayloadCheckRow.checked_at < PayloadCheckRow.asked_at)
        with reading(self._engine) as session:
            asked = select(PayloadCheckRow.locator).where(open_ones).order_by(PayloadCheckRow.asked_at).limit(AT_ONCE)
            locators = list(session.scalars(asked))
        for locator in locators:
            begun = time.time()  # what is asked for while it is read is asked for again
            result = self._look(locator)
            with transaction(self._engine) as session:
                session.execute(
                    update(PayloadCheckRow)
                    .where(PayloadCheckRow.locator == locator)
                    .values(checked_at=begun, result=result)
                    .execution_options(synchronize_session=False)
                )
        return len(locators)

    def _look(self, locator: str) -> str:
        try:
            with self._restorer.by_locator(locator) as original:
                original.verify()
        except (CapacityError, UnreachableError):  # of the database: nothing is known of the original
            raise
        except GatewayError as error:
            return error.code[:64]
        except OSError:
            return "unreadable"
        return GOOD
