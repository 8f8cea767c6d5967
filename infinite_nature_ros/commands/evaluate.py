"""``infinite-nature evaluate``: how good flights are, in the papers' figures and in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def evaluate(
    sources: Annotated[tuple[Path, ...], tyro.conf.Positional],
    model: str = 'default',
    baselines: tuple[str, ...] = (),
    out: Path = Path('evaluation'),
    frames: int = 500,
    size: tuple[int, int] = (160, 256),
    seeds: tuple[int, ...] = (0,),
    starts: int = 0,
    names: Path | None = None,
    speed: float = 0.2,
    disparity: str = 'auto',
    sky: bool = True,
    extrapolate: int = 50,
    photos: Path | None = None,
    crops: Path | None = None,
    feature_every: int = 5,
    backend: str = 'warp',
    device: str = 'auto',
    workers: int = 0,
    ray: bool = False,
    inception: Path | None = None,
    lpips: Path | None = None,
    vgg: Path | None = None,
) -> int:
    """Fly a model and what it is compared to, many times, and report how good the flights are.

    From photos the autopilot flies, with a swing that the seed draws. From clips (ACID bags) the
    clip's own poses are flown as long as there are real frames to compare with, then its last
    motion on, then the autopilot.

    Every flight is a file; what is there isn't flown again, so that the same command goes on
    after Ctrl-C, and other variants, seeds or starts can be added. In the end report.html,
    table.csv and curves.csv are written.

    Baselines: no-refine; inpaint; no-grounding; direct, where each view is warped straight from
    the start; no-repeat=WEIGHTS, of a model trained for one step; any NAME=MODEL.

    Example: infinite-nature evaluate photos --names training/held_out.txt --photos photos
    --model model.safetensors --baselines no-refine inpaint no-grounding direct --out evaluation

    Args:
        sources: photos, ACID bags, or folders of them, to fly from.
        model: the model that is evaluated, a registered name or the path of its weights.
        baselines: what it is compared to: names, or NAME=MODEL.
        out: folder of the run.
        frames: steps of each flight.
        size: height and width of a frame, multiples of 32.
        seeds: of the flights: each start is flown from with each.
        starts: photos, and sequences of clips, at most, spread over all; 0: all photos, and one
            sequence of each clip.
        names: text file with the name of a photo in each line; fly from those only.
        speed: scene units a step.
        disparity: source of disparity of photos and of clips that have none.
        sky: keep the start's sky as a far dome.
        extrapolate: frame up to which a clip's motion is gone on with; sequences where that would
            collide with the scene are left out.
        photos: folder of the photographs that the crops are of; without, no FID and KID.
        crops: CSV file of crops, real pictures that frames are compared with; by default the list
            that comes with the package.
        feature_every: FID, KID and style look at every so many-th frame.
        backend: rasteriser, as warp, torch or softmax.
        device: torch device, as auto, cpu or cuda.
        workers: flights at once; 0: one a core.
        ray: fly as Ray tasks (RAY_ADDRESS: on a cluster, which sees the same files).
        inception: FID's network, TorchScript; by default it is fetched once with pip.
        lpips: weights of LPIPS (safetensors), likewise.
        vgg: weights of VGG16 (safetensors), likewise.

    Returns:
        Exit code: 0, or 1 if a flight failed.

    Raises:
        ValueError: if a source, a model or another argument can't be used, or the folder holds a
            run with other settings.
        OSError: if something can't be read, written or fetched.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.evaluation.crops import CROPS
    from infinite_nature_training.evaluation.measuring import NetworkFiles
    from infinite_nature_training.evaluation.report import write_report
    from infinite_nature_training.evaluation.results import Settings
    from infinite_nature_training.evaluation.runner import check_settings, run
    from infinite_nature_training.evaluation.starts import find_starts
    from infinite_nature_training.evaluation.summary import summarise
    from infinite_nature_training.evaluation.variants import choose_variants

    settings = check_settings(Settings(
        frames=frames, size=size, speed=speed, seeds=seeds, disparity=disparity, backend=backend,
        sky=sky, feature_every=feature_every, extrapolated=extrapolate))
    variants = choose_variants(model, baselines)
    failed = run(settings, variants, find_starts(sources, settings, names=names, limit=starts),
                 out, photos=photos, crops=crops or CROPS, device=device, workers=workers, ray=ray,
                 networks=NetworkFiles(*('' if path is None else str(path)
                                         for path in (inception, lpips, vgg))))
    write_report(summarise(out, workers), out)
    print(f'{out / "report.html"}, {out / "table.csv"}, {out / "curves.csv"}')
    if failed:
        print(f'{len(failed)} flights failed; the same command tries them again')
    return 1 if failed else 0
