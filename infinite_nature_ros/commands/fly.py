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
    from infinite_nature_ros.nodes.recorder_node import RecorderNode

_LAST_DIAGNOSTICS_SECONDS = 0.2


def fly(
    image: Annotated[str, tyro.conf.Positional] = '',
    frames: int = 100,
    out: Path = Path('flight'),
    model: str = 'default',
    height: int = 160,
    width: int = 256,
    disparity: str = 'auto',
    fov: float = 0.0,
    mode: Literal['safe', 'official'] = 'safe',
    speed: float = 0.2,
    seed: int = -1,
    device: str = 'auto',
    video_rate: float = 10.0,
    interpolate: int = 0,
) -> int:
    """Fly into a photo and leave a video, a contact sheet and a plot of the trajectory.

    The generator and the autopilot run as two processes that talk over DDS on this machine only.
    Ctrl-C ends the flight early and leaves all that was flown.

    Example: infinite-nature fly coast.jpg --frames 200 --out coast

    Args:
        image: photo to fly into, a path or the name of a sample; empty is the default sample.
        frames: frames to record, the photo's own included.
        out: folder for flight.mp4, contact.png, trajectory.png and the nodes' logs.
        model: refiner, a registered name or the path of its weights.
        height: image height in pixels, a multiple of 32.
        width: image width in pixels, a multiple of 32.
        disparity: source of the photo's disparity: horizon, midas, midas:DPT_Large or another
            registered name, or the path of a file.
        fov: horizontal field of view of the photo in degrees; 0 is the default, 64.
        mode: autopilot that steers clear of what is ahead, or the official release's.
        speed: scene units per step; negative flies backward.
        seed: draws everything random; -1 draws the seed too.
        device: torch device, as auto, cpu or cuda.
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
    from rclpy.signals import SignalHandlerOptions

    from infinite_nature_ros.nodes.recorder_node import RecorderNode
    from infinite_nature_ros.nodes.transport import allow_large_images
    from infinite_nature_ros.photos import find_photo, load_photo

    if frames < 1:
        raise ValueError(f'frames is {frames}; give at least 1')
    if interpolate < 0:
        raise ValueError(f'interpolate is {interpolate}; give 0 or more')
    load_photo(find_photo(image), (height, width))
    out.mkdir(parents=True, exist_ok=True)
    generator = {'image': image, 'model': model, 'height': height, 'width': width,
                 'disparity': disparity, 'fov': fov, 'seed': seed, 'device': device}
    print(f'To listen in: {isolate_domain()}')
    allow_large_images(height, width)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with ExitStack() as stack:
        stack.callback(rclpy.try_shutdown)
        recorder = RecorderNode(out, frames, video_rate, interpolate)
        stack.callback(_report, recorder)
        nodes: list[NodeProcess] = []
        stack.callback(_stop, nodes)
        interrupted = _interruption()
        with tqdm(total=frames, unit='frame') as progress:
            nodes.append(_start('generator', generator, out))
            _record(recorder, 1, nodes, interrupted, progress)
            # Only now: whoever flies before the recorder listens is not recorded.
            nodes.append(_start('autopilot', {'mode': mode, 'speed': speed}, out))
            _record(recorder, frames, nodes, interrupted, progress)
    return 130 if interrupted.is_set() else 0


def _start(name: str, parameters: dict[str, Any], out: Path) -> NodeProcess:
    """Start a node; its log lies in the folder ``out``."""
    return NodeProcess(f'infinite_nature_ros.nodes.{name}_node', parameters, out / f'{name}.log')


def _interruption() -> threading.Event:
    """Flag that Ctrl-C sets, instead of a KeyboardInterrupt: no frame is left half written."""
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    return interrupted


def _record(recorder: RecorderNode, frames: int, nodes: list[NodeProcess],
            interrupted: threading.Event, progress: tqdm) -> None:
    """Record until there are so many frames, or the user interrupts.

    Raises:
        ChildProcessError: if a node ended.
    """
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(recorder)
    while recorder.frames < frames and not interrupted.is_set():
        executor.spin_once(timeout_sec=0.1)
        if recorder.frames > progress.n:
            progress.update(recorder.frames - progress.n)
        for node in nodes:
            node.check()
    executor.spin_once(timeout_sec=_LAST_DIAGNOSTICS_SECONDS)
    executor.remove_node(recorder)


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
