"""Infinite Nature for ROS 2: fly forever into one landscape photo."""
