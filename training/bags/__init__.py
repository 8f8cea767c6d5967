"""ACID bags: one clip of posed pictures a bag; schema, writer and reader."""

from infinite_nature_training.bags.clip import ClipError, ClipFrame, ClipInfo, encode_jpeg
from infinite_nature_training.bags.writer import ClipWriter

__all__ = ['ClipError', 'ClipFrame', 'ClipInfo', 'ClipWriter', 'encode_jpeg']
