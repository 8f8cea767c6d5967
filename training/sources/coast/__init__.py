"""Procedural coasts: places that look like landscapes from the air, with exact geometry."""

from infinite_nature_training.sources.coast.flight import fly
from infinite_nature_training.sources.coast.world import CoastWorld

__all__ = ['CoastWorld', 'fly']
