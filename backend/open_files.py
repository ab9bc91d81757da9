"""The number of files that this process may have open: every connection is one."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress

ENOUGH = 4_096
_MOST = 1 << 16
logger = logging.getLogger(__name__)


def raise_open_files_limit(enough: int = ENOUGH) -> int:
    """Raises the soft limit as far as the hard limit allows, and returns it. Logs a warning if it is below `enough`.

    The soft limit is often 1,024 for programs that use select(), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems and sandboxes do not allow it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < enough:
        logger.warning("few open files are allowed: connections will be refused", extra={"limit": soft, "want": enough})
    return soft
