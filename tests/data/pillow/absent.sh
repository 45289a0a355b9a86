#!/bin/sh
# Passes for a Python without Pillow.
echo "absent No module named PIL"
