"""``infinite-nature fly``: two nodes fly into a photo, a third one records what they publish."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
import signal
import threading
from typing import Annotated, Any, Literal, TYPE_CHECKING

from tqdm import tqdm
import tyro

from infinite_nature_ros.commands.processes import isolate_domain, NodeProcess

if TYPE_CHECKING:
    from torch import Tensor

    from infinite_nature_ros.nodes.recorder_node import RecorderNode

_FRAMES = 100
_LAST_DIAGNOSTICS_SECONDS = 0.2


def fly(
    image: Annotated[str, tyro.conf.Positional] = '',
    frames: int | None = None,
    out: Path = Path('flight'),
    model: str = 'default',
    height: int = 160,
    width: int = 256,
    disparity: str = 'auto',
    fov: float = 0.0,
    sky: bool = True,
    mode: Literal['safe', 'official'] = 'safe',
    speed: float = 0.2,
    seed: int = -1,
    device: str = 'auto',
    trajectory: Path | None = None,
    record: tuple[Literal['video', 'poses', 'stills', 'bag'], ...] = ('video', 'poses'),
    video_rate: float = 10.0,
    interpolate: int = 0,
) -> int:
    """Fly into a photo and leave a video, a contact sheet and a plot of the trajectory.

    The generator and the autopilot run as two processes that talk over DDS on this machine only.
    Ctrl-C ends the flight early and leaves all that was flown.

    Example: infinite-nature fly coast.jpg --frames 200 --out coast --record video poses bag

    Example: infinite-nature fly coast.jpg --trajectory coast/poses_tum.txt --out again

    Args:
        image: photo to fly into, a path or the name of a sample; empty is the default sample.
        frames: frames to record, the photo's own included; by default 100, or all of a
            trajectory.
        out: folder for what is recorded, contact.png, trajectory.png and the nodes' logs.
        model: refiner, a registered name or the path of its weights.
        height: image height in pixels, a multiple of 32.
        width: image width in pixels, a multiple of 32.
        disparity: source of the photo's disparity, a registered name or the path of a file.
        fov: horizontal field of view of the photo in degrees; 0 is the default, 64.
        sky: keep the sky of the photo far away and steady.
        mode: autopilot that steers clear of what is ahead, or the official release's.
        speed: scene units per step; negative flies backward.
        seed: draws everything random; -1 draws the seed too.
        device: torch device, as auto, cpu or cuda.
        trajectory: poses to fly instead of those of the autopilot, a file in the format of TUM
            (camera_link in map, metres) or RealEstate10K; with the photo and the seed of the
            flight that left it, the same frames come out.
        record: what to keep: video (flight.mp4), poses (both formats, as text), stills (a PNG of
            every frame), bag (rosbag2, mcap).
        video_rate: flown frames per second of the video.
        interpolate: frames to put between two flown ones, for a smoother video; it then has
            (interpolate + 1) * video_rate frames per second.

    Returns:
        Exit code: 0, or 1 if a node failed, or 130 after Ctrl-C.

    Raises:
        ValueError: if the photo or another argument can't be used.
        OSError: if a file can't be read or written.
    """
    # Here, so that --help needn't wait for torch and rclpy.
    import rclpy
    from rclpy.parameter import Parameter
    from rclpy.signals import SignalHandlerOptions

    from infinite_nature_ros.nodes.recorder_node import RecorderNode
    from infinite_nature_ros.nodes.transport import allow_large_images
    from infinite_nature_ros.photos import find_photo, load_photo

    if frames is not None and frames < 1:
        raise ValueError(f'frames is {frames}; give at least 1')
    if interpolate < 0:
        raise ValueError(f'interpolate is {interpolate}; give 0 or more')
    load_photo(find_photo(image), (height, width))
    poses = None if trajectory is None else _read_trajectory(trajectory)
    generator = {'image': image, 'model': model, 'height': height, 'width': width,
                 'disparity': disparity, 'fov': fov, 'sky': sky, 'seed': seed, 'device': device}
    print(f'To listen in: {isolate_domain()}')
    allow_large_images(height, width)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with ExitStack() as stack:
        stack.callback(rclpy.try_shutdown)
        recorder = RecorderNode(parameter_overrides=[
            Parameter('folder', value=str(out)), Parameter('record', value=','.join(record)),
            Parameter('video_rate', value=video_rate),
            Parameter('interpolate', value=interpolate)])
        stack.callback(_report, recorder)
        nodes: list[NodeProcess] = []
        stack.callback(_stop, nodes)
        total = frames or (_FRAMES if poses is None else len(poses))
        progress = stack.enter_context(tqdm(total=total, unit='frame'))
        flight = _Recording(recorder, nodes, progress)
        nodes.append(_start('generator', generator, out))
        flight.record(1)
        # Only now: whoever flies before the recorder listens is not recorded.
        if poses is None:
            nodes.append(_start('autopilot', {'mode': mode, 'speed': speed}, out))
            flight.record(total)
        elif not flight.interrupted.is_set():
            flight.replay(poses, frames)
    return 130 if flight.interrupted.is_set() else 0


def _read_trajectory(path: Path) -> Tensor:
    """Poses of a file, if the generator flies so far from each to the next.

    Raises:
        ValueError: if it can't be flown.
    """
    from infinite_nature_ros.camera import position
    from infinite_nature_ros.nodes.parameters import GENERATOR_PARAMETERS
    from infinite_nature_ros.pose_files import read_poses

    poses = read_poses(path)
    max_jump, = (parameter.default for parameter in GENERATOR_PARAMETERS
                 if parameter.name == 'max_jump')
    # The photo's own frame is at the origin.
    jumps = position(poses).diff(dim=0, prepend=poses.new_zeros(1, 3)).norm(dim=1)
    if jumps.max() > max_jump:
        number = int(jumps.argmax())
        raise ValueError(f'{path}: pose {number + 1} is {jumps[number]:.4g} m from the one before '
                         f'(the first: from the photo); poses may be {max_jump:g} m apart')
    return poses


class _Recording:
    """Spins the recorder until enough is recorded, the user interrupts or a node ends."""

    def __init__(self, recorder: RecorderNode, nodes: list[NodeProcess], progress: tqdm) -> None:
        """Watch the nodes; Ctrl-C sets a flag from now on, so no frame is left half written."""
        from rclpy.executors import SingleThreadedExecutor

        self.interrupted = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.interrupted.set())
        self._recorder = recorder
        self._nodes = nodes
        self._progress = progress
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(recorder)

    def record(self, frames: int) -> None:
        """Record until there are so many frames, or the user interrupts.

        Raises:
            ChildProcessError: if a node ended.
        """
        recorder = self._recorder
        recorder.max_frames = frames
        while recorder.frames < frames and not self.interrupted.is_set():
            self._executor.spin_once(timeout_sec=0.1)
            if recorder.frames > self._progress.n:
                self._progress.update(recorder.frames - self._progress.n)
            for node in self._nodes:
                node.check()
        self._executor.spin_once(timeout_sec=_LAST_DIAGNOSTICS_SECONDS)

    def replay(self, poses: Tensor, frames: int | None) -> None:
        """Fly recorded poses, all of them or until there are so many frames; record that."""
        from infinite_nature_ros.nodes.replay_node import ReplayNode

        replay = ReplayNode(poses, self._recorder.pose)
        self._executor.add_node(replay)
        flown = 1 + len(replay.commands)
        self._progress.total = flown if frames is None else min(frames, flown)
        self.record(self._progress.total)
        self._executor.remove_node(replay)


def _start(name: str, parameters: dict[str, Any], out: Path) -> NodeProcess:
    """Start a node; its log lies in the folder ``out``."""
    return NodeProcess(f'infinite_nature_ros.nodes.{name}_node', parameters, out / f'{name}.log')


def _stop(nodes: list[NodeProcess]) -> None:
    """End the nodes, all at the same time."""
    for node in nodes:
        node.interrupt()
    for node in nodes:
        node.stop()


def _report(recorder: RecorderNode) -> None:
    """Finish the files, say where they are and where the time went."""
    if recorder.waiting:
        print(f'Blending the way to {recorder.waiting} frames ...', flush=True)
    files = recorder.finish()
    if not files:
        print('Nothing was flown.')
        return
    print(f'{recorder.frames} frames; on average, a step takes')
    rest = recorder.step_seconds - sum(recorder.stages.values())
    for stage, seconds in {**recorder.stages, 'autopilot, transport': rest,
                           'total': recorder.step_seconds}.items():
        if seconds > 0:
            print(f'  {stage:20} {1000 * seconds:8.1f} ms {1 / seconds:9.1f} frames/s')
    print('\n'.join(map(str, files)))
