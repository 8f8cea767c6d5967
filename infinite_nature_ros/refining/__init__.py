"""Refining: paint what a rendered view lacks, by a model chosen by name or weights file."""

from infinite_nature_ros.refining.factory import create_model
from infinite_nature_ros.refining.refiner import Refiner, State, TrainableRefiner
from infinite_nature_ros.refining.registry import build_network, list_models, register_model
from infinite_nature_ros.refining.weights import load_weights, read_header, save_weights

__all__ = [
    'Refiner',
    'State',
    'TrainableRefiner',
    'build_network',
    'create_model',
    'list_models',
    'load_weights',
    'read_header',
    'register_model',
    'save_weights',
]
