"""ACID bags: one clip of posed pictures a bag; schema, writer and reader."""

try:
    import rosbags  # noqa: F401
except ImportError as error:
    raise ImportError(f'ACID bags need {error.name}, which is not installed; '
                      "say: pip install 'infinite_nature_ros[data]'") from error

from infinite_nature_training.bags.clip import ClipError, ClipFrame, ClipInfo, encode_jpeg
from infinite_nature_training.bags.reader import Clip, ClipFrames, find_clips, read_clip, read_clips
from infinite_nature_training.bags.writer import ClipWriter

__all__ = ['Clip', 'ClipError', 'ClipFrame', 'ClipFrames', 'ClipInfo', 'ClipWriter', 'encode_jpeg',
           'find_clips', 'read_clip', 'read_clips']
