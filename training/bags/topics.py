"""Which topics of a bag are a clip: found by type and name, in any namespace."""

from __future__ import annotations

from collections.abc import Mapping

from infinite_nature_training.bags.clip import ClipError

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
CLOUD = 'sensor_msgs/msg/PointCloud2'
POSE, ODOMETRY = 'geometry_msgs/msg/PoseStamped', 'nav_msgs/msg/Odometry'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'
STRING = 'std_msgs/msg/String'

ROLES = {
    'image': (IMAGE, COMPRESSED),
    'camera_info': (CAMERA_INFO,),
    'pose': (POSE, ODOMETRY, TRANSFORMS),
    'disparity': (IMAGE,),
    'points': (CLOUD,),
}
"""What a topic can be to a clip, and the message types that it may have."""

_NO_PICTURE = ('disparity', 'depth', 'known', 'mask', 'label', 'segmentation')
_NO_MEASUREMENT = ('command', 'cmd', 'goal', 'target', 'setpoint', 'initial')


def find_topics(types: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Topics of a clip.

    Args:
        types: message type by topic, of all topics with messages.
        given: topic by role where the user decides.

    Returns:
        Topic by role out of ``ROLES``; disparity and points only where there are any.

    Raises:
        ClipError: if one is missing, or there are several; they are named.
    """
    for role, topic in given.items():
        _check_given(role, topic, types)
    found = dict(given)
    if 'image' not in found:
        found['image'] = _picture_topic(types)
    for role, find in (('camera_info', _camera_info_topics), ('pose', _pose_topics),
                       ('disparity', _disparity_topics), ('points', _point_topics)):
        if role not in found and (candidates := find(types)):
            found[role] = _nearest(candidates, found['image'], role)
    if 'camera_info' not in found:
        raise ClipError('no camera_info: give the bag a sensor_msgs/CameraInfo of its pictures')
    if 'pose' not in found:
        raise ClipError('no poses: neither geometry_msgs/PoseStamped, nor nav_msgs/Odometry, '
                        'nor moving transforms on /tf')
    return found


def of_type(types: Mapping[str, str], *kinds: str) -> list[str]:
    """Topics of these message types, in order."""
    return sorted(topic for topic, kind in types.items() if kind in kinds)


def _check_given(role: str, topic: str, types: Mapping[str, str]) -> None:
    if role not in ROLES:
        raise ClipError(f'a topic is given for {role!r}; give one of {", ".join(ROLES)}')
    if types.get(topic) not in ROLES[role]:
        raise ClipError(
            f'{topic} cannot be the {role}, it is {types.get(topic, "not in the bag")}; '
            f'give one of {", ".join(of_type(types, *ROLES[role])) or "another bag"}')


def _picture_topic(types: Mapping[str, str]) -> str:
    """Return the one topic of pictures; plain ones rather than the same compressed."""
    pictures = [topic for topic in of_type(types, IMAGE, COMPRESSED)
                if not _says(topic, _NO_PICTURE)]
    if not pictures:
        raise ClipError('no pictures: there is neither a sensor_msgs/CompressedImage nor an Image '
                        f'of colours with messages; topics are {", ".join(types) or "none"}')
    if len({topic.removesuffix('/compressed') for topic in pictures}) > 1:
        raise _ambiguous('image', pictures)
    return min(pictures, key=len)


def _camera_info_topics(types: Mapping[str, str]) -> list[str]:
    return of_type(types, CAMERA_INFO)


def _pose_topics(types: Mapping[str, str]) -> list[str]:
    """Topics of the best kind of source that there is."""
    for kind in (POSE, ODOMETRY):
        topics = [topic for topic in of_type(types, kind) if not _says(topic, _NO_MEASUREMENT)]
        if topics:
            return [topic for topic in topics if _last(topic) == 'pose'] or topics
    return [topic for topic in of_type(types, TRANSFORMS) if _last(topic) == 'tf'][:1]


def _disparity_topics(types: Mapping[str, str]) -> list[str]:
    return [topic for topic in of_type(types, IMAGE) if _says(topic, ('disparity',))]


def _point_topics(types: Mapping[str, str]) -> list[str]:
    return [topic for topic in of_type(types, CLOUD) if _last(topic) == 'sfm_points']


def _nearest(candidates: list[str], picture: str, role: str) -> str:
    """Return the one of a picture's own namespace: the most in common, then the least beside."""
    def distance(topic: str) -> tuple[int, int]:
        names, others = topic.split('/'), picture.split('/')
        common = next((place for place, (one, other) in enumerate(zip(names, others, strict=False))
                       if one != other), min(len(names), len(others)))
        return -common, len(names)

    best = min(map(distance, candidates))
    nearest = [topic for topic in candidates if distance(topic) == best]
    if len(nearest) > 1:
        raise _ambiguous(role, nearest)
    return nearest[0]


def _ambiguous(role: str, candidates: list[str]) -> ClipError:
    return ClipError(f'{len(candidates)} topics can be the {role}: {", ".join(candidates)}; '
                     f'choose one (--topics {role} {candidates[0]})')


def _says(topic: str, words: tuple[str, ...]) -> bool:
    return any(word in topic for word in words)


def _last(topic: str) -> str:
    return topic.rpartition('/')[2]
