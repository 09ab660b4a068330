"""Where a search runs its evaluations, as it stands in params.yaml below `search`."""

from __future__ import annotations

from gnnrl.settings import Count, NotNegative, Positive, Section


class Ray(Section):
    """Workers on Ray; the fields are explained in `gnnrl/search/parallel/workers.py`."""

    workers: Count
    cpus: Positive
    gpus: NotNegative
    timeout_s: Positive
