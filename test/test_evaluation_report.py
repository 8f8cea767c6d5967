"""Evaluation's files are whole or not there; its report says what was measured, whatever it is."""

import base64
import csv
from dataclasses import replace
from html.parser import HTMLParser
import io
import re

import numpy as np
from PIL import Image
import pytest

from infinite_nature_training.evaluation.bars import judge
from infinite_nature_training.evaluation.report import published_rows, write_report
from infinite_nature_training.evaluation.results import FlightResult, Settings, Summary

FRAMES = 60
NOTHING = np.zeros((0, 2048), np.float16)


def jpeg(shade):
    file = io.BytesIO()
    Image.new('RGB', (16, 10), (shade, 90, 120)).save(file, 'JPEG')
    return file.getvalue()


def flight(variant, start='hill', seed=0, decay=0.0, **changes):
    steps = np.arange(FRAMES + 1)
    figures = {'sharpness': 0.02 * np.exp(-decay * steps), 'disparity_median': np.full(61, 0.1),
               'spectrum_slope': -2.5 - decay * steps, 'sky_fraction': np.full(61, 0.3)}
    result = FlightResult(NOTHING, figures, {}, steps / 10, 90.0, 2.0,
                          {0: jpeg(0), 50: jpeg(200)}, 4.0, variant, start, seed)
    return replace(result, **changes)


def settings(**changes):
    given = Settings(
        frames=FRAMES, size=(160, 256), speed=0.2, seeds=(0,), variants={'ours': 'model <ours>'},
        starts=('hill', 'lake'), networks={'inception': 'inception.pt 1a2b'},
        crops='crops.csv 3c4d', references=5000, disparity='horizon', backend='warp',
        machine='a machine & more', commit='abc1234', versions={'torch': '2.13'})
    return replace(given, **changes)


def summary(**changes):
    frames = np.arange(25, 480, 25)
    curves = {'ours': {'kid_w50': (frames, np.linspace(0.02, 0.03, len(frames))),
                       'fid_w20': (frames, np.linspace(40, 60, len(frames)))}}
    rows = [{'variant': 'ours', 'flights': 2, 'kid_100': 0.02, 'fid_50': 61.26, 'collapses': 0,
             'path_length': 90.0, 'kid': 0.021, 'psnr': 21.0},
            {'variant': 'no-refine', 'flights': 2, 'kid_100': 0.05, 'fid_50': 140.0,
             'collapses': 2, 'kid': 0.2, 'psnr': float('nan')}]
    flights = [flight(variant, start, decay=decay) for start in ('hill', 'lake')
               for variant, decay in (('ours', 0.0), ('no-refine', 0.05))]
    collapses = [('no-refine', 'lake', 0, ['sharpness is 0.05 of the start’s']),
                 ('no-refine', 'hill', 0, ['sky is <gone>'])]
    given = replace(Summary(settings(), rows, curves, collapses, flights), **changes)
    flown = {(flight.variant, flight.start, flight.seed) for flight in given.flights}
    return replace(given, collapses=[entry for entry in given.collapses if entry[:3] in flown])


class Page(HTMLParser):
    """What a page loads, links to and says."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.alternatives, self.text, self.heads = [], [], [], []
        self.tags = []
        self.feed(path.read_text(encoding='utf-8'))
        self.text = ' '.join(' '.join(self.text).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.addresses += [attributes[name] for name in ('src', 'srcset', 'href', 'data', 'action')
                           if name in attributes]
        if tag == 'img':
            self.alternatives.append(attributes.get('alt', ''))
        if tag == 'th':
            self.heads.append(attributes.get('scope'))

    def handle_data(self, data):
        self.text.append(data)


def report(given, tmp_path):
    return Page(write_report(given, tmp_path / 'out'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A report of two variants."""
    return write_report(summary(), tmp_path_factory.mktemp('report')).parent


def lines(path):
    with path.open(encoding='utf-8') as file:
        return list(csv.DictReader(file))


# --- Files of flights and settings.

def test_a_flight_comes_back_as_it_was_saved(tmp_path):
    features = np.arange(61 * 2048, dtype=np.float16).reshape(61, 2048)
    saved = flight('ours', features=features, comparisons={'mse': np.array([0.1, 0.2])})
    saved.save(tmp_path / 'a.npz')
    loaded = FlightResult.load(tmp_path / 'a.npz')
    assert np.array_equal(loaded.features, features)
    assert loaded.features.dtype == np.float16
    assert loaded.thumbnails == saved.thumbnails
    assert loaded.comparisons.keys() == {'mse'}
    assert np.array_equal(loaded.figures['sharpness'], saved.figures['sharpness'])
    assert (loaded.variant, loaded.seed, loaded.path_length, loaded.frames) == ('ours', 0, 90, 60)
    assert len(FlightResult.load(tmp_path / 'a.npz', features=False).features) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']


def test_a_flight_that_cannot_be_written_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'a.npz'
    flight('ours').save(path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        flight('ours', thumbnails={0: jpeg(0)}, figures=None).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_half_a_flight_is_named_and_refused(tmp_path, share):
    path = tmp_path / 'a.npz'
    flight('ours').save(path)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    with pytest.raises(ValueError, match='a.npz is not a whole file of a flight'):
        FlightResult.load(path)


def test_settings_come_back_as_they_were():
    assert Settings.from_json(settings().to_json()) == settings()
    for text in ('', '[]', '{"frames": 3}'):
        with pytest.raises(ValueError, match='not the settings of an evaluation'):
            Settings.from_json(text)


# --- The report.

def test_page_has_everything_in_itself(folder):
    page = Page(folder / 'report.html')
    assert page.addresses
    assert all(address.startswith('data:image/') for address in page.addresses)
    assert not set(page.tags) & {'script', 'link', 'iframe', 'object'}
    source = (folder / 'report.html').read_text(encoding='utf-8')
    assert not re.search(r'@import|url\(', source)
    plots = [base64.b64decode(address.partition(',')[2]).decode() for address in page.addresses
             if address.startswith('data:image/svg+xml')]
    assert len(plots) == 4  # windows and drift, each for a light and a dark page
    for plot in plots:
        assert not re.findall(r'(?:href|src)="(?!#)|url\((?!#)', plot)
    assert sorted(path.name for path in (folder).iterdir()) == [
        'curves.csv', 'report.html', 'table.csv']


def test_page_can_be_read_out(folder):
    page = Page(folder / 'report.html')
    assert all(page.alternatives)
    assert 'ours from lake, seed 0, frame 50' in page.alternatives
    assert any('sharpness' in text and 'no-refine 0.951 to 0.0498' in text
               for text in page.alternatives)
    assert page.heads
    assert set(page.heads) <= {'row', 'col'}
    assert page.tags.count('table') == page.tags.count('caption')


def test_page_says_what_was_measured_and_with_what(folder):
    page = Page(folder / 'report.html')
    for text in ('61.3', '140.0', 'inception.pt 1a2b', 'crops.csv 3c4d', 'a machine & more',
                 'abc1234', 'model <ours>', 'torch 2.13', 'backend: warp', 'not measured here',
                 'sky is <gone>', 'ours: 0 collapsed', 'no-refine: 2 collapsed',
                 '123.6', '0.10 / 0.15', '85.5'):
        assert text in page.text
    source = (folder / 'report.html').read_text(encoding='utf-8')
    assert '<strong>61.3</strong>' in source
    assert '<strong>140.0</strong>' not in source


def test_table_and_curves_are_there_as_numbers(folder):
    table = lines(folder / 'table.csv')
    assert [(row['variant'], row['kid_100']) for row in table] == [('ours', '0.02'),
                                                                   ('no-refine', '0.05')]
    curves = {(row['variant'], row['figure'], int(row['frame'])): row
              for row in lines(folder / 'curves.csv')}
    sharpness = curves['no-refine', 'sharpness', 60]
    assert float(sharpness['value']) == pytest.approx(np.exp(-3))  # beside the start's
    assert float(curves['no-refine', 'spectrum_slope', 60]['value']) == pytest.approx(-3)
    assert float(curves['ours', 'sky_fraction', 1]['value']) == pytest.approx(0.3)
    assert curves['ours', 'kid_w50', 25]['low'] == ''


def test_curves_run_over_flights_of_any_length_and_over_nan(tmp_path):
    short = flight('ours', 'lake', figures={'sharpness': np.array([2.0, 4.0, np.nan])},
                   style=np.zeros(3))
    dead = flight('ours', 'moor', figures={'sharpness': np.zeros(61)})
    report(summary(flights=[flight('ours'), short, dead], curves={}), tmp_path)
    rows = {int(row['frame']): row for row in lines(tmp_path / 'out' / 'curves.csv')
            if row['figure'] == 'sharpness'}
    assert list(rows) == list(range(1, 61))
    assert [float(rows[1][name]) for name in ('low', 'value', 'high')] == [1, 1.5, 2]
    assert float(rows[60]['high']) == 1


@pytest.mark.parametrize('given', [
    {'rows': [], 'curves': {}, 'flights': []},
    {'curves': {}, 'flights': []},
    {'flights': [flight('ours', thumbnails={}, figures={}, style=np.full(61, np.nan))]},
    {'curves': {'ours': {'fid_w20': (np.array([]), np.array([]))}}, 'flights': []},
    {'rows': [{'variant': 'ours', 'flights': 0, 'fid_50': float('nan')}], 'flights': []}])
def test_anything_may_be_missing(tmp_path, given):
    page = report(summary(**given), tmp_path)
    assert 'How it was measured' in page.text
    assert 'nan' not in page.text.lower().split()


def test_without_real_images_the_page_says_so(tmp_path):
    page = report(summary(settings=settings(crops='', references=0), flights=[], curves={}),
                  tmp_path)
    assert 'There were no real images to compare with' in page.text
    assert 'Real images none' in page.text


def test_frames_that_were_not_measured_leave_no_gap(tmp_path):
    style = np.full(61, np.nan)
    style[::4] = 2
    report(summary(flights=[flight('ours', figures={}, style=style)], curves={}), tmp_path)
    frames = [int(row['frame']) for row in lines(tmp_path / 'out' / 'curves.csv')]
    assert frames == list(range(4, 61, 4))


def test_beside_real_frames_there_is_a_third_section(folder, tmp_path):
    compared = flight('ours', figures={}, comparisons={'lpips': np.linspace(0.1, 0.3, 10)})
    page = report(summary(flights=[compared], curves={}), tmp_path)
    assert 'real clip’s own' in page.text
    assert 'real clip’s own' not in Page(folder / 'report.html').text


def test_many_starts_are_shown_by_ten_evenly_chosen(tmp_path):
    flights = [flight('ours', f'photo{place:02d}', seed, figures={}) for place in range(30)
               for seed in (0, 1)]
    page = report(summary(flights=flights, curves={}), tmp_path)
    shown = set(re.findall(r'photo\d\d, seed \d', page.text.partition('Worst flights')[0]))
    assert shown == {f'photo{place:02d}, seed 0' for place in range(0, 30, 3)}


def test_flights_that_came_nearest_to_a_limit_are_shown_too(tmp_path):
    def ours(start, sharpness=1.0, sky=0.3):
        later = np.ones(FRAMES)
        later[20:40] = sharpness
        return flight('ours', start, figures={
            'sharpness': 0.02 * np.append(1, later), 'sky_fraction': np.full(61, sky)})
    # Its sky was beyond the limits at the start, and doesn't count; one odd frame doesn't either.
    odd = ours('odd', sky=0.9)
    odd.figures['sharpness'][30] = 9
    flights = [ours('good'), ours('blurred', 2 ** -0.75), ours('sharp', 2 ** 0.5), odd,
               ours('dim', 0.1), ours('dead', 0.01)]
    text = report(summary(flights=flights, curves={}, collapses=[
        ('ours', 'dim', 0, ['sharpness 0.1']), ('ours', 'dead', 0, ['sharpness 0.01'])]),
        tmp_path).text
    text = text.partition('Worst flights')[2]
    assert 'ours: 2 collapsed' in text
    assert 'blurred, seed 0: held; came 75% of the way to a limit of sharpness' in text
    order = ['dead', 'dim', 'blurred', 'sharp', 'good', 'odd']
    assert sorted(order, key=lambda start: text.index(f'{start}, seed 0')) == order


def test_limits_are_drawn(folder, tmp_path):
    """Those of the sharpness, say: one line more for each, under one name."""
    def lines_drawn(name):
        given = flight('ours', figures={name: np.ones(61)}, style=np.ones(1))
        source = write_report(summary(flights=[given], curves={}), tmp_path / name).read_text()
        plot = base64.b64decode(re.search(r'svg\+xml;base64,([^"]+)', source)[1]).decode()
        return len(re.findall('stroke-dasharray: 0.9', plot)), '>limit<' in plot
    assert lines_drawn('histogram_distance') == (0, False)
    assert lines_drawn('sharpness') == (3, True)


# --- Published figures, as in the papers' tables.

@pytest.mark.parametrize(('variant', 'data', 'figures'), [
    ('Infinite Nature', '279', {'fid_50': '50.6', 'lpips': '0.32', 'mse': '0.020'}),
    ('Infinite Nature, no repeat', '279', {'fid_50': '95.4', 'lpips': '0.30', 'mse': '0.022'}),
    ('MPI', '279', {'fid_50': '65.0', 'lpips': '0.35', 'mse': '0.019'}),
    ('SynSin', '279', {'fid_50': '98.1', 'lpips': '0.32', 'mse': '0.018'}),
    ('3D Photos', '279', {'fid_50': '123.6', 'lpips': '0.30', 'mse': '0.020'}),
    ('SVG-LP', '279', {'fid_50': '135.9', 'lpips': '0.60', 'mse': '0.020'}),
    ('Infinite Nature', '700', {'psnr': '23.0 / 21.1', 'fid_100': '32.4', 'fid_w20': '37.2',
                                'kid_100_x10': '0.22', 'style_x1e5': '9.37'}),
    ('InfiniteNature-Zero', '700', {'psnr': '23.5 / 21.1', 'ssim': '0.81 / 0.71',
                                    'lpips': '0.10 / 0.15', 'fid_100': '19.3', 'fid_w20': '25.1',
                                    'kid_100_x10': '0.11', 'style_x1e5': '5.63'}),
    ('GFVS', '700', {'fid_100': '109', 'fid_w20': '117', 'style_x1e5': '14.6'}),
    ('PixelSynth', '700', {'fid_100': '111', 'kid_100_x10': '1.12', 'style_x1e5': '10.54'}),
    ('SLAMP', '700', {'psnr': '', 'fid_100': '114', 'fid_w20': '138', 'kid_100_x10': '1.91'}),
    ('DIGAN', '700', {'lpips': '', 'fid_100': '53.4', 'fid_w20': '57.6', 'style_x1e5': '5.85'}),
    ('Zero, without repeat', '1000', {'psnr': '26.8', 'fid_100': '61.3', 'fid_w20': '85.5',
                                      'kid_100_x10': '0.40', 'style_x1e5': '8.15'}),
    ('InfiniteNature-Zero', '1000', {'psnr': '28.4', 'ssim': '0.91', 'lpips': '0.06',
                                     'fid_100': '19.4', 'fid_w20': '25.8', 'kid_100_x10': '0.09',
                                     'style_x1e5': '5.91'})])
def test_published_figures_are_those_that_were_printed(variant, data, figures):
    row, = [row for row in published_rows() if row['variant'] == variant and data in row['data']]
    assert {name: row[name] for name in figures} == figures


# --- Bars.

def bars(given):
    return {bar.text: bar for bar in judge(given)}


def test_model_is_held_against_its_baselines():
    judged = bars(summary())
    share = judged['KID of frames 1 to 100, as a share of no-refine’s']
    assert share.value == pytest.approx(0.4)
    assert share.met
    late = judged['KID in a window of 50 frames, at frame 450 as a share of that at frame 50']
    assert late.value == pytest.approx(29.444 / 20.556, abs=1e-3)
    assert judged['flights that collapse'].met
    assert judged['starts'].met is False
    assert judged['KID of frames 1 to 100, as a share of inpaint’s'].met is None


def test_bars_fail_where_they_are_missed():
    given = summary()
    given.rows[0]['kid_100'] = 0.03
    given.rows[0]['collapses'] = 1
    judged = bars(given)
    assert judged['KID of frames 1 to 100, as a share of no-refine’s'].met is False
    assert judged['flights that collapse'].met is False


def test_a_window_too_far_off_is_not_measured():
    short = {'ours': {'kid_w50': (np.array([50, 100]), np.array([0.02, 0.02]))}}
    late, = [bar for text, bar in bars(summary(curves=short)).items() if '450' in text]
    assert late.met is None
