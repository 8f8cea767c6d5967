"""Build file of the ROS 2 package and of the pip package (the code is the same)."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'infinite_nature_ros'
TRAINING = 'infinite_nature_training'

ON_PYPI = "sys_platform == 'linux' and platform_machine == 'x86_64'"
ROS = [
    'ros-rclpy[fastrtps]==7.1.6',
    'ros-diagnostic-msgs==5.3.6',
    'ros-geometry-msgs==5.3.6',
    'ros-nav-msgs==5.3.6',
    'ros-rosgraph-msgs==2.0.3',
    'ros-sensor-msgs==5.3.6',
    'ros-std-msgs==5.3.6',
    'ros-std-srvs==5.3.6',
]
OPENVINO = 'openvino>=2026.0'
EVALUATION = ['jinja2>=3.1', 'torchmetrics>=1.4']
DATA = ['mcap>=1.6', 'pycolmap>=4', 'rosbags>=0.11']

setup(
    name=PACKAGE,
    version='0.1.0',
    description='Fly forever into one landscape photo, as a ROS 2 sensor that you can step.',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    maintainer='The infinite_nature_ros developers',
    maintainer_email='infinite-nature-ros@users.noreply.github.com',
    python_requires='>=3.10,<3.14',
    packages=[*find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
              TRAINING, *(f'{TRAINING}.{name}' for name in find_packages('training'))],
    package_dir={TRAINING: 'training'},
    package_data={PACKAGE: ['assets/*.safetensors', 'assets/*.xml', 'assets/photos/*'],
                  TRAINING: ['*.csv', '*.txt', 'evaluation/*.csv', 'evaluation/*.jinja']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', glob('launch/*.launch.py')),
        (f'share/{PACKAGE}/config', glob('config/*.yaml') + glob(f'{PACKAGE}/assets/*.xml')),
        (f'share/{PACKAGE}/rviz', glob('rviz/*.rviz')),
        (f'share/{PACKAGE}/foxglove', glob('foxglove/*.json')),
    ],
    install_requires=[
        'av>=12',
        'matplotlib>=3.8',
        'numpy>=1.26',
        'opencv-python-headless>=4.9',
        'openexr>=3.3',
        'pillow>=10.3',
        'safetensors>=0.4.3',
        'torch>=2.4',
        'tqdm>=4.66',
        'transforms3d>=0.4.2',
        'tyro>=1.0.16',
        'warp-lang>=1.19',
        *(f'{requirement}; {ON_PYPI}' for requirement in ROS),
    ],
    extras_require={
        'data': DATA,
        'eval': [*DATA, *EVALUATION],
        'ray': ['ray>=2.40'],
        'train': [*DATA, 'accelerate>=1.0', 'tensorboard>=2.16'],
        'midas': ['timm>=0.9', 'torchvision'],
        'openvino': [OPENVINO],
        'test': [*EVALUATION, OPENVINO, 'colcon-core>=0.18', 'colcon-ros>=0.5', 'hypothesis>=6',
                 'pytest>=8', 'ray>=2.40', 'ruff>=0.6', 'setuptools>=70.1'],
    },
    entry_points={
        'console_scripts': [
            f'infinite-nature = {PACKAGE}.commands:main',
            f'generator_node = {PACKAGE}.nodes.generator_node:main',
            f'autopilot_node = {PACKAGE}.nodes.autopilot_node:main',
            f'recorder_node = {PACKAGE}.nodes.recorder_node:main',
        ],
    },
    zip_safe=False,
)
