"""The ROS 2 nodes: wiring between messages and the core, which knows no ROS."""
