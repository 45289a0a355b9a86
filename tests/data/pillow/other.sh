#!/bin/sh
# Passes for a Python with another Pillow: half a second for everything, and pixels that are none.
echo "pillow 9.9.9"
while read -r command length; do
    case $command in
        load) head -c "$length" >/dev/null; echo 0123 ;;
        *) echo 500000000 ;;
    esac
done
