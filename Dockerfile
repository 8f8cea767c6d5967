# The package in a workspace of ROS 2 Jazzy.
#
#   docker build -t infinite_nature_ros .
#   docker build -t infinite_nature_ros:gpu --build-arg VARIANT=gpu .
#   docker run --rm -it infinite_nature_ros
#   docker run --rm -it --gpus all --network host --ipc host infinite_nature_ros:gpu \
#     ros2 launch infinite_nature_ros fly.launch.py image:=coast
FROM ros:jazzy-ros-base

# cpu or gpu: which build of PyTorch is installed.
ARG VARIANT=cpu

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV VIRTUAL_ENV=/opt/venv
ENV PATH=$VIRTUAL_ENV/bin:$PATH

# The distribution's packages are used where it has them, in its own versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages "$VIRTUAL_ENV" \
    && touch "$VIRTUAL_ENV/COLCON_IGNORE"

RUN case "$VARIANT" in \
      cpu) index=(--index-url https://download.pytorch.org/whl/cpu) ;; \
      gpu) index=() ;; \
      *) echo "VARIANT is $VARIANT; give cpu or gpu" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir "${index[@]}" torch==2.13.0

# NumPy stays below 2, for which the distribution's OpenCV and cv_bridge are built.
RUN pip install --no-cache-dir 'numpy<2' 'av>=12' 'mcap>=1.6' 'openexr>=3.3' 'rosbags>=0.11' \
      'safetensors>=0.4.3' 'transforms3d>=0.4.2' 'tyro>=0.9' 'warp-lang>=1.19'

WORKDIR /ws
COPY package.xml src/infinite_nature_ros/package.xml
# RViz is left out: a container has no screen.
RUN apt-get update \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src --ignore-src --skip-keys rviz2 -y \
    && rm -rf /var/lib/apt/lists/*

COPY . src/infinite_nature_ros
RUN . "/opt/ros/$ROS_DISTRO/setup.bash" \
    && colcon build \
    && sed -i 's|^exec |source /ws/install/setup.bash --\n&|' /ros_entrypoint.sh

# The entry point of the base image sources the distribution and, from now on, the workspace.
CMD ["ros2", "launch", "infinite_nature_ros", "fly.launch.py"]
