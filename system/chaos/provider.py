"""What Ray's autoscaler starts machines of `autoscaled.py` with; loaded by the autoscaler's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class NodesHere(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's provider for tests, for kinds of machines that say how much memory they have.

    Actors may ask for memory, and no kind that says nothing is started for one. A node finds its memory by itself.
    """

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: Mapping[str, float], labels: Any
    ) -> None:
        """Start nodes; Ray's own would take memory for a custom resource, and refuse its name."""
        told = {name: amount for name, amount in resources.items() if name != "memory"}
        super().create_node_with_resources_and_labels(node_config, tags, count, told, labels)
