#!/bin/sh
# Passes for a Python with Pillow that ends at once.
echo "pillow 11.3.0"
